/*
 * check.c
 *	  What must hold for a trigger to be a mapping.
 *
 * These checks run when the trigger is created, however it is created, so that
 * plain DDL, a restored dump and attach() are held to the same rules.
 *
 * What a definition names becomes a dependency of the trigger in pg_depend, as
 * it is for the columns of UPDATE OF and the functions of a WHEN condition.
 * Checking ALTER and DROP in a hook of our own instead was tried and refused:
 * a hook cannot see whether the table itself goes in the same DROP ... CASCADE.
 */
#include "postgres.h"

#include "access/table.h"
#include "capture/check.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "compat.h"
#include "mapping/expression.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define SHAPE_ROW \
	(TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE)
#define SHAPE_TRUNCATE \
	(TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_TRUNCATE)

void
hc_check_relation(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	form = (Form_pg_class) GETSTRUCT(tuple);

	if (form->relkind != RELKIND_RELATION && form->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot map \"%s\" to Redis", NameStr(form->relname)),
				 errdetail_relkind_not_supported(form->relkind),
				 errhint("Only the changes of an ordinary or partitioned table can be followed.")));
	if (form->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot map temporary table \"%s\" to Redis",
						NameStr(form->relname)),
				 errdetail("Its rows are gone with the session, its entries would stay.")));
	if (!hc_compat_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(form->relkind),
					   NameStr(form->relname));
	ReleaseSysCache(tuple);
}

HcTrigger *
hc_check_mapping(Oid relid, const char *name, const char *hint)
{
	Oid			oid = get_trigger_oid(relid, name, true);
	HcTrigger  *trigger = OidIsValid(oid) ? hc_catalog_trigger(oid, NULL) : NULL;

	if (trigger == NULL || !hc_catalog_is_row(trigger))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("mapping \"%s\" of table \"%s\" does not exist",
						name, get_rel_name(relid)),
				 errhint("The view hybrid_cache.mapping lists the mappings.")));
	if (OidIsValid(trigger->parent))
	{
		const HcTrigger *root = hc_catalog_mapping(trigger);

		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mapping \"%s\" belongs to partitioned table \"%s\"",
						root->name, get_rel_name(root->relid)),
				 errhint("%s", hint != NULL ? hint :
						 "Name the partitioned table instead of its partition.")));
	}
	return trigger;
}

static void
refuse_shape(const HcTrigger *trigger, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("trigger \"%s\" would not see every change of its table",
					trigger->name),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
}

/* Events come from any changes that their trigger sees. */
static void
check_event_shape(const HcTrigger *trigger)
{
	const char *operations = hc_catalog_option(trigger, HC_OPTION_OPERATIONS);
	HcOptions	options;

	if (!TRIGGER_FOR_ROW(trigger->type) || !TRIGGER_FOR_AFTER(trigger->type))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("trigger \"%s\" cannot emit events", trigger->name),
				 errdetail("An event is about a change of a row that has been made."),
				 errhint("Create the trigger AFTER INSERT OR UPDATE OR DELETE, or some of these, FOR EACH ROW.")));
	if (operations == NULL)
		return;
	hc_options_parse(trigger->function, trigger->nargs, trigger->args, &options);
	if ((options.operations & ~trigger->type) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("trigger \"%s\" does not fire for all operations that it is to emit",
						trigger->name),
				 errdetail("The option \"operations\" is \"%s\".", operations),
				 errhint("Create the trigger AFTER INSERT OR UPDATE OR DELETE, or leave the option out.")));
}

void
hc_check_shape(const HcTrigger *trigger)
{
	if (hc_catalog_is_event(trigger))
	{
		check_event_shape(trigger);
		return;
	}
	if (trigger->has_when)
		refuse_shape(trigger, "It has a WHEN condition.",
					 "Use the option filter=, which also removes the entry of a row that leaves it.");
	if (trigger->has_columns)
		refuse_shape(trigger, "It has a list of columns.",
					 "Leave the list out; an update that changes nothing in the entry costs nothing in Redis.");
	if (trigger->constraint)
		refuse_shape(trigger, "It is a constraint trigger, which may fire late.",
					 "Use CREATE TRIGGER.");
	if (trigger->has_tables)
		refuse_shape(trigger, "It has transition tables, which partitions do not allow.",
					 "Leave REFERENCING out.");
	if (trigger->type != SHAPE_ROW && trigger->type != SHAPE_TRUNCATE)
		refuse_shape(trigger,
					 "A mapping is a trigger AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW, with a second trigger BEFORE TRUNCATE FOR EACH STATEMENT.",
					 "Create the two as separate triggers with the same arguments, or use hybrid_cache.attach().");
}

/* Adds the nodes of a list of HcExpression *. */
static List *
add_nodes(List *nodes, List *expressions)
{
	ListCell   *lc;

	foreach(lc, expressions)
	{
		HcExpression *expression = lfirst(lc);

		if (expression != NULL && expression->node != NULL)
			nodes = lappend(nodes, hc_change_to_relation(expression->node));
	}
	return nodes;
}

