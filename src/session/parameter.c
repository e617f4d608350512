/*
 * parameter.c
 *	  Parameters of SQL functions that are not strict, checked one by one.
 *
 * A strict function returns null when it is given one, which somebody who takes a
 * lock or asks for a limit would take for an answer.
 */
#include "postgres.h"

#include "compat.h"
#include "session/parameter.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

void
hc_parameter_need(FunctionCallInfo fcinfo, int n, const char *name,
				  const char *function)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of hybrid_cache.%s() must not be null",
						name, function)));
}

text *
hc_parameter_text(FunctionCallInfo fcinfo, int n, const char *name,
				  const char *function)
{
	text	   *result;

	hc_parameter_need(fcinfo, n, name, function);
	result = PG_GETARG_TEXT_PP(n);
	if (VARSIZE_ANY_EXHDR(result) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of hybrid_cache.%s() must not be empty",
						name, function)));
	return result;
}

int64
hc_parameter_duration(FunctionCallInfo fcinfo, int n, const char *name,
					  const char *function)
{
	const Interval *interval;
	double		ms;

	hc_parameter_need(fcinfo, n, name, function);
	interval = PG_GETARG_INTERVAL_P(n);
	ms = ((double) interval->month * DAYS_PER_MONTH + interval->day) *
		(SECS_PER_DAY * 1000.0) + interval->time / 1000;
	if (ms < 1 || ms > (double) SECS_PER_DAY * 1000 * DAYS_PER_YEAR * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid \"%s\" of hybrid_cache.%s()", name, function),
				 errhint("It must be an interval between one millisecond and 1000 years.")));
	return (int64) ms;
}
