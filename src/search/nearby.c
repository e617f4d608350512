/*
 * nearby.c
 *	  hybrid_cache.nearby(): the rows of a table that are near a position.
 *
 * Redis says which members are near, and the table which rows they are: whether
 * the caller may see a row, whether it still belongs into the index, whether it
 * passes the caller's filter, and how far away it is, is all decided by the row as
 * it is now.  Where Redis cannot say, the table alone answers, by the same rules:
 * so both ways give the same answer (search/georedis.c, search/geotable.c).
 */
#include "postgres.h"

#include <math.h>

#include "access/table.h"
#include "capture/ledger.h"
#include "catalog/pg_class.h"
#include "compat.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"
#include "parser/parse_type.h"
#include "search/geoquery.h"
#include "search/georedis.h"
#include "search/geotable.h"
#include "search/rowfilter.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(hybrid_cache_nearby);
PG_FUNCTION_INFO_V1(hybrid_cache_nearby_support);

/* The SQL function's parameters. */
enum
{
	ARG_BASE,
	ARG_LONGITUDE,
	ARG_LATITUDE,
	ARG_RADIUS,
	ARG_UNIT,
	ARG_COUNT,
	ARG_FILTER,
	ARG_MAPPING,
	ARG_KEY
};

typedef struct Nearby
{
	HcGeoTable *table;
	HcGeoArea	area;
	double		unit;			/* in metres */
	int			count;			/* 0: all */
	char	   *filter;			/* or NULL */
	text	   *key;			/* without hybrid_cache.key_prefix */
	HcGeoRows  *rows;			/* what was found */
} Nearby;

/* Raises unless the caller may read all columns of the table. */
static void
check_rights(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);

	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_SELECT, ACLMASK_ALL) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(rel->rd_rel->relkind),
					   RelationGetRelationName(rel));
}

/* The table whose rows base is a type of. */
static Relation
open_table(FunctionCallInfo fcinfo)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, ARG_BASE);
	Oid			relid = OidIsValid(type) ? typeidTypeRelid(type) : InvalidOid;
	char		relkind = OidIsValid(relid) ? get_rel_relkind(relid) : '\0';
	Relation	rel;

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("type %s is not the row type of a table",
						OidIsValid(type) ? format_type_be(type) : "unknown"),
				 errhint("Name the table by a null of its row type: NULL::my_table.")));
	rel = table_open(relid, AccessShareLock);
	check_rights(rel);
	return rel;
}

static void
append_name(StringInfo names, const char *name)
{
	appendStringInfo(names, "%s\"%s\"", names->len > 0 ? ", " : "", name);
}

/* The geo mapping of the table: the one of that name, or the only one. */
static HcTrigger *
find_mapping(Relation rel, const char *name)
{
	List	   *found = NIL;
	StringInfoData names;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, hc_catalog_relation(RelationGetRelid(rel), NULL))
	{
		HcTrigger  *trigger = lfirst(lc);

		if (!hc_catalog_is_row(trigger) ||
			strcmp(hc_catalog_kind(trigger), hc_kind_name(HC_KIND_GEO)) != 0)
			continue;
		append_name(&names, trigger->name);
		if (name == NULL || strcmp(name, trigger->name) == 0)
			found = lappend(found, trigger);
	}
	if (list_length(found) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
				 errmsg("table \"%s\" has several geo mappings",
						RelationGetRelationName(rel)),
				 errdetail("They are %s.", names.data),
				 errhint("Choose one with the argument mapping.")));
	if (found == NIL && names.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no geo mapping \"%s\"",
						RelationGetRelationName(rel), name),
				 errdetail("It has %s.", names.data)));
	if (found == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no geo mapping",
						RelationGetRelationName(rel)),
				 errhint("Make one with hybrid_cache.attach(%s, 'geo', ...).",
						 quote_literal_cstr(RelationGetRelationName(rel)))));
	return linitial(found);
}

/* The key of the index: given, or the one that all rows have. */
static text *
find_key(const HcTrigger *trigger, text *given)
{
	const char *source = hc_catalog_option(trigger, HC_OPTION_KEY);
	const char *problem;
	const char *hint;
	HcTemplate *tmpl = hc_template_parse(source != NULL ? source : "", &problem, &hint);

	if (given != NULL)
		return given;
	if (tmpl == NULL)
		elog(ERROR, "mapping \"%s\" has no valid template", trigger->name);
	if (tmpl->n_parts > 1 || (tmpl->n_parts == 1 && tmpl->parts[0].is_column))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mapping \"%s\" has several keys", trigger->name),
				 errdetail("Its key template is \"%s\".", source),
				 errhint("Say which one with the argument key, without hybrid_cache.key_prefix.")));
	return cstring_to_text(tmpl->n_parts == 1 ? tmpl->parts[0].text : "");
}

static double
read_position(FunctionCallInfo fcinfo, int arg, const char *name, double limit)
{
	double		value = PG_GETARG_FLOAT8(arg);

	/* written so that NaN is refused too */
	if (!(fabs(value) <= limit))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("%s is out of range", name),
				 errdetail("Redis knows %ss from %.10g to %.10g degrees.", name, -limit, limit),
				 errhint("The longitude comes before the latitude.")));
	return value;
}

