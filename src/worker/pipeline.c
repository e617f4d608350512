/*
 * pipeline.c
 *	  From the WAL to Redis: reads, sends batches and looks at what comes back.
 *
 * While Redis works on one batch the next is filled.  What was acknowledged is
 * in Redis itself, as the watermark, so nothing is kept here: after any error
 * the pipeline is closed, and the next one goes on where the watermark says.
 * Replaying is harmless, since every op says what an entry is, not how it
 * changes.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "capture/ledger.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "settings.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/pipeline.h"
#include "worker/position.h"
#include "worker/slot.h"
#include "worker/wire.h"

/* Without news the watermark moves on after this much WAL, or so many looks. */
#define IDLE_WAL_BYTES		(1024 * 1024)
#define IDLE_LOOKS			10

/* Without a batch that grows further, one is sent after this time. */
#define PATIENCE_US			2000

/* However much there is to read, others are looked after every so often. */
#define TURN_MS				100

HcPipeline *
hc_pipeline_create(HcDatabase *db)
{
	HcPipeline *line = palloc0(sizeof(HcPipeline));
	HcWatermark identity;

	identity.system = GetSystemIdentifier();
	identity.database = MyDatabaseId;
	hc_watermark_key(&identity, line->key);
	line->db = db;
	line->filling = hc_batch_create();
	line->sent = hc_batch_create();
	return line;
}

/* Redis may not have all changes, and they will not be read again. */
static void
owe_all(const char *reason)
{
	MemoryContext old = CurrentMemoryContext;

	ereport(LOG,
			(errmsg("%s may have missed changes: every mapping must be compared with its table",
					MyBgworkerEntry->bgw_name),
			 errdetail_internal("%s", reason)));
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	hc_owed_all(reason);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

void
hc_pipeline_close(HcPipeline *line)
{
	pg_atomic_write_u32(&line->db->connected, 0);
	line->apply.in_flight = false;
	if (line->feed != NULL)
	{
		hc_feed_close(line->feed);
		line->feed = NULL;
	}
	if (line->conn != NULL)
	{
		hc_connection_close(line->conn);
		line->conn = NULL;
	}
	hc_batch_reset(line->filling);
	hc_batch_reset(line->sent);
	line->filling_since = 0;
}

static TimestampTz
command_deadline(void)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									   hc_command_timeout);
}

static void
store_watermark(HcPipeline *line, const char *text)
{
	const char *argv[3] = {"SET", line->key, text};
	size_t		argvlen[3] = {3, strlen(line->key), strlen(text)};

	hc_connection_command(line->conn, command_deadline(), 3, argv, argvlen);
}

void
hc_pipeline_open(HcPipeline *line, const char *redis_url)
{
	const char *argv[2] = {"GET", line->key};
	size_t		argvlen[2] = {3, strlen(line->key)};
	const char *problem;
	const char *gap;
	redisReply *reply;
	HcUrl		url;
	MemoryContext old;

	hc_position_init(MyDatabaseId);
	if (redis_url[0] == '\0')
		return;

	if (!hc_url_parse(redis_url, &url, &problem))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"%s\"",
						"hybrid_cache.redis_url"),
				 errdetail("%s", problem)));
	line->conn = hc_connection_open(&url, hc_connect_timeout);
	reply = hc_connection_command(line->conn, command_deadline(), 2, argv,
								  argvlen);
	gap = hc_position_find(MyDatabaseId,
						   reply->type == REDIS_REPLY_STRING ? reply->str : NULL,
						   reply->type == REDIS_REPLY_STRING ? reply->len : 0,
						   &line->acked);

	/*
	 * From now on it must be there.  What is owed is recorded first: dying in
	 * between only finds the same again.
	 */
	hc_watermark_format(&line->acked, line->acked_text);
	if (gap != NULL)
		owe_all(gap);
	if (reply->type != REDIS_REPLY_STRING ||
		strcmp(reply->str, line->acked_text) != 0)
		store_watermark(line, line->acked_text);
	line->lost = false;

	old = MemoryContextSwitchTo(TopMemoryContext);
	line->feed = hc_feed_open(&line->acked);
	MemoryContextSwitchTo(old);
	line->fed = HC_FEED_MORE;
	pg_atomic_write_u64(&line->db->applied, line->acked.applied);
	pg_atomic_write_u32(&line->db->connected, 1);

	/* waiting for replies may have eaten a wake-up */
	SetLatch(MyLatch);
}

/* All that committed up to lsn is in Redis. */
static void
publish_applied(HcPipeline *line, XLogRecPtr lsn)
{
	if (pg_atomic_read_u64(&line->db->applied) != lsn)
	{
		pg_atomic_write_u64(&line->db->applied, lsn);
		ConditionVariableBroadcast(&line->db->applied_cv);
	}
}

static void
send_batch(HcPipeline *line)
{
	HcBatch    *batch = line->filling;

	hc_wire_compile(batch);
	hc_watermark_format(&batch->mark, line->sent_text);
	hc_apply_send(&line->apply, line->conn, batch, line->key, line->sent_text,
				  line->lost ? NULL : line->acked_text);
	line->probing = false;

	line->filling = line->sent;
	line->sent = batch;
	hc_batch_reset(line->filling);
	line->filling_since = 0;
}

