/*
 * locks.c
 *	  hybrid_cache.lock(), unlock(), extend_lock(): locks that run out by
 *	  themselves, with fencing tokens.
 *
 * The lock is in Redis, by scripts that other clients can use as well.  It is not
 * part of the transaction: it must outlast one, and be seen before one commits.
 * What a holder still does after its lock ran out, only the token can keep from
 * doing harm: so there is no lock without.
 */
#include "postgres.h"

#include "fmgr.h"
#include "redis/arguments.h"
#include "session/parameter.h"
#include "session/session.h"
#include "utils/builtins.h"

/* What lock keys are called, see src/lua/README.md. */
#define LOCK_KEY	"lock"

PG_FUNCTION_INFO_V1(hybrid_cache_lock);
PG_FUNCTION_INFO_V1(hybrid_cache_unlock);
PG_FUNCTION_INFO_V1(hybrid_cache_extend_lock);

static int64
token_parameter(FunctionCallInfo fcinfo, int n, const char *function)
{
	hc_parameter_need(fcinfo, n, "token", function);
	return PG_GETARG_INT64(n);
}

/*
 * hybrid_cache.lock(resource text, ttl interval) RETURNS bigint
 */
Datum
hybrid_cache_lock(PG_FUNCTION_ARGS)
{
	text	   *resource = hc_parameter_text(fcinfo, 0, "resource", "lock");
	int64		ttl = hc_parameter_duration(fcinfo, 1, "ttl", "lock");
	HcArguments args;
	const redisReply *reply;

	hc_arguments_begin(&args, NULL);
	hc_arguments_add_beside(&args, LOCK_KEY, resource);
	hc_arguments_add_integer(&args, ttl);
	reply = hc_session_script("lock", &args, 1);
	if (reply->type == REDIS_REPLY_NIL)
		PG_RETURN_NULL();
	PG_RETURN_INT64(hc_reply_integer(reply));
}

/*
 * hybrid_cache.unlock(resource text, token bigint) RETURNS boolean
 */
Datum
hybrid_cache_unlock(PG_FUNCTION_ARGS)
{
	text	   *resource = hc_parameter_text(fcinfo, 0, "resource", "unlock");
	int64		token = token_parameter(fcinfo, 1, "unlock");
	HcArguments args;

	hc_arguments_begin(&args, NULL);
	hc_arguments_add_beside(&args, LOCK_KEY, resource);
	hc_arguments_add_integer(&args, token);
	PG_RETURN_BOOL(hc_reply_integer(hc_session_script("unlock", &args, 1)) == 1);
}

/*
 * hybrid_cache.extend_lock(resource text, token bigint, ttl interval) RETURNS boolean
 */
Datum
hybrid_cache_extend_lock(PG_FUNCTION_ARGS)
{
	text	   *resource = hc_parameter_text(fcinfo, 0, "resource", "extend_lock");
	int64		token = token_parameter(fcinfo, 1, "extend_lock");
	int64		ttl = hc_parameter_duration(fcinfo, 2, "ttl", "extend_lock");
	HcArguments args;

	hc_arguments_begin(&args, NULL);
	hc_arguments_add_beside(&args, LOCK_KEY, resource);
	hc_arguments_add_integer(&args, token);
	hc_arguments_add_integer(&args, ttl);
	PG_RETURN_BOOL(hc_reply_integer(hc_session_script("extend_lock", &args, 1)) == 1);
}
