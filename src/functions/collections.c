/*
 * collections.c
 *	  The Redis commands that read hashes and sorted sets as SQL functions.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "functions/arguments.h"
#include "miscadmin.h"
#include "session/result.h"
#include "session/session.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(hybrid_cache_hget);
PG_FUNCTION_INFO_V1(hybrid_cache_hgetall);
PG_FUNCTION_INFO_V1(hybrid_cache_zscore);

/*
 * redis_hget(key text, field text) RETURNS text
 */
Datum
hybrid_cache_hget(PG_FUNCTION_ARGS)
{
	HcArguments args;
	text	   *result;

	hc_arguments_begin(&args, "HGET");
	hc_arguments_add_key(&args, PG_GETARG_TEXT_PP(0));
	hc_arguments_add_text(&args, PG_GETARG_TEXT_PP(1));
	result = hc_result_text(hc_session_command(&args));
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}

/*
 * redis_hgetall(key text) RETURNS TABLE (field text, value text)
 */
Datum
hybrid_cache_hgetall(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HcArguments args;
	const redisReply *reply;

	InitMaterializedSRF(fcinfo, 0);

	hc_arguments_begin(&args, "HGETALL");
	hc_arguments_add_key(&args, PG_GETARG_TEXT_PP(0));
	reply = hc_reply_array(hc_session_command(&args), HC_REPLY_ANY_LENGTH);
	hc_reply_array(reply, reply->elements / 2 * 2);

	for (size_t i = 0; i < reply->elements; i += 2)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};
		text	   *field = hc_result_text(hc_reply_string(reply->element[i]));
		text	   *value = hc_result_text(hc_reply_string(reply->element[i + 1]));

		CHECK_FOR_INTERRUPTS();
		values[0] = PointerGetDatum(field);
		values[1] = PointerGetDatum(value);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		pfree(field);
		pfree(value);
	}
	return (Datum) 0;
}

/*
 * redis_zscore(key text, member text) RETURNS double precision
 */
Datum
hybrid_cache_zscore(PG_FUNCTION_ARGS)
{
	HcArguments args;
	const redisReply *reply;

	hc_arguments_begin(&args, "ZSCORE");
	hc_arguments_add_key(&args, PG_GETARG_TEXT_PP(0));
	hc_arguments_add_text(&args, PG_GETARG_TEXT_PP(1));
	reply = hc_session_command(&args);
	if (reply->type == REDIS_REPLY_NIL)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(hc_reply_double(reply));
}
