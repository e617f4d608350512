/*
 * pipeline.c
 *	  From the WAL to Redis: reads, sends batches and looks at what comes back.
 *
 * While Redis works on one batch the next is filled.  What was acknowledged is
 * in Redis itself, as the watermark, so nothing is kept here: after any error
 * the pipeline is closed, and the next one goes on where the watermark says.
 * Replaying is harmless to entries, since every op says what one is, not how it
 * changes.  Events are applied together with the watermark, and so once.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "broken.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/gap.h"
#include "worker/holds.h"
#include "worker/letter.h"
#include "worker/owner.h"
#include "worker/pipeline.h"
#include "worker/position.h"
#include "worker/replica.h"
#include "worker/slot.h"
#include "worker/wire.h"

/* Without news the watermark moves on after this much WAL, or so many looks. */
#define IDLE_WAL_BYTES		(1024 * 1024)
#define IDLE_LOOKS			10

/* Without a batch that grows further, one is sent after this time. */
#define PATIENCE_US			2000

/* However much there is to read, others are looked after every so often. */
#define TURN_MS				100

/* While a mapping may not be written, how often to look whether it may. */
#define OWNERS_MS			5000

HcPipeline *
hc_pipeline_create(HcDatabase *db)
{
	HcPipeline *line = palloc0(sizeof(HcPipeline));
	HcWatermark identity;

	identity.system = GetSystemIdentifier();
	identity.database = MyDatabaseId;
	hc_watermark_key(&identity, line->key);
	hc_fence_init(&line->fence);
	line->db = db;
	line->filling = hc_batch_create();
	line->sent = hc_batch_create();
	hc_shed_init(&line->shed);
	return line;
}

XLogRecPtr
hc_pipeline_failed_at(HcPipeline *line)
{
	return line->reading ? hc_feed_position(line->feed) : InvalidXLogRecPtr;
}

void
hc_pipeline_close(HcPipeline *line)
{
	pg_atomic_write_u32(&line->db->connected, 0);
	line->apply.in_flight = false;
	hc_shed_close(&line->shed);
	line->lacks_replicas = false;
	line->reading = false;
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
	StringInfoData wire;

	initStringInfo(&wire);
	hc_wire_append_array(&wire, 3);
	hc_wire_append_bulk(&wire, "SET", 3);
	hc_wire_append_bulk(&wire, line->key, strlen(line->key));
	hc_wire_append_bulk(&wire, text, strlen(text));
	hc_fence_run(&line->fence, line->conn, &wire, 1);
	pfree(wire.data);
}

/* Nothing is in flight: looks which mappings may be written. */
static void
look_for_owners(HcPipeline *line)
{
	hc_owner_refresh(&line->fence, line->conn);
	line->owners_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  OWNERS_MS);
}

/*
 * The watermark in Redis; NULL: there is none.  What is no string under that
 * key is as good as a text that cannot be read.
 */
static const char *
read_watermark(HcPipeline *line, size_t *len)
{
	const char *argv[2] = {"GET", line->key};
	size_t		argvlen[2] = {3, strlen(line->key)};
	redisReply *reply;

	hc_connection_append(line->conn, 2, argv, argvlen);
	reply = hc_connection_reply(line->conn, command_deadline());
	*len = 0;
	if (reply->type == REDIS_REPLY_NIL)
		return NULL;
	if (reply->type == REDIS_REPLY_ERROR &&
		hc_reply_sqlstate(reply->str) == ERRCODE_WRONG_OBJECT_TYPE)
		return "";
	hc_reply_check(reply, hc_connection_name(line->conn));
	*len = hc_reply_string(reply)->len;
	return reply->str;
}

/* Reads on from what was acknowledged. */
static void
open_feed(HcPipeline *line)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	line->feed = hc_feed_open(&line->acked);
	line->fed = HC_FEED_MORE;
	MemoryContextSwitchTo(old);
}

/*
 * Redis closes the connection on a longer string, without a word about which.
 * Where it does not tell its limit, there is none but that of capture.
 */
