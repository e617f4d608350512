/*
 * consumer_list.c
 *	  The view hybrid_cache.consumers: how far each consumer is, and what is wrong.
 *
 * What a row says is asked of the table; how much is still to come, of Redis, where
 * that answers.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "inbound/roster.h"
#include "inbound/stream_info.h"
#include "miscadmin.h"
#include "session/session.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define NATTS			16

PG_FUNCTION_INFO_V1(hybrid_cache_consumer_list);

static const char *
state_of(const HcConsumer *consumer)
{
	if (consumer->copied)
		return "copied";
	if (consumer->paused)
		return "paused";
	return consumer->error != NULL ? "failing" : "active";
}

/* What XINFO says about a stream; NULL if it says nothing. */
static const redisReply *
inform(const char *what, const text *stream)
{
	HcArguments args;
	const redisReply *reply;
	ErrorData  *error;

	if (hc_redis_url == NULL || hc_redis_url[0] == '\0')
		return NULL;
	hc_arguments_begin(&args, "XINFO");
	hc_arguments_add_literal(&args, what);
	hc_arguments_add_key(&args, stream);
	reply = hc_session_try(&args, &error);
	return reply == NULL || reply->type != REDIS_REPLY_ARRAY ? NULL : reply;
}

/* How many messages the group has still to give, as an integer; NULL: not known. */
static const redisReply *
find_lag(const HcConsumer *consumer, const redisReply *groups)
{
	const redisReply *group = hc_stream_info_group(groups, consumer->name);

	return group == NULL ? NULL :
		hc_stream_info_field(group, "lag", REDIS_REPLY_INTEGER);
}

/*
 * Sets lag, the number of messages that wait, and behind, the time between the last
 * one that is done and the last one in the stream.  Null: Redis does not say.
 */
static void
set_lag(const HcConsumer *consumer, Datum *lag, bool *lag_is_null,
		Datum *behind, bool *behind_is_null)
{
	text	   *stream = cstring_to_text(consumer->stream);
	const redisReply *info = inform("STREAM", stream);
	const redisReply *value;
	HcMessageId last;
	Interval   *time;

	*lag_is_null = *behind_is_null = true;
	if (info == NULL || !hc_stream_info_id(info, "last-generated-id", &last))
		return;

	time = palloc0(sizeof(Interval));
	if (hc_message_compare(last, consumer->position) <= 0)
	{
		*lag = Int64GetDatum(0);
		*lag_is_null = false;
	}
	else
	{
		if (hc_message_is_zero(consumer->position))
			value = hc_stream_info_field(info, "length", REDIS_REPLY_INTEGER);
		else
		{
			const redisReply *groups = inform("GROUPS", stream);

			value = groups == NULL ? NULL : find_lag(consumer, groups);
			time->time = (int64) (last.ms - consumer->position.ms) * 1000;
		}
		*lag_is_null = value == NULL;
		if (value != NULL)
			*lag = Int64GetDatum(value->integer);
		if (hc_message_is_zero(consumer->position))
			return;
	}
	*behind = IntervalPGetDatum(time);
	*behind_is_null = false;
}

static void
put_consumer(ReturnSetInfo *result, const HcConsumer *consumer)
{
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {0};
	char		position[HC_MESSAGE_ID_SIZE];
	char	   *role = GetUserNameFromId(consumer->role, true);
	int			i = 0;

	hc_message_format_id(consumer->position, position);
	values[i++] = DirectFunctionCall1(namein, CStringGetDatum(consumer->name));
	values[i++] = CStringGetTextDatum(consumer->stream);
	values[i++] = CStringGetTextDatum(consumer->handler);
	nulls[i] = role == NULL;
	values[i++] = role == NULL ? (Datum) 0 :
		DirectFunctionCall1(namein, CStringGetDatum(role));
	values[i++] = CStringGetTextDatum(state_of(consumer));
	values[i++] = CStringGetTextDatum(position);
	set_lag(consumer, &values[i], &nulls[i], &values[i + 1], &nulls[i + 1]);
	i += 2;
	values[i++] = Int64GetDatum(consumer->processed);
	values[i++] = Int64GetDatum(consumer->dead);
	values[i++] = Int32GetDatum(consumer->batch);
	values[i++] = Int32GetDatum(consumer->max_attempts);
	values[i++] = Int32GetDatum(consumer->attempts);
	nulls[i] = nulls[i + 1] = nulls[i + 2] = consumer->error == NULL;
	if (consumer->error != NULL)
	{
		values[i] = CStringGetTextDatum(consumer->error);
		values[i + 1] = CStringGetTextDatum(consumer->sqlstate);
		values[i + 2] = TimestampTzGetDatum(consumer->error_at);
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * consumer_list(): the rows of the view hybrid_cache.consumers
 */
Datum
hybrid_cache_consumer_list(PG_FUNCTION_ARGS)
{
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, hc_roster_read())
		put_consumer((ReturnSetInfo *) fcinfo->resultinfo, lfirst(lc));
	return (Datum) 0;
}
