/*
 * geosearch.c
 *	  redis_geosearch() and its siblings: what is near, found by Redis.
 *
 * What is wrong with the arguments is said here, before anything is sent, in
 * the terms of the SQL function; Redis would say it in those of its command.
 *
 * While Redis is down, the tables answer (search/fallback.c).
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "encoding.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"
#include "search/fallback.h"
#include "search/geoquery.h"
#include "session/result.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(hybrid_cache_geosearch);
PG_FUNCTION_INFO_V1(hybrid_cache_geosearch_member);
PG_FUNCTION_INFO_V1(hybrid_cache_geosearch_box);
PG_FUNCTION_INFO_V1(hybrid_cache_geosearch_support);

/* The options that end the argument list of every form, in this order. */
#define OPTION_UNIT		0
#define OPTION_COUNT	1
#define OPTION_SORT		2
#define OPTION_ANY		3
#define NUM_OPTIONS		4

static bool any_null(FunctionCallInfo fcinfo, int n);
static void set_position(HcGeoQuery *query, float8 longitude, float8 latitude);
static double check_extent(const char *name, float8 size);
static void set_options(HcGeoQuery *query, FunctionCallInfo fcinfo);
static void run_query(FunctionCallInfo fcinfo, const HcGeoQuery *query);

/*
 * redis_geosearch(key text, longitude float8, latitude float8, radius float8,
 *				   unit text, count int, sort text, any_match boolean)
 *	  RETURNS TABLE (member text, distance float8, longitude float8,
 *					 latitude float8)
 */
Datum
hybrid_cache_geosearch(PG_FUNCTION_ARGS)
{
	HcGeoQuery	query = {0};

	InitMaterializedSRF(fcinfo, 0);
	if (any_null(fcinfo, 4))
		return (Datum) 0;

	query.key = hc_geoquery_key(PG_GETARG_TEXT_PP(0));
	set_position(&query, PG_GETARG_FLOAT8(1), PG_GETARG_FLOAT8(2));
	query.area.radius = check_extent("radius", PG_GETARG_FLOAT8(3));
	set_options(&query, fcinfo);
	run_query(fcinfo, &query);
	return (Datum) 0;
}

/*
 * redis_geosearch_member(key text, member text, radius float8, ...)
 */
Datum
hybrid_cache_geosearch_member(PG_FUNCTION_ARGS)
{
	HcGeoQuery	query = {0};
	text	   *member;

	InitMaterializedSRF(fcinfo, 0);
	if (any_null(fcinfo, 3))
		return (Datum) 0;

	query.key = hc_geoquery_key(PG_GETARG_TEXT_PP(0));
	member = PG_GETARG_TEXT_PP(1);
	query.member.len = VARSIZE_ANY_EXHDR(member);
	query.member.data = hc_encoding_to_redis(VARDATA_ANY(member), &query.member.len);
	query.area.radius = check_extent("radius", PG_GETARG_FLOAT8(2));
	set_options(&query, fcinfo);
	run_query(fcinfo, &query);
	return (Datum) 0;
}

/*
 * redis_geosearch_box(key text, longitude float8, latitude float8,
 *					   width float8, height float8, ...)
 */
Datum
hybrid_cache_geosearch_box(PG_FUNCTION_ARGS)
{
	HcGeoQuery	query = {0};

	InitMaterializedSRF(fcinfo, 0);
	if (any_null(fcinfo, 5))
		return (Datum) 0;

	query.key = hc_geoquery_key(PG_GETARG_TEXT_PP(0));
	set_position(&query, PG_GETARG_FLOAT8(1), PG_GETARG_FLOAT8(2));
	query.area.box = true;
	query.area.width = check_extent("width", PG_GETARG_FLOAT8(3));
	query.area.height = check_extent("height", PG_GETARG_FLOAT8(4));
	set_options(&query, fcinfo);
	run_query(fcinfo, &query);
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
set_position(HcGeoQuery *query, float8 longitude, float8 latitude)
{
	/* Written so that NaN is refused too. */
	if (!(fabs(longitude) <= HC_MAX_LONGITUDE))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("longitude is out of range"),
				 errdetail("Redis knows longitudes from -180 to 180 degrees."),
				 errhint("The longitude comes before the latitude.")));
	if (!(fabs(latitude) <= HC_MAX_LATITUDE))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("latitude is out of range"),
				 errdetail("Redis knows latitudes from -85.05112878 to 85.05112878 degrees."),
				 errhint("The longitude comes before the latitude.")));

	query->area.longitude = longitude;
	query->area.latitude = latitude;
}

static double
check_extent(const char *name, float8 size)
{
	if (!(size >= 0) || isinf(size))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s", name),
				 errdetail("It must be a finite number that is not negative."),
				 errhint("Its unit is given by the argument unit, \"m\" by default.")));
	return size;
}

/* unit, count, sort and any_match, which end the argument list of each form */
static void
set_options(HcGeoQuery *query, FunctionCallInfo fcinfo)
{
	int			first = PG_NARGS() - NUM_OPTIONS;
	int			unit = first + OPTION_UNIT;
	int			count = first + OPTION_COUNT;
	int			sort = first + OPTION_SORT;
	int			any = first + OPTION_ANY;

	query->unit = PG_ARGISNULL(unit) ? "null" :
		text_to_cstring(PG_GETARG_TEXT_PP(unit));
	query->metres = hc_geoarea_unit(query->unit);
	if (query->metres == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid unit \"%s\"", query->unit),
				 errhint("Units are \"m\", \"km\", \"ft\" and \"mi\".")));

	if (!PG_ARGISNULL(sort))
	{
		const char *given = text_to_cstring(PG_GETARG_TEXT_PP(sort));

		if (pg_strcasecmp(given, "asc") == 0)
			query->sort = HC_GEO_NEAREST_FIRST;
		else if (pg_strcasecmp(given, "desc") == 0)
			query->sort = HC_GEO_NEAREST_LAST;
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid sort \"%s\"", given),
					 errhint("It is \"asc\" (nearest first), \"desc\", or null for any order.")));
	}

	query->any = !PG_ARGISNULL(any) && PG_GETARG_BOOL(any);
	if (!PG_ARGISNULL(count))
	{
		if (PG_GETARG_INT32(count) <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("count must be greater than zero"),
					 errhint("Leave it out, or give null, for all that is found.")));
		query->count = PG_GETARG_INT32(count);
	}
	else if (query->any)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("any_match needs count"),
				 errdetail("It ends the search as soon as count members are found, which may not be the nearest.")));
}

/* Asks, and puts what was found into the function's result. */
static void
run_query(FunctionCallInfo fcinfo, const HcGeoQuery *query)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErrorData  *down;
	const redisReply *reply = hc_geoquery_ask(query, &down);

	if (down != NULL)
	{
		if (!hc_fallback_search(query, down, rsinfo))
			ReThrowError(down);
		return;
	}
	for (size_t i = 0; reply != NULL && i < reply->elements; i++)
	{
		HcGeoFound	found = hc_geoquery_read(reply->element[i]);
		Datum		values[4];
		bool		nulls[4] = {false, false, false, false};
		text	   *member;

		CHECK_FOR_INTERRUPTS();
		member = hc_result_text(found.member);
		values[0] = PointerGetDatum(member);
		values[1] = Float8GetDatum(found.distance);
		values[2] = Float8GetDatum(found.longitude);
		values[3] = Float8GetDatum(found.latitude);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		pfree(member);
	}
}
