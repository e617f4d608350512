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
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

/* Rows between two calls of pause(). */
#define PAUSE_ROWS	256

bool
hc_capture_has_ranges(Relation rel)
{
	return rel->rd_tableam->scan_set_tidrange != NULL &&
		rel->rd_tableam->scan_getnextslot_tidrange != NULL;
}

static bool
is_whole(const HcCaptureRange *range)
{
	return range->first == 0 && range->end == InvalidBlockNumber;
}

static TableScanDesc
begin(Relation rel, Snapshot snapshot, const HcCaptureRange *range)
{
	ItemPointerData first;
	ItemPointerData last;

	if (is_whole(range))
		return table_beginscan(rel, snapshot, 0, NULL);
	ItemPointerSet(&first, range->first, FirstOffsetNumber);
	ItemPointerSet(&last, range->end - 1, MaxOffsetNumber);
	return table_beginscan_tidrange(rel, snapshot, &first, &last);
}

static bool
next(TableScanDesc scan, const HcCaptureRange *range, TupleTableSlot *slot)
{
	if (is_whole(range))
		return table_scan_getnextslot(scan, ForwardScanDirection, slot);
	return table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot);
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

/* The same in a subtransaction, so that an error undoes no more than that. */
static bool
render_carefully(HcRenderer *renderer, TupleTableSlot *slot,
				 HcCaptureRange *range, HcOp *op)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool result = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		result = render(renderer, slot, range->identity, op);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (range->n_failed++ == 0)
			strlcpy(range->problem, error->message, sizeof(range->problem));
		FreeErrorData(error);
		result = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return result;
}

void
hc_capture_range(Relation rel, HcRenderer *renderer, Snapshot snapshot,
				 HcCaptureRange *range)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = begin(rel, snapshot, range);
	uint64		n = 0;

	while (next(scan, range, slot))
	{
		HcOp		op;

		CHECK_FOR_INTERRUPTS();
		if (n++ % PAUSE_ROWS == 0)
			range->pause();
		if (is_older(slot, range->since))
			continue;
		if (range->careful
			? render_carefully(renderer, slot, range, &op)
			: render(renderer, slot, range->identity, &op))
			range->put(&op, range->arg);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}
