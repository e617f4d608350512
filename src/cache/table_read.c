/*
 * table_read.c
 *	  What a mapping has at one key, read from its table.
 *
 * The rows are found by a query with the columns of the key, so that an index is
 * used and the caller's rights and policies count, and rendered by the code that
 * captures changes, so that the answer is that of Redis.  Whether a row has the
 * key is decided by rendering: equal values may be written differently.
 */
#include "postgres.h"

#include "cache/document.h"
#include "cache/table_read.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"
#include "utils/timestamp.h"

/* Rows that are in memory at a time. */
#define FETCH_ROWS	1000

/* microseconds between 1970 and 2000 */
#define UNIX_EPOCH_OFFSET \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

static void
append_columns(StringInfo query, const HcReadable *readable)
{
	int			attnum = -1;
	const char *separator = "";

	while ((attnum = bms_next_member(readable->attrs, attnum)) >= 0)
	{
		appendStringInfo(query, "%s%s", separator,
						 quote_identifier(NameStr(TupleDescAttr(readable->desc,
																attnum - 1)->attname)));
		separator = ", ";
	}
}

/* The query for the rows that may have a key; a parameter for each column. */
static SPIPlanPtr
prepare(const HcReadable *readable)
{
	Oid			relid = readable->mapping->relid;
	Oid		   *types = palloc(Max(readable->n_keys, 1) * sizeof(Oid));
	const char *separator = " WHERE ";
	StringInfoData query;
	SPIPlanPtr	plan;
	int			i;

	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT ");
	append_columns(&query, readable);

	/* tables that only inherit are not the mapping's */
	appendStringInfo(&query, " FROM %s%s", readable->partitioned ? "" : "ONLY ",
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
												get_rel_name(relid)));
	for (i = 0; i < readable->n_keys; i++)
	{
		const HcReadableKey *key = &readable->keys[i];
		char		parameter[16];

		types[i] = key->type;
		if (!OidIsValid(key->equality))
			continue;
		snprintf(parameter, sizeof(parameter), "$%d", i + 1);
		appendStringInfoString(&query, separator);
		generate_operator_clause(&query, quote_identifier(key->name), key->type,
								 key->equality, parameter, key->type);
		separator = " AND ";
	}
	plan = SPI_prepare(query.data, readable->n_keys, types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare returned %s for \"%s\"",
			 SPI_result_code_string(SPI_result), query.data);
	return plan;
}

/* Puts the columns of the query into the slot, the others are NULL. */
static void
fill_slot(const HcReadable *readable, HeapTuple tuple, TupleDesc desc,
		  TupleTableSlot *slot)
{
	int			attnum = -1;
	int			column = 0;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, readable->desc->natts * sizeof(bool));
	while ((attnum = bms_next_member(readable->attrs, attnum)) >= 0)
		slot->tts_values[attnum - 1] = SPI_getbinval(tuple, desc, ++column,
													 &slot->tts_isnull[attnum - 1]);
	ExecStoreVirtualTuple(slot);
}

/* Adds the row's entry if it has one at the key. */
static bool
add_row(HcRenderer *renderer, TupleTableSlot *slot, HcBytes key,
		HcDocument *document)
{
	TimestampTz now = GetCurrentTimestamp();
	HcOp		op;

	if (hc_render_entry(renderer, slot, now, &op) != HC_RENDERED_ENTRY ||
		!hc_bytes_equal(op.key, key))
		return false;

	/* its time is over */
	if (op.expires_at != 0 && op.expires_at <= (now + UNIX_EPOCH_OFFSET) / 1000)
		return false;
	hc_document_add_op(document, &op);
	return true;
}

Jsonb *
hc_table_read(HcReadable *readable, HcRenderer *renderer, TupleTableSlot *slot,
			  Datum *values, HcBytes key)
{
	MemoryContext context = CurrentMemoryContext;
	HcDocument *document = hc_document_begin(readable->mapping->options.kind);
	bool		more = true;
	Portal		portal;
	int			result;

	result = SPI_connect();
	if (result != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect returned %d", result);
	if (readable->plan == NULL)
	{
		SPIPlanPtr	plan = prepare(readable);

		result = SPI_keepplan(plan);
		if (result != 0)
			elog(ERROR, "SPI_keepplan returned %d", result);
		readable->plan = plan;
	}

	/* an expression of the mapping must not close it */
	portal = SPI_cursor_open(NULL, readable->plan, values, NULL, false);
	PinPortal(portal);
	while (more)
	{
		SPITupleTable *rows;
		uint64		i;

		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		rows = SPI_tuptable;
		more = SPI_processed == FETCH_ROWS;
		MemoryContextSwitchTo(context);
		for (i = 0; i < rows->numvals; i++)
		{
			CHECK_FOR_INTERRUPTS();
			fill_slot(readable, rows->vals[i], rows->tupdesc, slot);

			/* where keys are not shared, one row has it */
			if (add_row(renderer, slot, key, document) && !readable->shared)
			{
				more = false;
				break;
			}
		}
		ExecClearTuple(slot);
		SPI_freetuptable(rows);
	}
	UnpinPortal(portal);
	SPI_cursor_close(portal);
	SPI_finish();
	MemoryContextSwitchTo(context);
	return hc_document_end(document);
}
