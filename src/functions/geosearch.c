/*
 * geosearch.c
 *	  redis_geosearch() and its siblings: what is near, found by Redis.
 *
 * What is wrong with the arguments is said here, before anything is sent, in
 * the terms of the SQL function; Redis would say it in those of its command.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "functions/arguments.h"
#include "functions/result.h"
#include "functions/session.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(hybrid_cache_geosearch);
PG_FUNCTION_INFO_V1(hybrid_cache_geosearch_member);
PG_FUNCTION_INFO_V1(hybrid_cache_geosearch_box);
PG_FUNCTION_INFO_V1(hybrid_cache_geosearch_support);

/* The range of the Mercator projection that Redis's geohashes divide. */
#define MAX_LONGITUDE	180.0
#define MAX_LATITUDE	85.05112878

/* What Redis answers when the search starts from a member that is not there. */
#define NO_SUCH_MEMBER	"ERR could not decode requested zset member"

/* The options that end the argument list of every form, in this order. */
#define OPTION_UNIT		0
#define OPTION_COUNT	1
#define OPTION_SORT		2
#define OPTION_ANY		3
#define NUM_OPTIONS		4

static bool any_null(FunctionCallInfo fcinfo, int n);
static void add_position(HcArguments *args, float8 longitude, float8 latitude);
static void add_extent(HcArguments *args, const char *name, float8 size);
static void add_options(HcArguments *args, FunctionCallInfo fcinfo);
static const char *find_word(const char *value, const char *const words[]);
static void search(FunctionCallInfo fcinfo, const HcArguments *args);

/*
 * redis_geosearch(key text, longitude float8, latitude float8, radius float8,
 *				   unit text, count int, sort text, any_match boolean)
 *	  RETURNS TABLE (member text, distance float8, longitude float8,
 *					 latitude float8)
 */
Datum
hybrid_cache_geosearch(PG_FUNCTION_ARGS)
{
	HcArguments args;

	InitMaterializedSRF(fcinfo, 0);
	if (any_null(fcinfo, 4))
		return (Datum) 0;

	hc_arguments_begin(&args, "GEOSEARCH");
	hc_arguments_add_key(&args, PG_GETARG_TEXT_PP(0));
	add_position(&args, PG_GETARG_FLOAT8(1), PG_GETARG_FLOAT8(2));
	hc_arguments_add_literal(&args, "BYRADIUS");
	add_extent(&args, "radius", PG_GETARG_FLOAT8(3));
	add_options(&args, fcinfo);
	search(fcinfo, &args);
	return (Datum) 0;
}

/*
 * redis_geosearch_member(key text, member text, radius float8, ...)
 */
Datum
hybrid_cache_geosearch_member(PG_FUNCTION_ARGS)
{
	HcArguments args;

	InitMaterializedSRF(fcinfo, 0);
	if (any_null(fcinfo, 3))
		return (Datum) 0;

	hc_arguments_begin(&args, "GEOSEARCH");
	hc_arguments_add_key(&args, PG_GETARG_TEXT_PP(0));
	hc_arguments_add_literal(&args, "FROMMEMBER");
	hc_arguments_add_text(&args, PG_GETARG_TEXT_PP(1));
	hc_arguments_add_literal(&args, "BYRADIUS");
	add_extent(&args, "radius", PG_GETARG_FLOAT8(2));
	add_options(&args, fcinfo);
	search(fcinfo, &args);
	return (Datum) 0;
}

/*
 * redis_geosearch_box(key text, longitude float8, latitude float8,
 *					   width float8, height float8, ...)
 */
Datum
hybrid_cache_geosearch_box(PG_FUNCTION_ARGS)
{
	HcArguments args;

	InitMaterializedSRF(fcinfo, 0);
	if (any_null(fcinfo, 5))
		return (Datum) 0;

	hc_arguments_begin(&args, "GEOSEARCH");
	hc_arguments_add_key(&args, PG_GETARG_TEXT_PP(0));
	add_position(&args, PG_GETARG_FLOAT8(1), PG_GETARG_FLOAT8(2));
	hc_arguments_add_literal(&args, "BYBOX");
	add_extent(&args, "width", PG_GETARG_FLOAT8(3));
	add_extent(&args, "height", PG_GETARG_FLOAT8(4));
	add_options(&args, fcinfo);
	search(fcinfo, &args);
	return (Datum) 0;
}

/*
 * The planner's question how many rows come back: as many as count says.
 * Without a count only Redis could tell, and planning is no time to ask it;
 * then the function's own ROWS are the estimate.
 */
Datum
hybrid_cache_geosearch_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	SupportRequestRows *rows;
	List	   *args;
	Node	   *count;

	if (!IsA(request, SupportRequestRows))
		PG_RETURN_POINTER(NULL);
	rows = (SupportRequestRows *) request;
	if (rows->node == NULL || !IsA(rows->node, FuncExpr))
		PG_RETURN_POINTER(NULL);

	args = ((FuncExpr *) rows->node)->args;
	if (list_length(args) < NUM_OPTIONS)
		PG_RETURN_POINTER(NULL);
	count = list_nth(args, list_length(args) - NUM_OPTIONS + OPTION_COUNT);
	count = estimate_expression_value(rows->root, count);
	if (!IsA(count, Const) || ((Const *) count)->constisnull ||
		((Const *) count)->consttype != INT4OID ||
		DatumGetInt32(((Const *) count)->constvalue) <= 0)
		PG_RETURN_POINTER(NULL);

	rows->rows = DatumGetInt32(((Const *) count)->constvalue);
	PG_RETURN_POINTER(rows);
}

