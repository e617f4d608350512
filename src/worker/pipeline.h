/*
 * pipeline.h
 *	  The way of changes from the WAL into one Redis server.
 */
#ifndef HC_PIPELINE_H
#define HC_PIPELINE_H

#include "redis/connection.h"
#include "shmem.h"
#include "worker/apply.h"
#include "worker/due.h"
#include "worker/feed.h"
#include "worker/shed.h"

typedef struct HcPipeline
{
	HcDatabase *db;
	char		key[HC_WATERMARK_SIZE];
	HcConnection *conn;			/* NULL: closed, and then no feed either */
	HcFence		fence;
	HcFeed	   *feed;
	HcFeedResult fed;			/* what the feed said last */
	HcBatch    *filling;
	HcBatch    *sent;			/* in flight if apply says so */
	HcApply		apply;
	bool		reading;		/* WAL is being read: an error is about that */
	bool		probing;		/* in flight is only a look at the watermark */
	TimestampTz filling_since;	/* 0: the batch is empty */

	HcDue		due;
	TimestampTz sampled;		/* what was committed before that is applied ... */
	XLogRecPtr	sampled_lsn;	/* ... once everything up to there is; or invalid */

	TimestampTz owners_at;		/* look then whose the key templates are */

	HcWatermark acked;			/* in Redis for sure */
	char		acked_text[HC_WATERMARK_SIZE];
	char		sent_text[HC_WATERMARK_SIZE];
	bool		lost;			/* the watermark is known to be absent */
	bool		unfinished;		/* ops before the watermark are on their way */
	int			idle_looks;		/* since the watermark moved */
	HcShed		shed;			/* while Redis has no memory left */

	/* for the caller, who resets them */
	bool		answered;		/* something came back as it should */
	bool		reopen;			/* an error that is none: open it again at once */
	int			n_transactions; /* that were acknowledged */

	bool		lacks_replicas; /* a commit waits for them: ask again soon */
} HcPipeline;

/* A closed pipeline for the current database; lives in the current context. */
extern HcPipeline *hc_pipeline_create(HcDatabase *db);

/*
 * Opens the replication slot, connects to Redis and finds out where to go on.
 * With an empty URL only the slot is opened, so that the WAL is kept, and conn
 * stays NULL.  Opens transactions of its own.  Raises whatever goes wrong; then
 * and after an error in any function below hc_pipeline_close() is due.
 */
extern void hc_pipeline_open(HcPipeline *line, const char *redis_url);
extern void hc_pipeline_close(HcPipeline *line);

/*
 * Reads, sends and collects until there is nothing to do but wait, or for a
 * while; then fed is HC_FEED_MORE.
 */
extern void hc_pipeline_work(HcPipeline *line);

/* When there is something to do although nobody says so; DT_NOEND: never. */
extern TimestampTz hc_pipeline_wake_at(HcPipeline *line);

/* Is nothing in flight, and nothing to be sent? */
extern bool hc_pipeline_is_idle(HcPipeline *line);

/*
 * For an idle one: looks whether Redis still has the
 * watermark, or moves it on.
 */
extern void hc_pipeline_look(HcPipeline *line);

/*
 * The end, for good (forget) or until another server process goes on: takes
 * everything of ours out of Redis, or only lets other copies of the database
 * in.  For one that is open or not; raises nothing, and closes nothing.
 */
extern void hc_pipeline_leave(HcPipeline *line, bool forget);

/*
 * To be called before hc_pipeline_close() after an error: if reading WAL raised
 * it, the position up to which the WAL was read, else invalid.
 */
extern XLogRecPtr hc_pipeline_failed_at(HcPipeline *line);

#endif							/* HC_PIPELINE_H */
