/*
 * call.c
 *	  SQL functions that are one Redis command each.
 *
 * There are many of them, and they differ in little: which arguments they have
 * and what the reply becomes.  So that is all that their files say, and what is
 * the same for all is here, above all what is refused.
 *
 * Functions that only read are strict: a key that is null has a value that is
 * null.  Those that change something are not, since an INSERT that silently does
 * nothing is no help to anybody; they need their arguments.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "command/call.h"
#include "compat.h"
#include "funcapi.h"
#include "session/result.h"
#include "session/rows.h"
#include "session/session.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static const redisReply *run(FunctionCallInfo fcinfo, const char *command,
							 const char *form);

void
hc_call_need(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of %s() must not be null",
						hc_call_parameter(fcinfo, n), hc_call_function(fcinfo)),
				 errdetail("Redis knows no null.")));
}

const char *
hc_call_function(FunctionCallInfo fcinfo)
{
	return get_func_name(fcinfo->flinfo->fn_oid);
}

const char *
hc_call_parameter(FunctionCallInfo fcinfo, int n)
{
	HeapTuple	proc = SearchSysCache1(PROCOID,
									   ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	const char *result = NULL;
	Datum		names;
	Datum		modes;
	bool		no_names;
	bool		no_modes;

	if (!HeapTupleIsValid(proc))
		elog(ERROR, "cache lookup failed for function %u", fcinfo->flinfo->fn_oid);
	names = SysCacheGetAttr(PROCOID, proc, Anum_pg_proc_proargnames, &no_names);
	modes = SysCacheGetAttr(PROCOID, proc, Anum_pg_proc_proargmodes, &no_modes);
	if (!no_names)
	{
		char	  **list;
		int			n_names = get_func_input_arg_names(names,
													   no_modes ? (Datum) 0 : modes,
													   &list);

		if (n < n_names)
			result = list[n];
	}
	ReleaseSysCache(proc);
	return result != NULL ? result : psprintf("$%d", n + 1);
}

bool
hc_call_option(FunctionCallInfo fcinfo, int n)
{
	return !PG_ARGISNULL(n) && PG_GETARG_BOOL(n);
}

void
hc_call_begin(HcArguments *args, FunctionCallInfo fcinfo, const char *command,
			  const char *form)
{
	int			n;

	hc_arguments_begin(args, command);
	for (n = 0; form[n] != '\0'; n++)
	{
		hc_call_need(fcinfo, n);
		switch (form[n])
		{
			case 'k':
				hc_arguments_add_key(args, PG_GETARG_TEXT_PP(n));
				break;
			case 't':
				hc_arguments_add_text(args, PG_GETARG_TEXT_PP(n));
				break;
			case 'b':
				{
					bytea	   *bytes = PG_GETARG_BYTEA_PP(n);

					hc_arguments_add(args, VARDATA_ANY(bytes),
									 VARSIZE_ANY_EXHDR(bytes));
					break;
				}
			case 'i':
				hc_arguments_add_integer(args, PG_GETARG_INT64(n));
				break;
			case 'd':
				hc_arguments_add_double(args, PG_GETARG_FLOAT8(n));
				break;
			default:
				elog(ERROR, "unknown letter in form \"%s\"", form);
		}
	}
}

Datum
hc_call_text(FunctionCallInfo fcinfo, const char *command, const char *form)
{
	text	   *result = hc_result_text(run(fcinfo, command, form));

	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}

Datum
hc_call_bytea(FunctionCallInfo fcinfo, const char *command, const char *form)
{
	bytea	   *result = hc_result_bytea(run(fcinfo, command, form));

	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(result);
}

Datum
hc_call_integer(FunctionCallInfo fcinfo, const char *command, const char *form)
{
	const redisReply *reply = run(fcinfo, command, form);

	if (reply->type == REDIS_REPLY_NIL)
		PG_RETURN_NULL();
	PG_RETURN_INT64(hc_reply_integer(reply));
}

Datum
hc_call_boolean(FunctionCallInfo fcinfo, const char *command, const char *form)
{
	PG_RETURN_BOOL(hc_reply_integer(run(fcinfo, command, form)) != 0);
}

Datum
hc_call_double(FunctionCallInfo fcinfo, const char *command, const char *form)
{
	const redisReply *reply = run(fcinfo, command, form);

	if (reply->type == REDIS_REPLY_NIL)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(hc_reply_double(reply));
}

Datum
hc_call_rows(FunctionCallInfo fcinfo, const char *command, const char *form)
{
	ReturnSetInfo *rows = hc_rows_begin(fcinfo);

	hc_rows_put_array(rows, run(fcinfo, command, form));
	return (Datum) 0;
}

static const redisReply *
run(FunctionCallInfo fcinfo, const char *command, const char *form)
{
	HcArguments args;

	hc_call_begin(&args, fcinfo, command, form);
	return hc_session_command(&args);
}