/* A search around nothing finds nothing, as with a strict function. */
static bool
any_null(FunctionCallInfo fcinfo, int n)
{
	for (int i = 0; i < n; i++)
		if (PG_ARGISNULL(i))
			return true;
	return false;
}

static void
add_position(HcArguments *args, float8 longitude, float8 latitude)
{
	/* Written so that NaN is refused too. */
	if (!(fabs(longitude) <= MAX_LONGITUDE))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("longitude is out of range"),
				 errdetail("Redis knows longitudes from -180 to 180 degrees."),
				 errhint("The longitude comes before the latitude.")));
	if (!(fabs(latitude) <= MAX_LATITUDE))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("latitude is out of range"),
				 errdetail("Redis knows latitudes from -85.05112878 to 85.05112878 degrees."),
				 errhint("The longitude comes before the latitude.")));

	hc_arguments_add_literal(args, "FROMLONLAT");
	hc_arguments_add_double(args, longitude);
	hc_arguments_add_double(args, latitude);
}

static void
add_extent(HcArguments *args, const char *name, float8 size)
{
	if (!(size >= 0) || isinf(size))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s", name),
				 errdetail("It must be a finite number that is not negative."),
				 errhint("Its unit is given by the argument unit, \"m\" by default.")));
	hc_arguments_add_double(args, size);
}

/* unit, count, sort and any_match, which end the argument list of each form */
static void
add_options(HcArguments *args, FunctionCallInfo fcinfo)
{
	static const char *const units[] = {"m", "km", "ft", "mi", NULL};
	static const char *const sorts[] = {"asc", "desc", NULL};
	int			first = PG_NARGS() - NUM_OPTIONS;
	int			unit = first + OPTION_UNIT;
	int			count = first + OPTION_COUNT;
	int			sort = first + OPTION_SORT;
	int			any = first + OPTION_ANY;
	bool		any_match = !PG_ARGISNULL(any) && PG_GETARG_BOOL(any);
	const char *given;
	const char *word;

	given = PG_ARGISNULL(unit) ? "null" : text_to_cstring(PG_GETARG_TEXT_PP(unit));
	word = find_word(given, units);
	if (word == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid unit \"%s\"", given),
				 errhint("Units are \"m\", \"km\", \"ft\" and \"mi\".")));
	hc_arguments_add_literal(args, word);

	if (!PG_ARGISNULL(sort))
	{
		given = text_to_cstring(PG_GETARG_TEXT_PP(sort));
		word = find_word(given, sorts);
		if (word == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid sort \"%s\"", given),
					 errhint("It is \"asc\" (nearest first), \"desc\", or null for any order.")));
		hc_arguments_add_literal(args, word);
	}

	if (!PG_ARGISNULL(count))
	{
		if (PG_GETARG_INT32(count) <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("count must be greater than zero"),
					 errhint("Leave it out, or give null, for all that is found.")));
		hc_arguments_add_literal(args, "COUNT");
		hc_arguments_add_integer(args, PG_GETARG_INT32(count));
		if (any_match)
			hc_arguments_add_literal(args, "ANY");
	}
	else if (any_match)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("any_match needs count"),
				 errdetail("It ends the search as soon as count members are found, which may not be the nearest.")));

	hc_arguments_add_literal(args, "WITHDIST");
	hc_arguments_add_literal(args, "WITHCOORD");
}

/* The word among words, in upper or lower case; NULL if it is none of them. */
static const char *
find_word(const char *value, const char *const words[])
{
	for (int i = 0; words[i] != NULL; i++)
		if (pg_strcasecmp(value, words[i]) == 0)
			return words[i];
	return NULL;
}

/* Sends the search and puts what it found into the function's result. */
static void
search(FunctionCallInfo fcinfo, const HcArguments *args)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const redisReply *reply = hc_session_ask(args);

	/*
	 * Redis finds nothing in a key that does not exist, but calls it an error
	 * if the key has no such member.  A row that is not in Redis (yet) must
	 * not end a query over many.
	 */
	if (reply->type == REDIS_REPLY_ERROR &&
		strcmp(reply->str, NO_SUCH_MEMBER) == 0)
		return;
	hc_reply_check(reply, hc_session_server());

	hc_reply_array(reply, HC_REPLY_ANY_LENGTH);
	for (size_t i = 0; i < reply->elements; i++)
	{
		const redisReply *found = hc_reply_array(reply->element[i], 3);
		const redisReply *position = hc_reply_array(found->element[2], 2);
		Datum		values[4];
		bool		nulls[4] = {false, false, false, false};
		text	   *member;

		CHECK_FOR_INTERRUPTS();
		member = hc_result_text(hc_reply_string(found->element[0]));
		values[0] = PointerGetDatum(member);
		values[1] = Float8GetDatum(hc_reply_double(found->element[1]));
		values[2] = Float8GetDatum(hc_reply_double(position->element[0]));
		values[3] = Float8GetDatum(hc_reply_double(position->element[1]));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		pfree(member);
	}
}
