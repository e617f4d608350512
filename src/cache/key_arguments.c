/*
 * key_arguments.c
 *	  The arguments of a function that are the columns of a mapping's key.
 *
 * They are understood as in a query with "column = argument": literals are read
 * as the column's type, and other types are cast where that happens implicitly.
 * Integers of all sizes are taken for each other.  What the column cannot hold is
 * equal to no row: an integer that is too large, a text longer than varchar(n).
 */
#include "postgres.h"

#include "cache/key_arguments.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* How one argument becomes a value. */
typedef struct Way
{
	const HcReadableKey *key;
	Oid			from;			/* the argument's type */
	FmgrInfo	input;			/* from UNKNOWN: the type's input function */
	Oid			input_param;
	ExprState  *cast;			/* NULL: there is nothing to do */
	ExprState  *fit;			/* to the column's length; NULL: it has none */
	FmgrInfo	equality;		/* with fit */
} Way;

struct HcKeyArguments
{
	const HcReadable *readable;
	int			first;
	bool		variadic;		/* called with VARIADIC array */
	ExprContext *econtext;
	Way		   *ways;
};

/* The call as it should be, for messages. */
static char *
signature(const HcReadable *readable)
{
	StringInfoData buf;
	int			i;

	initStringInfo(&buf);
	for (i = 0; i < readable->n_keys; i++)
		appendStringInfo(&buf, "%s%s %s", i > 0 ? ", " : "",
						 quote_identifier(readable->keys[i].name),
						 format_type_be(readable->keys[i].type));
	return buf.data;
}

static void
check_number(const HcReadable *readable, int n)
{
	if (n == readable->n_keys)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg_plural("a key of mapping \"%s\" has %d column, not %d",
						   "a key of mapping \"%s\" has %d columns, not %d",
						   readable->n_keys, readable->mapping->name,
						   readable->n_keys, n),
			 readable->n_keys > 0
			 ? errhint("The columns of the key are: %s.", signature(readable))
			 : errhint("Give nothing after the name of the mapping.")));
}

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* An expression over one value, which is econtext->caseValue_datum. */
static ExprState *
make_state(Node *node)
{
	return ExecInitExpr(expression_planner((Expr *) node), NULL);
}

static Node *
make_input(Oid type)
{
	CaseTestExpr *input = makeNode(CaseTestExpr);

	input->typeId = type;
	input->typeMod = -1;
	input->collation = get_typcollation(type);
	return (Node *) input;
}

static void
find_cast(const HcReadable *readable, Way *way)
{
	Node	   *input;
	Node	   *cast;

	/* what a query would compare as text */
	Oid			target = way->key->type == VARCHAROID ? TEXTOID : way->key->type;

	if (way->from == UNKNOWNOID)
	{
		Oid			function;

		getTypeInputInfo(way->key->type, &function, &way->input_param);
		fmgr_info(function, &way->input);
		return;
	}
	if (getBaseType(way->from) == way->key->type ||
		(is_integer(getBaseType(way->from)) && is_integer(way->key->type)))
		return;
	input = make_input(way->from);
	cast = coerce_to_target_type(NULL, input, way->from, target, -1,
								 COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, -1);
	if (cast == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of a key of mapping \"%s\" is of type %s, not %s",
						way->key->name, readable->mapping->name,
						format_type_be(way->key->type), format_type_be(way->from)),
				 errhint("The columns of the key are: %s.", signature(readable))));
	if (cast != input)
		way->cast = make_state(cast);
}

/* varchar(3), numeric(10,2) and their kin. */
static void
find_fit(Way *way)
{
	const HcReadableKey *key = way->key;
	Node	   *input = make_input(key->type);
	Node	   *fit;

	if (key->typmod < 0 || !OidIsValid(key->equality))
		return;
	fit = coerce_to_target_type(NULL, input, key->type, key->type, key->typmod,
								COERCION_EXPLICIT, COERCE_EXPLICIT_CAST, -1);
	if (fit == NULL || fit == input)
		return;
	way->fit = make_state(fit);
	fmgr_info(get_opcode(key->equality), &way->equality);
}

