/*
 * scan.c
 *	  Turning all rows of a table into ops of the current transaction: what
 *	  TRUNCATE, populating and purging do.
 *
 * The table is scanned directly, with the latest snapshot: SPI would apply row
 * security, and the transaction's own snapshot can be older than the lock that
 * keeps writers out.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "capture/capture.h"
#include "capture/entry.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

uint64
hc_capture_rows(Relation rel, HcRenderer *renderer, bool remove)
{
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;
	uint64		n = 0;

	if (!RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
		return 0;

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		HcVersion	version = hc_entry_version(rel, &slot->tts_tid);

		CHECK_FOR_INTERRUPTS();

		/* an invalidation belongs to no version of the row: it always counts */
		if (hc_render_kind(renderer) == HC_KIND_INVALIDATE)
			version.relation = InvalidOid;
		if (remove ? hc_entry_remove(renderer, slot, version)
			: hc_entry_set(renderer, slot, version, true))
			n++;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	return n;
}

uint64
hc_capture_table(Relation rel, const char *name, const HcOptions *options,
				 bool remove)
{
	uint64		n = 0;
	ListCell   *lc;
	List	   *relids = list_make1_oid(RelationGetRelid(rel));

	/* children that only inherit have no trigger, so they are not the mapping's */
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		relids = find_all_inheritors(RelationGetRelid(rel), NoLock, NULL);

	foreach(lc, relids)
	{
		Relation	part = table_open(lfirst_oid(lc), AccessShareLock);
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
													  "hybrid_cache scan",
													  ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);

		n += hc_capture_rows(part,
							 hc_render_create(hc_mapping_compile(part, name, options),
											  context),
							 remove);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
		table_close(part, NoLock);
	}
	return n;
}