void
hc_check_definition(const HcTrigger *trigger)
{
	Relation	rel = table_open(trigger->relid, AccessShareLock);
	HcOptions	options;
	HcMapping  *mapping;
	ObjectAddress self;
	Oid			identity = InvalidOid;
	List	   *nodes = NIL;
	int			attnum = -1;

	hc_options_parse(trigger->function, trigger->nargs, trigger->args, &options);
	mapping = hc_mapping_compile(rel, trigger->name, &options);
	if (!OidIsValid(trigger->parent))
		identity = hc_mapping_identity(rel, &options);

	nodes = add_nodes(nodes, mapping->key_values);
	nodes = add_nodes(nodes, mapping->member_values);
	nodes = add_nodes(nodes, list_make5(mapping->filter, mapping->value, mapping->x,
										mapping->y, mapping->expires_at));
	if (!mapping->whole_row)
		nodes = add_nodes(nodes, mapping->columns);

	/* what is only named, such as by exclude= */
	while ((attnum = bms_next_member(mapping->named_attrs, attnum)) >= 0)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);

		nodes = lappend(nodes, makeVar(1, attnum, att->atttypid, att->atttypmod,
									   att->attcollation, 0));
	}

	ObjectAddressSet(self, TriggerRelationId, trigger->oid);
	recordDependencyOnSingleRelExpr(&self, (Node *) nodes, trigger->relid,
									DEPENDENCY_NORMAL, DEPENDENCY_NORMAL, false);
	if (OidIsValid(identity))
	{
		ObjectAddress index;

		ObjectAddressSet(index, RelationRelationId, identity);
		recordDependencyOn(&self, &index, DEPENDENCY_NORMAL);
	}
	table_close(rel, NoLock);
}

/* The type that keys of this kind have, see HcClaim. */
static const char *
redis_type(const char *kind)
{
	static const struct
	{
		HcKind		kind;
		const char *type;
	}			types[] =
	{
		{HC_KIND_STRING, "string"},
		{HC_KIND_JSON, "string"},
		{HC_KIND_HASH, "hash"},
		{HC_KIND_FIELD, "hash"},
		{HC_KIND_GEO, "zset"},
		{HC_KIND_ZSET, "zset"},
		{HC_KIND_SET, "set"},
		{HC_KIND_TIMER, HC_TYPE_TIMER},
		{HC_KIND_STREAM, "stream"},
		{HC_KIND_LIST, "list"}
	};
	size_t		i;

	for (i = 0; i < (int) lengthof(types); i++)
	{
		if (strcmp(hc_kind_name(types[i].kind), kind) == 0)
			return types[i].type;
	}
	return NULL;
}

bool
hc_check_claim(HcClaim *claim, const char *kind, const char *key,
			   const char *member)
{
	const char *problem;
	const char *hint;

	claim->type = redis_type(kind);
	claim->event = hc_kind_function(kind) == HC_FUNCTION_EMIT;
	claim->member = NULL;
	if (key == NULL)
		return false;
	claim->key = hc_template_parse(key, &problem, &hint);
	if (claim->key == NULL)
		return false;
	if (member == NULL)
		return true;
	claim->member = hc_template_parse(member, &problem, &hint);
	return claim->member != NULL;
}

bool
hc_check_trigger_claim(HcClaim *claim, const HcTrigger *trigger)
{
	const char *member = hc_catalog_option(trigger, HC_OPTION_MEMBER);

	if (member == NULL)
		member = hc_catalog_option(trigger, HC_OPTION_FIELD);
	return hc_check_claim(claim, hc_catalog_kind(trigger),
						  hc_catalog_option(trigger, HC_OPTION_KEY), member);
}

/* Do both add to the same kind of thing?  So do timers, to streams. */
static bool
adds_alike(const HcClaim *a, const HcClaim *b)
{
	return a->event && b->type != NULL &&
		((b->event && strcmp(a->type, b->type) == 0) ||
		 (strcmp(b->type, HC_TYPE_TIMER) == 0 && strcmp(a->type, "stream") == 0));
}

bool
hc_check_overlap(const HcClaim *a, const HcClaim *b)
{
	/* those that only unlink a key claim nothing against each other */
	if (a->type == NULL && b->type == NULL)
		return false;

	/* any number of mappings can add to one stream or list */
	if (adds_alike(a, b) || adds_alike(b, a))
		return false;
	if (!hc_template_same(a->key, b->key))
		return false;

	/* one collection can be shared by mappings with members of their own */
	if (a->member != NULL && b->member != NULL && strcmp(a->type, b->type) == 0)
		return !hc_template_disjoint(a->member, b->member);
	return true;
}

void
hc_check_lock(void)
{
	Oid			namespace = get_namespace_oid("hybrid_cache", true);

	/*
	 * The schema stands for the set of all mappings.  The mode conflicts with
	 * itself and with dropping the schema, not with anything else that is done
	 * in it.
	 */
	if (OidIsValid(namespace))
		LockDatabaseObject(NamespaceRelationId, namespace, 0,
						   ShareUpdateExclusiveLock);
}

void
hc_check_conflicts(const HcTrigger *trigger)
{
	HcClaim		claim;
	HcClaim		other_claim;
	ListCell   *lc;

	if (!hc_check_trigger_claim(&claim, trigger))
		return;
	hc_check_lock();
	foreach(lc, hc_catalog_database())
	{
		HcTrigger  *other = lfirst(lc);

		if (other->oid == trigger->oid ||
			!hc_check_trigger_claim(&other_claim, other) ||
			!hc_check_overlap(&claim, &other_claim))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("mapping \"%s\" would write the same entries as mapping \"%s\" of table \"%s\"",
						trigger->name, other->name, get_rel_name(other->relid)),
				 errdetail("Their key templates are \"%s\" and \"%s\".",
						   hc_catalog_option(trigger, HC_OPTION_KEY),
						   hc_catalog_option(other, HC_OPTION_KEY)),
				 claim.member != NULL && other_claim.member != NULL &&
				 strcmp(claim.type, other_claim.type) == 0
				 ? errhint("Choose another key, or members that begin or end with different literal text.") :
				 claim.event || other_claim.event
				 ? errhint("Choose another key; only mappings of the same kind of event share one.")
				 : errhint("Choose another key; an entry belongs to one row of one mapping.")));
	}
}
