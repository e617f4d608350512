/*
 * guard.c
 *	  Watches DDL: what makes a mapping, breaks it, or changes what Redis should
 *	  hold without firing its trigger.
 *
 * An object access hook sees every way to the same end: plain DDL, functions,
 * ATTACH PARTITION, DROP ... CASCADE, a restored dump.  An event trigger would
 * not (the database's owner can disable it), and a utility hook would have to
 * know every command.  The hook runs in the middle of commands that do not
 * concern us at all, so each branch leaves as early as it can.
 *
 * What is wrong raises.  What is right but escapes the row trigger makes the
 * mapping owe a reconcile.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xlog.h"
#include "capture/buffer.h"
#include "capture/check.h"
#include "capture/companion.h"
#include "capture/guard.h"
#include "capture/ledger.h"
#include "capture/naming.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "compat.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

Oid			hc_guard_populating = InvalidOid;
Oid			hc_guard_unpopulated = InvalidOid;
Oid			hc_guard_purging = InvalidOid;

static object_access_hook_type next_hook = NULL;

static void
owe(const HcTrigger *trigger, const char *reason)
{
	hc_owed_mark(hc_catalog_root(trigger), reason);
}

/* May the table, or a partition below it, have rows?  Empty files say no. */
static bool
has_rows(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	bool		result = false;

	if (rel == NULL)
		return false;
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		ListCell   *lc;

		foreach(lc, find_inheritance_children(relid, AccessShareLock))
			result = result || has_rows(lfirst_oid(lc));
	}
	else if (RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
		result = RelationGetNumberOfBlocks(rel) > 0;
	relation_close(rel, NoLock);
	return result;
}

/* Is a row without an entry a fault, which reconcile would repair? */
static bool
wants_population(const HcTrigger *trigger)
{
	return trigger->function == HC_FUNCTION_WRITE_THROUGH &&
		hc_catalog_option(trigger, HC_OPTION_TTL) == NULL;
}

/* The mapping goes, by DROP or by being replaced; what it wrote stays. */
static void
abandon(const HcTrigger *trigger)
{
	int64		id;

	if (trigger->function != HC_FUNCTION_WRITE_THROUGH ||
		trigger->oid == hc_guard_purging)
		return;
	id = hc_leftover_record(trigger);
	ereport(WARNING,
			(errmsg("mapping \"%s\" of table \"%s\" leaves its entries in Redis",
					trigger->name, get_rel_name(trigger->relid)),
			 errdetail("Their key template is \"%s\".",
					   hc_catalog_option(trigger, HC_OPTION_KEY)),
			 id != 0
			 ? errhint("To see them: SELECT * FROM hybrid_cache.purge(%lld); to remove them, add dry_run => false.",
					   (long long) id)
			 : errhint("Remove them with Redis's own commands.")));
}

static bool
equal_or_null(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Do both definitions put a row's entry at the same place? */
static bool
same_place(const HcTrigger *a, const HcTrigger *b)
{
	return a->function == b->function &&
		strcmp(hc_catalog_kind(a), hc_catalog_kind(b)) == 0 &&
		equal_or_null(hc_catalog_option(a, HC_OPTION_KEY),
					  hc_catalog_option(b, HC_OPTION_KEY)) &&
		equal_or_null(hc_catalog_option(a, HC_OPTION_MEMBER),
					  hc_catalog_option(b, HC_OPTION_MEMBER)) &&
		equal_or_null(hc_catalog_option(a, HC_OPTION_FIELD),
					  hc_catalog_option(b, HC_OPTION_FIELD));
}

static bool
fires(char enabled)
{
	return enabled == TRIGGER_FIRES_ON_ORIGIN || enabled == TRIGGER_FIRES_ALWAYS;
}

/*
 * No sync worker can read the WAL of such a server.  It is no error: a dump can
 * be restored before the server is set up, and tables do not suffer.
 */
static void
warn_of_wal_level(const HcTrigger *trigger)
{
	if (!XLogIsNeeded())
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mapping \"%s\" of table \"%s\" does not reach Redis yet",
						trigger->name, get_rel_name(trigger->relid)),
				 errdetail("Changes are sent from the WAL, which needs wal_level = replica or higher."),
				 errhint("Set wal_level = replica and restart the server.")));
}