/* What is asked for; that longitude, latitude and radius are not null is known. */
static void
read_arguments(FunctionCallInfo fcinfo, Nearby *nearby)
{
	double		radius = PG_GETARG_FLOAT8(ARG_RADIUS);
	const char *unit = PG_ARGISNULL(ARG_UNIT) ? "null" :
		text_to_cstring(PG_GETARG_TEXT_PP(ARG_UNIT));

	nearby->area.longitude = read_position(fcinfo, ARG_LONGITUDE, "longitude",
										   HC_MAX_LONGITUDE);
	nearby->area.latitude = read_position(fcinfo, ARG_LATITUDE, "latitude",
										  HC_MAX_LATITUDE);
	if (!(radius >= 0) || isinf(radius))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid radius"),
				 errdetail("It must be a finite number that is not negative."),
				 errhint("Its unit is given by the argument unit, \"m\" by default.")));
	nearby->unit = hc_geoarea_unit(unit);
	if (nearby->unit == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid unit \"%s\"", unit),
				 errhint("Units are \"m\", \"km\", \"ft\" and \"mi\".")));
	nearby->area.radius = radius * nearby->unit;
	if (!PG_ARGISNULL(ARG_COUNT))
	{
		nearby->count = PG_GETARG_INT32(ARG_COUNT);
		if (nearby->count <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("count must be greater than zero"),
					 errhint("Leave it out, or give null, for all that is found.")));
	}
	if (!PG_ARGISNULL(ARG_FILTER))
		nearby->filter = text_to_cstring(PG_GETARG_TEXT_PP(ARG_FILTER));
}

/* Is the index in Redis kept equal, and is nothing known that it lacks? */
static bool
is_current(const HcTrigger *trigger)
{
	return hc_catalog_fires(trigger) &&
		hc_owed_reasons(hc_catalog_root(trigger)) == NIL;
}

/* The rows as the function's result. */
static void
put_rows(ReturnSetInfo *rsinfo, Nearby *nearby, const char *source)
{
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	HcGeoRow	row;

	values[2] = CStringGetTextDatum(source);
	while (hc_georows_next(nearby->rows, &row))
	{
		CHECK_FOR_INTERRUPTS();
		values[0] = row.item;
		values[1] = Float8GetDatum(row.distance / nearby->unit);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	hc_georows_end(nearby->rows);
}

/*
 * nearby(base anyelement, longitude float8, latitude float8, radius float8,
 *		  unit text, count int, filter text, mapping name, key text)
 *	  RETURNS TABLE (item anyelement, distance float8, source text)
 */
Datum
hybrid_cache_nearby(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Nearby		nearby = {0};
	HcTrigger  *trigger;
	Relation	rel;
	bool		from_redis;

	InitMaterializedSRF(fcinfo, 0);
	rel = open_table(fcinfo);

	/* a search around nothing finds nothing, as with a strict function */
	if (PG_ARGISNULL(ARG_LONGITUDE) || PG_ARGISNULL(ARG_LATITUDE) ||
		PG_ARGISNULL(ARG_RADIUS))
	{
		table_close(rel, NoLock);
		return (Datum) 0;
	}
	read_arguments(fcinfo, &nearby);
	trigger = find_mapping(rel, PG_ARGISNULL(ARG_MAPPING) ? NULL :
						   NameStr(*PG_GETARG_NAME(ARG_MAPPING)));
	nearby.key = find_key(trigger, PG_ARGISNULL(ARG_KEY) ? NULL :
						  PG_GETARG_TEXT_PP(ARG_KEY));
	nearby.table = hc_geotable_open(rel, trigger, hc_geoquery_key(nearby.key));
	if (!hc_match(nearby.table->shape.key, nearby.table->key.data, nearby.table->key.len))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mapping \"%s\" has no key \"%s\"", trigger->name,
						text_to_cstring(nearby.key)),
				 errdetail("Its key template is \"%s\".",
						   hc_catalog_option(trigger, HC_OPTION_KEY)),
				 errhint("Give the key as Redis has it, without hybrid_cache.key_prefix.")));
	if (nearby.filter != NULL)
		hc_rowfilter_check(rel, nearby.filter);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (is_current(trigger))
		nearby.rows = hc_georedis_search(nearby.table, &nearby.area, nearby.count,
										 nearby.filter);
	from_redis = nearby.rows != NULL;
	if (!from_redis)
		nearby.rows = hc_geotable_search(nearby.table, &nearby.area, nearby.count,
										 false, nearby.filter, true);
	put_rows(rsinfo, &nearby, from_redis ? "redis" : "table");
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	hc_geotable_close(nearby.table);
	table_close(rel, NoLock);
	return (Datum) 0;
}

/* The planner's question how many rows come back: as many as count says. */
Datum
hybrid_cache_nearby_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	SupportRequestRows *rows = (SupportRequestRows *) request;
	Node	   *count;

	if (!IsA(request, SupportRequestRows) || rows->node == NULL ||
		!IsA(rows->node, FuncExpr) ||
		list_length(((FuncExpr *) rows->node)->args) <= ARG_COUNT)
		PG_RETURN_POINTER(NULL);
	count = estimate_expression_value(rows->root,
									  list_nth(((FuncExpr *) rows->node)->args, ARG_COUNT));
	if (!IsA(count, Const) || ((Const *) count)->constisnull ||
		DatumGetInt32(((Const *) count)->constvalue) <= 0)
		PG_RETURN_POINTER(NULL);
	rows->rows = DatumGetInt32(((Const *) count)->constvalue);
	PG_RETURN_POINTER(rows);
}
