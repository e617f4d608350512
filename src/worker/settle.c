/*
 * settle.c
 *	  Makes one mapping equal to its table, while others change it.
 *
 * Two things can be wrong with Redis: a row's entry is missing or old, and an
 * entry is there that no row has.  For the first, the rows are captured again,
 * range by range: each in a window (window.h) and with a snapshot of its own, so
 * that no snapshot is held for long.  For the second see orphan.c.
 *
 * A row can move from a range that is still to be read to one that was read,
 * and when the update changes nothing in its entry, no trigger captures it.
 * Then its version is younger than the first snapshot.  So in the end all
 * versions that are younger are captured in one go, with one snapshot; most
 * rows are only looked at.  A table that is rewritten meanwhile is begun anew.
 *
 * Where an absent entry is right (ttl, missing=ignore), entries are not brought
 * back: they are removed, since they may be old.
 *
 * No transaction is open while it waits for the sync worker.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "capture/capture.h"
#include "capture/catalog.h"
#include "capture/ledger.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "compat.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "worker/chunk.h"
#include "worker/keeper.h"
#include "worker/orphan.h"
#include "worker/settle.h"

/* Blocks per range, if nothing speaks for less. */
#define RANGE_BLOCKS	1024

/* So often too much may be changed while a whole table is looked at. */
#define MOST_OVERFLOWS	3

/* A table that is being read. */
typedef struct Progress
{
	Oid			relid;
	Oid			storage;		/* it was not rewritten while it has this one */
	BlockNumber next;			/* everything before is done */
	BlockNumber n_blocks;		/* has all that the first snapshot sees */
	BlockNumber step;
	TransactionId since;		/* everything older is visible to all ranges */
	int			overflows;
} Progress;

/* What became of a step. */
typedef enum Step
{
	STEP_DONE,
	STEP_AGAIN,					/* the table was rewritten */
	STEP_GONE,					/* there is no such table any more */
	STEP_CHANGED				/* the mapping is not what it was */
} Step;

bool
hc_settle_is_current(const HcSettle *settle)
{
	HcTrigger  *trigger = hc_catalog_trigger(settle->trigger->oid, NULL);

	return trigger != NULL && trigger->relid == settle->trigger->relid &&
		(trigger->enabled == TRIGGER_FIRES_ON_ORIGIN ||
		 trigger->enabled == TRIGGER_FIRES_ALWAYS) &&
		hc_catalog_same_definition(trigger, settle->trigger);
}

void
hc_settle_read(HcSettle *settle, Relation rel, HcCaptureRange *range,
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
	range->careful = settle->careful;
	range->pause = hc_keeper_obey;
	settle->reading = true;
	hc_capture_range(rel, hc_render_create(mapping, context), snapshot, range);
	settle->reading = false;
	if (range->n_failed > 0 && settle->n_failed == 0)
		strlcpy(settle->problem, range->problem, sizeof(settle->problem));
	settle->n_failed += range->n_failed;
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* Where the table begins anew. */
static void
begin_table(Progress *progress, Relation rel)
{
	progress->storage = hc_compat_storage(rel);
	progress->next = 0;
	progress->n_blocks = InvalidBlockNumber;
	progress->since = InvalidTransactionId;
}

/*
 * Reads the next range, in a transaction, or what came since if all ranges are
 * read.  *past is where that ends.
 */
static Step
read_range(HcSettle *settle, Progress *progress, HcChunk *chunk,
		   BlockNumber *past)
{
	HcCaptureRange range = {.identity = settle->remove,.put = hc_chunk_put,.arg = chunk};
	Relation	rel;

	if (!hc_settle_is_current(settle))
		return STEP_CHANGED;
	rel = try_table_open(progress->relid, AccessShareLock);
	if (rel == NULL)
		return STEP_GONE;
	if (!OidIsValid(progress->storage))
		begin_table(progress, rel);
	else if (progress->storage != hc_compat_storage(rel))
		return STEP_AGAIN;

	range.first = progress->next;
	range.end = InvalidBlockNumber;
	if (progress->next == 0)
	{
		if (hc_capture_has_ranges(rel) &&
			RelationGetNumberOfBlocks(rel) > progress->step)
			range.end = progress->step;
		hc_settle_read(settle, rel, &range, &progress->since);
		progress->n_blocks = RelationGetNumberOfBlocks(rel);
	}
	else
	{
		if (progress->next < progress->n_blocks)
			range.end = Min(progress->next + progress->step, progress->n_blocks);
		else
		{
			range.first = 0;
			range.since = progress->since;
		}
		hc_settle_read(settle, rel, &range, NULL);
	}
	*past = range.end;
	hc_chunk_write(chunk);
	table_close(rel, NoLock);
	return STEP_DONE;
}

/* Reads the next range, as often as it takes for it to count. */
static Step
settle_range(HcSettle *settle, Progress *progress)
{
	for (;;)
	{
		MemoryContext context = CurrentMemoryContext;
		HcChunk		chunk;
		BlockNumber past;
		Step		step;

		hc_chunk_begin(&chunk, settle->db, settle->trigger->oid);
		StartTransactionCommand();
		step = read_range(settle, progress, &chunk, &past);
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);
		if (step != STEP_DONE)
			return step;

		settle->n_written += chunk.first_op;
		switch (hc_chunk_end(&chunk))
		{
			case HC_WINDOW_TAKEN:
				progress->overflows = 0;
				progress->next = past;
				return STEP_DONE;
			case HC_WINDOW_OVERFLOWED:
				progress->step = Max(progress->step / 4, 1);
				if (++progress->overflows > MOST_OVERFLOWS &&
					past == InvalidBlockNumber)
					ereport(ERROR,
							(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							 errmsg("too much was changed while table \"%s\" was read",
									get_rel_name(progress->relid))));
				break;
			default:
				break;			/* the sync worker did not know the window */
		}
	}
}

