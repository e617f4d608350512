/*
 * unlogged.c
 *	  Mappings of unlogged tables, which a crash empties.
 *
 * PostgreSQL empties them at the end of every recovery: after a crash, a
 * promotion, or when a base backup is restored.  No trigger fires then, and the
 * WAL says nothing.  So the extension has an unlogged table of its own with one
 * row: when that is gone, so is what was in the others.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "capture/catalog.h"
#include "capture/ledger.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "postmaster/bgworker.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "worker/unlogged.h"

/* Is the mapping's table unlogged, or a partition of it? */
static bool
has_unlogged(const HcTrigger *trigger)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(trigger->relid, NoLock, NULL))
	{
		if (get_rel_persistence(lfirst_oid(lc)) == RELPERSISTENCE_UNLOGGED)
			return true;
	}
	return false;
}

static void
owe(void)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, hc_catalog_database())
	{
		const HcTrigger *trigger = lfirst(lc);

		if (hc_catalog_is_event(trigger) || !has_unlogged(trigger))
			continue;
		hc_owed_mark(trigger->oid, "unlogged table was emptied by recovery");
		n++;
	}
	if (n > 0)
		ereport(LOG,
				(errmsg_plural("%s finds unlogged tables emptied by recovery: %d mapping must be compared",
							   "%s finds unlogged tables emptied by recovery: %d mappings must be compared",
							   n, MyBgworkerEntry->bgw_name, n)));
}

void
hc_unlogged_look(void)
{
	Oid			relid;
	Relation	rel;
	SysScanDesc scan;
	bool		emptied;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	relid = hc_ledger_oid("unlogged");
	rel = OidIsValid(relid) ? try_table_open(relid, RowExclusiveLock) : NULL;
	if (rel != NULL)
	{
		scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
		emptied = !HeapTupleIsValid(systable_getnext(scan));
		systable_endscan(scan);
		if (emptied)
		{
			Datum		values[1] = {BoolGetDatum(true)};
			bool		nulls[1] = {false};

			owe();
			CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel),
													values, nulls));
		}
		table_close(rel, NoLock);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}
