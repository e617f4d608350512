/*
 * chunk.c
 *	  A change record of the keeper, and the window that it names.
 *
 * It does not go through the transaction's buffer (capture/buffer.c): the
 * keeper's transactions have no other changes, and their ops count only in the
 * window.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "capture/record.h"
#include "utils/memutils.h"
#include "worker/chunk.h"
#include "worker/keeper.h"
#include "worker/window.h"

/* A record is written when it has so much, so that memory stays bounded. */
#define PIECE_SIZE	(1024 * 1024)

static void
write_record(HcChunk *chunk, bool marker, bool closing)
{
	HcRecord	record = {0};

	/* a logical-message record needs the xid of whoever writes it */
	record.xid = GetCurrentTransactionId();
	record.closing = closing;
	record.first_op = chunk->first_op;
	record.n_ops = chunk->n_ops;
	record.n_before = chunk->n_records;
	record.window = chunk->window;
	record.mapping = chunk->mapping;
	record.marker = marker;
	record.ops = chunk->ops.data;
	record.end = chunk->ops.data + chunk->ops.len;
	(void) hc_record_write(&record, NULL);

	chunk->n_records++;
	chunk->first_op += chunk->n_ops;
	chunk->n_ops = 0;
	resetStringInfo(&chunk->ops);
}

/* The transaction that has just committed is to be applied. */
static XLogRecPtr
publish(void)
{
	hc_shmem_publish(XactLastCommitEnd);
	return XactLastCommitEnd;
}

void
hc_chunk_begin(HcChunk *chunk, HcDatabase *db, Oid mapping)
{
	MemoryContext context = CurrentMemoryContext;

	memset(chunk, 0, sizeof(*chunk));
	chunk->db = db;
	chunk->mapping = mapping;
	chunk->window = hc_window_announce(db);
	initStringInfo(&chunk->ops);

	StartTransactionCommand();
	write_record(chunk, true, true);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	chunk->n_records = 0;
	hc_keeper_wait(publish());
}

void
hc_chunk_put(const HcOp *op, void *arg)
{
	HcChunk    *chunk = arg;

	hc_op_encode(&chunk->ops, op);
	chunk->n_ops++;
	if (chunk->ops.len >= PIECE_SIZE)
		write_record(chunk, false, false);
}

void
hc_chunk_write(HcChunk *chunk)
{
	if (chunk->n_ops > 0 || chunk->n_records > 0)
		write_record(chunk, false, true);
}

HcWindowOutcome
hc_chunk_end(HcChunk *chunk)
{
	HcWindowOutcome outcome = HC_WINDOW_TAKEN;

	/* a window without a record does no harm */
	if (chunk->n_records > 0)
	{
		hc_keeper_wait(publish());
		outcome = hc_window_outcome(chunk->db);
	}
	pfree(chunk->ops.data);
	return outcome;
}
