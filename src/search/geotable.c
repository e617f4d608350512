/*
 * geotable.c
 *	  A geo index, searched in the table it is made from.
 *
 * The query only finds rows that may be near: in a box of longitudes and
 * latitudes, which any index can find.  Each row is then rendered, as for Redis:
 * so what is an entry, and where it is, is decided by the same code, with the
 * rights of the table's owner.
 *
 * The nearest of very many rows are not found by reading them all: the search
 * begins in a small area and grows, as with Redis.  How small is asked of the
 * planner, which knows how many rows there are and whether an index makes it
 * cheap.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "mapping/bytes.h"
#include "mapping/expression.h"
#include "mapping/pin.h"
#include "miscadmin.h"
#include "nodes/primnodes.h"
#include "search/geotable.h"
#include "search/readback.h"
#include "search/rowplan.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/ruleutils.h"

/* The small search is to have several times the rows that are wanted. */
#define SPARE_FACTOR	4
#define SPARE_ROWS		32

/* ... and to cost this much less than the whole one. */
#define WORTHWHILE		3.0

#define MAX_ESTIMATES	6
#define SMALLEST_AREA	1.0		/* metres */

typedef struct Search
{
	HcGeoTable *table;
	const HcGeoArea *area;
	const char *filter;
	const char *conditions;		/* that do not depend on the area; or "" */
	bool		items;
	double		limit;			/* rows further away are not taken */
	HcGeoRows  *rows;
} Search;

/* The trigger as the relation cache has it; it cannot go while we hold a lock. */
static const Trigger *
find_trigger(Relation rel, Oid oid)
{
	int			i;

	for (i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		if (rel->trigdesc->triggers[i].tgoid == oid)
			return &rel->trigdesc->triggers[i];
	}
	elog(ERROR, "relation \"%s\" has no trigger %u", RelationGetRelationName(rel), oid);
}

HcGeoTable *
hc_geotable_open(Relation rel, const HcTrigger *trigger, HcBytes key)
{
	HcGeoTable *table = palloc0(sizeof(HcGeoTable));

	table->rel = rel;
	table->mapping = hc_mapping_get(rel, find_trigger(rel, trigger->oid),
									trigger->function, CurrentMemoryContext);
	if (!hc_shape_of_trigger(&table->shape, trigger))
		elog(ERROR, "mapping \"%s\" has no valid template", trigger->name);
	table->renderer = hc_render_create(table->mapping, CurrentMemoryContext);
	table->key = key;
	table->slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	return table;
}

void
hc_geotable_close(HcGeoTable *table)
{
	ExecDropSingleTupleTableSlot(table->slot);
}

bool
hc_geotable_read(HcGeoTable *table, Datum item, HcGeoRow *row)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(item);
	HeapTupleData tuple;
	HcOp		op;
	bool		found;

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	ExecStoreHeapTuple(&tuple, table->slot, false);
	found = hc_render_identity(table->renderer, table->slot, &op) == HC_RENDERED_ENTRY &&
		hc_bytes_equal(op.key, table->key);
	ExecClearTuple(table->slot);
	if (!found)
		return false;

	row->item = item;
	row->member = op.member;
	row->longitude = op.x;
	row->latitude = op.y;
	if (table->rounded)
		hc_geoarea_round(&row->longitude, &row->latitude);
	return true;
}

void
hc_geotable_begin_query(const HcGeoTable *table, StringInfo query)
{
	Relation	rel = table->rel;
	char	   *name = RelationGetRelationName(rel);
	char	   *qualified =
		quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), name);

	/*
	 * The cast keeps the row from being taken apart.  Tables that only inherit
	 * have no part in the mapping.
	 */
	appendStringInfo(query, "SELECT (%s.*)::%s FROM %s%s WHERE ",
					 quote_identifier(name), qualified,
					 rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					 qualified);
}

/*
 * A number of degrees as a constant that an index on a column of this type can
 * be asked for, and that lies beyond it rather than before: up or down.
 */
static char *
constant(Oid type, double degrees, bool up)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return psprintf("'%d'::pg_catalog.%s",
							(int) (up ? ceil(degrees) : floor(degrees)),
							type == INT2OID ? "int2" : type == INT4OID ? "int4" : "int8");
		case NUMERICOID:
			return psprintf("'%.17g'::pg_catalog.numeric", degrees);
		default:
			return psprintf("'%.17g'::pg_catalog.float8", degrees);
	}
}