static void
ask_longest(HcPipeline *line)
{
	const char *argv[3] = {"CONFIG", "GET", "proto-max-bulk-len"};
	size_t		argvlen[3] = {6, 3, 18};
	redisReply *reply;

	hc_connection_append(line->conn, 3, argv, argvlen);
	reply = hc_connection_reply(line->conn, command_deadline());
	hc_batch_longest = SIZE_MAX;
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
		reply->element[1]->type == REDIS_REPLY_STRING)
		hc_batch_longest = strtoull(reply->element[1]->str, NULL, 10);
	if (hc_batch_longest == 0)
		hc_batch_longest = SIZE_MAX;
}

void
hc_pipeline_open(HcPipeline *line, const char *redis_url)
{
	const char *problem;
	const char *gap;
	const char *stored;
	size_t		len;
	HcUrl		url;

	hc_position_init(MyDatabaseId);
	hc_breaker_assign(&line->db->breaker, redis_url);
	if (redis_url[0] == '\0')
		return;

	if (!hc_url_parse(redis_url, &url, &problem))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"%s\"",
						"hybrid_cache.redis_url"),
				 errdetail("%s", problem)));
	line->conn = hc_connection_open(&url, hc_connect_timeout);
	hc_breaker_answered(&line->db->breaker);

	/* first of all: what is read and decided below must stay so */
	hc_fence_take(&line->fence, line->conn);
	ask_longest(line);
	stored = read_watermark(line, &len);
	if (hc_breaks(HC_BREAK_WATERMARK) && line->acked_text[0] != '\0')
	{
		stored = line->acked_text;
		len = strlen(stored);
	}
	gap = hc_position_find(MyDatabaseId, stored, len, &line->acked);

	/*
	 * From now on it must be there.  What is owed is recorded first: dying in
	 * between only finds the same again.
	 */
	hc_watermark_format(&line->acked, line->acked_text);
	if (gap != NULL)
		hc_gap_owe(gap);
	if (line->unfinished)
		hc_gap_owe("The connection to Redis broke while refused changes were tried again.");
	line->unfinished = false;
	if (stored == NULL || strcmp(stored, line->acked_text) != 0)
		store_watermark(line, line->acked_text);
	line->lost = false;
	look_for_owners(line);
	hc_due_init(&line->due);
	line->sampled_lsn = InvalidXLogRecPtr;

	open_feed(line);
	/* what replicas had of a server before says nothing about those of this one */
	pg_atomic_write_u64(&line->db->replicated, InvalidXLogRecPtr);
	hc_replica_publish(line->db, line->acked.applied);
	pg_atomic_write_u32(&line->db->ours, 1);
	pg_atomic_write_u32(&line->db->connected, 1);

	/* waiting for replies may have eaten a wake-up */
	SetLatch(MyLatch);
}

/* All that committed up to lsn is in Redis. */
static void
publish_applied(HcPipeline *line, XLogRecPtr lsn)
{
	if (pg_atomic_read_u64(&line->db->applied) != lsn)
		hc_replica_publish(line->db, lsn);
}

static void
send_batch(HcPipeline *line)
{
	HcBatch    *batch = line->filling;

	hc_wire_compile(batch);
	hc_watermark_format(&batch->mark, line->sent_text);
	hc_apply_send(&line->apply, line->conn, &line->fence, batch, line->key,
				  line->sent_text, line->lost ? NULL : line->acked_text);
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
	hc_breaker_answered(&line->db->breaker);
	hc_shed_end(&line->shed, line->conn);
	if (line->probing)
		return;
	hc_due_expect(&line->due, batch->first_due);
	hc_letter_write(batch);
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
put_back(HcPipeline *line, const char *message, const char *hint)
{
	char		found[HC_WATERMARK_SIZE];
	char		problem[sizeof(line->apply.problem)];

	strlcpy(found, line->apply.found, sizeof(found));
	strlcpy(problem, line->apply.problem, sizeof(problem));
	store_watermark(line, found);
	line->unfinished = false;
	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 errmsg("%s", message),
			 problem[0] ? errdetail_internal("%s", problem) :
			 errdetail("It is \"%s\", and should be \"%s\".",
					   hc_reply_clean(found), line->acked_text),
			 hint ? errhint("%s", hint) : 0));
}

