/*
 * rows.c
 *	  Replies of Redis as rows of SQL functions that return a set.
 *
 * What a function's columns are, its declaration says; it is not said a second
 * time here.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "session/result.h"
#include "session/rows.h"
#include "utils/memutils.h"

ReturnSetInfo *
hc_rows_begin(FunctionCallInfo fcinfo)
{
	bool		single = get_call_result_type(fcinfo, NULL, NULL) == TYPEFUNC_SCALAR;

	InitMaterializedSRF(fcinfo, single ? MAT_SRF_USE_EXPECTED_DESC : 0);
	return (ReturnSetInfo *) fcinfo->resultinfo;
}

void
hc_rows_put(ReturnSetInfo *rows, Datum *values, bool *nulls)
{
	tuplestore_putvalues(rows->setResult, rows->setDesc, values, nulls);
}

Datum
hc_rows_value(const redisReply *reply, Oid type, bool *null)
{
	*null = reply->type == REDIS_REPLY_NIL;
	if (*null)
		return (Datum) 0;
	switch (type)
	{
		case TEXTOID:
			return PointerGetDatum(hc_result_text(reply));
		case BYTEAOID:
			return PointerGetDatum(hc_result_bytea(reply));
		case INT8OID:
			return Int64GetDatum(hc_reply_integer(reply));
		case FLOAT8OID:
			return Float8GetDatum(hc_reply_double(reply));
		default:
			elog(ERROR, "no reply becomes a value of type %u", type);
	}
}

void
hc_rows_put_array(ReturnSetInfo *rows, const redisReply *array)
{
	int			n_columns = rows->setDesc->natts;
	Datum	   *values;
	bool	   *nulls;
	MemoryContext row;
	MemoryContext old;

	if (array->type == REDIS_REPLY_NIL)
		return;
	hc_reply_array(array, HC_REPLY_ANY_LENGTH);
	hc_reply_array(array, array->elements / n_columns * n_columns);

	values = palloc(n_columns * sizeof(Datum));
	nulls = palloc(n_columns * sizeof(bool));
	row = AllocSetContextCreate(CurrentMemoryContext, "hybrid_cache row",
								ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(row);
	for (size_t i = 0; i < array->elements; i += n_columns)
	{
		CHECK_FOR_INTERRUPTS();
		for (int j = 0; j < n_columns; j++)
		{
			values[j] = hc_rows_value(array->element[i + j],
									  TupleDescAttr(rows->setDesc, j)->atttypid,
									  &nulls[j]);
			if (nulls[j])
				(void) hc_reply_string(array->element[i + j]);	/* raises */
		}
		hc_rows_put(rows, values, nulls);
		MemoryContextReset(row);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row);
}
