/*
 * parameter.h
 *	  Parameters of SQL functions that are not strict, checked one by one.
 *
 * n is the number of a parameter from 0, name what the documentation calls it;
 * function is the name of the SQL function, without "hybrid_cache.".
 */
#ifndef HC_PARAMETER_H
#define HC_PARAMETER_H

#include "fmgr.h"

/* Raises 22004 if the parameter is null. */
extern void hc_parameter_need(FunctionCallInfo fcinfo, int n, const char *name,
							  const char *function);

/* Text; raises 22004 for null and 22023 for an empty one. */
extern text *hc_parameter_text(FunctionCallInfo fcinfo, int n, const char *name,
							   const char *function);

/*
 * An interval as milliseconds, where a month is 30 days and a day is 24 hours;
 * raises 22004 for null and 22023 unless it is between one millisecond and 1000
 * years.
 */
extern int64 hc_parameter_duration(FunctionCallInfo fcinfo, int n,
								   const char *name, const char *function);

#endif							/* HC_PARAMETER_H */