/* The column below the conversion of a number to float8; NULL: there is none. */
static Var *
converted_column(const HcExpression *expression)
{
	Node	   *node = expression->node;

	if (IsA(node, FuncExpr) && list_length(((FuncExpr *) node)->args) == 1)
	{
		switch (((FuncExpr *) node)->funcid)
		{
			case F_FLOAT8_FLOAT4:
			case F_FLOAT8_INT2:
			case F_FLOAT8_INT4:
			case F_FLOAT8_INT8:
			case F_FLOAT8_NUMERIC:
				node = linitial(((FuncExpr *) node)->args);
				break;
			default:
				break;
		}
	}
	return IsA(node, Var) ? (Var *) node : NULL;
}

/* An expression of the mapping as SQL; NULL if it must not run as the caller. */
static char *
deparse(const HcGeoTable *table, const HcExpression *expression, Node *node)
{
	List	   *context;
	HcPin		pin;
	char	   *sql;

	if (!expression->pure && !table->as_owner)
		return NULL;
	context = deparse_context_for(RelationGetRelationName(table->rel),
								  RelationGetRelid(table->rel));
	hc_pin_begin(&pin, table->mapping->owner);
	sql = deparse_expression(node, context, false, false);
	hc_pin_end(&pin);
	return sql;
}

static void
append_and(StringInfo query)
{
	if (query->len > 0)
		appendStringInfoString(query, " AND ");
}

/* low <= expression <= high, or with low > high the two ends beyond. */
static void
append_range(StringInfo query, const HcGeoTable *table,
			 const HcExpression *expression, double low, double high)
{
	Var		   *column = converted_column(expression);
	Node	   *node = column != NULL ? (Node *) column : expression->node;
	Oid			type = column != NULL ? getBaseType(column->vartype) : FLOAT8OID;
	char	   *sql = deparse(table, expression, node);

	if (sql == NULL)
		return;
	append_and(query);
	appendStringInfo(query,
					 "((%s) OPERATOR(pg_catalog.>=) %s %s (%s) OPERATOR(pg_catalog.<=) %s)",
					 sql, constant(type, low, false),
					 low > high ? "OR" : "AND",
					 sql, constant(type, high, true));
}

/* What a row of the index satisfies, wherever it is; may be empty. */
static char *
fixed_conditions(const HcGeoTable *table)
{
	StringInfoData query;
	HcReadback *readback;
	char	   *filter;

	initStringInfo(&query);
	readback = hc_readback_create(table->rel, table->shape.key_template,
								  table->shape.key);
	if (readback != NULL)
		hc_readback_append_conditions(readback, &query, table->key);
	if (table->mapping->filter != NULL)
	{
		filter = deparse(table, table->mapping->filter, table->mapping->filter->node);
		if (filter != NULL)
		{
			append_and(&query);
			appendStringInfo(&query, "(%s)", filter);
		}
	}
	return query.data;
}

static SPIPlanPtr
prepare_query(const HcGeoTable *table, const char *conditions)
{
	StringInfoData query;
	SPIPlanPtr	plan;

	initStringInfo(&query);
	hc_geotable_begin_query(table, &query);
	appendStringInfoString(&query, conditions[0] != '\0' ? conditions : "true");
	plan = SPI_prepare(query.data, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	return plan;
}

/* The plan of the query for what is within the bounds. */
static SPIPlanPtr
prepare(const Search *search, const HcGeoBounds *bounds)
{
	const HcGeoTable *table = search->table;
	StringInfoData conditions;

	initStringInfo(&conditions);
	appendStringInfoString(&conditions, search->conditions);
	if (!bounds->all_longitudes)
		append_range(&conditions, table, table->mapping->x, bounds->west, bounds->east);
	append_range(&conditions, table, table->mapping->y, bounds->south, bounds->north);
	if (search->filter != NULL)
	{
		append_and(&conditions);
		/* it may end in a comment */
		appendStringInfo(&conditions, "(%s\n)", search->filter);
	}
	return prepare_query(table, conditions.data);
}

/* What the planner thinks of it. */
static void
estimate(SPIPlanPtr plan, double *rows, double *cost)
{
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);
	PlannedStmt *statement;

	*rows = *cost = 0;
	if (cached == NULL)
		return;
	statement = linitial_node(PlannedStmt, cached->stmt_list);
	if (statement->planTree != NULL)
	{
		*rows = statement->planTree->plan_rows;
		*cost = statement->planTree->total_cost;
	}
	ReleaseCachedPlan(cached, NULL);
}

static void
take_row(Datum item, void *arg)
{
	Search	   *search = arg;
	HcGeoRow	row;

	if (!hc_geotable_read(search->table, item, &row) ||
		!hc_geoarea_contains(search->area, row.longitude, row.latitude, &row.distance) ||
		row.distance > search->limit)
		return;
	if (!search->items)
		row.item = (Datum) 0;
	hc_georows_add(search->rows, &row);
}

