/*
 * command.c
 *	  redis_command(): any command, its answer as JSON.
 */
#include "postgres.h"

#include <ctype.h>

#include "catalog/pg_type.h"
#include "command/refused.h"
#include "fmgr.h"
#include "functions/arguments.h"
#include "miscadmin.h"
#include "session/result.h"
#include "session/session.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(hybrid_cache_command);

static void add_array(HcArguments *args, ArrayType *array);
static void add_value(HcArguments *args, Datum value, Oid type);
static void refuse_null(void);
static const char *printable_name(const HcArguments *args);
static JsonbValue *push_array(JsonbParseState **state, const redisReply *reply);
static void set_scalar(JsonbValue *value, const redisReply *reply);

/*
 * redis_command(VARIADIC "any") RETURNS jsonb
 */
Datum
hybrid_cache_command(PG_FUNCTION_ARGS)
{
	HcArguments args;
	const redisReply *reply;
	JsonbValue	scalar;
	JsonbValue *value = &scalar;

	hc_arguments_begin(&args, NULL);
	if (get_fn_expr_variadic(fcinfo->flinfo))
	{
		if (PG_ARGISNULL(0))
			refuse_null();
		add_array(&args, PG_GETARG_ARRAYTYPE_P(0));
	}
	else
	{
		for (int i = 0; i < PG_NARGS(); i++)
		{
			if (PG_ARGISNULL(i))
				refuse_null();
			add_value(&args, PG_GETARG_DATUM(i),
					  get_fn_expr_argtype(fcinfo->flinfo, i));
		}
	}
	if (args.n == 0 || args.len[0] == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("redis_command() needs the name of a command")));
	hc_refused_check(&args);
	args.command = printable_name(&args);

	reply = hc_session_command(&args);
	if (reply->type == REDIS_REPLY_ARRAY)
	{
		JsonbParseState *state = NULL;

		value = push_array(&state, reply);
	}
	else
		set_scalar(value, reply);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(value));
}

static void
add_array(HcArguments *args, ArrayType *array)
{
	Oid			type = ARR_ELEMTYPE(array);
	int16		typlen;
	bool		typbyval;
	char		typalign;
	Datum	   *values;
	bool	   *nulls;
	int			n;

	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	deconstruct_array(array, type, typlen, typbyval, typalign,
					  &values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			refuse_null();
		add_value(args, values[i], type);
	}
}

/* As a cast to text would show it; bytea as the bytes that it is. */
static void
add_value(HcArguments *args, Datum value, Oid type)
{
	Oid			output;
	bool		is_varlena;
	char	   *data;
	size_t		len;

	switch (getBaseType(type))
	{
		case BYTEAOID:
			{
				bytea	   *bytes = DatumGetByteaPP(value);

				hc_arguments_add(args, VARDATA_ANY(bytes),
								 VARSIZE_ANY_EXHDR(bytes));
				return;
			}
		case TEXTOID:
		case VARCHAROID:
			hc_arguments_add_text(args, DatumGetTextPP(value));
			return;
		case BPCHAROID:
			{
				BpChar	   *padded = DatumGetBpCharPP(value);

				data = VARDATA_ANY(padded);
				len = bpchartruelen(data, VARSIZE_ANY_EXHDR(padded));
				break;
			}
		case BOOLOID:
			hc_arguments_add_literal(args,
									 DatumGetBool(value) ? "true" : "false");
			return;
		case UNKNOWNOID:
			data = DatumGetCString(value);
			len = strlen(data);
			break;
		default:
			getTypeOutputInfo(type, &output, &is_varlena);
			data = OidOutputFunctionCall(output, value);
			len = strlen(data);
			break;
	}
	data = hc_arguments_encode(data, &len);
	hc_arguments_add(args, data, len);
}

static void
refuse_null(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("argument of redis_command() is null"),
			 errdetail("Redis knows no null."),
			 errhint("Use coalesce(), or leave the argument out.")));
}

/*
 * The command's name, or NULL for what looks like none: the whole command in
 * one string, most likely, with the user's data.
 */
static const char *
printable_name(const HcArguments *args)
{
	if (args->len[0] > 40)
		return NULL;
	for (size_t i = 0; i < args->len[0]; i++)
	{
		unsigned char c = (unsigned char) args->data[0][i];

		if (c >= 0x80 || (!isalnum(c) && strchr("._-", c) == NULL))
			return NULL;
	}
	return pnstrdup(args->data[0], args->len[0]);
}

/* The connection limits how deep replies are nested, and so the recursion. */
static JsonbValue *
push_array(JsonbParseState **state, const redisReply *reply)
{
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (size_t i = 0; i < reply->elements; i++)
	{
		const redisReply *element = reply->element[i];

		CHECK_FOR_INTERRUPTS();
		if (element->type == REDIS_REPLY_ARRAY)
			push_array(state, element);
		else
		{
			JsonbValue	value;

			set_scalar(&value, element);
			pushJsonbValue(state, WJB_ELEM, &value);
		}
	}
	return pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static void
set_scalar(JsonbValue *value, const redisReply *reply)
{
	size_t		len;

	switch (reply->type)
	{
		case REDIS_REPLY_NIL:
			value->type = jbvNull;
			break;
		case REDIS_REPLY_INTEGER:
			value->type = jbvNumeric;
			value->val.numeric = int64_to_numeric(reply->integer);
			break;
		default:
			/* A script can put errors into an array. */
			hc_reply_check(reply, hc_session_server());
			value->type = jbvString;
			value->val.string.val = hc_result_decode(reply, &len);
			value->val.string.len = (int) len;
			break;
	}
}
