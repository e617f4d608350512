/*
 * apply.c
 *	  One batch: MULTI, its commands, the watermark, EXEC, the fence; and the
 *	  replies.
 *
 * The watermark is written with GET, so that the same round trip tells whether
 * Redis still has what it acknowledged before.
 *
 * An error reply that is known to be about one op (wrong type, no permission on
 * that key) must not stop the others.  At execution Redis goes on by itself;
 * while queueing it discards the whole transaction, so the op is taken out and
 * the batch sent again.  Where several ops share a command, they are sent again
 * one by one to find the guilty.  Any other error is about the server: it is raised
 * and the caller waits.
 *
 * What was executed with the watermark is never executed again if there are
 * events in it.  So an event that fails then is given up whatever the reason.
 */
#include "postgres.h"

#include "broken.h"
#include "compat.h"
#include "settings.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/apply.h"
#include "worker/event_slot.h"
#include "worker/letter.h"
#include "worker/wire.h"

/* A large batch gets more time, as on a line of 10 MB/s. */
#define SLOW_BYTES_PER_MS	10000

void
hc_apply_send(HcApply *apply, HcConnection *conn, HcFence *fence,
			  HcBatch *batch, const char *key, const char *text,
			  const char *expected)
{
	StringInfoData head;
	StringInfoData tail;

	memset(apply, 0, sizeof(*apply));
	apply->conn = conn;
	apply->fence = fence;
	apply->batch = batch;
	apply->n_commands = batch ? batch->n_commands : 0;
	apply->text = text;
	apply->expected = expected;
	apply->renewing = hc_fence_is_due(fence);
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
	if (apply->renewing)
		hc_fence_append_renewal(fence, &tail);
	hc_wire_append_array(&tail, 1);
	hc_wire_append_bulk(&tail, "EXEC", 4);
	hc_fence_append_guards(fence, &tail);

	apply->in_flight = true;
	hc_connection_append_raw(conn, head.data, head.len, 1);
	if (batch != NULL && batch->n_commands > 0)
		hc_connection_append_raw(conn, batch->wire.data, batch->wire.len,
								 batch->n_commands);
	hc_connection_append_raw(conn, tail.data, tail.len,
							 2 + (apply->renewing ? 1 : 0) + HC_FENCE_GUARDS);
	pfree(head.data);
	pfree(tail.data);
}

