/*
 * retention.h
 *	  How much WAL the replication slot keeps.
 */
#ifndef HC_RETENTION_H
#define HC_RETENTION_H

#include "worker/pipeline.h"

/*
 * Moves the slot on.  Behind what Redis has, hybrid_cache.wal_keep_size of WAL
 * stays; before what was written last, no more than
 * hybrid_cache.max_wal_keep_size, whether Redis has it or not: if not, and
 * Redis is away, everything is owed.  Also for a pipeline that is closed, and
 * while the slot is not open.  May open a transaction.
 */
extern void hc_retention_apply(HcPipeline *line);

/*
 * Keeps to the limits with a slot that no process uses: there is no worker, or
 * it cannot work.
 */
extern void hc_retention_limit_unused(Oid database);

#endif							/* HC_RETENTION_H */
