/*
 * chunk.h
 *	  A change record of the keeper, and the window that it names.
 */
#ifndef HC_CHUNK_H
#define HC_CHUNK_H

#include "lib/stringinfo.h"
#include "mapping/op.h"
#include "shmem.h"

typedef struct HcChunk
{
	HcDatabase *db;
	Oid			mapping;
	uint64		window;
	StringInfoData ops;			/* encoded, not written yet */
	uint64		n_ops;			/* how many are in it */
	uint64		first_op;		/* number of the first of them */
	uint64		n_records;		/* already written */
} HcChunk;

/*
 * Opens a window: when it returns, the sync worker has met the marker, and all
 * that it applied before is visible to the next snapshot.  Not to be called in a
 * transaction; what it allocates lives in the current context.
 */
extern void hc_chunk_begin(HcChunk *chunk, HcDatabase *db, Oid mapping);

/*
 * Add an op, and write what was added; in one transaction, whose snapshot was
 * taken after hc_chunk_begin().  put() can be given as a callback.
 */
extern void hc_chunk_put(const HcOp *op, void *chunk);
extern void hc_chunk_write(HcChunk *chunk);

/*
 * To be called after that transaction: waits until the ops are applied, and
 * returns whether they are.  If not, all is to be done again.
 */
extern HcWindowOutcome hc_chunk_end(HcChunk *chunk);

#endif							/* HC_CHUNK_H */
