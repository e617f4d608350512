/*
 * sorted_sets.c
 *	  The Redis commands on sorted sets as SQL functions.
 */
#include "postgres.h"

#include "command/call.h"
#include "command/many.h"
#include "session/rows.h"
#include "session/session.h"

PG_FUNCTION_INFO_V1(hybrid_cache_zadd);
PG_FUNCTION_INFO_V1(hybrid_cache_zadd_many);
PG_FUNCTION_INFO_V1(hybrid_cache_zincrby);
PG_FUNCTION_INFO_V1(hybrid_cache_zrem);
PG_FUNCTION_INFO_V1(hybrid_cache_zscore);
PG_FUNCTION_INFO_V1(hybrid_cache_zrank);
PG_FUNCTION_INFO_V1(hybrid_cache_zrange);
PG_FUNCTION_INFO_V1(hybrid_cache_zrangebyscore);
PG_FUNCTION_INFO_V1(hybrid_cache_zrangebyscore_double);

static void begin_zadd(HcArguments *args, FunctionCallInfo fcinfo);
static Datum range_by_score(FunctionCallInfo fcinfo, const char *form);

/*
 * redis_zadd(key text, score double precision, member text, nx boolean,
 *			  xx boolean, gt boolean, lt boolean, ch boolean) RETURNS bigint
 */
Datum
hybrid_cache_zadd(PG_FUNCTION_ARGS)
{
	HcArguments args;

	hc_call_need(fcinfo, 1);
	hc_call_need(fcinfo, 2);
	begin_zadd(&args, fcinfo);
	hc_arguments_add_double(&args, PG_GETARG_FLOAT8(1));
	hc_arguments_add_text(&args, PG_GETARG_TEXT_PP(2));
	PG_RETURN_INT64(hc_reply_integer(hc_session_command(&args)));
}

/*
 * redis_zadd_many(key text, scores double precision[], members text[], the same
 *				   options) RETURNS bigint
 *
 * Not redis_zadd(): of parameters without types nobody could tell which it is.
 */
Datum
hybrid_cache_zadd_many(PG_FUNCTION_ARGS)
{
	HcArguments head;
	HcMany		many = {.fcinfo = fcinfo,.head = &head,.parameter = 2,.scores = 1,.group = 1};
	int64		result = 0;

	begin_zadd(&head, fcinfo);
	hc_many_run(&many, hc_many_add, &result);
	PG_RETURN_INT64(result);
}

/*
 * redis_zincrby(key text, increment double precision, member text)
 * RETURNS double precision
 */
Datum
hybrid_cache_zincrby(PG_FUNCTION_ARGS)
{
	return hc_call_double(fcinfo, "ZINCRBY", "kdt");
}

/*
 * redis_zrem(key text, VARIADIC members text[]) RETURNS bigint
 */
Datum
hybrid_cache_zrem(PG_FUNCTION_ARGS)
{
	return hc_many_elements(fcinfo, "ZREM");
}

/*
 * redis_zscore(key text, member text) RETURNS double precision
 */
Datum
hybrid_cache_zscore(PG_FUNCTION_ARGS)
{
	return hc_call_double(fcinfo, "ZSCORE", "kt");
}

/*
 * redis_zrank(key text, member text) RETURNS bigint
 */
Datum
hybrid_cache_zrank(PG_FUNCTION_ARGS)
{
	return hc_call_integer(fcinfo, "ZRANK", "kt");
}

/*
 * redis_zrange(key text, start bigint, stop bigint, rev boolean)
 * RETURNS TABLE (member text, score double precision)
 */
Datum
hybrid_cache_zrange(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rows = hc_rows_begin(fcinfo);
	HcArguments args;

	hc_call_begin(&args, fcinfo, "ZRANGE", "kii");
	if (hc_call_option(fcinfo, 3))
		hc_arguments_add_literal(&args, "REV");
	hc_arguments_add_literal(&args, "WITHSCORES");
	hc_rows_put_array(rows, hc_session_command(&args));
	return (Datum) 0;
}

/*
 * redis_zrangebyscore(key text, min text, max text, rev boolean,
 *					   "offset" bigint, count bigint)
 * RETURNS TABLE (member text, score double precision), and with numbers as min
 * and max
 */
Datum
hybrid_cache_zrangebyscore(PG_FUNCTION_ARGS)
{
	return range_by_score(fcinfo, "ktt");
}

Datum
hybrid_cache_zrangebyscore_double(PG_FUNCTION_ARGS)
{
	return range_by_score(fcinfo, "kdd");
}

static void
begin_zadd(HcArguments *args, FunctionCallInfo fcinfo)
{
	static const char *const options[] = {"NX", "XX", "GT", "LT", "CH"};

	hc_call_begin(args, fcinfo, "ZADD", "k");
	for (int i = 0; i < (int) lengthof(options); i++)
		if (hc_call_option(fcinfo, 3 + i))
			hc_arguments_add_literal(args, options[i]);
}

static Datum
range_by_score(FunctionCallInfo fcinfo, const char *form)
{
	ReturnSetInfo *rows = hc_rows_begin(fcinfo);
	bool		rev = hc_call_option(fcinfo, 3);
	HcArguments args;

	hc_call_begin(&args, fcinfo, "ZRANGE", form);
	if (rev)
	{
		/* Redis wants the maximum first then */
		const char *min = args.data[2];
		size_t		min_len = args.len[2];

		args.data[2] = args.data[3];
		args.len[2] = args.len[3];
		args.data[3] = min;
		args.len[3] = min_len;
	}
	hc_arguments_add_literal(&args, "BYSCORE");
	if (rev)
		hc_arguments_add_literal(&args, "REV");
	if (!PG_ARGISNULL(4) || !PG_ARGISNULL(5))
	{
		hc_arguments_add_literal(&args, "LIMIT");
		hc_arguments_add_integer(&args, PG_ARGISNULL(4) ? 0 : PG_GETARG_INT64(4));
		hc_arguments_add_integer(&args, PG_ARGISNULL(5) ? -1 : PG_GETARG_INT64(5));
	}
	hc_arguments_add_literal(&args, "WITHSCORES");
	hc_rows_put_array(rows, hc_session_command(&args));
	return (Datum) 0;
}
