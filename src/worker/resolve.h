/*
 * resolve.h
 *	  Which ops of a transaction in several batches are void.
 */
#ifndef HC_RESOLVE_H
#define HC_RESOLVE_H

#include "worker/reader.h"

typedef struct HcResolution HcResolution;

/*
 * Applies the version rule of op.h to the whole transaction, in bounded memory.
 * Reads the transaction twice.  Allocated in a context of its own below the current one.
 */
extern HcResolution *hc_resolve_transaction(HcReader *reader,
											HcTransaction *txn);
extern void hc_resolve_free(HcResolution *resolution);

/* Is the op with this number void? */
extern bool hc_resolve_is_void(HcResolution *resolution, uint64 number);

/*
 * Is it a timer that is not kept, although it says so, since a later op of the
 * transaction tells of a version that it relies on?
 */
extern bool hc_resolve_is_unkept(HcResolution *resolution, uint64 number);

/*
 * false if memory did not suffice.  Then a removal that should be void may
 * count: the entry is missing in Redis, which is safer than a stale one.
 */
extern bool hc_resolve_is_complete(HcResolution *resolution);

#endif							/* HC_RESOLVE_H */
