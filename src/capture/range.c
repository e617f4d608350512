/*
 * range.c
 *	  Rendering the rows of a table while others change them, for the keeper.
 *
 * Rows are found by their place in the table, so no primary key is needed.  The
 * ops have no version: what the rows become by the time that the ops are
 * applied is not known here, and is for the keeper to sort out.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "capture/capture.h"
#include "capture/entry.h"
#include "capture/recent.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

/* Rows between two calls of pause(). */
#define PAUSE_ROWS	256

/* Can a table be read from the middle? */
static bool
has_ranges(Relation rel)
{
	return rel->rd_tableam->scan_set_tidrange != NULL &&
		rel->rd_tableam->scan_getnextslot_tidrange != NULL;
}

/*
 * The part of the range that is to be read next: range->next is its first row,
 * *last its last.  false if there is none.
 */
static bool
next_part(HcCaptureRange *range, ItemPointer last)
{
	BlockNumber first = ItemPointerGetBlockNumberNoCheck(&range->next);
	BlockNumber end = range->end;

	if (range->recent != NULL && !hc_recent_blocks(range->recent, &first, &end))
		return false;
	if (first > ItemPointerGetBlockNumberNoCheck(&range->next))
		ItemPointerSet(&range->next, first, FirstOffsetNumber);
	ItemPointerSet(last, end == InvalidBlockNumber ? MaxBlockNumber : end - 1,
				   MaxOffsetNumber);
	return true;
}

/*
 * An ordinary scan begins where another one is, unless it is forbidden.  NULL if
 * there is nothing to be read.
 */
static TableScanDesc
begin(Relation rel, Snapshot snapshot, HcCaptureRange *range, ItemPointer last)
{
	if (!ItemPointerIsValid(&range->next))
		ItemPointerSet(&range->next, 0, FirstOffsetNumber);
	if (!has_ranges(rel))
		return table_beginscan_strat(rel, snapshot, 0, NULL, true, false);
	if (!next_part(range, last))
		return NULL;
	return table_beginscan_tidrange(rel, snapshot, &range->next, last);
}

static bool
next(TableScanDesc scan, HcCaptureRange *range, ItemPointer last,
	 TupleTableSlot *slot)
{
	if (scan == NULL)
		return false;
	if (has_ranges(scan->rs_rd))
	{
		while (!table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
		{
			if (range->recent == NULL ||
				ItemPointerGetBlockNumberNoCheck(last) == MaxBlockNumber)
				return false;
			ItemPointerSet(&range->next,
						   ItemPointerGetBlockNumberNoCheck(last) + 1,
						   FirstOffsetNumber);
			if (!next_part(range, last))
				return false;
			CHECK_FOR_INTERRUPTS();
			table_rescan_tidrange(scan, &range->next, last);
		}
		return true;
	}
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		if (ItemPointerCompare(&slot->tts_tid, &range->next) >= 0)
			return true;
	}
	return false;
}

/* The next row is to be read from behind this one. */
static void
pass(HcCaptureRange *range, ItemPointer tid)
{
	BlockNumber block = ItemPointerGetBlockNumberNoCheck(tid);
	OffsetNumber offset = ItemPointerGetOffsetNumberNoCheck(tid);

	if (offset < MaxOffsetNumber)
		ItemPointerSet(&range->next, block, offset + 1);
	else
		ItemPointerSet(&range->next, block + 1, FirstOffsetNumber);
}

/* Also of a version that was frozen since: its xid is still there. */
static bool
is_older(TupleTableSlot *slot, TransactionId since)
{
	bool		isnull;
	Datum		xmin;

	if (!TransactionIdIsValid(since))
		return false;
	xmin = slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull);
	return TransactionIdIsNormal(DatumGetTransactionId(xmin)) &&
		TransactionIdPrecedes(DatumGetTransactionId(xmin), since);
}

static bool
render(HcRenderer *renderer, TupleTableSlot *slot, bool identity, HcOp *op)
{
	HcRendered	rendered = identity
		? hc_render_identity(renderer, slot, op)
		: hc_entry_render(renderer, slot, op);

	return rendered == HC_RENDERED_ENTRY || rendered == HC_RENDERED_OVERSIZE;
}

/* Does the error say something about the moment, and not about the row? */
static bool
is_passing(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

/*
 * Renders in a subtransaction, of which nothing remains when it raises.  Returns
 * the error, or NULL.  An error that may not come again is raised.
 */
static ErrorData *
attempt(bool (*what) (HcRenderer *renderer, TupleTableSlot *slot, bool identity,
					  HcOp *op),
		HcRenderer *renderer, TupleTableSlot *slot, bool identity, HcOp *op,
		bool *result)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	*result = false;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		*result = what(renderer, slot, identity, op);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (is_passing(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		*result = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

static bool
render_place(HcRenderer *renderer, TupleTableSlot *slot, bool identity, HcOp *op)
{
	return hc_render_place(renderer, slot, op) == HC_RENDERED_ENTRY;
}

/* A row that cannot be rendered is reported, as far as that goes. */
static bool
render_carefully(HcRenderer *renderer, TupleTableSlot *slot,
				 HcCaptureRange *range, HcOp *op)
{
	HcCaptureFailure failure = {0};
	ErrorData  *error;
	bool		result;

	error = attempt(render, renderer, slot, range->identity, op, &result);
	if (error == NULL)
		return result;
	if (range->n_failed++ == 0)
		strlcpy(range->problem, error->message, sizeof(range->problem));
	if (range->failed != NULL)
	{
		ErrorData  *other = attempt(render_place, renderer, slot, true,
									&failure.op, &failure.has_place);

		if (other != NULL)
			FreeErrorData(other);
		failure.error = error;
		range->failed(&failure, range->arg);
	}
	FreeErrorData(error);
	return false;
}

void
hc_capture_range(Relation rel, HcRenderer *renderer, Snapshot snapshot,
				 HcCaptureRange *range)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ItemPointerData last;
	TableScanDesc scan = begin(rel, snapshot, range, &last);

	range->at_end = false;
	for (;;)
	{
		HcOp		op;

		CHECK_FOR_INTERRUPTS();
		if (range->is_full != NULL && range->is_full(range->arg))
			break;
		range->at_end = !next(scan, range, &last, slot);
		if (range->at_end)
			break;
		pass(range, &slot->tts_tid);
		if (range->n_rows++ % PAUSE_ROWS == 0)
			range->pause();
		if (is_older(slot, range->since) ||
			(range->recent != NULL && !hc_recent_has(range->recent, slot)))
			continue;
		if (range->careful
			? render_carefully(renderer, slot, range, &op)
			: render(renderer, slot, range->identity, &op))
			range->put(&op, range->arg);
	}
	if (scan != NULL)
		table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}
