/*
 * sets.c
 *	  The Redis commands on sets as SQL functions.
 */
#include "postgres.h"

#include "command/call.h"
#include "command/many.h"

PG_FUNCTION_INFO_V1(hybrid_cache_sadd);
PG_FUNCTION_INFO_V1(hybrid_cache_srem);
PG_FUNCTION_INFO_V1(hybrid_cache_smembers);
PG_FUNCTION_INFO_V1(hybrid_cache_sismember);
PG_FUNCTION_INFO_V1(hybrid_cache_sismember_bytea);

/*
 * redis_sadd(key text, VARIADIC members text[] or bytea[]) RETURNS bigint
 */
Datum
hybrid_cache_sadd(PG_FUNCTION_ARGS)
{
	return hc_many_elements(fcinfo, "SADD");
}

/*
 * redis_srem(key text, VARIADIC members text[] or bytea[]) RETURNS bigint
 */
Datum
hybrid_cache_srem(PG_FUNCTION_ARGS)
{
	return hc_many_elements(fcinfo, "SREM");
}

/*
 * redis_smembers(key text) RETURNS SETOF text,
 * redis_smembers_bytea(key text) RETURNS SETOF bytea
 */
Datum
hybrid_cache_smembers(PG_FUNCTION_ARGS)
{
	return hc_call_rows(fcinfo, "SMEMBERS", "k");
}

/*
 * redis_sismember(key text, member text or bytea) RETURNS boolean
 */
Datum
hybrid_cache_sismember(PG_FUNCTION_ARGS)
{
	return hc_call_boolean(fcinfo, "SISMEMBER", "kt");
}

Datum
hybrid_cache_sismember_bytea(PG_FUNCTION_ARGS)
{
	return hc_call_boolean(fcinfo, "SISMEMBER", "kb");
}
