/*
 * chunk.h
 *	  Change records of the keeper, and the window that they name.
 */
#ifndef HC_CHUNK_H
#define HC_CHUNK_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "mapping/op.h"
#include "shmem.h"

typedef struct HcChunk
{
	HcDatabase *db;
	Oid			mapping;
	uint64		window;
	TimestampTz opened_at;
	uint64		number;			/* of the transaction at hand in the window */
	HcFound		found;			/* what the ops are for */
	bool		dry;			/* they are only to be counted */
	StringInfoData ops;			/* encoded, not written yet */
	uint64		n_ops;			/* how many are in it */
	uint64		first_op;		/* number of the first of them */
	uint64		n_records;		/* already written by this transaction */
} HcChunk;

/*
 * Opens a window: when it returns, the sync worker has met the marker, and all
 * that it applied before is visible to the next snapshot.  Not to be called in a
 * transaction; what it allocates lives in the current context.
 */
extern void hc_chunk_begin(HcChunk *chunk, HcDatabase *db, Oid mapping);

/*
 * Before each snapshot whose rows are to go into the same window: opens another
 * if this one is too old, or somebody else has opened one, or anew.
 */
extern void hc_chunk_renew(HcChunk *chunk, bool anew);

/*
 * Add an op, and write what was added; in one transaction, which comes after the
 * snapshot, as that comes after hc_chunk_begin() or hc_chunk_renew().  put() can
 * be given as a callback.  sort() says what the ops that follow were found to be,
 * and whether they are only to be counted.
 */
extern void hc_chunk_sort(HcChunk *chunk, HcFound found, bool dry);
extern void hc_chunk_put(const HcOp *op, void *chunk);
extern void hc_chunk_write(HcChunk *chunk);

/*
 * To be called after that transaction: waits until the ops are applied, and
 * returns whether they are, and (of HC_NUM_FOUND) how many of them counted.  If
 * not, all is to be done again.
 */
extern HcWindowOutcome hc_chunk_confirm(HcChunk *chunk, uint64 *taken);

/* The same if there are unconfirmed ops; and the window is closed. */
extern HcWindowOutcome hc_chunk_end(HcChunk *chunk);

#endif							/* HC_CHUNK_H */
