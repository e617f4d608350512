/*
 * holds.h
 *	  Holds in Redis, as the sync worker looks after them: what transactions left
 *	  behind, and what has run out.
 */
#ifndef HC_HOLDS_H
#define HC_HOLDS_H

#include "mapping/op.h"
#include "redis/connection.h"
#include "shmem.h"
#include "worker/fence.h"

/*
 * The KEYS of holds.lua for a key, which is with hybrid_cache.key_prefix.
 * palloc'd.  Those at HC_HOLDS_RECORDS and HC_HOLDS_INDEX are the KEYS of
 * holds_commit.lua.
 */
#define HC_HOLDS_KEYS		7
#define HC_HOLDS_RECORDS	1
#define HC_HOLDS_INDEX		2
extern void hc_holds_keys(const char *key, size_t len, HcBytes *keys);

/*
 * Releases what aborted transactions have taken, forgets the marks of committed
 * ones, removes holds that ran out, and sends the events of those: if it is time,
 * or if a session has aborted.  To be called with nothing in flight and the fence
 * taken.  Raises what is about the connection; what Redis refuses is logged and
 * tried again later.
 */
extern void hc_holds_look(HcDatabase *db, HcConnection *conn, HcFence *fence);

/* When it is time. */
extern TimestampTz hc_holds_wake_at(HcDatabase *db);

#endif							/* HC_HOLDS_H */
