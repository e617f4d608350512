/*
 * keys.c
 *	  The Redis commands on keys and strings as SQL functions.
 *
 * They have Redis's names, order of arguments and units.  None of them is part
 * of the transaction: what was sent is done, whether the transaction commits
 * or not.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "functions/arguments.h"
#include "session/result.h"
#include "session/session.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(hybrid_cache_ping);
PG_FUNCTION_INFO_V1(hybrid_cache_get);
PG_FUNCTION_INFO_V1(hybrid_cache_get_bytea);
PG_FUNCTION_INFO_V1(hybrid_cache_set);
PG_FUNCTION_INFO_V1(hybrid_cache_del);
PG_FUNCTION_INFO_V1(hybrid_cache_exists);
PG_FUNCTION_INFO_V1(hybrid_cache_expire);
PG_FUNCTION_INFO_V1(hybrid_cache_ttl);

static const redisReply *get(text *key);
static int64 count_keys(const char *command, ArrayType *keys);
static void add_expiry(HcArguments *args, const char *option, int64 value);

/*
 * redis_ping() RETURNS text
 */
Datum
hybrid_cache_ping(PG_FUNCTION_ARGS)
{
	HcArguments args;

	hc_arguments_begin(&args, "PING");
	PG_RETURN_TEXT_P(hc_result_text(hc_reply_string(hc_session_command(&args))));
}

/*
 * redis_get(key text) RETURNS text
 */
Datum
hybrid_cache_get(PG_FUNCTION_ARGS)
{
	text	   *result = hc_result_text(get(PG_GETARG_TEXT_PP(0)));

	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}

/*
 * redis_get_bytea(key text) RETURNS bytea
 */
Datum
hybrid_cache_get_bytea(PG_FUNCTION_ARGS)
{
	bytea	   *result = hc_result_bytea(get(PG_GETARG_TEXT_PP(0)));

	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(result);
}

/*
 * redis_set(key text, value text, ex bigint, px bigint, nx boolean,
 *			 xx boolean, keepttl boolean) RETURNS boolean
 *
 * Not strict, since ex and px are null when they are not given.
 */
Datum
hybrid_cache_set(PG_FUNCTION_ARGS)
{
	bool		ex = !PG_ARGISNULL(2);
	bool		px = !PG_ARGISNULL(3);
	bool		nx = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	bool		xx = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
	bool		keepttl = !PG_ARGISNULL(6) && PG_GETARG_BOOL(6);
	HcArguments args;
	const redisReply *reply;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s of redis_set() is null",
						PG_ARGISNULL(0) ? "key" : "value"),
				 errdetail("Redis knows no null."),
				 PG_ARGISNULL(0) ? 0 : errhint("redis_del() removes a key.")));
	if (ex + px + keepttl > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only one of ex, px and keepttl can be given")));
	if (nx && xx)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only one of nx and xx can be given"),
				 errdetail("nx sets a key only if it does not exist, xx only if it does.")));

	hc_arguments_begin(&args, "SET");
	hc_arguments_add_key(&args, PG_GETARG_TEXT_PP(0));
	hc_arguments_add_text(&args, PG_GETARG_TEXT_PP(1));
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

/*
 * redis_del(VARIADIC keys text[]) RETURNS bigint
 */
Datum
hybrid_cache_del(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(count_keys("DEL", PG_GETARG_ARRAYTYPE_P(0)));
}

/*
 * redis_exists(VARIADIC keys text[]) RETURNS bigint
 */
Datum
hybrid_cache_exists(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(count_keys("EXISTS", PG_GETARG_ARRAYTYPE_P(0)));
}

/*
 * redis_expire(key text, seconds bigint) RETURNS boolean
 */
Datum
hybrid_cache_expire(PG_FUNCTION_ARGS)
{
	HcArguments args;

	hc_arguments_begin(&args, "EXPIRE");
	hc_arguments_add_key(&args, PG_GETARG_TEXT_PP(0));
	hc_arguments_add_integer(&args, PG_GETARG_INT64(1));
	PG_RETURN_BOOL(hc_reply_integer(hc_session_command(&args)) != 0);
}

/*
 * redis_ttl(key text) RETURNS bigint
 */
Datum
hybrid_cache_ttl(PG_FUNCTION_ARGS)
{
	HcArguments args;

	hc_arguments_begin(&args, "TTL");
	hc_arguments_add_key(&args, PG_GETARG_TEXT_PP(0));
	PG_RETURN_INT64(hc_reply_integer(hc_session_command(&args)));
}

static const redisReply *
get(text *key)
{
	HcArguments args;

	hc_arguments_begin(&args, "GET");
	hc_arguments_add_key(&args, key);
	return hc_session_command(&args);
}

/* A command whose arguments are keys and whose answer is their number. */
static int64
count_keys(const char *command, ArrayType *keys)
{
	HcArguments args;
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(keys, TEXTOID, -1, false, TYPALIGN_INT,
					  &values, &nulls, &n);
	if (n == 0)
		return 0;

	hc_arguments_begin(&args, command);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("key is null"),
					 errdetail("Redis knows no null.")));
		hc_arguments_add_key(&args, DatumGetTextPP(values[i]));
	}
	return hc_reply_integer(hc_session_command(&args));
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
