/*
 * streams.c
 *	  The Redis commands on streams as SQL functions.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "command/call.h"
#include "command/json_word.h"
#include "encoding.h"
#include "miscadmin.h"
#include "session/result.h"
#include "session/rows.h"
#include "session/session.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(hybrid_cache_xadd);
PG_FUNCTION_INFO_V1(hybrid_cache_xadd_jsonb);
PG_FUNCTION_INFO_V1(hybrid_cache_xrange);
PG_FUNCTION_INFO_V1(hybrid_cache_xlen);

static void add_pairs(HcArguments *args, FunctionCallInfo fcinfo, int n);
static void add_fields(HcArguments *args, FunctionCallInfo fcinfo, int n);
static void add_json(HcArguments *args, FunctionCallInfo fcinfo, JsonbValue *value);
static Datum make_fields(const redisReply *pairs);

/*
 * redis_xadd(key text, id text, VARIADIC field_value text[]) RETURNS text
 */
Datum
hybrid_cache_xadd(PG_FUNCTION_ARGS)
{
	HcArguments args;

	hc_call_begin(&args, fcinfo, "XADD", "kt");
	add_pairs(&args, fcinfo, 2);
	PG_RETURN_TEXT_P(hc_result_text(hc_reply_string(hc_session_command(&args))));
}

/*
 * redis_xadd(key text, fields jsonb, maxlen bigint, id text) RETURNS text
 */
Datum
hybrid_cache_xadd_jsonb(PG_FUNCTION_ARGS)
{
	HcArguments args;

	hc_call_begin(&args, fcinfo, "XADD", "k");
	hc_call_need(fcinfo, 1);
	if (!PG_ARGISNULL(2))
	{
		if (PG_GETARG_INT64(2) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("maxlen must not be negative")));
		hc_arguments_add_literal(&args, "MAXLEN");
		hc_arguments_add_literal(&args, "~");
		hc_arguments_add_integer(&args, PG_GETARG_INT64(2));
	}
	if (PG_ARGISNULL(3))
		hc_arguments_add_literal(&args, "*");
	else
		hc_arguments_add_text(&args, PG_GETARG_TEXT_PP(3));
	add_fields(&args, fcinfo, 1);
	PG_RETURN_TEXT_P(hc_result_text(hc_reply_string(hc_session_command(&args))));
}

/*
 * redis_xrange(key text, start text, "end" text, count bigint, rev boolean)
 * RETURNS TABLE (id text, fields jsonb)
 */
Datum
hybrid_cache_xrange(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rows = hc_rows_begin(fcinfo);
	bool		rev = hc_call_option(fcinfo, 4);
	HcArguments args;
	const redisReply *reply;
	MemoryContext entry;
	MemoryContext old;

	/* XREVRANGE wants the end first */
	hc_call_begin(&args, fcinfo, rev ? "XREVRANGE" : "XRANGE", "k");
	hc_call_need(fcinfo, 1);
	hc_call_need(fcinfo, 2);
	hc_arguments_add_text(&args, PG_GETARG_TEXT_PP(rev ? 2 : 1));
	hc_arguments_add_text(&args, PG_GETARG_TEXT_PP(rev ? 1 : 2));
	if (!PG_ARGISNULL(3))
	{
		hc_arguments_add_literal(&args, "COUNT");
		hc_arguments_add_integer(&args, PG_GETARG_INT64(3));
	}
	reply = hc_session_command(&args);

	/* COUNT 0 is answered with nil */
	if (reply->type == REDIS_REPLY_NIL)
		return (Datum) 0;
	hc_reply_array(reply, HC_REPLY_ANY_LENGTH);
	entry = AllocSetContextCreate(CurrentMemoryContext, "hybrid_cache entry",
								  ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(entry);
	for (size_t i = 0; i < reply->elements; i++)
	{
		const redisReply *pair = hc_reply_array(reply->element[i], 2);
		Datum		values[2];
		bool		nulls[2] = {false, false};

		CHECK_FOR_INTERRUPTS();
		values[0] = PointerGetDatum(hc_result_text(hc_reply_string(pair->element[0])));
		values[1] = make_fields(pair->element[1]);
		hc_rows_put(rows, values, nulls);
		MemoryContextReset(entry);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(entry);
	return (Datum) 0;
}

/*
 * redis_xlen(key text) RETURNS bigint
 */
Datum
hybrid_cache_xlen(PG_FUNCTION_ARGS)
{
	return hc_call_integer(fcinfo, "XLEN", "k");
}

/* The fields and values of argument n, a text[]. */
static void
add_pairs(HcArguments *args, FunctionCallInfo fcinfo, int n)
{
	Datum	   *words;
	bool	   *nulls;
	int			n_words;

	hc_call_need(fcinfo, n);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false, TYPALIGN_INT,
					  &words, &nulls, &n_words);
	if (n_words == 0 || n_words % 2 != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s() needs fields and values by turns",
						hc_call_function(fcinfo)),
				 errdetail("The number of words after the id is %d.", n_words),
				 errhint("Call it as redis_xadd(key, '*', field, value, ...), or as redis_xadd(key, fields => ...) with an object.")));
	for (int i = 0; i < n_words; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("\"%s\" of %s() must not contain nulls",
							hc_call_parameter(fcinfo, n), hc_call_function(fcinfo)),
					 errdetail("Redis knows no null.")));
		hc_arguments_add_text(args, DatumGetTextPP(words[i]));
	}
}

/* The fields of argument n, an object. */
static void
add_fields(HcArguments *args, FunctionCallInfo fcinfo, int n)
{
	Jsonb	   *fields = PG_GETARG_JSONB_P(n);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(fields) || JB_ROOT_COUNT(fields) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of %s() must be a JSON object with at least one field",
						hc_call_parameter(fcinfo, n), hc_call_function(fcinfo))));
	iterator = JsonbIteratorInit(&fields->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY || token == WJB_VALUE)
			add_json(args, fcinfo, &value);
	}
}

/* A scalar as ->> would show it, anything else as JSON. */
static void
add_json(HcArguments *args, FunctionCallInfo fcinfo, JsonbValue *value)
{
	char	   *json;
	size_t		len;

	if (hc_json_word_add(args, value))
		return;
	if (value->type == jbvNull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a field of %s() is null", hc_call_function(fcinfo)),
				 errdetail("Redis knows no null."),
				 errhint("jsonb_strip_nulls() leaves such fields out.")));
	json = JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
	len = strlen(json);
	json = hc_encoding_to_redis(json, &len);
	hc_arguments_add(args, json, len);
}

/* Fields and values by turns, as an object. */
static Datum
make_fields(const redisReply *pairs)
{
	JsonbParseState *state = NULL;

	hc_reply_array(pairs, HC_REPLY_ANY_LENGTH);
	hc_reply_array(pairs, pairs->elements / 2 * 2);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (size_t i = 0; i < pairs->elements; i++)
	{
		JsonbValue	value;
		size_t		len;

		value.type = jbvString;
		value.val.string.val = hc_result_decode(hc_reply_string(pairs->element[i]), &len);
		value.val.string.len = (int) len;
		pushJsonbValue(&state, i % 2 == 0 ? WJB_KEY : WJB_VALUE, &value);
	}
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}
