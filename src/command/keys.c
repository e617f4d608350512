/*
 * keys.c
 *	  The Redis commands on keys as SQL functions.
 */
#include "postgres.h"

#include "command/call.h"
#include "command/many.h"
#include "session/result.h"
#include "session/session.h"

PG_FUNCTION_INFO_V1(hybrid_cache_ping);
PG_FUNCTION_INFO_V1(hybrid_cache_del);
PG_FUNCTION_INFO_V1(hybrid_cache_unlink);
PG_FUNCTION_INFO_V1(hybrid_cache_exists);
PG_FUNCTION_INFO_V1(hybrid_cache_expire);
PG_FUNCTION_INFO_V1(hybrid_cache_ttl);
PG_FUNCTION_INFO_V1(hybrid_cache_type);

/*
 * redis_ping() RETURNS text
 */
Datum
hybrid_cache_ping(PG_FUNCTION_ARGS)
{
	return hc_call_text(fcinfo, "PING", "");
}

/*
 * redis_del(VARIADIC keys text[]) RETURNS bigint
 */
Datum
hybrid_cache_del(PG_FUNCTION_ARGS)
{
	return hc_many_keys(fcinfo, "DEL");
}

/*
 * redis_unlink(VARIADIC keys text[]) RETURNS bigint
 */
Datum
hybrid_cache_unlink(PG_FUNCTION_ARGS)
{
	return hc_many_keys(fcinfo, "UNLINK");
}

/*
 * redis_exists(VARIADIC keys text[]) RETURNS bigint
 */
Datum
hybrid_cache_exists(PG_FUNCTION_ARGS)
{
	return hc_many_keys(fcinfo, "EXISTS");
}

/*
 * redis_expire(key text, seconds bigint, nx boolean, xx boolean, gt boolean,
 *				lt boolean) RETURNS boolean
 */
Datum
hybrid_cache_expire(PG_FUNCTION_ARGS)
{
	static const char *const options[] = {"NX", "XX", "GT", "LT"};
	HcArguments args;

	hc_call_begin(&args, fcinfo, "EXPIRE", "ki");
	for (int i = 0; i < (int) lengthof(options); i++)
		if (hc_call_option(fcinfo, 2 + i))
			hc_arguments_add_literal(&args, options[i]);
	PG_RETURN_BOOL(hc_reply_integer(hc_session_command(&args)) != 0);
}

/*
 * redis_ttl(key text) RETURNS bigint
 */
Datum
hybrid_cache_ttl(PG_FUNCTION_ARGS)
{
	return hc_call_integer(fcinfo, "TTL", "k");
}

/*
 * redis_type(key text) RETURNS text
 */
Datum
hybrid_cache_type(PG_FUNCTION_ARGS)
{
	return hc_call_text(fcinfo, "TYPE", "k");
}