/*
 * The plan of a search that is small enough to begin with, and sets *limit; or
 * NULL if the whole one is as good.
 */
static SPIPlanPtr
prepare_small(const Search *search, int count, double whole_rows,
			  double whole_cost, double *limit)
{
	double		wanted = (double) count * SPARE_FACTOR + SPARE_ROWS;
	double		rows = whole_rows;
	double		cost = whole_cost;
	SPIPlanPtr	plan = NULL;
	int			i;

	*limit = hc_geoarea_reach(search->area);
	for (i = 0; i < MAX_ESTIMATES && rows > 2 * wanted && *limit > SMALLEST_AREA; i++)
	{
		HcGeoBounds bounds;

		*limit = Max(*limit * sqrt(wanted / rows), SMALLEST_AREA);
		hc_geoarea_bounds_within(search->area, *limit, &bounds);
		if (plan != NULL)
			SPI_freeplan(plan);
		plan = prepare(search, &bounds);
		estimate(plan, &rows, &cost);
	}
	if (plan != NULL && cost * WORTHWHILE > whole_cost)
	{
		SPI_freeplan(plan);
		plan = NULL;
	}
	return plan;
}

/* The nearest rows, from small areas; false if the whole one is to be read. */
static bool
search_small(Search *search, int count, Oid item_type, double whole_rows,
			 double whole_cost)
{
	double		reach = hc_geoarea_reach(search->area);
	double		rows;
	double		cost;
	SPIPlanPtr	plan;

	plan = prepare_small(search, count, whole_rows, whole_cost, &search->limit);
	while (plan != NULL)
	{
		HcGeoBounds bounds;
		int64		found;

		search->rows = hc_georows_begin(item_type, count, false);
		hc_rowplan_run(plan, NULL, take_row, search);
		SPI_freeplan(plan);
		found = hc_georows_within(search->rows, search->limit);
		if (found >= count)
			return true;
		hc_georows_end(search->rows);

		search->limit *= Min(Max(sqrt((double) count * SPARE_FACTOR / Max(found, 1)), 2), 8);
		if (search->limit >= reach)
			return false;
		hc_geoarea_bounds_within(search->area, search->limit, &bounds);
		plan = prepare(search, &bounds);
		estimate(plan, &rows, &cost);
		if (cost * WORTHWHILE > whole_cost)
			return false;
	}
	return false;
}

HcGeoRows *
hc_geotable_search(HcGeoTable *table, const HcGeoArea *area, int count,
				   bool descending, const char *filter, bool items)
{
	Oid			item_type = items ? RelationGetForm(table->rel)->reltype : InvalidOid;
	Search		search = {0};
	HcGeoBounds bounds;
	SPIPlanPtr	plan;

	search.table = table;
	search.area = area;
	search.filter = filter;
	search.conditions = fixed_conditions(table);
	search.items = items;

	hc_geoarea_bounds(area, &bounds);
	plan = prepare(&search, &bounds);
	if (count > 0 && !descending)
	{
		double		rows;
		double		cost;

		estimate(plan, &rows, &cost);
		if (search_small(&search, count, item_type, rows, cost))
			return search.rows;
	}
	search.limit = INFINITY;
	search.rows = hc_georows_begin(item_type, count, descending);
	hc_rowplan_run(plan, NULL, take_row, &search);
	SPI_freeplan(plan);
	return search.rows;
}

typedef struct Wanted
{
	HcGeoTable *table;
	HcBytes		member;
	bool		found;
	HcGeoRow	row;
} Wanted;

static void
take_wanted(Datum item, void *arg)
{
	Wanted	   *wanted = arg;
	HcGeoRow	row;

	if (hc_geotable_read(wanted->table, item, &row) &&
		hc_bytes_equal(row.member, wanted->member))
	{
		wanted->found = true;
		wanted->row = row;
	}
}

bool
hc_geotable_locate(HcGeoTable *table, HcBytes member, double *longitude,
				   double *latitude)
{
	HcReadback *readback = hc_readback_create(table->rel, table->shape.member_template,
											  table->shape.member);
	Wanted		wanted = {0};
	StringInfoData conditions;
	SPIPlanPtr	plan;

	if (!hc_match(table->shape.member, member.data, member.len))
		return false;
	initStringInfo(&conditions);
	appendStringInfoString(&conditions, fixed_conditions(table));
	if (readback != NULL)
		hc_readback_append_conditions(readback, &conditions, member);
	wanted.table = table;
	wanted.member = member;
	plan = prepare_query(table, conditions.data);
	hc_rowplan_run(plan, NULL, take_wanted, &wanted);
	SPI_freeplan(plan);
	*longitude = wanted.row.longitude;
	*latitude = wanted.row.latitude;
	return wanted.found;
}
