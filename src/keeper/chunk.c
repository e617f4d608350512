/*
 * chunk.c
 *	  Change records of the keeper, and the window that they name.
 *
 * They do not go through the transaction's buffer (capture/buffer.c): the
 * keeper's transactions have no other changes, and their ops count only in the
 * window.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "capture/record.h"
#include "keeper/chunk.h"
#include "keeper/keeper.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/window.h"

/* A record is written when it has so much, so that memory stays bounded. */
#define PIECE_SIZE	(1024 * 1024)

/*
 * A window is used for so long.  The longer, the more the sync worker has to
 * remember, and the more it has to forget when it loses its connection.
 */
#define WINDOW_MS	2000

static void
write_record(HcChunk *chunk, HcRecord *record)
{
	/* a logical-message record needs the xid of whoever writes it */
	record->xid = GetCurrentTransactionId();
	record->first_op = chunk->first_op;
	record->n_ops = chunk->n_ops;
	record->n_before = chunk->n_records;
	record->window = chunk->window;
	record->mapping = chunk->mapping;
	record->number = chunk->number;
	record->found = chunk->found;
	record->dry = chunk->dry;
	record->ops = chunk->ops.data;
	record->end = chunk->ops.data + chunk->ops.len;
	(void) hc_record_write(record, NULL);

	chunk->n_records++;
	chunk->first_op += chunk->n_ops;
	chunk->n_ops = 0;
	resetStringInfo(&chunk->ops);
}

static void
write_piece(HcChunk *chunk, bool closing)
{
	HcRecord	record = {.closing = closing};

	write_record(chunk, &record);
}

/* Goes on with another transaction. */
static void
next_transaction(HcChunk *chunk)
{
	chunk->number++;
	chunk->n_records = 0;
	chunk->first_op = 0;
	chunk->n_ops = 0;
	resetStringInfo(&chunk->ops);
}

/* A record without ops, in a transaction of its own; returns its end. */
static XLogRecPtr
write_sign(HcChunk *chunk, HcRecord *record)
{
	MemoryContext context = CurrentMemoryContext;

	StartTransactionCommand();
	write_record(chunk, record);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	hc_shmem_publish(XactLastCommitEnd);
	next_transaction(chunk);
	return XactLastCommitEnd;
}

static void
open_window(HcChunk *chunk)
{
	HcRecord	marker = {.closing = true,.marker = true};

	chunk->window = hc_window_new();
	chunk->number = 0;
	hc_keeper_wait(write_sign(chunk, &marker));
	chunk->opened_at = GetCurrentTimestamp();
}

void
hc_chunk_begin(HcChunk *chunk, HcDatabase *db, Oid mapping)
{
	memset(chunk, 0, sizeof(*chunk));
	chunk->db = db;
	chunk->mapping = mapping;
	initStringInfo(&chunk->ops);
	open_window(chunk);
}

void
hc_chunk_renew(HcChunk *chunk, bool anew)
{
	if (anew || !hc_window_is_newest(chunk->window) ||
		chunk->number >= HC_WINDOW_RECORDS - 1 ||
		TimestampDifferenceExceeds(chunk->opened_at, GetCurrentTimestamp(), WINDOW_MS))
		open_window(chunk);
}

void
hc_chunk_sort(HcChunk *chunk, HcFound found, bool dry)
{
	if (chunk->n_ops > 0 && (chunk->found != found || chunk->dry != dry))
		write_piece(chunk, false);
	chunk->found = found;
	chunk->dry = dry;
}

void
hc_chunk_put(const HcOp *op, void *arg)
{
	HcChunk    *chunk = arg;

	hc_op_encode(&chunk->ops, op);
	chunk->n_ops++;
	if (chunk->ops.len >= PIECE_SIZE)
		write_piece(chunk, false);
}

void
hc_chunk_write(HcChunk *chunk)
{
	if (chunk->n_ops == 0 && chunk->n_records == 0)
		return;
	hc_window_expect(chunk->db, chunk->window, chunk->number);
	write_piece(chunk, true);
}

HcWindowOutcome
hc_chunk_confirm(HcChunk *chunk, uint64 *taken)
{
	HcWindowOutcome outcome = HC_WINDOW_TAKEN;

	/* a window without a record does no harm */
	memset(taken, 0, HC_NUM_FOUND * sizeof(uint64));
	if (chunk->n_records > 0)
	{
		hc_shmem_publish(XactLastCommitEnd);
		hc_keeper_wait(XactLastCommitEnd);
		outcome = hc_window_outcome(chunk->db, taken);
	}
	next_transaction(chunk);
	return outcome;
}

HcWindowOutcome
hc_chunk_end(HcChunk *chunk)
{
	HcRecord	last = {.closing = true,.last = true};
	uint64		taken[HC_NUM_FOUND];
	HcWindowOutcome outcome = hc_chunk_confirm(chunk, taken);

	/* whoever opens another one closes this one as well */
	if (hc_window_is_newest(chunk->window))
		(void) write_sign(chunk, &last);
	pfree(chunk->ops.data);
	return outcome;
}
