/*
 * feed.c
 *	  Cuts the stream of committed transactions into batches.
 *
 * A batch holds whole transactions, so that a reader of Redis sees each of them
 * at once.  A transaction with more than hybrid_cache.atomic_ops ops goes out
 * in several batches, and the watermark says how many of its ops are done.
 *
 * A transaction is handed out when the processes of this server see it as
 * committed: its commit record is flushed before that, and nothing is to show
 * in Redis that PostgreSQL does not show yet.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "broken.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "worker/feed.h"
#include "worker/owner.h"
#include "worker/resolve.h"
#include "worker/stream.h"
#include "worker/window.h"

/*
 * Small transactions share a batch up to this size, and a divided one is cut
 * there.  The text of a batch is in memory about five times: as it is filled,
 * compiled and sent, with the next one behind it.
 */
#define SHARED_BYTES	(2 * 1024 * 1024)

/* Nothing makes a batch larger, since its buffers end at 1 GB. */
#define MAX_BYTES		(256 * 1024 * 1024)

/*
 * A change record becomes a few times as many bytes of commands at most; so a
 * transaction below this size fits into a batch.
 */
#define SURELY_FITS		(MAX_BYTES / 4)

/* Ops that are added before the caller has a look at the rest of the world. */
#define TURN_OPS		512

struct HcFeed
{
	MemoryContext context;
	HcReader   *reader;
	HcWatermark mark;			/* of what was handed out */
	HcTransaction *txn;			/* being handed out, or NULL */
	bool		begun;			/* its ops are being handed out */
	bool		divided;		/* it has too many for one batch */
	uint64		ops_done;		/* its ops before this one were applied before */
	HcResolution *resolution;	/* which ops are void, if that may take more
								 * than one batch to see */
	HcStream	stream;
	bool		waiting;		/* the next op did not fit: ... */
	HcOp		op;				/* ... it is this one ... */
	uint64		number;			/* ... with this number */
	int			first_slot;		/* of the transaction at hand in the batch */
	HcWindow   *window;
	uint64		taken[HC_NUM_FOUND];	/* ops of the keeper's record */
	List	   *unrepaired;		/* mappings that have lost a record of the keeper */
	bool		doubt;			/* an entry may be wrong now */
	bool		ahead;			/* what is handed out is not applied yet */
};

HcFeed *
hc_feed_open(const HcWatermark *mark)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache feed",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HcFeed	   *feed = palloc0(sizeof(HcFeed));

	feed->context = context;
	feed->mark = *mark;
	feed->window = hc_window_create();
	feed->reader = hc_reader_open(mark->database, mark->restart, mark->applied);
	MemoryContextSwitchTo(old);
	return feed;
}

void
hc_feed_look_ahead(HcFeed *feed)
{
	feed->ahead = true;
}

void
hc_feed_close(HcFeed *feed)
{
	hc_reader_close(feed->reader);
	MemoryContextDelete(feed->context);
}

static void
begin(HcFeed *feed, HcBatch *batch)
{
	HcTransaction *txn = feed->txn;

	feed->begun = true;
	feed->first_slot = batch->n_slots;
	if (txn->marker)
	{
		MemoryContext old = MemoryContextSwitchTo(feed->context);

		hc_window_open(feed->window, txn->window);
		MemoryContextSwitchTo(old);
	}
	feed->divided = txn->n_ops > (uint64) hc_atomic_ops;
	feed->ops_done = (txn->commit_lsn == feed->mark.cut) ? feed->mark.ops_done : 0;
	feed->waiting = false;
	memset(feed->taken, 0, sizeof(feed->taken));
	feed->resolution = NULL;
	if (txn->damaged)
		feed->doubt = true;

	/* also one that was divided before, whatever hybrid_cache.atomic_ops is now */
	if ((feed->divided || feed->ops_done > 0 || txn->n_bytes > SURELY_FITS) &&
		txn->has_sets && txn->has_removals)
	{
		MemoryContext old = MemoryContextSwitchTo(feed->context);

		feed->resolution = hc_resolve_transaction(feed->reader, txn);
		MemoryContextSwitchTo(old);
		if (!hc_resolve_is_complete(feed->resolution))
			feed->doubt = true;
	}
	hc_stream_begin(&feed->stream, feed->reader, txn);
}

/* Is the batch at its end for the transaction at hand and its next op? */
static bool
is_full(HcFeed *feed, const HcBatch *batch)
{
	/* what tells of a version belongs to what was captured just before it */
	if (feed->divided && !feed->op.arrived &&
		(batch->n_ops >= hc_atomic_ops || batch->text.len >= SHARED_BYTES))
		return true;

	/* an op alone may be larger */
	return batch->n_slots > 0 &&
		batch->text.len + feed->op.key.len + feed->op.member.len +
		feed->op.value.len >= MAX_BYTES;
}

/* Can the keeper's record be told from what others did meanwhile? */
static bool
is_record_known(HcFeed *feed)
{
	return !feed->txn->damaged &&
		hc_window_is_known(feed->window, feed->txn->window);
}

/* Does an op of the keeper count? */
static bool
is_taken(HcFeed *feed)
{
	const HcRecord *record = &feed->stream.record;

	if (feed->ahead || !is_record_known(feed) ||
		hc_window_is_touched(feed->window, &feed->op))
		return false;
	feed->taken[record->found]++;
	return !record->dry && feed->number >= feed->ops_done;
}

