/*
 * recent.c
 *	  Which rows of a table are new, as a column of theirs says (the option since).
 *
 * The column says when the transaction began that changed the row, as now() does,
 * and that can be long before it commits.  So what was looked at is known up to
 * the start of the oldest transaction that was open then.  Nobody knows when a
 * prepared transaction began: while there is one, the time does not move on.
 *
 * The index is used directly, as in lookup.c: it says which blocks to read.  A
 * query would apply row security, and run whatever the column's type brings.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "capture/recent.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Between a session's looking at the clock and its being seen with that time. */
#define MARGIN			(10 * USECS_PER_SEC)

/* What has no time zone can be as far as this from what it says in UTC. */
#define ZONE_MARGIN		USECS_PER_DAY

struct HcRecent
{
	AttrNumber	attnum;
	Oid			type;
	Datum		from;
	bool		by_block;		/* blocks says which */
	Bitmapset  *blocks;
};

/* Sessions that do not say what they do could have begun at any time. */
static const char open_query[] =
"SELECT pg_catalog.min(xact_start),"
" pg_catalog.bool_or(state = 'disabled') IS TRUE OR EXISTS ("
"  SELECT FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database())"
" FROM pg_catalog.pg_stat_activity"
" WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()";

TimestampTz
hc_recent_mark(TimestampTz last)
{
	TimestampTz mark = GetCurrentTimestamp();
	bool		isnull;
	Datum		value;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute(open_query, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "the open transactions cannot be read");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		mark = Min(mark, DatumGetTimestampTz(value));
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	mark = DatumGetBool(value) ? last : Max(last, mark - MARGIN);
	PopActiveSnapshot();
	SPI_finish();
	return mark;
}

/* The time as a value of the column's type. */
static Datum
convert(TimestampTz from, Oid type)
{
	if (type == TIMESTAMPTZOID)
		return TimestampTzGetDatum(from);
	from -= ZONE_MARGIN;
	if (type == TIMESTAMPOID)
		return TimestampGetDatum(from);
	return DateADTGetDatum((DateADT) (from / USECS_PER_DAY - 1));
}

/* The index can be asked for rows that are not older. */
static bool
make_key(const HcRecent *recent, Relation index, ScanKey key)
{
	Form_pg_index form = index->rd_index;
	Oid			operator;
	Oid			function;

	if (index->rd_rel->relam != BTREE_AM_OID ||
		form->indkey.values[0] != recent->attnum || !form->indisvalid ||
		RelationGetIndexPredicate(index) != NIL ||
		index->rd_opcintype[0] != recent->type ||
		index->rd_support[0] >= FirstNormalObjectId)
		return false;
	operator = get_opfamily_member(index->rd_opfamily[0], recent->type,
								   recent->type, BTGreaterEqualStrategyNumber);
	function = OidIsValid(operator) ? get_opcode(operator) : InvalidOid;
	if (!OidIsValid(function) || function >= FirstNormalObjectId)
		return false;
	ScanKeyEntryInitialize(key, 0, 1, BTGreaterEqualStrategyNumber, InvalidOid,
						   InvalidOid, function, recent->from);
	return true;
}

static void
find_blocks(HcRecent *recent, Relation rel, Relation index, ScanKey key,
			Snapshot snapshot)
{
	IndexScanDesc scan = hc_compat_index_beginscan(rel, index, snapshot, 1);
	ItemPointer tid;

	index_rescan(scan, key, 1, NULL, 0);
	while ((tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		recent->blocks = bms_add_member(recent->blocks,
										(int) ItemPointerGetBlockNumber(tid));
	}
	index_endscan(scan);
	recent->by_block = true;
}

HcRecent *
hc_recent_find(Relation rel, const HcMapping *mapping, TimestampTz from,
			   Snapshot snapshot)
{
	HcRecent   *recent = palloc0(sizeof(HcRecent));
	ListCell   *lc;

	recent->attnum = mapping->since;
	recent->type = getBaseType(TupleDescAttr(RelationGetDescr(rel),
											 mapping->since - 1)->atttypid);
	recent->from = convert(from, recent->type);

	/* the blocks are members of a set, which are ints */
	if (RelationGetNumberOfBlocks(rel) > PG_INT32_MAX)
		return recent;
	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		ScanKeyData key;

		if (!recent->by_block && make_key(recent, index, &key))
			find_blocks(recent, rel, index, &key, snapshot);
		index_close(index, NoLock);
	}
	return recent;
}

bool
hc_recent_blocks(const HcRecent *recent, BlockNumber *first, BlockNumber *end)
{
	int			block;

	if (!recent->by_block)
		return *first < *end;
	if (*first > PG_INT32_MAX)
		return false;
	block = bms_next_member(recent->blocks, (int) *first - 1);
	if (block < 0 || (BlockNumber) block >= *end)
		return false;
	*first = block;
	while (bms_is_member(block, recent->blocks))
		block++;
	*end = Min(*end, (BlockNumber) block);
	return true;
}

bool
hc_recent_has(const HcRecent *recent, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, recent->attnum, &isnull);

	if (isnull)
		return false;
	if (recent->type == DATEOID)
		return DatumGetDateADT(value) >= DatumGetDateADT(recent->from);
	return DatumGetTimestampTz(value) >= DatumGetTimestampTz(recent->from);
}
