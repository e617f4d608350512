/*
 * companion.c
 *	  The TRUNCATE trigger of a mapping, on its table and on every partition.
 *
 * Row triggers of a partitioned table are cloned to its partitions, statement
 * triggers are not, and TRUNCATE of one partition fires only the partition's
 * own.  So when a table has the row trigger and the TRUNCATE trigger of a
 * mapping, every partition with rows of its own gets an internal TRUNCATE
 * trigger: internal, so that dumps leave it out and restore makes it again by
 * way of its parents.
 *
 * Dependencies keep them in step.  The TRUNCATE trigger goes with its row
 * trigger; the internal one goes with the partition's row trigger (DETACH) and
 * with the table's TRUNCATE trigger.
 *
 * All of this runs inside the object access hook, so before the command counter
 * moves on: triggers are looked up with SnapshotSelf, and CreateTrigger() finds
 * pg_class.relhastriggers set, which the row trigger before it has done.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "capture/companion.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

/* PostgreSQL appends the trigger's oid to it. */
#define INTERNAL_NAME	"hybrid_cache_truncate"

/* The internal triggers that depend on a trigger. */
static List *
internal_dependents(const HcTrigger *trigger)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, hc_catalog_dependents(TriggerRelationId, trigger->oid))
	{
		if (((HcTrigger *) lfirst(lc))->internal)
			result = lappend(result, lfirst(lc));
	}
	return result;
}

/* The dependent is dropped silently when the other is. */
static void
go_with(Oid dependent, Oid other)
{
	ObjectAddress self;
	ObjectAddress referenced;
	ListCell   *lc;

	foreach(lc, hc_catalog_dependents(TriggerRelationId, other))
	{
		if (((HcTrigger *) lfirst(lc))->oid == dependent)
			return;
	}
	ObjectAddressSet(self, TriggerRelationId, dependent);
	ObjectAddressSet(referenced, TriggerRelationId, other);
	recordDependencyOn(&self, &referenced, DEPENDENCY_AUTO);
}

/* Drops the internal triggers of an older definition. */
static void
drop_stale(const HcTrigger *trigger)
{
	ListCell   *lc;

	foreach(lc, internal_dependents(trigger))
	{
		HcTrigger  *dependent = lfirst(lc);
		ObjectAddress object;

		if (hc_catalog_same_definition(dependent, trigger))
			continue;
		ObjectAddressSet(object, TriggerRelationId, dependent->oid);
		performDeletion(&object, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	}
}

/* Gives the partition of the cloned row trigger its TRUNCATE trigger. */
static void
give(const HcTrigger *truncate, const HcTrigger *clone)
{
	CreateTrigStmt *stmt;
	ObjectAddress address;
	int			i;

	/* partitions that are partitioned hold no rows themselves */
	if (get_rel_relkind(clone->relid) != RELKIND_RELATION)
		return;
	if (hc_catalog_companion(internal_dependents(clone), clone) != NULL)
		return;

	stmt = makeNode(CreateTrigStmt);
	stmt->trigname = INTERNAL_NAME;
	stmt->timing = TRIGGER_TYPE_BEFORE;
	stmt->events = TRIGGER_TYPE_TRUNCATE;
	for (i = 0; i < clone->nargs; i++)
		stmt->args = lappend(stmt->args, makeString(pstrdup(clone->args[i])));
	address = CreateTriggerFiringOn(stmt, NULL, clone->relid, InvalidOid,
									InvalidOid, InvalidOid, clone->function_oid,
									InvalidOid, NULL, true, false,
									truncate->enabled);
	go_with(address.objectId, clone->oid);
	go_with(address.objectId, truncate->oid);
}

void
hc_companion_row_created(const HcTrigger *row)
{
	const HcTrigger *root = hc_catalog_mapping(row);
	HcTrigger  *truncate;

	if (OidIsValid(row->parent))
		drop_stale(row);
	truncate = hc_catalog_companion(hc_catalog_relation(root->relid, SnapshotSelf),
									root);
	if (truncate == NULL || truncate->internal)
		return;
	if (OidIsValid(row->parent))
		give(truncate, row);
	else
		go_with(truncate->oid, row->oid);
}

void
hc_companion_truncate_created(const HcTrigger *truncate)
{
	ListCell   *lc;
	HcTrigger  *row = NULL;

	drop_stale(truncate);
	foreach(lc, hc_catalog_relation(truncate->relid, SnapshotSelf))
	{
		HcTrigger  *trigger = lfirst(lc);

		if (hc_catalog_is_row(trigger) && !OidIsValid(trigger->parent) &&
			hc_catalog_same_definition(trigger, truncate))
			row = trigger;
	}
	if (row == NULL)
		return;
	go_with(truncate->oid, row->oid);
	if (get_rel_relkind(truncate->relid) != RELKIND_PARTITIONED_TABLE)
		return;

	/* the same lock that CREATE TRIGGER takes on the partitions for row triggers */
	foreach(lc, find_all_inheritors(truncate->relid, ShareRowExclusiveLock, NULL))
	{
		ListCell   *cell;

		foreach(cell, hc_catalog_relation(lfirst_oid(lc), SnapshotSelf))
		{
			HcTrigger  *clone = lfirst(cell);

			if (hc_catalog_is_row(clone) && OidIsValid(clone->parent) &&
				hc_catalog_root(clone) == row->oid)
				give(truncate, clone);
		}
	}
}

void
hc_companion_truncate_altered(const HcTrigger *truncate)
{
	Relation	pg_trigger = table_open(TriggerRelationId, RowExclusiveLock);
	ListCell   *lc;

	foreach(lc, internal_dependents(truncate))
	{
		HcTrigger  *dependent = lfirst(lc);
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple	tuple;

		if (dependent->enabled == truncate->enabled)
			continue;

		/* the lock that ALTER TABLE ... ENABLE TRIGGER takes */
		LockRelationOid(dependent->relid, ShareRowExclusiveLock);
		ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(dependent->oid));
		scan = systable_beginscan(pg_trigger, TriggerOidIndexId, true, SnapshotSelf,
								  1, &key);
		tuple = systable_getnext(scan);
		if (HeapTupleIsValid(tuple))
		{
			tuple = heap_copytuple(tuple);
			((Form_pg_trigger) GETSTRUCT(tuple))->tgenabled = truncate->enabled;
			CatalogTupleUpdate(pg_trigger, &tuple->t_self, tuple);
			CacheInvalidateRelcacheByRelid(dependent->relid);
		}
		systable_endscan(scan);
	}
	table_close(pg_trigger, RowExclusiveLock);
}
