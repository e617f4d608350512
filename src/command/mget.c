/*
 * mget.c
 *	  redis_mget() and redis_hmget(): many values at a time, each next to its name.
 *
 * They are for joins: as many values as rows, with a handful of round trips.
 */
#include "postgres.h"

#include "command/call.h"
#include "command/many.h"
#include "session/rows.h"

PG_FUNCTION_INFO_V1(hybrid_cache_mget);
PG_FUNCTION_INFO_V1(hybrid_cache_hmget);

/* Where the values go. */
typedef struct Taking
{
	ReturnSetInfo *rows;
	ArrayIterator names;
} Taking;

static void get_values(const HcMany *many);
static void take_values(const redisReply *reply, int n, void *arg);

/*
 * redis_mget(keys text[]) RETURNS TABLE (key text, value text),
 * redis_mget_bytea(the same) RETURNS TABLE (key text, value bytea)
 */
Datum
hybrid_cache_mget(PG_FUNCTION_ARGS)
{
	HcArguments head;
	HcMany		many = {.fcinfo = fcinfo,.head = &head,.keys = true,.group = 1};

	hc_arguments_begin(&head, "MGET");
	get_values(&many);
	return (Datum) 0;
}

/*
 * redis_hmget(key text, VARIADIC fields text[])
 * RETURNS TABLE (field text, value text),
 * redis_hmget_bytea(the same) RETURNS TABLE (field text, value bytea)
 */
Datum
hybrid_cache_hmget(PG_FUNCTION_ARGS)
{
	HcArguments head;
	HcMany		many = {.fcinfo = fcinfo,.head = &head,.parameter = 1,.group = 1};

	hc_call_begin(&head, fcinfo, "HMGET", "k");
	get_values(&many);
	return (Datum) 0;
}

static void
get_values(const HcMany *many)
{
	FunctionCallInfo fcinfo = many->fcinfo;
	Taking		taking;

	taking.rows = hc_rows_begin(fcinfo);
	taking.names = array_create_iterator(PG_GETARG_ARRAYTYPE_P(many->parameter),
										 0, NULL);
	hc_many_run(many, take_values, &taking);
}

/* An HcManyTake. */
static void
take_values(const redisReply *reply, int n, void *arg)
{
	Taking	   *taking = arg;
	Oid			type = TupleDescAttr(taking->rows->setDesc, 1)->atttypid;

	hc_reply_array(reply, n);
	for (int i = 0; i < n; i++)
	{
		Datum		values[2];
		bool		nulls[2];

		array_iterate(taking->names, &values[0], &nulls[0]);
		values[1] = hc_rows_value(reply->element[i], type, &nulls[1]);
		hc_rows_put(taking->rows, values, nulls);
	}
}
