/*
 * hashes.c
 *	  The Redis commands on hashes as SQL functions.
 */
#include "postgres.h"

#include "command/call.h"
#include "command/many.h"

PG_FUNCTION_INFO_V1(hybrid_cache_hget);
PG_FUNCTION_INFO_V1(hybrid_cache_hget_bytea);
PG_FUNCTION_INFO_V1(hybrid_cache_hgetall);
PG_FUNCTION_INFO_V1(hybrid_cache_hset);
PG_FUNCTION_INFO_V1(hybrid_cache_hset_bytea);
PG_FUNCTION_INFO_V1(hybrid_cache_hdel);
PG_FUNCTION_INFO_V1(hybrid_cache_hincrby);

/*
 * redis_hget(key text, field text) RETURNS text,
 * redis_hget_bytea(key text, field text) RETURNS bytea
 */
Datum
hybrid_cache_hget(PG_FUNCTION_ARGS)
{
	return hc_call_text(fcinfo, "HGET", "kt");
}

Datum
hybrid_cache_hget_bytea(PG_FUNCTION_ARGS)
{
	return hc_call_bytea(fcinfo, "HGET", "kt");
}

/*
 * redis_hgetall(key text) RETURNS TABLE (field text, value text),
 * redis_hgetall_bytea(key text) RETURNS TABLE (field text, value bytea)
 */
Datum
hybrid_cache_hgetall(PG_FUNCTION_ARGS)
{
	return hc_call_rows(fcinfo, "HGETALL", "k");
}

/*
 * redis_hset(key text, VARIADIC field_value text[]) RETURNS bigint
 */
Datum
hybrid_cache_hset(PG_FUNCTION_ARGS)
{
	HcArguments head;
	HcMany		many = {.fcinfo = fcinfo,.head = &head,.parameter = 1,.group = 2};
	int64		result = 0;

	hc_call_begin(&head, fcinfo, "HSET", "k");
	hc_many_run(&many, hc_many_add, &result);
	PG_RETURN_INT64(result);
}

/*
 * redis_hset(key text, field text, value bytea) RETURNS bigint
 */
Datum
hybrid_cache_hset_bytea(PG_FUNCTION_ARGS)
{
	return hc_call_integer(fcinfo, "HSET", "ktb");
}

/*
 * redis_hdel(key text, VARIADIC fields text[]) RETURNS bigint
 */
Datum
hybrid_cache_hdel(PG_FUNCTION_ARGS)
{
	return hc_many_elements(fcinfo, "HDEL");
}

/*
 * redis_hincrby(key text, field text, increment bigint) RETURNS bigint
 */
Datum
hybrid_cache_hincrby(PG_FUNCTION_ARGS)
{
	return hc_call_integer(fcinfo, "HINCRBY", "kti");
}
