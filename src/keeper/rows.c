/*
 * rows.c
 *	  The rows of a mapping, as a run reads them.
 *
 * What a user's expressions raise must not end a run, but what anything else raises
 * must.  They are told apart by where it happens: while rows are read, nothing but
 * their expressions is run.  Only after the first such error each row is rendered
 * with care, which costs time.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "capture/recent.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "keeper/keeper.h"
#include "keeper/rows.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "worker/recover.h"

bool
hc_rows_is_current(const HcSettle *settle)
{
	HcTrigger  *trigger = hc_catalog_trigger(settle->trigger->oid, NULL);

	return trigger != NULL && trigger->relid == settle->trigger->relid &&
		(trigger->enabled == TRIGGER_FIRES_ON_ORIGIN ||
		 trigger->enabled == TRIGGER_FIRES_ALWAYS) &&
		hc_catalog_same_definition(trigger, settle->trigger);
}

void
hc_rows_read(HcSettle *settle, Relation rel, HcCaptureRange *range,
			 TransactionId *oldest)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache scan",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	HcMapping  *mapping = hc_mapping_compile(rel, settle->trigger->name,
											 &settle->options);

	PushActiveSnapshot(snapshot);
	if (oldest != NULL)
		*oldest = snapshot->xmin;
	if (range->newer != 0)
		range->recent = hc_recent_find(rel, mapping, range->newer, snapshot);
	range->careful = settle->careful;
	range->pause = hc_keeper_obey;
	settle->reading = true;
	hc_capture_range(rel, hc_render_create(mapping, context), snapshot, range);
	settle->reading = false;
	if (range->n_failed > 0 && settle->problem[0] == '\0')
		strlcpy(settle->problem, range->problem, sizeof(settle->problem));
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

List *
hc_rows_tables(const HcSettle *settle)
{
	Oid			relid = settle->trigger->relid;
	List	   *tables = NIL;
	ListCell   *lc;

	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return list_make1_oid(relid);
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION)
			tables = lappend_oid(tables, lfirst_oid(lc));
	}
	return tables;
}

void
hc_rows_take_care(HcSettle *settle)
{
	if (!settle->reading || settle->careful ||
		geterrcode() == ERRCODE_QUERY_CANCELED)
		PG_RE_THROW();
	hc_recover_abort();
	FlushErrorState();
	settle->reading = false;
	settle->careful = true;
	hc_settle_reconnect(settle);
}

/* In a transaction. */
static bool
read_tables(HcSettle *settle, const HcCaptureRange *what)
{
	ListCell   *lc;

	if (!hc_rows_is_current(settle))
		return false;
	foreach(lc, hc_rows_tables(settle))
	{
		HcCaptureRange range = {.end = InvalidBlockNumber,.identity = what->identity,
		.put = what->put,.arg = what->arg};
		Relation	rel = try_table_open(lfirst_oid(lc), AccessShareLock);

		if (rel == NULL)
			continue;
		hc_rows_read(settle, rel, &range, NULL);
		table_close(rel, NoLock);
	}
	return true;
}

bool
hc_rows_read_all(HcSettle *settle, const HcCaptureRange *what,
				 void (*begin) (void *arg))
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool current = false;
	volatile bool again;

	do
	{
		again = false;
		if (begin != NULL)
			begin(what->arg);
		PG_TRY();
		{
			StartTransactionCommand();
			current = read_tables(settle, what);
			CommitTransactionCommand();
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(old);
			hc_rows_take_care(settle);
			again = true;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(old);
	} while (again);
	return current;
}