/* A row trigger without parent was created, or replaced what old tells. */
static void
mapping_created(const HcTrigger *trigger, const HcTrigger *old)
{
	hc_check_conflicts(trigger);
	hc_buffer_announce();
	warn_of_wal_level(trigger);
	if (old == NULL)
	{
		hc_owed_clear(trigger->oid);
		if (wants_population(trigger) &&
			trigger->relid != hc_guard_populating && has_rows(trigger->relid))
			hc_owed_mark(trigger->oid, trigger->relid == hc_guard_unpopulated
						 ? HC_OWED_UNPOPULATED : "not populated");
	}
	else
	{
		if (!same_place(old, trigger))
			abandon(old);
		if (!hc_catalog_same_definition(old, trigger))
			hc_owed_mark(trigger->oid, "definition changed");
		if (!fires(old->enabled))
			hc_owed_mark(trigger->oid, "was disabled");
	}
	hc_companion_row_created(trigger);
}

/* A row trigger was cloned to a partition: a new one, or one with a past. */
static void
clone_created(const HcTrigger *clone, const HcTrigger *old)
{
	const HcTrigger *mapping = hc_catalog_mapping(clone);
	ListCell   *lc;

	hc_companion_row_created(clone);
	if (old != NULL || !wants_population(clone) ||
		mapping->relid == hc_guard_populating ||
		mapping->relid == hc_guard_unpopulated || !has_rows(clone->relid))
		return;
	foreach(lc, hc_owed_reasons(mapping->oid))
	{
		if (strcmp(lfirst(lc), "not populated") == 0)
			return;
	}
	hc_owed_mark(mapping->oid, "partition attached");
}

static void
trigger_created(Oid oid, bool is_internal)
{
	HcTrigger  *trigger;
	HcTrigger  *old;

	/* foreign keys, and our own TRUNCATE triggers of partitions */
	if (is_internal)
		return;
	trigger = hc_catalog_trigger(oid, SnapshotSelf);
	old = hc_catalog_trigger(oid, NULL);
	if (trigger != NULL && old != NULL && ItemPointerEquals(&trigger->tid, &old->tid))
		old = NULL;				/* not old: the counter has moved on already */

	if (trigger == NULL)
	{
		/* CREATE OR REPLACE with another function */
		if (old != NULL && hc_catalog_is_row(old) && !OidIsValid(old->parent))
		{
			hc_owed_clear(oid);
			hc_buffer_announce();
			abandon(old);
		}
		return;
	}

	if (!OidIsValid(trigger->parent))
		hc_check_relation(trigger->relid);
	else if (get_rel_relkind(trigger->relid) == RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("partition \"%s\" is a foreign table, which mapping \"%s\" cannot follow",
						get_rel_name(trigger->relid), trigger->name),
				 errhint("Map the other partitions one by one.")));
	hc_check_shape(trigger);
	hc_check_definition(trigger);
	hc_naming_refuse_temporary(trigger);

	if (hc_catalog_is_truncate(trigger))
		hc_companion_truncate_created(trigger);
	else if (OidIsValid(trigger->parent))
		clone_created(trigger, old);
	else
		mapping_created(trigger, old);
}

static void
trigger_altered(Oid oid)
{
	HcTrigger  *trigger = hc_catalog_trigger(oid, SnapshotSelf);
	HcTrigger  *old;

	if (trigger == NULL || trigger->internal)
		return;
	old = hc_catalog_trigger(oid, NULL);
	if (old == NULL || old->enabled == trigger->enabled)
		return;
	if (hc_catalog_is_truncate(trigger))
		hc_companion_truncate_altered(trigger);
	else if (!fires(old->enabled) && fires(trigger->enabled))
		owe(trigger, "was disabled");
}

static void
trigger_dropped(Oid oid, int flags)
{
	HcTrigger  *trigger = hc_catalog_trigger(oid, NULL);

	if (trigger == NULL || !hc_catalog_is_row(trigger))
		return;
	if (!OidIsValid(trigger->parent))
	{
		hc_owed_clear(oid);
		hc_buffer_announce();
		abandon(trigger);
	}
	else if (has_rows(trigger->relid))
	{
		/* when the mapping itself is being dropped, this is cleared later */
		owe(trigger, (flags & PERFORM_DELETION_INTERNAL) != 0
			? "partition detached" : "partition dropped");
	}
}