HcKeyArguments *
hc_key_arguments_create(const HcReadable *readable, FunctionCallInfo fcinfo,
						int first)
{
	HcKeyArguments *arguments = palloc0(sizeof(HcKeyArguments));
	FmgrInfo   *flinfo = fcinfo->flinfo;
	int			i;

	arguments->readable = readable;
	arguments->first = first;
	arguments->variadic = PG_NARGS() > first && get_fn_expr_variadic(flinfo);
	if (!arguments->variadic)
		check_number(readable, PG_NARGS() - first);
	arguments->econtext = CreateStandaloneExprContext();
	arguments->ways = palloc0(Max(readable->n_keys, 1) * sizeof(Way));
	for (i = 0; i < readable->n_keys; i++)
	{
		Way		   *way = &arguments->ways[i];

		way->key = &readable->keys[i];
		way->from = arguments->variadic
			? get_element_type(getBaseType(get_fn_expr_argtype(flinfo, first)))
			: get_fn_expr_argtype(flinfo, first + i);
		if (!OidIsValid(way->from))
			ereport(ERROR,
					(errcode(ERRCODE_INDETERMINATE_DATATYPE),
					 errmsg("could not determine the type of an argument")));
		find_cast(readable, way);
		find_fit(way);
	}
	return arguments;
}

/* A literal that cannot be read: say what it should have been. */
static void
input_error_callback(void *arg)
{
	const HcKeyArguments *arguments = arg;

	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
		errhint("The columns of the key are: %s.", signature(arguments->readable));
}

static Datum
read_literal(HcKeyArguments *arguments, Way *way, char *literal)
{
	ErrorContextCallback callback;
	Datum		value;

	callback.callback = input_error_callback;
	callback.arg = arguments;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	value = InputFunctionCall(&way->input, literal, way->input_param, -1);
	error_context_stack = callback.previous;
	return value;
}

/* false: the number is too large for the other type */
static bool
convert_integer(Oid from, Oid to, Datum *value)
{
	int64		number = from == INT8OID ? DatumGetInt64(*value) :
		from == INT4OID ? DatumGetInt32(*value) : DatumGetInt16(*value);

	if (to == INT8OID)
		*value = Int64GetDatum(number);
	else if (to == INT4OID && number >= PG_INT32_MIN && number <= PG_INT32_MAX)
		*value = Int32GetDatum((int32) number);
	else if (to == INT2OID && number >= PG_INT16_MIN && number <= PG_INT16_MAX)
		*value = Int16GetDatum((int16) number);
	else
		return false;
	return true;
}

/* Evaluates with the value as input; false for NULL. */
static bool
evaluate(HcKeyArguments *arguments, ExprState *state, Datum *value)
{
	ExprContext *econtext = arguments->econtext;
	bool		isnull;

	econtext->caseValue_datum = *value;
	econtext->caseValue_isNull = false;
	*value = ExecEvalExpr(state, econtext, &isnull);
	return !isnull;
}

static bool
convert(HcKeyArguments *arguments, Way *way, Datum *value)
{
	Oid			from = getBaseType(way->from);

	if (from == UNKNOWNOID)
		*value = read_literal(arguments, way, DatumGetCString(*value));
	else if (from != way->key->type && is_integer(from) && is_integer(way->key->type))
	{
		if (!convert_integer(from, way->key->type, value))
			return false;
	}
	else if (way->cast != NULL && !evaluate(arguments, way->cast, value))
		return false;

	if (way->fit != NULL)
	{
		Datum		fitted = *value;

		if (!evaluate(arguments, way->fit, &fitted) ||
			!DatumGetBool(FunctionCall2Coll(&way->equality, way->key->collation,
											fitted, *value)))
			return false;
		*value = fitted;
	}
	return true;
}

/* The elements of VARIADIC array; false if one is NULL. */
static bool
read_array(HcKeyArguments *arguments, ArrayType *array, Datum *values)
{
	int16		typlen;
	bool		typbyval;
	char		typalign;
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			i;

	get_typlenbyvalalign(ARR_ELEMTYPE(array), &typlen, &typbyval, &typalign);
	deconstruct_array(array, ARR_ELEMTYPE(array), typlen, typbyval, typalign,
					  &elements, &nulls, &n);
	check_number(arguments->readable, n);
	for (i = 0; i < n; i++)
	{
		if (nulls[i])
			return false;
		values[i] = elements[i];
	}
	return true;
}

bool
hc_key_arguments_read(HcKeyArguments *arguments, FunctionCallInfo fcinfo,
					  Datum *values)
{
	int			n = arguments->readable->n_keys;
	int			i;

	if (arguments->variadic)
	{
		if (PG_ARGISNULL(arguments->first) ||
			!read_array(arguments, PG_GETARG_ARRAYTYPE_P(arguments->first), values))
			return false;
	}
	else
	{
		for (i = 0; i < n; i++)
		{
			if (PG_ARGISNULL(arguments->first + i))
				return false;
			values[i] = PG_GETARG_DATUM(arguments->first + i);
		}
	}
	for (i = 0; i < n; i++)
	{
		if (!convert(arguments, &arguments->ways[i], &values[i]))
			return false;
	}
	return true;
}
