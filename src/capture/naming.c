/*
 * naming.c
 *	  What the definitions of mappings call by name, and so must keep its name.
 *
 * A definition is text, in the trigger's arguments, while PostgreSQL's own
 * definitions are trees that hold object ids.  So a function or a schema that is
 * renamed would leave a text that cannot be parsed, and every write to the table
 * would fail.  What a definition names is in pg_depend (check.c), which keeps it
 * from being dropped; here it is kept from being renamed.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "capture/ledger.h"
#include "capture/naming.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

/* What an object is called, and what it promises. */
typedef struct Identity
{
	NameData	name;
	Oid			namespace;		/* InvalidOid: it is in none */
	char		volatility;		/* of a function */
	ItemPointerData tid;
} Identity;

/*
 * What a trigger depends on: ObjectAddress *.  Also what this command has just
 * recorded.
 */
static List *
referenced_objects(Oid trigger)
{
	Relation	pg_depend = table_open(DependRelationId, AccessShareLock);
	List	   *result = NIL;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_depend_classid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(TriggerRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_objid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(trigger));
	scan = systable_beginscan(pg_depend, DependDependerIndexId, true,
							  SnapshotSelf, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);
		ObjectAddress *object = palloc(sizeof(ObjectAddress));

		ObjectAddressSubSet(*object, form->refclassid, form->refobjid,
							form->refobjsubid);
		result = lappend(result, object);
	}
	systable_endscan(scan);
	table_close(pg_depend, AccessShareLock);
	return result;
}

bool
hc_naming_has_column(const HcTrigger *trigger, Oid relid, AttrNumber attnum)
{
	ListCell   *lc;

	foreach(lc, referenced_objects(trigger->oid))
	{
		ObjectAddress *object = lfirst(lc);

		if (object->classId == RelationRelationId && object->objectId == relid &&
			object->objectSubId == attnum)
			return true;
	}
	return false;
}

void
hc_naming_refuse_temporary(const HcTrigger *trigger)
{
	ListCell   *lc;

	foreach(lc, referenced_objects(trigger->oid))
	{
		ObjectAddress *object = lfirst(lc);

		if (object->classId != TriggerRelationId &&
			isAnyTempNamespace(get_object_namespace(object)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
					 errmsg("mapping \"%s\" depends on a temporary %s",
							trigger->name,
							object->classId == ProcedureRelationId ? "function" :
							object->classId == TypeRelationId ? "type" : "object"),
					 errdetail("It is gone with the session, and the mapping would go with it.")));
	}
}

/* The object as snapshot sees it; false if there is none. */
static bool
read_identity(Oid class_id, Oid object_id, Snapshot snapshot, Identity *identity)
{
	AttrNumber	namespace_attnum = get_object_attnum_namespace(class_id);
	Relation	catalog = table_open(class_id, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;
	bool		isnull;

	ScanKeyInit(&key, get_object_attnum_oid(class_id), BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(object_id));
	scan = systable_beginscan(catalog, get_object_oid_index(class_id), true,
							  snapshot, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		memset(identity, 0, sizeof(*identity));
		identity->name = *DatumGetName(heap_getattr(tuple, get_object_attnum_name(class_id),
													RelationGetDescr(catalog), &isnull));
		if (namespace_attnum != InvalidAttrNumber)
			identity->namespace = DatumGetObjectId(heap_getattr(tuple, namespace_attnum,
																RelationGetDescr(catalog),
																&isnull));
		if (class_id == ProcedureRelationId)
			identity->volatility = ((Form_pg_proc) GETSTRUCT(tuple))->provolatile;
		identity->tid = tuple->t_self;
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

/*
 * Does the text of the definition have the name in it?  What it only depends on,
 * such as the type of a column or the function of an implicit cast, need not
 * keep its name.  A name that is found by chance errs on the safe side.
 */
static bool
has_name(const HcTrigger *trigger, const char *name)
{
	const char *quoted = quote_identifier(name);
	int			i;

	for (i = 0; i < trigger->nargs; i++)
	{
		if (strstr(trigger->args[i], name) != NULL ||
			strstr(trigger->args[i], quoted) != NULL)
			return true;
	}
	return false;
}

static void
refuse_change(int sqlstate, const char *change, Oid class_id, Oid object_id,
			  const HcTrigger *trigger)
{
	const HcTrigger *mapping = hc_catalog_mapping(trigger);
	ObjectAddress object;

	ObjectAddressSet(object, class_id, object_id);
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("cannot %s %s because mapping \"%s\" of table \"%s\" names it",
					change, getObjectDescription(&object, false), mapping->name,
					get_rel_name(mapping->relid)),
			 errhint("Detach the mapping first, and attach it again afterwards.")));
}

/* Nothing that a definition names may be in a schema that is renamed. */
static void
schema_renamed(Oid namespace, const char *name)
{
	ListCell   *lc;

	foreach(lc, hc_catalog_database())
	{
		HcTrigger  *trigger = lfirst(lc);
		ListCell   *cell;

		if (!has_name(trigger, name))
			continue;
		foreach(cell, referenced_objects(trigger->oid))
		{
			ObjectAddress *object = lfirst(cell);

			/* the table is not called by name, nor is the trigger function */
			if (object->classId != RelationRelationId &&
				object->classId != TriggerRelationId &&
				object->objectId != trigger->function_oid &&
				get_object_namespace(object) == namespace)
				refuse_change(ERRCODE_FEATURE_NOT_SUPPORTED, "rename",
							  NamespaceRelationId, namespace, trigger);
		}
	}
}

void
hc_naming_altered(Oid class_id, Oid object_id)
{
	Identity	old;
	Identity	new;
	List	   *dependents;
	ListCell   *lc;
	bool		moved;

	/* of relations, only indexes are named: by identity=, without a schema */
	if (class_id != ProcedureRelationId && class_id != TypeRelationId &&
		class_id != OperatorRelationId && class_id != CollationRelationId &&
		class_id != NamespaceRelationId &&
		!(class_id == RelationRelationId &&
		  (get_rel_relkind(object_id) == RELKIND_INDEX ||
		   get_rel_relkind(object_id) == RELKIND_PARTITIONED_INDEX)))
		return;

	/* what has just been made is named by nobody */
	if (!read_identity(class_id, object_id, NULL, &old) ||
		!read_identity(class_id, object_id, SnapshotSelf, &new) ||
		ItemPointerEquals(&old.tid, &new.tid))
		return;
	moved = strcmp(NameStr(old.name), NameStr(new.name)) != 0 ||
		(class_id != RelationRelationId && old.namespace != new.namespace);
	if (class_id == NamespaceRelationId)
	{
		if (moved)
			schema_renamed(object_id, NameStr(old.name));
		return;
	}

	dependents = hc_catalog_dependents(class_id, object_id);
	foreach(lc, dependents)
	{
		HcTrigger  *trigger = lfirst(lc);

		if (trigger->function_oid == object_id)
			continue;
		if (moved && has_name(trigger, NameStr(old.name)))
			refuse_change(ERRCODE_FEATURE_NOT_SUPPORTED, "rename or move",
						  class_id, object_id, trigger);
		if (class_id != ProcedureRelationId)
			continue;
		if (new.volatility == PROVOLATILE_VOLATILE)
			refuse_change(ERRCODE_INVALID_OBJECT_DEFINITION, "make volatile",
						  class_id, object_id, trigger);
		if (hc_catalog_is_row(trigger) &&
			trigger->function == HC_FUNCTION_WRITE_THROUGH)
			hc_owed_mark(hc_catalog_root(trigger),
						 psprintf("function \"%s\" changed", NameStr(old.name)));
	}
}
