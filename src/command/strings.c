/*
 * strings.c
 *	  The Redis commands on strings as SQL functions.
 *
 * Here and in the files of the other commands, they have Redis's names, order of
 * arguments and units.  None of them is part of the transaction: what was sent is
 * done, whether the transaction commits or not.
 */
#include "postgres.h"

#include "command/call.h"
#include "session/session.h"

PG_FUNCTION_INFO_V1(hybrid_cache_get);
PG_FUNCTION_INFO_V1(hybrid_cache_get_bytea);
PG_FUNCTION_INFO_V1(hybrid_cache_set);
PG_FUNCTION_INFO_V1(hybrid_cache_set_bytea);
PG_FUNCTION_INFO_V1(hybrid_cache_getdel);
PG_FUNCTION_INFO_V1(hybrid_cache_getdel_bytea);
PG_FUNCTION_INFO_V1(hybrid_cache_incrby);
PG_FUNCTION_INFO_V1(hybrid_cache_incrbyfloat);

static Datum set(FunctionCallInfo fcinfo, const char *form);
static void add_expiry(HcArguments *args, const char *option, int64 value);

/*
 * redis_get(key text) RETURNS text, redis_get_bytea(key text) RETURNS bytea
 */
Datum
hybrid_cache_get(PG_FUNCTION_ARGS)
{
	return hc_call_text(fcinfo, "GET", "k");
}

Datum
hybrid_cache_get_bytea(PG_FUNCTION_ARGS)
{
	return hc_call_bytea(fcinfo, "GET", "k");
}

/*
 * redis_set(key text, value text, ex bigint, px bigint, nx boolean,
 *			 xx boolean, keepttl boolean) RETURNS boolean, and with value bytea
 */
Datum
hybrid_cache_set(PG_FUNCTION_ARGS)
{
	return set(fcinfo, "kt");
}

Datum
hybrid_cache_set_bytea(PG_FUNCTION_ARGS)
{
	return set(fcinfo, "kb");
}

/*
 * redis_getdel(key text) RETURNS text, redis_getdel_bytea(key text) RETURNS bytea
 */
Datum
hybrid_cache_getdel(PG_FUNCTION_ARGS)
{
	return hc_call_text(fcinfo, "GETDEL", "k");
}

Datum
hybrid_cache_getdel_bytea(PG_FUNCTION_ARGS)
{
	return hc_call_bytea(fcinfo, "GETDEL", "k");
}

/*
 * redis_incrby(key text, increment bigint) RETURNS bigint
 */
Datum
hybrid_cache_incrby(PG_FUNCTION_ARGS)
{
	return hc_call_integer(fcinfo, "INCRBY", "ki");
}

/*
 * redis_incrbyfloat(key text, increment double precision)
 * RETURNS double precision
 */
Datum
hybrid_cache_incrbyfloat(PG_FUNCTION_ARGS)
{
	return hc_call_double(fcinfo, "INCRBYFLOAT", "kd");
}

static Datum
set(FunctionCallInfo fcinfo, const char *form)
{
	bool		ex = !PG_ARGISNULL(2);
	bool		px = !PG_ARGISNULL(3);
	bool		nx = hc_call_option(fcinfo, 4);
	bool		xx = hc_call_option(fcinfo, 5);
	bool		keepttl = hc_call_option(fcinfo, 6);
	HcArguments args;
	const redisReply *reply;

	hc_call_begin(&args, fcinfo, "SET", form);
	if (ex + px + keepttl > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only one of ex, px and keepttl can be given")));
	if (nx && xx)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only one of nx and xx can be given"),
				 errdetail("nx sets a key only if it does not exist, xx only if it does.")));
	if (ex)
		add_expiry(&args, "EX", PG_GETARG_INT64(2));
	if (px)
		add_expiry(&args, "PX", PG_GETARG_INT64(3));
	if (keepttl)
		hc_arguments_add_literal(&args, "KEEPTTL");
	if (nx)
		hc_arguments_add_literal(&args, "NX");
	if (xx)
		hc_arguments_add_literal(&args, "XX");

	reply = hc_session_command(&args);
	if (reply->type == REDIS_REPLY_NIL)
		PG_RETURN_BOOL(false);
	hc_reply_string(reply);
	PG_RETURN_BOOL(true);
}

static void
add_expiry(HcArguments *args, const char *option, int64 value)
{
	if (value <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expiry must be greater than zero"),
				 errhint("redis_del() removes a key at once.")));
	hc_arguments_add_literal(args, option);
	hc_arguments_add_integer(args, value);
}