/* false if the mapping is not what it was. */
static bool
settle_table(HcSettle *settle, Oid relid)
{
	Progress	progress = {.relid = relid,.step = RANGE_BLOCKS};

	while (progress.next != InvalidBlockNumber)
	{
		switch (settle_range(settle, &progress))
		{
			case STEP_DONE:
				break;
			case STEP_AGAIN:
				progress.storage = InvalidOid;
				break;
			case STEP_GONE:
				return true;
			case STEP_CHANGED:
				return false;
		}
	}
	return true;
}

List *
hc_settle_tables(const HcSettle *settle)
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

/* What the mapping is now; false if there is none.  In a transaction. */
static bool
look_at_mapping(HcSettle *settle, Oid mapping)
{
	MemoryContext old = MemoryContextSwitchTo(settle->context);
	HcTrigger  *trigger = hc_catalog_trigger(mapping, NULL);

	if (trigger != NULL && hc_catalog_is_row(trigger))
	{
		const char *missing;

		settle->trigger = trigger;
		hc_options_parse(trigger->function, trigger->nargs, trigger->args,
						 &settle->options);
		missing = settle->options.values[HC_OPTION_MISSING];
		settle->remove = trigger->function == HC_FUNCTION_INVALIDATE ||
			settle->options.values[HC_OPTION_TTL] != NULL ||
			(missing != NULL && strcmp(missing, "ignore") == 0);
	}
	else
		hc_owed_clear(mapping);
	MemoryContextSwitchTo(old);
	return settle->trigger != NULL;
}

/*
 * Finds out what is to be done, and notes that it is being done.  false if
 * there is nothing.
 */
static bool
begin_mapping(HcSettle *settle, Oid mapping)
{
	MemoryContext old = CurrentMemoryContext;
	bool		found;

	StartTransactionCommand();
	hc_owed_take(mapping);
	CommitTransactionCommand();

	StartTransactionCommand();
	hc_owed_wait();
	CommitTransactionCommand();

	/* not before, to see what they did */
	StartTransactionCommand();
	found = look_at_mapping(settle, mapping);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	return found;
}

/* All is done. */
static void
end_mapping(HcSettle *settle)
{
	const HcTrigger *trigger = settle->trigger;
	MemoryContext old = CurrentMemoryContext;

	StartTransactionCommand();
	hc_owed_settle(trigger->oid);
	ereport(LOG,
			(errmsg("mapping \"%s\" of table \"%s\" is equal to its table again",
					trigger->name, get_rel_name(trigger->relid)),
			 errdetail("Entries written: %llu, removed: %llu.",
					   (unsigned long long) (settle->remove ? 0 : settle->n_written),
					   (unsigned long long) (settle->n_orphans +
											 (settle->remove ? settle->n_written : 0)))));
	if (settle->n_failed > 0)
		ereport(LOG,
				(errmsg_plural("%llu row was left out of mapping \"%s\" of table \"%s\"",
							   "%llu rows were left out of mapping \"%s\" of table \"%s\"",
							   (unsigned long) settle->n_failed,
							   (unsigned long long) settle->n_failed, trigger->name,
							   get_rel_name(trigger->relid)),
				 errdetail_internal("%s", settle->problem)));
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

/* All steps.  If one finds that the mapping has changed, it is all for later. */
static void
settle_steps(HcSettle *settle)
{
	MemoryContext old = CurrentMemoryContext;
	List	   *tables;
	ListCell   *lc;

	settle->n_written = settle->n_orphans = settle->n_failed = 0;
	if (!hc_orphan_remove(settle))
		return;
	settle->n_failed = 0;		/* they come again */

	StartTransactionCommand();
	MemoryContextSwitchTo(old);
	tables = hc_settle_tables(settle);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	foreach(lc, tables)
	{
		if (!settle_table(settle, lfirst_oid(lc)))
			return;
	}
	end_mapping(settle);
}

void
hc_settle_mapping(HcDatabase *db, Oid mapping)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "hybrid_cache settle",
												  ALLOCSET_DEFAULT_SIZES);
	HcSettle   *settle;

	MemoryContextSwitchTo(context);
	settle = palloc0(sizeof(HcSettle));
	settle->db = db;
	settle->context = context;
	if (begin_mapping(settle, mapping))
	{
		PG_TRY();
		{
			settle_steps(settle);
		}
		PG_CATCH();
		{
			/* an expression of the mapping failed: find out for which rows */
			if (!settle->reading || settle->careful ||
				geterrcode() == ERRCODE_QUERY_CANCELED)
				PG_RE_THROW();
			hc_keeper_abort();
			FlushErrorState();
			MemoryContextSwitchTo(context);
			settle->reading = false;
			settle->careful = true;
			settle_steps(settle);
		}
		PG_END_TRY();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
