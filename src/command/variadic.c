/*
 * variadic.c
 *	  The words of a command that is given whole, as VARIADIC "any".
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "command/variadic.h"
#include "encoding.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static void add_array(HcArguments *args, ArrayType *array, const char *function);
static void add_value(HcArguments *args, Datum value, Oid type);
static void refuse_null(const char *function);

void
hc_variadic_read(HcArguments *args, FunctionCallInfo fcinfo,
				 const char *function)
{
	hc_arguments_begin(args, NULL);
	if (get_fn_expr_variadic(fcinfo->flinfo))
	{
		if (PG_ARGISNULL(0))
			refuse_null(function);
		add_array(args, PG_GETARG_ARRAYTYPE_P(0), function);
	}
	else
	{
		for (int i = 0; i < PG_NARGS(); i++)
		{
			if (PG_ARGISNULL(i))
				refuse_null(function);
			add_value(args, PG_GETARG_DATUM(i),
					  get_fn_expr_argtype(fcinfo->flinfo, i));
		}
	}
	if (args->n == 0 || args->len[0] == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s needs the name of a command", function)));
}

static void
add_array(HcArguments *args, ArrayType *array, const char *function)
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
			refuse_null(function);
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
	data = hc_encoding_to_redis(data, &len);
	hc_arguments_add(args, data, len);
}

static void
refuse_null(const char *function)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("argument of %s is null", function),
			 errdetail("Redis knows no null."),
			 errhint("Use coalesce(), or leave the argument out.")));
}
