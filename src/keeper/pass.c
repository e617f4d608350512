/*
 * pass.c
 *	  Reads the rows of one table in chunks, and makes their entries equal.
 *
 * A chunk ends when it is full, wherever that is in the table: the position is
 * the place of a row.  Each has a snapshot of its own, so that none is held for
 * long, and no transaction is open while Redis or the sync worker is awaited.
 *
 * A row can move from a part that is still to be read to one that was read, and
 * when the update changes nothing in its entry, no trigger captures it.  Then its
 * version is younger than the first snapshot.  So all versions that are younger
 * are read once more, in another pass; most rows are only looked at.  If that
 * takes more than one snapshot, rows can have moved again, and there is one more
 * pass, over what is younger than the first snapshot of that one.
 *
 * A table that is rewritten meanwhile is begun anew.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "broken.h"
#include "compat.h"
#include "keeper/fill.h"
#include "keeper/found.h"
#include "keeper/pace.h"
#include "keeper/pass.h"
#include "keeper/progress.h"
#include "keeper/rows.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* A snapshot of the first pass is held for so long at most. */
#define CHUNK_MS		1000

/* Rows between two looks at the clock. */
#define ROWS_PER_LOOK	1024

/* So often too much may be changed while a chunk is dealt with. */
#define MOST_OVERFLOWS	5

/* So often a table is gone through. */
#define MOST_PASSES		20

/* What became of a chunk. */
typedef enum Step
{
	STEP_DONE,
	STEP_AGAIN,					/* the table was rewritten */
	STEP_GONE,					/* there is no such table any more */
	STEP_CHANGED				/* the mapping is not what it was */
} Step;

/* A chunk that is being read. */
typedef struct Reading
{
	HcSettle   *settle;
	HcPass	   *pass;
	HcCaptureRange range;
	TransactionId young;
	BlockNumber n_blocks;
	uint64		n_entries;
	uint64		most_entries;	/* that the chunk may have */
	uint64		most_rows;		/* the same for a first pass */
	TimestampTz until;			/* it is to end by then */
	Step		step;
} Reading;

static void
put(const HcOp *op, void *arg)
{
	Reading    *reading = arg;

	hc_found_add_row(reading->settle, op);
	reading->n_entries++;
}

static void
fail(const HcCaptureFailure *failure, void *arg)
{
	Reading    *reading = arg;

	hc_found_fail(reading->settle, failure);
}

static bool
is_full(void *arg)
{
	Reading    *reading = arg;

	if (hc_found_is_full(reading->settle) ||
		reading->n_entries >= reading->most_entries ||
		(reading->pass->number == 0 && reading->range.n_rows >= reading->most_rows))
		return true;
	return reading->until != 0 && reading->range.n_rows > 0 &&
		reading->range.n_rows % ROWS_PER_LOOK == 0 &&
		GetCurrentTimestamp() > reading->until;
}

/* Nothing of the table was read, as it is now. */
static void
begin_table(HcSettle *settle, HcPass *pass, Relation rel)
{
	settle->state.counts.checked -= pass->n_checked;
	settle->state.counts.failed -= pass->n_failed;
	pass->n_checked = pass->n_failed = 0;
	pass->storage = hc_compat_storage(rel);
	ItemPointerSetInvalid(&pass->next);
	pass->n_blocks = InvalidBlockNumber;
	pass->since = InvalidTransactionId;
	pass->young = InvalidTransactionId;
	pass->number = 0;
}

/* Reads the chunk, in a transaction. */
static void
read_rows(Reading *reading)
{
	HcSettle   *settle = reading->settle;
	HcPass	   *pass = reading->pass;
	HcCaptureRange *range = &reading->range;
	Relation	rel;

	if (!hc_rows_is_current(settle))
	{
		reading->step = STEP_CHANGED;
		return;
	}
	rel = try_table_open(pass->relid, AccessShareLock);
	if (rel == NULL)
	{
		reading->step = STEP_GONE;
		return;
	}
	if (!OidIsValid(pass->storage))
		begin_table(settle, pass, rel);
	else if (pass->storage != hc_compat_storage(rel))
	{
		table_close(rel, NoLock);
		reading->step = STEP_AGAIN;
		return;
	}

	memset(range, 0, sizeof(*range));
	range->next = pass->next;
	range->end = pass->n_blocks;
	range->since = pass->since;
	range->newer = settle->newer;
	range->identity = settle->options.kind == HC_KIND_INVALIDATE;
	range->put = put;
	if (pass->number == 0)
		range->failed = fail;
	range->is_full = is_full;
	range->arg = reading;
	if (pass->number == 0)
		reading->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CHUNK_MS);
	hc_rows_read(settle, rel, range, &reading->young);
	reading->n_blocks = RelationGetNumberOfBlocks(rel);
	reading->step = STEP_DONE;
	table_close(rel, NoLock);
}

