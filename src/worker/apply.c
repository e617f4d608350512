/*
 * apply.c
 *	  One batch: MULTI, its commands, the watermark, EXEC; and the replies.
 *
 * The watermark is written with GET, so that the same round trip tells whether
 * Redis still has what it acknowledged before.
 *
 * An error reply that is known to be about one op (wrong type, no permission on
 * that key) must not stop the others.  At execution Redis goes on by itself;
 * while queueing it discards the whole transaction, so the op is taken out and
 * the batch sent again.  Where several ops share a command, they are tried one
 * by one to find the guilty.  Any other error is about the server: it is raised
 * and the caller waits.
 */
#include "postgres.h"

#include "compat.h"
#include "settings.h"
#include "shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/apply.h"
#include "worker/wire.h"

/* Refusals come in floods: say it once, then again after this time. */
#define LOG_INTERVAL_MS		60000

/* A large batch gets more time, as on a line of 10 MB/s. */
#define SLOW_BYTES_PER_MS	10000

void
hc_apply_send(HcApply *apply, HcConnection *conn, HcBatch *batch,
			  const char *key, const char *text, const char *expected)
{
	StringInfoData head;
	StringInfoData tail;

	memset(apply, 0, sizeof(*apply));
	apply->conn = conn;
	apply->batch = batch;
	apply->expected = expected;
	apply->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  hc_command_timeout +
												  (batch ? batch->wire.len / SLOW_BYTES_PER_MS : 0));

	initStringInfo(&head);
	initStringInfo(&tail);
	hc_wire_append_array(&head, 1);
	hc_wire_append_bulk(&head, "MULTI", 5);
	if (text != NULL)
	{
		hc_wire_append_array(&tail, 4);
		hc_wire_append_bulk(&tail, "SET", 3);
		hc_wire_append_bulk(&tail, key, strlen(key));
		hc_wire_append_bulk(&tail, text, strlen(text));
	}
	else
		hc_wire_append_array(&tail, 2);
	hc_wire_append_bulk(&tail, "GET", 3);
	if (text == NULL)
		hc_wire_append_bulk(&tail, key, strlen(key));
	hc_wire_append_array(&tail, 1);
	hc_wire_append_bulk(&tail, "EXEC", 4);

	apply->in_flight = true;
	hc_connection_append_raw(conn, head.data, head.len, 1);
	if (batch != NULL && batch->n_commands > 0)
		hc_connection_append_raw(conn, batch->wire.data, batch->wire.len,
								 batch->n_commands);
	hc_connection_append_raw(conn, tail.data, tail.len, 2);
	pfree(head.data);
	pfree(tail.data);
}

/* Counts an op that Redis will never take, and says so now and then. */
static void
refuse(HcApply *apply, int slot, const char *message)
{
	static TimestampTz last_logged = 0;
	static uint64 n_unlogged = 0;
	TimestampTz now = GetCurrentTimestamp();
	char	   *key = hc_reply_clean(hc_batch_key(apply->batch, slot));
	char	   *words = hc_reply_clean(message);

	hc_shmem_count(HC_COUNT_REFUSED, 1);
	n_unlogged++;
	if (last_logged == 0 ||
		TimestampDifferenceExceeds(last_logged, now, LOG_INTERVAL_MS))
	{
		ereport(LOG,
				(errcode(hc_reply_sqlstate(message)),
				 errmsg("Redis refused a change of key \"%s\"", key),
				 errdetail_plural("%s; " UINT64_FORMAT " change refused since the last message.",
								  "%s; " UINT64_FORMAT " changes refused since the last message.",
								  (unsigned long) n_unlogged,
								  words, n_unlogged),
				 hc_reply_hint(message) ? errhint("%s", hc_reply_hint(message)) : 0));
		last_logged = now;
		n_unlogged = 0;
	}
	hc_shmem_set_error(hc_shmem_mine(),
					   psprintf("key \"%s\": %s", key, words));
}

/* Raises the error of a command that is not about one op. */
static void
raise_reply(HcApply *apply, const char *message)
{
	ereport(ERROR,
			(errcode(hc_reply_sqlstate(message)),
			 errmsg("Redis server \"%s\" does not take changes now",
					hc_connection_name(apply->conn)),
			 errdetail_internal("%s", hc_reply_clean(message)),
			 hc_reply_hint(message) ? errhint("%s", hc_reply_hint(message)) : 0));
}

static void
raise_protocol(HcApply *apply)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("unexpected reply from Redis server \"%s\"",
					hc_connection_name(apply->conn)),
			 errdetail("The reply to a transaction has not the expected form.")));
}

/*
 * Several ops shared a command that failed.  Such an error is about the key, so
 * usually all of them fail; those that do not are applied here.
 */
