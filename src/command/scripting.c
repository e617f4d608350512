/*
 * scripting.c
 *	  redis_eval() and redis_publish().
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "command/call.h"
#include "command/json_reply.h"
#include "session/session.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(hybrid_cache_eval);
PG_FUNCTION_INFO_V1(hybrid_cache_publish);
PG_FUNCTION_INFO_V1(hybrid_cache_publish_bytea);

static Datum *read_array(FunctionCallInfo fcinfo, int n, int *n_elements);

/*
 * redis_eval(script text, keys text[], args text[]) RETURNS jsonb
 *
 * With the whole script each time: that is right also when Redis has forgotten
 * it, and one round trip.  Redis compiles it only once.
 */
Datum
hybrid_cache_eval(PG_FUNCTION_ARGS)
{
	HcArguments args;
	Datum	   *words;
	int			n;

	hc_call_begin(&args, fcinfo, "EVAL", "t");
	words = read_array(fcinfo, 1, &n);
	hc_arguments_add_integer(&args, n);
	for (int i = 0; i < n; i++)
		hc_arguments_add_key(&args, DatumGetTextPP(words[i]));
	words = read_array(fcinfo, 2, &n);
	for (int i = 0; i < n; i++)
		hc_arguments_add_text(&args, DatumGetTextPP(words[i]));
	PG_RETURN_JSONB_P(hc_json_reply(hc_session_command(&args)));
}

/*
 * redis_publish(channel text, message text or bytea) RETURNS bigint
 */
Datum
hybrid_cache_publish(PG_FUNCTION_ARGS)
{
	return hc_call_integer(fcinfo, "PUBLISH", "tt");
}

Datum
hybrid_cache_publish_bytea(PG_FUNCTION_ARGS)
{
	return hc_call_integer(fcinfo, "PUBLISH", "tb");
}

/* The elements of a text[] without nulls. */
static Datum *
read_array(FunctionCallInfo fcinfo, int n, int *n_elements)
{
	ArrayType  *array;
	Datum	   *elements;

	hc_call_need(fcinfo, n);
	array = PG_GETARG_ARRAYTYPE_P(n);
	if (array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of %s() must not contain nulls",
						hc_call_parameter(fcinfo, n), hc_call_function(fcinfo)),
				 errdetail("Redis knows no null.")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL,
					  n_elements);
	return elements;
}