/* The same, whatever the rows' expressions do. */
static void
read_chunk(Reading *reading, bool again)
{
	HcSettle   *settle = reading->settle;
	MemoryContext context = CurrentMemoryContext;
	volatile bool known = again || reading->pass->number > 0;
	volatile bool failed;

	do
	{
		failed = false;
		hc_found_begin(settle, known);
		reading->n_entries = 0;
		PG_TRY();
		{
			StartTransactionCommand();
			read_rows(reading);
			CommitTransactionCommand();
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(context);
			hc_rows_take_care(settle);
			known = failed = true;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
	} while (failed);
}

/* The chunk is done. */
static void
advance(Reading *reading)
{
	HcPass	   *pass = reading->pass;
	HcRunCounts *counts = &reading->settle->state.counts;

	/* what comes first of a pass says what the next one is to look at */
	if (!TransactionIdIsValid(pass->young))
	{
		pass->young = reading->young;
		if (pass->number == 0)
			pass->n_blocks = reading->n_blocks;
	}
	pass->next = reading->range.next;
	if (pass->number == 0)
	{
		pass->n_checked += reading->n_entries;
		pass->n_failed += reading->range.n_failed;
		counts->checked += reading->n_entries;
		counts->failed += reading->range.n_failed;
		hc_progress_add(reading->range.n_rows);
	}
	hc_progress_counts(counts);
	hc_settle_note(reading->settle, HC_RUN_ROWS, pass);
}

/* Deals with the next chunk, as often as it takes for it to count. */
static Step
do_chunk(HcSettle *settle, HcPass *pass, bool *at_end)
{
	Reading		reading = {.settle = settle,.pass = pass,.most_entries = PG_UINT64_MAX};
	bool		anew = false;
	int			overflows = 0;

	hc_keeper_serve();
	for (;;)
	{
		reading.most_rows = hc_pace_rows(settle);
		hc_chunk_renew(&settle->chunk, anew);
		read_chunk(&reading, anew);
		if (reading.step != STEP_DONE)
			return reading.step;
		switch (hc_found_settle(settle))
		{
			case HC_WINDOW_TAKEN:
				*at_end = reading.range.at_end;
				advance(&reading);
				hc_pace_wait(settle, pass->number == 0
							 ? reading.range.n_rows : reading.n_entries);
				return STEP_DONE;
			case HC_WINDOW_OVERFLOWED:
				reading.most_entries = Max(reading.n_entries / 4, 1);
				if (++overflows > MOST_OVERFLOWS)
					ereport(ERROR,
							(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							 errmsg("too much was changed while a table of mapping \"%s\" was read",
									settle->trigger->name)));
				break;
			default:
				break;			/* the sync worker did not know the window */
		}
		anew = true;
	}
}

/* All of the table was read; true if nothing can have escaped. */
static bool
end_pass(HcPass *pass, bool single)
{
	if (single || hc_breaks(HC_BREAK_LATE))
		return true;
	if (pass->number + 1 >= MOST_PASSES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("rows of table %u are moved faster than they can be read",
						pass->relid)));
	pass->number++;
	pass->since = pass->young;
	pass->young = InvalidTransactionId;
	pass->n_blocks = InvalidBlockNumber;
	ItemPointerSetInvalid(&pass->next);
	return false;
}

HcPassResult
hc_pass_table(HcSettle *settle, HcPass *pass)
{
	for (;;)
	{
		bool		first = !ItemPointerIsValid(&pass->next);
		bool		at_end = false;

		if (hc_progress_cancelled())
			return HC_PASS_CANCELLED;
		switch (do_chunk(settle, pass, &at_end))
		{
			case STEP_DONE:
				if (at_end && end_pass(pass, first))
					return HC_PASS_DONE;
				break;
			case STEP_AGAIN:
				pass->storage = InvalidOid;
				break;
			case STEP_GONE:
				return HC_PASS_DONE;
			case STEP_CHANGED:
				return HC_PASS_CHANGED;
		}
	}
}
