/*
 * feed.h
 *	  From committed transactions to batches: what goes into which MULTI.
 */
#ifndef HC_FEED_H
#define HC_FEED_H

#include "worker/batch.h"
#include "worker/reader.h"

typedef enum HcFeedResult
{
	HC_FEED_FULL,				/* the batch takes no more, send it */
	HC_FEED_MORE,				/* there is more WAL, but look around first */
	HC_FEED_HELD,				/* the next transaction is not yet visible */
	HC_FEED_MAPPED,				/* the next one made or dropped a mapping; see
								 * hc_feed_go_on() */
	HC_FEED_END					/* nothing more is flushed now */
} HcFeedResult;

typedef struct HcFeed HcFeed;

/*
 * Goes on where a watermark says.  Lives in a memory context of its own below
 * the current one.
 */
extern HcFeed *hc_feed_open(const HcWatermark *mark);
extern void hc_feed_close(HcFeed *feed);

/*
 * It is only to know what changes: another feed will hand the same out to be
 * applied.  Events and records of the keeper are left out, and it is told
 * nothing.
 */
extern void hc_feed_look_ahead(HcFeed *feed);

/*
 * Adds transactions to the batch, a bounded amount per call, and sets its
 * watermark.  A transaction is never divided unless it has more than
 * hybrid_cache.atomic_ops ops.  Raises what reading WAL raises.
 */
extern HcFeedResult hc_feed_fill(HcFeed *feed, HcBatch *batch);

/*
 * After HC_FEED_MAPPED, when the caller has looked whom the key templates belong
 * to: the transaction can come.
 */
extern void hc_feed_go_on(HcFeed *feed);

/* The watermark that would hold if everything read so far were applied. */
extern void hc_feed_watermark(HcFeed *feed, HcWatermark *mark);

/* Everything before this position was read. */
extern XLogRecPtr hc_feed_position(HcFeed *feed);

/* Must the WAL be looked at although nobody says that there is news? */
extern bool hc_feed_must_poll(HcFeed *feed);

/*
 * Was something handed out since the last call that may leave an entry wrong:
 * damaged change records, a transaction too large to resolve?
 */
extern bool hc_feed_take_doubt(HcFeed *feed);

/*
 * The mappings (list of Oid) for which a record of the keeper could not be
 * handed out since the last call, and whose keeper will not notice by itself.
 */
extern List *hc_feed_take_unrepaired(HcFeed *feed);

#endif							/* HC_FEED_H */
