/*
 * replica.h
 *	  hybrid_cache.wait_replicas: how far the replicas of Redis are.
 */
#ifndef HC_REPLICA_H
#define HC_REPLICA_H

#include "redis/connection.h"
#include "shmem.h"

/*
 * With nothing in flight on the connection: if a commit waits for replicas of
 * what is applied, asks Redis, which takes a moment.  Returns whether to ask
 * again soon.  Everything that counts as applied must precede a write of this
 * connection, or it would not be asked about.  Raises 08006, 08P01.
 */
extern bool hc_replica_ask(HcDatabase *db, HcConnection *conn);

/* All up to lsn is applied: notes it, and wakes who has waited for it. */
extern void hc_replica_publish(HcDatabase *db, XLogRecPtr lsn);

#endif							/* HC_REPLICA_H */
