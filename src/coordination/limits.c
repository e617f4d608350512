/*
 * limits.c
 *	  hybrid_cache.rate_limit(): how often something may happen.
 *
 * The limit is in Redis, by a script that other clients can use as well.  It is
 * not part of the transaction: an attempt that fails was one, too.
 *
 * A limit protects something, and Redis is not to take that away when it is down:
 * the caller says what holds then.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "redis/arguments.h"
#include "session/parameter.h"
#include "session/session.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* What limit keys are called, see src/lua/README.md. */
#define LIMIT_KEY	"limit"

#define NATTS		3

PG_FUNCTION_INFO_V1(hybrid_cache_rate_limit);

typedef enum OnError
{
	ON_ERROR_ALLOW,
	ON_ERROR_DENY,
	ON_ERROR_ERROR
} OnError;

static OnError
parse_on_error(const char *word)
{
	if (strcmp(word, "allow") == 0)
		return ON_ERROR_ALLOW;
	if (strcmp(word, "deny") == 0)
		return ON_ERROR_DENY;
	if (strcmp(word, "error") == 0)
		return ON_ERROR_ERROR;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid \"%s\" of hybrid_cache.rate_limit(): \"%s\"", "on_error", word),
			 errhint("It must be \"allow\", \"deny\" or \"error\".")));
}

static int32
integer_parameter(FunctionCallInfo fcinfo, int n, const char *name, int32 least)
{
	int32		value;

	hc_parameter_need(fcinfo, n, name, "rate_limit");
	value = PG_GETARG_INT32(n);
	if (value < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of hybrid_cache.rate_limit() must be at least %d",
						name, least)));
	return value;
}

/*
 * Does the error reply say that Redis takes no changes now, whatever they are?  To
 * the caller that is like a Redis that is down.
 */
static bool
takes_no_changes(const char *message)
{
	static const char *const words[] = {
		"OOM ", "READONLY ", "MISCONF ", "NOREPLICAS ", "BUSY "
	};
	size_t		i;

	message = hc_reply_reason(message);
	for (i = 0; i < lengthof(words); i++)
	{
		if (strncmp(message, words[i], strlen(words[i])) == 0)
			return true;
	}
	return false;
}

/* Asks Redis; NULL: it cannot answer, and the caller prefers a default to an error. */
static const redisReply *
ask(const HcArguments *args, OnError on_error)
{
	const redisReply *reply;
	ErrorData  *error;

	if (on_error == ON_ERROR_ERROR)
		return hc_session_script("rate_limit", args, 1);

	reply = hc_session_try_script("rate_limit", args, 1, &error);
	if (reply == NULL ||
		(reply->type == REDIS_REPLY_ERROR && takes_no_changes(reply->str)))
		return NULL;
	hc_reply_check(reply, hc_session_server());
	return reply;
}

/*
 * hybrid_cache.rate_limit(key text, max integer, period interval, cost integer,
 *						   on_error text)
 *		RETURNS TABLE (allowed boolean, remaining integer, retry_after interval)
 */
Datum
hybrid_cache_rate_limit(PG_FUNCTION_ARGS)
{
	text	   *key = hc_parameter_text(fcinfo, 0, "key", "rate_limit");
	int32		max = integer_parameter(fcinfo, 1, "max", 1);
	int64		period = hc_parameter_duration(fcinfo, 2, "period", "rate_limit");
	int32		cost = integer_parameter(fcinfo, 3, "cost", 0);
	OnError		on_error = parse_on_error(text_to_cstring(hc_parameter_text(fcinfo, 4, "on_error",
																			"rate_limit")));
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {false, true, true};
	HcArguments args;
	const redisReply *reply;

	if (cost > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of hybrid_cache.rate_limit() must not be greater than \"%s\"",
						"cost", "max"),
				 errdetail("It could never be allowed.")));

	hc_arguments_begin(&args, NULL);
	hc_arguments_add_beside(&args, LIMIT_KEY, key);
	hc_arguments_add_integer(&args, max);
	hc_arguments_add_integer(&args, period);
	hc_arguments_add_integer(&args, cost);
	reply = ask(&args, on_error);
	if (reply == NULL)
		values[0] = BoolGetDatum(on_error == ON_ERROR_ALLOW);
	else
	{
		bool		allowed;

		(void) hc_reply_array(reply, NATTS);
		allowed = hc_reply_integer(reply->element[0]) == 1;
		values[0] = BoolGetDatum(allowed);
		values[1] = Int32GetDatum((int32) hc_reply_integer(reply->element[1]));
		nulls[1] = false;
		if (!allowed)
		{
			Interval   *wait = palloc0(sizeof(Interval));

			wait->time = hc_reply_integer(reply->element[2]) * 1000;
			values[2] = IntervalPGetDatum(wait);
			nulls[2] = false;
		}
	}

	InitMaterializedSRF(fcinfo, 0);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}
