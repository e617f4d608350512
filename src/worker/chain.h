/*
 * chain.h
 *	  The ops of one entry in a batch, and which of them holds.
 *
 * last is where the batch has the slot of the last op of the entry, -1 if there is
 * none.
 */
#ifndef HC_CHAIN_H
#define HC_CHAIN_H

#include "worker/batch.h"

/*
 * Does the op end a version and leave nothing to do in Redis, for now?  What it
 * says has been done to the others then.
 */
extern bool hc_chain_is_void(HcBatch *batch, int *last, int index,
							 const HcOp *op);

/* Makes the op, which has the slot index, the last one of its entry. */
extern void hc_chain_put(HcBatch *batch, int *last, int index, const HcOp *op);

/* Does what an op says that tells of an arrival (op.h). */
extern void hc_chain_arrive(HcBatch *batch, int *last, const HcOp *op);

#endif							/* HC_CHAIN_H */