/* The row triggers of ours on a table; quick where there are none. */
static List *
mappings_on(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	List	   *result = NIL;
	bool		has_triggers;
	ListCell   *lc;

	if (!HeapTupleIsValid(tuple))
		return NIL;
	has_triggers = ((Form_pg_class) GETSTRUCT(tuple))->relhastriggers;
	ReleaseSysCache(tuple);
	if (!has_triggers)
		return NIL;
	foreach(lc, hc_catalog_relation(relid, SnapshotSelf))
	{
		if (hc_catalog_is_row(lfirst(lc)))
			result = lappend(result, lfirst(lc));
	}
	return result;
}

/* TRUNCATE is about to happen; the relation need not be locked yet. */
static void
table_truncated(Oid relid)
{
	List	   *mappings = mappings_on(relid);
	List	   *triggers;
	ListCell   *lc;

	/* its partitions are asked about one by one */
	if (mappings == NIL || get_rel_relkind(relid) != RELKIND_RELATION)
		return;
	triggers = hc_catalog_relation(relid, SnapshotSelf);
	foreach(lc, mappings)
	{
		HcTrigger  *row = lfirst(lc);
		HcTrigger  *truncate = hc_catalog_companion(triggers, row);

		if (row->enabled != TRIGGER_DISABLED &&
			(truncate == NULL || truncate->enabled == TRIGGER_DISABLED))
			owe(row, "truncated without its TRUNCATE trigger");
	}
}

/* What happened to a column matters to the mappings of whole rows. */
static void
column_changed(List *mappings, Oid relid, const char *column, const char *what)
{
	ListCell   *lc;

	foreach(lc, mappings)
	{
		HcTrigger  *trigger = lfirst(lc);

		if (hc_catalog_whole_row(trigger) && has_rows(relid))
			owe(trigger, psprintf("column \"%s\" %s", column, what));
	}
}

/* The fixed part of a column's row as snapshot sees it; false if there is none. */
static bool
read_attribute(Oid relid, AttrNumber attnum, Snapshot snapshot,
			   FormData_pg_attribute *attribute)
{
	Relation	pg_attribute = table_open(AttributeRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&keys[0], Anum_pg_attribute_attrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_attribute_attnum, BTEqualStrategyNumber,
				F_INT2EQ, Int16GetDatum(attnum));
	scan = systable_beginscan(pg_attribute, AttributeRelidNumIndexId, true,
							  snapshot, 2, keys);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		memcpy(attribute, GETSTRUCT(tuple), ATTRIBUTE_FIXED_PART_SIZE);
	systable_endscan(scan);
	table_close(pg_attribute, AccessShareLock);
	return found;
}

/* The field of a composite type that an expression reads is named as well. */
static void
field_renamed(Oid relid, AttrNumber attnum, const char *name)
{
	ListCell   *lc;

	foreach(lc, hc_catalog_dependents(RelationRelationId, relid))
	{
		HcTrigger  *trigger = lfirst(lc);

		if (trigger->relid != relid && hc_naming_has_column(trigger, relid, attnum))
		{
			const HcTrigger *root = hc_catalog_mapping(trigger);

			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot rename field \"%s\" of type %s because mapping \"%s\" of table \"%s\" names it",
							name, format_type_be(get_rel_type_id(relid)),
							root->name, get_rel_name(root->relid)),
					 errhint("Detach the mapping, rename the field, and attach the mapping with the new name.")));
		}
	}
}

/*
 * A column that is named cannot be renamed; PostgreSQL itself would let it
 * happen, where it refuses to drop or retype it.
 */
static void
column_altered(Oid relid, AttrNumber attnum)
{
	List	   *mappings = mappings_on(relid);
	FormData_pg_attribute old;
	FormData_pg_attribute new;
	bool		renamed;
	ListCell   *lc;

	if (!read_attribute(relid, attnum, NULL, &old) ||
		!read_attribute(relid, attnum, SnapshotSelf, &new))
		return;

	renamed = strcmp(NameStr(old.attname), NameStr(new.attname)) != 0;
	if (renamed)
		field_renamed(relid, attnum, NameStr(old.attname));
	foreach(lc, mappings)
	{
		HcTrigger  *trigger = lfirst(lc);

		if (renamed && hc_naming_has_column(trigger, relid, attnum))
		{
			const HcTrigger *root = hc_catalog_mapping(trigger);

			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot rename column \"%s\" of table \"%s\" because mapping \"%s\" names it",
							NameStr(old.attname), get_rel_name(root->relid), root->name),
					 errhint("Detach the mapping, rename the column, and attach the mapping with the new name.")));
		}
	}
	if (mappings != NIL &&
		(renamed || old.atttypid != new.atttypid || old.atttypmod != new.atttypmod))
		column_changed(mappings, relid, NameStr(old.attname), "changed");
}

