/*
 * rows.h
 *	  Replies of Redis as rows of SQL functions that return a set.
 */
#ifndef HC_ROWS_H
#define HC_ROWS_H

#include "fmgr.h"
#include "funcapi.h"
#include "redis/reply.h"

/* Begins the set, of rows or of single values, that the function returns. */
extern ReturnSetInfo *hc_rows_begin(FunctionCallInfo fcinfo);

/* Adds a row of values that are made already; null where there is none. */
extern void hc_rows_put(ReturnSetInfo *rows, Datum *values, bool *nulls);

/*
 * A string or integer reply as a column of one of the types text, bytea, bigint
 * and double precision; *null for nil.  Raises what hc_result_text() raises.
 */
extern Datum hc_rows_value(const redisReply *reply, Oid type, bool *null);

/*
 * Adds all elements of an array, each as the next column of a row; none of them may
 * be nil.  nil instead of the array is an empty one.
 */
extern void hc_rows_put_array(ReturnSetInfo *rows, const redisReply *array);

#endif							/* HC_ROWS_H */