bool
hc_apply_is_second(const HcApply *apply)
{
	return apply->expected == apply->text;
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

/* The first slot of a command. */
static int
first_op(HcApply *apply, int command)
{
	return apply->batch->order[apply->batch->commands[command].first];
}

/* Is it an event, and the error about that? */
static bool
is_guilty_event(HcApply *apply, int slot, const char *message, bool queueing)
{
	const HcSlot *s = &apply->batch->slots[slot];

	return hc_op_is_event(s->kind) && hc_event_slot_is_guilty(s, message, queueing);
}

/* A command was refused before EXEC. */
static void
queue_refusal(HcApply *apply, int command, const char *message)
{
	HcErrorClass class = hc_reply_classify(message);
	int			slot;

	/* this can be one that is not of the batch */
	apply->queue_error = true;
	if (class == HC_ERROR_FULL)
	{
		apply->full = true;
		return;
	}
	slot = first_op(apply, command);
	if (class != HC_ERROR_OP && !is_guilty_event(apply, slot, message, true))
		raise_reply(apply, message);

	if (apply->batch->commands[command].n_ops > 1)
		apply->batch->single = true;	/* find the guilty in the next attempt */
	else if (hc_batch_remove(apply->batch, slot))
		hc_letter_add(apply->batch, slot, message);
}

static HcApplyResult
compare_watermark(HcApply *apply, const redisReply *reply)
{
	if (hc_breaks(HC_BREAK_WATERMARK))
		return HC_APPLY_DONE;
	if (reply->type == REDIS_REPLY_NIL)
		return apply->expected ? HC_APPLY_LOST : HC_APPLY_DONE;
	if (reply->type == REDIS_REPLY_ERROR)
	{
		if (hc_reply_sqlstate(reply->str) != ERRCODE_WRONG_OBJECT_TYPE)
			raise_reply(apply, reply->str);
		strlcpy(apply->found, "(not a string)", sizeof(apply->found));
		return HC_APPLY_FOREIGN;
	}
	if (reply->type != REDIS_REPLY_STRING)
		raise_protocol(apply);
	if (apply->expected != NULL && reply->len == strlen(apply->expected) &&
		memcmp(reply->str, apply->expected, reply->len) == 0)
		return HC_APPLY_DONE;
	strlcpy(apply->found, reply->str, sizeof(apply->found));
	return HC_APPLY_FOREIGN;
}

/* What is left of a second attempt: the rest of the batch is applied. */
static void
compile_second(HcApply *apply)
{
	const HcCommand *sent = apply->batch->commands;
	List	   *commands = NIL;
	int			i;

	/* an op can have several commands in a row */
	for (i = 0; i < apply->n_commands; i++)
	{
		if (i == 0 || sent[i].first != sent[i - 1].first)
			commands = lappend_int(commands, i);
	}
	hc_wire_compile_again(apply->batch, commands);
	apply->unfinished = true;
	list_free(commands);
}

static HcApplyResult
executed(HcApply *apply, const redisReply *reply)
{
	int			n_commands = apply->n_commands;
	List	   *shared = NIL;
	HcApplyResult result;
	int			i;

	if (reply->type == REDIS_REPLY_ERROR)
	{
		if (apply->full || hc_reply_classify(reply->str) == HC_ERROR_FULL)
			return HC_APPLY_FULL;
		if (!apply->queue_error)
			raise_reply(apply, reply->str);
		if (hc_apply_is_second(apply))
			compile_second(apply);
		else
			hc_wire_compile(apply->batch);
		return HC_APPLY_AGAIN;
	}
	if (reply->type == REDIS_REPLY_NIL)
		return HC_APPLY_FENCED;
	if (reply->type != REDIS_REPLY_ARRAY ||
		reply->elements != (size_t) n_commands + 1 + (apply->renewing ? 1 : 0))
		raise_protocol(apply);

	result = compare_watermark(apply, reply->element[n_commands]);
	if (apply->renewing)
		hc_fence_renewed(apply->fence, reply->element[n_commands + 1]);
	for (i = 0; i < n_commands; i++)
	{
		const char *message = reply->element[i]->str;

		if (reply->element[i]->type != REDIS_REPLY_ERROR || hc_breaks(HC_BREAK_REPLY))
			continue;
		if (hc_reply_classify(message) != HC_ERROR_OP &&
			!is_guilty_event(apply, first_op(apply, i), message, false))
		{
			strlcpy(apply->problem, hc_reply_clean(message),
					sizeof(apply->problem));
			if (apply->expected != NULL)
				strlcpy(apply->found, apply->expected, sizeof(apply->found));
			apply->unfinished = true;
			result = HC_APPLY_UNSURE;
		}
		else if (apply->batch->commands[i].n_ops > 1)
			shared = lappend_int(shared, i);
		else
			hc_letter_add(apply->batch, first_op(apply, i), message);
	}

	/*
	 * Several ops shared a command that failed.  Such an error is about the
	 * key, so usually all of them fail; those that do not are applied by the
	 * next attempt, which has only them.
	 */
	if (shared != NIL && result == HC_APPLY_DONE)
	{
		hc_wire_compile_again(apply->batch, shared);
		apply->expected = apply->text;
		apply->unfinished = true;
		result = HC_APPLY_AGAIN;
	}
	list_free(shared);
	return result;
}

/* All replies have come. */
static HcApplyResult
finished(HcApply *apply, const redisReply *reply)
{
	apply->in_flight = false;
	if (reply->type == REDIS_REPLY_ERROR)
		raise_reply(apply, reply->str);
	apply->state = hc_fence_check(apply->fence, reply);
	if (apply->state != HC_FENCE_OURS)
		return HC_APPLY_FENCED;
	if (apply->result == HC_APPLY_FENCED)
		apply->state = HC_FENCE_TAKEN;	/* and given back */
	return apply->result;
}

/* One reply; its place tells what it must be. */
static HcApplyResult
take(HcApply *apply, const redisReply *reply)
{
	int			place = apply->n_replies++;
	int			exec = apply->n_commands + 2 + (apply->renewing ? 1 : 0);

	if (place == exec)
	{
		apply->result = executed(apply, reply);
		return HC_APPLY_PENDING;
	}
	if (place == exec + HC_FENCE_GUARDS)
		return finished(apply, reply);
	if (reply->type == REDIS_REPLY_ERROR)
	{
		/* what is not one of the batch's ops can have no op's misfortune */
		if ((place == 0 || place > apply->n_commands) &&
			hc_reply_classify(reply->str) != HC_ERROR_FULL)
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