static void
acknowledge(HcPipeline *line)
{
	HcBatch    *batch = line->sent;

	line->answered = true;
	if (line->probing)
		return;
	line->acked = batch->mark;
	strlcpy(line->acked_text, line->sent_text, sizeof(line->acked_text));
	line->lost = false;
	line->idle_looks = 0;
	hc_shmem_count(HC_COUNT_TRANSACTIONS, batch->n_transactions);
	hc_shmem_count(HC_COUNT_OPS, batch->n_ops);
	if (batch->n_ops > 0)
		hc_shmem_count(HC_COUNT_BATCHES, 1);
	line->n_transactions += batch->n_transactions;
	publish_applied(line, line->acked.applied);
}

/*
 * The batch went over data that is not what it should follow, or not all of it
 * was taken.  Redis gets the watermark back that was there, so that whoever
 * connects next begins there; this process does so after a pause.
 */
static void
put_back(HcPipeline *line, const char *message)
{
	char		found[HC_WATERMARK_SIZE];
	char		problem[sizeof(line->apply.problem)];

	strlcpy(found, line->apply.found, sizeof(found));
	strlcpy(problem, line->apply.problem, sizeof(problem));
	store_watermark(line, found);
	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 errmsg("%s", message),
			 problem[0] ? errdetail_internal("%s", problem) : 0));
}

/* Looks at the replies that have come. */
static void
collect(HcPipeline *line)
{
	switch (hc_apply_poll(&line->apply))
	{
		case HC_APPLY_PENDING:
			break;
		case HC_APPLY_DONE:
			acknowledge(line);
			break;
		case HC_APPLY_LOST:
			owe_all("Redis has lost its data.");
			if (line->probing)
				line->lost = true;
			acknowledge(line);
			break;
		case HC_APPLY_AGAIN:
			hc_apply_send(&line->apply, line->conn, line->sent, line->key,
						  line->sent_text,
						  line->lost ? NULL : line->acked_text);
			break;
		case HC_APPLY_FOREIGN:
			put_back(line, "the watermark in Redis was changed by somebody else");
			break;
		case HC_APPLY_UNSURE:
			put_back(line, "Redis refused a change for a reason that may pass");
			break;
	}
}

/* Is there a batch to be sent, and is it time? */
static bool
is_due(HcPipeline *line)
{
	if (line->filling->open ||
		(line->filling->n_transactions == 0 && line->filling->n_slots == 0))
		return false;
	if (line->fed != HC_FEED_MORE)
		return true;
	return GetCurrentTimestamp() - line->filling_since > PATIENCE_US;
}

/*
 * Commits with synchronous_commit = off are not durable yet, and only what is
 * durable may be applied.
 */
static void
flush_published(HcPipeline *line)
{
	XLogRecPtr	published = pg_atomic_read_u64(&line->db->published);

	if (published > GetFlushRecPtr(NULL))
		XLogFlush(published);
}

/* Nothing more to read, nothing in flight: all of the WAL is in Redis. */
static void
caught_up(HcPipeline *line, XLogRecPtr flushed)
{
	HcWatermark mark;

	hc_feed_watermark(line->feed, &mark);
	publish_applied(line, Max(mark.applied, flushed));
}

void
hc_pipeline_work(HcPipeline *line)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TURN_MS);
	XLogRecPtr	flushed;

	flush_published(line);
	flushed = GetFlushRecPtr(NULL);
	if (line->fed != HC_FEED_FULL)
		line->fed = HC_FEED_MORE;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (line->apply.in_flight)
			collect(line);
		if (line->fed == HC_FEED_MORE)
		{
			line->fed = hc_feed_fill(line->feed, line->filling);
			if (line->filling_since == 0 && line->filling->n_ops > 0)
				line->filling_since = GetCurrentTimestamp();
		}
		if (!line->apply.in_flight && is_due(line))
		{
			send_batch(line);
			if (line->fed == HC_FEED_FULL)
				line->fed = HC_FEED_MORE;
			collect(line);
		}
		if (line->fed != HC_FEED_MORE || GetCurrentTimestamp() >= until)
			break;
	}

	if (hc_feed_take_doubt(line->feed))
		owe_all("A transaction could not be applied as it was written.");
	if (line->fed == HC_FEED_END && !line->apply.in_flight)
		caught_up(line, flushed);
}

bool
hc_pipeline_is_idle(HcPipeline *line)
{
	return !line->apply.in_flight && !line->filling->open &&
		line->filling->n_transactions == 0 && line->filling->n_slots == 0;
}

void
hc_pipeline_look(HcPipeline *line)
{
	HcWatermark mark;

	hc_feed_watermark(line->feed, &mark);
	line->idle_looks++;
	if (line->lost ||
		mark.applied >= line->acked.applied + IDLE_WAL_BYTES ||
		(mark.applied > line->acked.applied && line->idle_looks >= IDLE_LOOKS))
	{
		line->filling->mark = mark;
		send_batch(line);
	}
	else
	{
		hc_apply_send(&line->apply, line->conn, NULL, line->key, NULL,
					  line->acked_text);
		line->probing = true;
	}
	collect(line);
}

void
hc_pipeline_forget(HcPipeline *line)
{
	const char *argv[2] = {"UNLINK", line->key};
	size_t		argvlen[2] = {6, strlen(line->key)};

	hc_connection_command(line->conn, command_deadline(), 2, argv, argvlen);
}
