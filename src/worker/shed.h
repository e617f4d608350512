/*
 * shed.h
 *	  What to do while Redis has no memory left: entries that wait to change are
 *	  removed, since a missing entry is true and a stale one is not.
 */
#ifndef HC_SHED_H
#define HC_SHED_H

#include "redis/connection.h"
#include "worker/batch.h"
#include "worker/feed.h"
#include "worker/fence.h"

typedef enum HcShedState
{
	HC_SHED_NONE,
	HC_SHED_WAITING,			/* no memory: changes are not sent */
	HC_SHED_TRYING				/* they are sent again, to see */
} HcShedState;

typedef struct HcShed
{
	HcShedState state;
	TimestampTz retry_at;		/* WAITING: until then */
	int			retry_ms;
	HcFeed	   *feed;			/* what comes after the entries that were
								 * removed; NULL: none were since the watermark
								 * has moved */
	HcBatch    *batch;
	bool		unable;			/* Redis does not let us */
	uint64		n_removed;		/* since that was said last */
	TimestampTz said_at;		/* that Redis has no memory; 0: never */
	bool		said;			/* ... and not yet that it has some again */
} HcShed;

/* Its batch lives in the current context. */
extern void hc_shed_init(HcShed *shed);

/* Redis has refused a batch: it and all that follow wait for a while. */
extern void hc_shed_begin(HcShed *shed, HcConnection *conn);

/* Is it time to send changes again?  Then the state is TRYING. */
extern bool hc_shed_is_over(HcShed *shed);

/*
 * WAITING: removes from Redis what the transactions after the watermark change,
 * for a while; returns what the feed said last.  text is the watermark as it
 * is in Redis under this key, NULL: lost, and with it the entries.  Keeps the lease.  Raises what reading WAL and
 * Redis raise.
 */
extern HcFeedResult hc_shed_work(HcShed *shed, HcConnection *conn,
								 HcFence *fence, const char *key,
								 const HcWatermark *mark, const char *text);

/* Redis has taken changes, and the watermark may have moved. */
extern void hc_shed_end(HcShed *shed, HcConnection *conn);

/* The connection is closed; another one begins anew. */
extern void hc_shed_close(HcShed *shed);

#endif							/* HC_SHED_H */