static void
apply_singly(HcApply *apply, int command)
{
	StringInfoData wire;
	List	   *slots = NIL;
	ListCell   *cell;
	TimestampTz deadline;

	initStringInfo(&wire);
	hc_wire_compile_singly(apply->batch, command, &wire, &slots);
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   hc_command_timeout);
	hc_connection_append_raw(apply->conn, wire.data, wire.len,
							 list_length(slots));
	foreach(cell, slots)
	{
		redisReply *reply = hc_connection_reply(apply->conn, deadline);

		if (reply->type != REDIS_REPLY_ERROR)
			continue;
		if (hc_reply_classify(reply->str) != HC_ERROR_OP)
			raise_reply(apply, reply->str);
		refuse(apply, lfirst_int(cell), reply->str);
	}
	pfree(wire.data);
	list_free(slots);
}

/* A command was refused before EXEC. */
static void
queue_refusal(HcApply *apply, int command, const char *message)
{
	apply->queue_error = true;
	if (hc_reply_classify(message) != HC_ERROR_OP)
		raise_reply(apply, message);

	if (apply->batch->commands[command].n_ops > 1)
		apply->batch->single = true;	/* find the guilty in the next attempt */
	else
	{
		int			slot = apply->batch->order[apply->batch->commands[command].first];

		if (hc_batch_remove(apply->batch, slot))
			refuse(apply, slot, message);
	}
}

static HcApplyResult
compare_watermark(HcApply *apply, const redisReply *reply)
{
	if (reply->type == REDIS_REPLY_NIL)
		return apply->expected ? HC_APPLY_LOST : HC_APPLY_DONE;
	if (reply->type == REDIS_REPLY_ERROR)
		raise_reply(apply, reply->str);
	if (reply->type != REDIS_REPLY_STRING)
		raise_protocol(apply);
	if (apply->expected != NULL && reply->len == strlen(apply->expected) &&
		memcmp(reply->str, apply->expected, reply->len) == 0)
		return HC_APPLY_DONE;
	strlcpy(apply->found, reply->str, sizeof(apply->found));
	return HC_APPLY_FOREIGN;
}

static HcApplyResult
executed(HcApply *apply, const redisReply *reply)
{
	int			n_commands = apply->batch ? apply->batch->n_commands : 0;
	HcApplyResult result;
	int			i;

	if (reply->type == REDIS_REPLY_ERROR)
	{
		if (!apply->queue_error)
			raise_reply(apply, reply->str);
		hc_wire_compile(apply->batch);
		return HC_APPLY_AGAIN;
	}
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != (size_t) n_commands + 1)
		raise_protocol(apply);

	result = compare_watermark(apply, reply->element[n_commands]);
	for (i = 0; i < n_commands; i++)
	{
		const char *message = reply->element[i]->str;

		if (reply->element[i]->type != REDIS_REPLY_ERROR)
			continue;
		if (hc_reply_classify(message) != HC_ERROR_OP)
		{
			strlcpy(apply->problem, hc_reply_clean(message),
					sizeof(apply->problem));
			if (apply->expected != NULL)
				strlcpy(apply->found, apply->expected, sizeof(apply->found));
			return HC_APPLY_UNSURE;
		}
		if (apply->batch->commands[i].n_ops > 1)
			apply_singly(apply, i);
		else
			refuse(apply, apply->batch->order[apply->batch->commands[i].first],
				   message);
	}
	return result;
}

/* One reply; its place tells what it must be. */
static HcApplyResult
take(HcApply *apply, const redisReply *reply)
{
	int			n_commands = apply->batch ? apply->batch->n_commands : 0;
	int			place = apply->n_replies++;

	if (place == n_commands + 2)
	{
		apply->in_flight = false;
		return executed(apply, reply);
	}
	if (reply->type == REDIS_REPLY_ERROR)
	{
		if (place == 0 || place == n_commands + 1)
			raise_reply(apply, reply->str);
		queue_refusal(apply, place - 1, reply->str);
	}
	else if (reply->type != REDIS_REPLY_STATUS)
		raise_protocol(apply);
	return HC_APPLY_PENDING;
}

/* Takes the reply and frees it, whatever happens. */
static HcApplyResult
take_and_free(HcApply *apply, redisReply *reply)
{
	volatile HcApplyResult result = HC_APPLY_PENDING;

	PG_TRY();
	{
		result = take(apply, reply);
	}
	PG_CATCH();
	{
		freeReplyObject(reply);
		PG_RE_THROW();
	}
	PG_END_TRY();
	freeReplyObject(reply);
	return result;
}

HcApplyResult
hc_apply_poll(HcApply *apply)
{
	redisReply *reply;

	while (hc_connection_poll(apply->conn, &reply))
	{
		HcApplyResult result = take_and_free(apply, reply);

		if (result != HC_APPLY_PENDING)
			return result;
	}
	if (GetCurrentTimestamp() > apply->deadline)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("Redis server \"%s\" did not answer in time",
						hc_connection_name(apply->conn)),
				 errdetail("It took longer than hybrid_cache.command_timeout.")));
	return HC_APPLY_PENDING;
}
