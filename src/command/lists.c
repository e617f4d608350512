/*
 * lists.c
 *	  The Redis commands on lists as SQL functions.
 */
#include "postgres.h"

#include "command/call.h"
#include "command/many.h"
#include "session/rows.h"
#include "session/session.h"

PG_FUNCTION_INFO_V1(hybrid_cache_lpush);
PG_FUNCTION_INFO_V1(hybrid_cache_rpush);
PG_FUNCTION_INFO_V1(hybrid_cache_lpop);
PG_FUNCTION_INFO_V1(hybrid_cache_lpop_bytea);
PG_FUNCTION_INFO_V1(hybrid_cache_lpop_many);
PG_FUNCTION_INFO_V1(hybrid_cache_rpop);
PG_FUNCTION_INFO_V1(hybrid_cache_rpop_bytea);
PG_FUNCTION_INFO_V1(hybrid_cache_rpop_many);
PG_FUNCTION_INFO_V1(hybrid_cache_lrange);
PG_FUNCTION_INFO_V1(hybrid_cache_llen);

static Datum push(FunctionCallInfo fcinfo, const char *command);
static void take_length(const redisReply *reply, int n, void *arg);
static Datum pop_many(FunctionCallInfo fcinfo, const char *command);

/*
 * redis_lpush(key text, VARIADIC elements text[] or bytea[]) RETURNS bigint
 */
Datum
hybrid_cache_lpush(PG_FUNCTION_ARGS)
{
	return push(fcinfo, "LPUSH");
}

/*
 * redis_rpush(key text, VARIADIC elements text[] or bytea[]) RETURNS bigint
 */
Datum
hybrid_cache_rpush(PG_FUNCTION_ARGS)
{
	return push(fcinfo, "RPUSH");
}

/*
 * redis_lpop(key text) RETURNS text, redis_lpop_bytea(key text) RETURNS bytea
 */
Datum
hybrid_cache_lpop(PG_FUNCTION_ARGS)
{
	return hc_call_text(fcinfo, "LPOP", "k");
}

Datum
hybrid_cache_lpop_bytea(PG_FUNCTION_ARGS)
{
	return hc_call_bytea(fcinfo, "LPOP", "k");
}

/*
 * redis_lpop(key text, count bigint) RETURNS SETOF text,
 * redis_lpop_bytea(key text, count bigint) RETURNS SETOF bytea
 */
Datum
hybrid_cache_lpop_many(PG_FUNCTION_ARGS)
{
	return pop_many(fcinfo, "LPOP");
}

/*
 * redis_rpop(key text) RETURNS text, redis_rpop_bytea(key text) RETURNS bytea
 */
Datum
hybrid_cache_rpop(PG_FUNCTION_ARGS)
{
	return hc_call_text(fcinfo, "RPOP", "k");
}

Datum
hybrid_cache_rpop_bytea(PG_FUNCTION_ARGS)
{
	return hc_call_bytea(fcinfo, "RPOP", "k");
}

/*
 * redis_rpop(key text, count bigint) RETURNS SETOF text,
 * redis_rpop_bytea(key text, count bigint) RETURNS SETOF bytea
 */
Datum
hybrid_cache_rpop_many(PG_FUNCTION_ARGS)
{
	return pop_many(fcinfo, "RPOP");
}

/*
 * redis_lrange(key text, start bigint, stop bigint) RETURNS SETOF text,
 * redis_lrange_bytea(the same) RETURNS SETOF bytea
 */
Datum
hybrid_cache_lrange(PG_FUNCTION_ARGS)
{
	return hc_call_rows(fcinfo, "LRANGE", "kii");
}

/*
 * redis_llen(key text) RETURNS bigint
 */
Datum
hybrid_cache_llen(PG_FUNCTION_ARGS)
{
	return hc_call_integer(fcinfo, "LLEN", "k");
}

/* The length of the list afterwards; nothing is pushed if there is nothing. */
static Datum
push(FunctionCallInfo fcinfo, const char *command)
{
	HcArguments head;
	HcMany		many = {.fcinfo = fcinfo,.head = &head,.parameter = 1,.group = 1};
	int64		length = 0;

	hc_call_begin(&head, fcinfo, command, "k");
	hc_many_run(&many, take_length, &length);
	if (length == 0)
		return hc_call_integer(fcinfo, "LLEN", "k");
	PG_RETURN_INT64(length);
}

/* An HcManyTake. */
static void
take_length(const redisReply *reply, int n, void *arg)
{
	*(int64 *) arg = hc_reply_integer(reply);
}

static Datum
pop_many(FunctionCallInfo fcinfo, const char *command)
{
	ReturnSetInfo *rows = hc_rows_begin(fcinfo);
	HcArguments args;

	hc_call_begin(&args, fcinfo, command, "ki");
	if (PG_GETARG_INT64(1) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("count must not be negative")));
	if (PG_GETARG_INT64(1) > 0)
		hc_rows_put_array(rows, hc_session_command(&args));
	return (Datum) 0;
}
