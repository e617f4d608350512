/*
 * query.c
 *	  A query of the user's, its rows as one JSON array.
 *
 * The query is run as it is written, not as a part of one of ours: its errors
 * point at the right place, and nothing in it can end what is around it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "cache/query.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mapping/pin.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/fmgroids.h"
#include "utils/plancache.h"
#include "utils/portal.h"

/* Rows that are in memory at a time. */
#define FETCH_ROWS	1000

/* Does it only read? */
static bool
is_select(SPIPlanPtr plan)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	CachedPlanSource *source;
	ListCell   *lc;

	if (list_length(sources) != 1)
		return false;
	source = linitial(sources);
	if (source->commandTag != CMDTAG_SELECT)
		return false;
	foreach(lc, source->query_list)
	{
		const Query *query = lfirst(lc);

		if (query->commandType != CMD_SELECT || query->hasModifyingCTE ||
			query->hasForUpdate)
			return false;
	}
	return true;
}

static SPIPlanPtr
prepare(const char *query, int n, Oid *types, const char *function)
{
	SPIPlanPtr	plan = SPI_prepare(query, n, types);

	if (plan == NULL)
		elog(ERROR, "SPI_prepare returned %s", SPI_result_code_string(SPI_result));
	if (!is_select(plan))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the query of hybrid_cache.%s() must be one SELECT", function),
				 errdetail("It must neither change nor lock rows: where its result is found in Redis, it does not run.")));
	return plan;
}

/* Adds rows to the array. */
static void
add_rows(JsonbParseState **state, FmgrInfo *to_jsonb, const SPITupleTable *rows)
{
	HcPin		pin;
	uint64		i;

	BlessTupleDesc(rows->tupdesc);

	/* what a time looks like must not depend on who asked first */
	hc_pin_begin(&pin, GetUserId());
	for (i = 0; i < rows->numvals; i++)
	{
		Datum		tuple = heap_copy_tuple_as_datum(rows->vals[i], rows->tupdesc);
		Jsonb	   *row = DatumGetJsonbP(FunctionCall1(to_jsonb, tuple));
		JsonbValue	element;

		CHECK_FOR_INTERRUPTS();
		pfree(DatumGetPointer(tuple));
		element.type = jbvBinary;
		element.val.binary.data = &row->root;
		element.val.binary.len = VARSIZE(row) - VARHDRSZ;
		pushJsonbValue(state, WJB_ELEM, &element);
	}
	hc_pin_end(&pin);
}

Jsonb *
hc_query_run(const char *query, int n, Oid *types, Datum *values,
			 const char *function)
{
	MemoryContext context = CurrentMemoryContext;
	JsonbParseState *state = NULL;
	bool		more = true;
	FmgrInfo	to_jsonb;
	SPIPlanPtr	plan;
	Portal		portal;
	Jsonb	   *result;
	int			code;

	code = SPI_connect();
	if (code != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect returned %d", code);
	plan = prepare(query, n, types, function);

	/* it asks for the type of its argument */
	fmgr_info(F_TO_JSONB, &to_jsonb);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID,
											 list_make1(makeNullConst(RECORDOID, -1, InvalidOid)),
											 InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL),
					   &to_jsonb);

	portal = SPI_cursor_open(NULL, plan, values, NULL, false);
	PinPortal(portal);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	while (more)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		more = SPI_processed == FETCH_ROWS;
		add_rows(&state, &to_jsonb, SPI_tuptable);
		SPI_freetuptable(SPI_tuptable);
	}
	UnpinPortal(portal);
	SPI_cursor_close(portal);

	/* what SPI allocates goes away with it */
	MemoryContextSwitchTo(context);
	result = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
	SPI_finish();
	MemoryContextSwitchTo(context);
	return result;
}
