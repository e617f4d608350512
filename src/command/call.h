/*
 * call.h
 *	  SQL functions that are one Redis command each.
 *
 * A form says what becomes of the first arguments of the SQL function, in their
 * order, with a letter for each: k a key (text), t text, b bytea, i bigint,
 * d double precision.
 */
#ifndef HC_CALL_H
#define HC_CALL_H

#include "fmgr.h"
#include "redis/arguments.h"
#include "redis/reply.h"

/* Raises 22004 if argument n (from 0) is null. */
extern void hc_call_need(FunctionCallInfo fcinfo, int n);

/* For messages: the name of the function, and that of its parameter n. */
extern const char *hc_call_function(FunctionCallInfo fcinfo);
extern const char *hc_call_parameter(FunctionCallInfo fcinfo, int n);

/* Is argument n there and true? */
extern bool hc_call_option(FunctionCallInfo fcinfo, int n);

/*
 * Begins a command with the arguments that the form describes.  Raises 22004 for
 * a null among them.
 */
extern void hc_call_begin(HcArguments *args, FunctionCallInfo fcinfo,
						  const char *command, const char *form);

/*
 * Whole functions: begin, one round trip, and the reply as the result.  Nothing
 * in Redis is null; boolean is whether the reply is another number than 0.
 */
extern Datum hc_call_text(FunctionCallInfo fcinfo, const char *command,
						  const char *form);
extern Datum hc_call_bytea(FunctionCallInfo fcinfo, const char *command,
						   const char *form);
extern Datum hc_call_integer(FunctionCallInfo fcinfo, const char *command,
							 const char *form);
extern Datum hc_call_boolean(FunctionCallInfo fcinfo, const char *command,
							 const char *form);
extern Datum hc_call_double(FunctionCallInfo fcinfo, const char *command,
							const char *form);

/* A set; the elements of the reply, row by row (hc_rows_put_array()). */
extern Datum hc_call_rows(FunctionCallInfo fcinfo, const char *command,
						  const char *form);

#endif							/* HC_CALL_H */