/*
 * Of a batch that is applied, ops have an error that is not known to be theirs.
 * The batch comes again, but for events, which must not, and a second attempt, whose
 * watermark is there already: then the entries are left to a comparison.
 */
static void
leave_unsure(HcPipeline *line)
{
	if (!hc_batch_has_events(line->sent) && !hc_apply_is_second(&line->apply))
		put_back(line, "Redis refused a change for a reason that may pass", NULL);
	hc_gap_owe("Redis refused a change for a reason that may pass.");
	line->unfinished = false;
	acknowledge(line);
}

/* Redis has no memory for the batch. */
static void
starve(HcPipeline *line)
{
	/* a second attempt: the watermark is that of the first */
	if (hc_apply_is_second(&line->apply))
	{
		line->unfinished = true;
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("Redis server \"%s\" has no memory left",
						hc_connection_name(line->conn)),
				 errhint("%s", hc_reply_hint("OOM "))));
	}
	hc_shed_begin(&line->shed, line->conn);
	line->fed = HC_FEED_MORE;
}

/* Looks at the replies that have come. */
static void
collect(HcPipeline *line)
{
	HcApplyResult result = hc_apply_poll(&line->apply);

	if (result != HC_APPLY_PENDING)
		line->unfinished = line->apply.unfinished;
	switch (result)
	{
		case HC_APPLY_PENDING:
			break;
		case HC_APPLY_DONE:
			acknowledge(line);
			break;
		case HC_APPLY_LOST:
			hc_gap_owe("Redis has lost its data.");
			if (line->probing)
				line->lost = true;
			acknowledge(line);
			break;
		case HC_APPLY_AGAIN:
			/* what was refused of a batch that is applied comes not again */
			if (line->unfinished)
				hc_letter_write(line->sent);
			hc_apply_send(&line->apply, line->conn, &line->fence, line->sent,
						  line->key, line->sent_text, line->apply.expected);
			break;
		case HC_APPLY_FULL:
			starve(line);
			break;
		case HC_APPLY_FOREIGN:
			put_back(line, "the watermark in Redis is not the one that was written last",
					 "Redis has gone back to older data, or somebody writes keys that begin with \"hybrid_cache:\". The worker goes on from the watermark that is there.");
			break;
		case HC_APPLY_UNSURE:
			leave_unsure(line);
			break;
		case HC_APPLY_FENCED:

			/* what is missing now will be seen after connecting again */
			line->reopen = line->apply.state == HC_FENCE_GONE;
			hc_fence_require(line->apply.state, line->conn);
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

	if (published > GetFlushRecPtr(NULL) && !hc_breaks(HC_BREAK_FLUSH))
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

/*
 * While Redis has no memory nothing is sent; returns true.  After that all that
 * was not acknowledged is read and sent again.
 */
static bool
is_shedding(HcPipeline *line)
{
	if (hc_shed_is_over(&line->shed))
	{
		hc_batch_reset(line->filling);
		hc_batch_reset(line->sent);
		line->filling_since = 0;
		hc_feed_close(line->feed);
		line->feed = NULL;
		open_feed(line);
	}
	if (line->shed.state != HC_SHED_WAITING)
		return false;
	line->fed = hc_shed_work(&line->shed, line->conn, &line->fence, line->key,
							 &line->acked,
							 line->lost ? NULL : line->acked_text);
	return true;
}

/* Nothing is in flight, and all that was committed before now is applied. */
static void
look_for_due(HcPipeline *line, TimestampTz now)
{
	if (hc_due_work(&line->due, line->conn, &line->fence, now))
		line->fed = HC_FEED_MORE;
}

/*
 * The same for a worker that may not catch up for long: all that was committed
 * before the sample was taken is applied when what was flushed then is.  Not in the
 * middle of a transaction.
 */
static void
look_for_due_sample(HcPipeline *line)
{
	if (!XLogRecPtrIsInvalid(line->sampled_lsn))
	{
		if (line->apply.in_flight)
			return;
		if ((line->acked.applied < line->sampled_lsn ||
			 !XLogRecPtrIsInvalid(line->acked.cut)) && !hc_breaks(HC_BREAK_DUE))
			return;
		look_for_due(line, line->sampled);
	}
	line->sampled = GetCurrentTimestamp();
	flush_published(line);
	line->sampled_lsn = GetFlushRecPtr(NULL);
}

void
hc_pipeline_work(HcPipeline *line)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TURN_MS);
	TimestampTz now = GetCurrentTimestamp();
	XLogRecPtr	flushed;

	flush_published(line);
	if (is_shedding(line))
		return;
	flushed = GetFlushRecPtr(NULL);
	if (line->fed != HC_FEED_FULL)
		line->fed = HC_FEED_MORE;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (line->apply.in_flight)
			collect(line);
		if (line->shed.state == HC_SHED_WAITING)
			return;
		if (!line->apply.in_flight)
		{
			line->lacks_replicas = hc_replica_ask(line->db, line->conn);
			hc_holds_look(line->db, line->conn, &line->fence);
		}
		look_for_due_sample(line);
		if (line->fed == HC_FEED_MORE)
		{
			line->reading = true;
			line->fed = hc_feed_fill(line->feed, line->filling);
			line->reading = false;

			/* what is owed is noted before the watermark can pass it */
			hc_gap_owe_lost(hc_feed_take_unrepaired(line->feed));
			if (hc_feed_take_doubt(line->feed))
				hc_gap_owe("A transaction could not be applied as it was written.");
			if (line->filling_since == 0 && line->filling->n_ops > 0)
				line->filling_since = GetCurrentTimestamp();
		}
		if (line->fed == HC_FEED_MAPPED && !line->apply.in_flight)
		{
			look_for_owners(line);
			hc_feed_go_on(line->feed);
			line->fed = HC_FEED_MORE;
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

	if (line->fed == HC_FEED_END && !line->apply.in_flight)
	{
		caught_up(line, flushed);
		line->lacks_replicas = hc_replica_ask(line->db, line->conn);
		look_for_due(line, now);
		line->sampled = now;
		line->sampled_lsn = flushed;
	}
}

TimestampTz
hc_pipeline_wake_at(HcPipeline *line)
{
	TimestampTz holds_at = hc_holds_wake_at(line->db);

	if (line->shed.state == HC_SHED_WAITING)
		return line->shed.retry_at;

	/* nothing is done about it before that */
	if (line->apply.in_flight)
		return DT_NOEND;
	return line->fed == HC_FEED_END
		? Min(hc_due_wake_at(&line->due), holds_at) : holds_at;
}

bool
hc_pipeline_is_idle(HcPipeline *line)
{
	return line->shed.state != HC_SHED_WAITING &&
		!line->apply.in_flight && !line->filling->open &&
		line->filling->n_transactions == 0 && line->filling->n_slots == 0;
}

void
hc_pipeline_look(HcPipeline *line)
{
	HcWatermark mark;

	/* some may be waiting for who has locked the table */
	hc_letter_write(line->sent);

	/* the other database may have given up what we want */
	if (hc_owner_any_foreign && GetCurrentTimestamp() >= line->owners_at)
		look_for_owners(line);
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
		hc_apply_send(&line->apply, line->conn, &line->fence, NULL, line->key,
					  NULL, line->acked_text);
		line->probing = true;
	}
	collect(line);
}

void
hc_pipeline_leave(HcPipeline *line, bool forget)
{
	StringInfoData wire;

	if (line->conn == NULL)
		return;
	initStringInfo(&wire);
	hc_wire_append_array(&wire, 4);
	hc_wire_append_bulk(&wire, "UNLINK", 6);
	hc_wire_append_bulk(&wire, line->key, strlen(line->key));
	hc_wire_append_bulk(&wire, line->fence.lease_key, strlen(line->fence.lease_key));
	hc_wire_append_bulk(&wire, line->fence.key, strlen(line->fence.key));
	hc_fence_leave(&line->fence, line->conn, forget ? &wire : NULL);
	pfree(wire.data);
}