/* Does the op of the transaction at hand count? */
static bool
is_valid(HcFeed *feed)
{
	if (hc_op_is_event(feed->op.kind))
		return !feed->ahead &&
			(feed->number >= feed->ops_done || hc_breaks(HC_BREAK_ONCE));
	if (hc_owner_any_foreign && hc_owner_is_foreign(feed->op.key))
		return false;
	if (feed->txn->window != 0)
		return is_taken(feed);
	if (feed->number < feed->ops_done)
		return false;			/* applied before */
	return feed->resolution == NULL ||
		!hc_resolve_is_void(feed->resolution, feed->number);
}

/* The keeper's record was handed out, or could not be. */
static void
finish_record(HcFeed *feed)
{
	const HcTransaction *txn = feed->txn;
	bool		taken = is_record_known(feed);

	/* a keeper that does not wait for it thinks that it was taken before */
	if (txn->n_ops > 0 &&
		!hc_window_report(feed->window, txn->window, txn->window_number,
						  taken ? feed->taken : NULL) && !taken)
	{
		MemoryContext old = MemoryContextSwitchTo(feed->context);

		feed->unrepaired = list_append_unique_oid(feed->unrepaired,
												  txn->window_mapping);
		MemoryContextSwitchTo(old);
	}
	if (txn->last)
		hc_window_close(feed->window, txn->window);
}

/* Everything of the transaction is in the batch. */
static void
finish(HcFeed *feed, HcBatch *batch)
{
	if (feed->txn->window == 0)
		hc_window_touch(feed->window, batch, feed->first_slot);
	else if (!feed->txn->marker && !feed->ahead)
		finish_record(feed);

	feed->mark.applied = feed->txn->commit_lsn;
	feed->mark.cut = InvalidXLogRecPtr;
	feed->mark.ops_done = 0;
	feed->mark.restart = feed->txn->restart_lsn;
	batch->mark = feed->mark;
	batch->open = false;
	batch->n_transactions++;

	if (feed->resolution != NULL)
		hc_resolve_free(feed->resolution);
	feed->resolution = NULL;
	hc_reader_release(feed->reader, feed->txn);
	feed->txn = NULL;
}

/* The batch ends before the transaction does. */
static void
cut(HcFeed *feed, HcBatch *batch)
{
	if (feed->txn->window == 0)
		hc_window_touch(feed->window, batch, feed->first_slot);
	feed->first_slot = 0;		/* the next batch has nothing else */
	feed->mark.cut = feed->txn->commit_lsn;
	feed->mark.ops_done = feed->number;
	feed->mark.restart = Min(Min(feed->txn->first_lsn, feed->txn->restart_lsn),
							 feed->mark.applied);
	batch->mark = feed->mark;
	batch->open = false;
}

/* Adds ops of the transaction at hand. */
static HcFeedResult
add_ops(HcFeed *feed, HcBatch *batch)
{
	int			n;

	for (n = 0; n < TURN_OPS; n++)
	{
		if (!feed->waiting &&
			!hc_stream_next(&feed->stream, &feed->op, &feed->number))
		{
			finish(feed, batch);
			return HC_FEED_MORE;
		}
		if (is_full(feed, batch))
		{
			feed->waiting = true;
			cut(feed, batch);
			return HC_FEED_FULL;
		}
		feed->waiting = false;
		if (feed->op.kept && feed->resolution != NULL)
			feed->op.kept = !hc_resolve_is_unkept(feed->resolution, feed->number);
		if (is_valid(feed))
			hc_batch_add(batch, &feed->op);
	}
	return HC_FEED_MORE;
}

HcFeedResult
hc_feed_fill(HcFeed *feed, HcBatch *batch)
{
	if (feed->txn == NULL)
	{
		HcReadResult result = hc_reader_next(feed->reader, &feed->txn);

		if (result == HC_READ_END)
			return HC_FEED_END;
		if (result == HC_READ_MORE)
			return HC_FEED_MORE;
		feed->begun = false;
	}
	if (!feed->begun)
	{
		if (batch->n_transactions > 0 &&
			(feed->txn->mapped ||
			 batch->n_ops + feed->txn->n_ops > (uint64) hc_atomic_ops ||
			 batch->text.len >= SHARED_BYTES))
			return HC_FEED_FULL;
		if (TransactionIdIsInProgress(feed->txn->xid) && !hc_breaks(HC_BREAK_COMMIT))
			return HC_FEED_HELD;
		if (feed->txn->mapped)
			return HC_FEED_MAPPED;
		hc_batch_next_transaction(batch);
		begin(feed, batch);
	}
	batch->open = true;
	batch->commit_lsn = feed->txn->commit_lsn;
	return add_ops(feed, batch);
}

void
hc_feed_go_on(HcFeed *feed)
{
	if (feed->txn != NULL)
		feed->txn->mapped = false;
}

void
hc_feed_watermark(HcFeed *feed, HcWatermark *mark)
{
	*mark = feed->mark;
	if (feed->txn != NULL)
		return;
	mark->applied = Max(mark->applied, hc_reader_position(feed->reader));
	if (mark->cut <= mark->applied)
	{
		mark->cut = InvalidXLogRecPtr;
		mark->ops_done = 0;
	}
	mark->restart = hc_reader_restart(feed->reader);
}

XLogRecPtr
hc_feed_position(HcFeed *feed)
{
	return hc_reader_position(feed->reader);
}

bool
hc_feed_must_poll(HcFeed *feed)
{
	return hc_reader_must_poll(feed->reader);
}

bool
hc_feed_take_doubt(HcFeed *feed)
{
	bool		doubt = feed->doubt;

	feed->doubt = false;
	return doubt;
}

List *
hc_feed_take_unrepaired(HcFeed *feed)
{
	List	   *unrepaired = feed->unrepaired;

	feed->unrepaired = NIL;
	return unrepaired;
}