static void
column_added(Oid relid, AttrNumber attnum)
{
	List	   *mappings = mappings_on(relid);
	FormData_pg_attribute new;
	ListCell   *lc;

	if (mappings == NIL || !read_attribute(relid, attnum, SnapshotSelf, &new))
		return;

	/* better here than when a row is written next */
	foreach(lc, mappings)
	{
		HcTrigger  *trigger = lfirst(lc);

		if (new.attgenerated == HC_GENERATED_VIRTUAL &&
			hc_catalog_whole_row(trigger))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot add virtual generated column \"%s\" to table \"%s\" because mapping \"%s\" writes whole rows",
							NameStr(new.attname), get_rel_name(relid), trigger->name),
					 errhint("Make it STORED, or let the mapping name its columns.")));
	}
	column_changed(mappings, relid, NameStr(new.attname), "added");
}

/*
 * A column has got another default.  Of a generated column it is what computes
 * it, and the rows are computed anew without firing triggers.
 */
static void
default_stored(Oid relid, AttrNumber attnum)
{
	List	   *mappings = mappings_on(relid);
	FormData_pg_attribute attribute;
	char	   *added;
	ListCell   *lc;

	if (mappings == NIL ||
		!read_attribute(relid, attnum, SnapshotSelf, &attribute) ||
		attribute.attgenerated != ATTRIBUTE_GENERATED_STORED || !has_rows(relid))
		return;

	added = psprintf("column \"%s\" added", NameStr(attribute.attname));
	foreach(lc, mappings)
	{
		HcTrigger  *trigger = lfirst(lc);
		bool		known = false;
		ListCell   *reason;

		if (!hc_catalog_whole_row(trigger) &&
			!hc_naming_has_column(trigger, relid, attnum))
			continue;
		/* a new column has a default too */
		foreach(reason, hc_owed_reasons(hc_catalog_root(trigger)))
			known = known || strcmp(lfirst(reason), added) == 0;
		if (!known)
			owe(trigger, psprintf("column \"%s\" changed", NameStr(attribute.attname)));
	}
}

static void
column_dropped(Oid relid, AttrNumber attnum)
{
	List	   *mappings = mappings_on(relid);

	if (mappings != NIL)
		column_changed(mappings, relid, get_attname(relid, attnum, false), "dropped");
}

static void
guard(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (next_hook != NULL)
		next_hook(access, class_id, object_id, sub_id, arg);

	if (class_id == TriggerRelationId)
	{
		if (access == OAT_POST_CREATE)
			trigger_created(object_id, ((ObjectAccessPostCreate *) arg)->is_internal);
		else if (access == OAT_POST_ALTER)
			trigger_altered(object_id);
		else if (access == OAT_DROP)
			trigger_dropped(object_id, ((ObjectAccessDrop *) arg)->dropflags);
	}
	else if (class_id == RelationRelationId)
	{
		if (access == OAT_TRUNCATE)
			table_truncated(object_id);
		else if (sub_id > 0 && access == OAT_POST_CREATE)
			column_added(object_id, (AttrNumber) sub_id);
		else if (sub_id > 0 && access == OAT_POST_ALTER)
			column_altered(object_id, (AttrNumber) sub_id);
		else if (sub_id > 0 && access == OAT_DROP)
			column_dropped(object_id, (AttrNumber) sub_id);
		else if (sub_id == 0 && access == OAT_POST_ALTER)
			hc_naming_altered(class_id, object_id);
	}
	else if (class_id == AttrDefaultRelationId)
	{
		/* the hook gets the column, not the default */
		if (access == OAT_POST_CREATE && sub_id > 0)
			default_stored(object_id, (AttrNumber) sub_id);
	}
	else if (access == OAT_POST_ALTER || access == OAT_POST_CREATE)
		hc_naming_altered(class_id, object_id);
}

void
hc_guard_init(void)
{
	next_hook = object_access_hook;
	object_access_hook = guard;
}
