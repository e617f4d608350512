/*
 * georows.c
 *	  What a search found, sorted by distance.
 *
 * PostgreSQL's own sort does it: it goes to disk for an answer of any size, and
 * keeps no more than count rows where there is a count.
 */
#include "postgres.h"

#include "catalog/pg_operator_d.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "search/georows.h"
#include "utils/tuplesort.h"

enum
{
	COLUMN_ORDER,				/* the distance, or its negative */
	COLUMN_MEMBER,
	COLUMN_LONGITUDE,
	COLUMN_LATITUDE,
	COLUMN_ITEM,
	NUM_COLUMNS
};

struct HcGeoRows
{
	bool		descending;
	bool		sorted;
	int64		left;			/* that may come out */
	Tuplesortstate *sort;
	TupleTableSlot *slot;
	double	   *distances;		/* of all that were added */
	int64		n;
	int64		size;
};

HcGeoRows *
hc_georows_begin(Oid item_type, int count, bool descending)
{
	HcGeoRows  *rows = palloc0(sizeof(HcGeoRows));
	TupleDesc	desc = CreateTemplateTupleDesc(NUM_COLUMNS);
	AttrNumber	columns[] = {COLUMN_ORDER + 1, COLUMN_MEMBER + 1};
	Oid			operators[] = {Float8LessOperator, ByteaLessOperator};
	Oid			collations[] = {InvalidOid, InvalidOid};
	bool		nulls_first[] = {false, false};

	TupleDescInitEntry(desc, COLUMN_ORDER + 1, "order", FLOAT8OID, -1, 0);
	TupleDescInitEntry(desc, COLUMN_MEMBER + 1, "member", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, COLUMN_LONGITUDE + 1, "longitude", FLOAT8OID, -1, 0);
	TupleDescInitEntry(desc, COLUMN_LATITUDE + 1, "latitude", FLOAT8OID, -1, 0);
	TupleDescInitEntry(desc, COLUMN_ITEM + 1, "item",
					   OidIsValid(item_type) ? item_type : BYTEAOID, -1, 0);
	rows->descending = descending;
	rows->left = count > 0 ? count : PG_INT64_MAX;
	rows->sort = tuplesort_begin_heap(desc, lengthof(columns), columns, operators,
									  collations, nulls_first, work_mem, NULL,
									  count > 0 ? TUPLESORT_ALLOWBOUNDED : TUPLESORT_NONE);
	if (count > 0)
		tuplesort_set_bound(rows->sort, count);
	rows->slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	rows->size = 64;
	rows->distances = palloc(rows->size * sizeof(double));
	return rows;
}

void
hc_georows_add(HcGeoRows *rows, const HcGeoRow *row)
{
	TupleTableSlot *slot = rows->slot;
	bytea	   *member = palloc(VARHDRSZ + row->member.len);

	SET_VARSIZE(member, VARHDRSZ + row->member.len);
	memcpy(VARDATA(member), row->member.data, row->member.len);

	ExecClearTuple(slot);
	memset(slot->tts_isnull, 0, NUM_COLUMNS * sizeof(bool));
	slot->tts_values[COLUMN_ORDER] =
		Float8GetDatum(rows->descending ? -row->distance : row->distance);
	slot->tts_values[COLUMN_MEMBER] = PointerGetDatum(member);
	slot->tts_values[COLUMN_LONGITUDE] = Float8GetDatum(row->longitude);
	slot->tts_values[COLUMN_LATITUDE] = Float8GetDatum(row->latitude);
	slot->tts_values[COLUMN_ITEM] = row->item;
	slot->tts_isnull[COLUMN_ITEM] = row->item == (Datum) 0;
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(rows->sort, slot);
	ExecClearTuple(slot);
	pfree(member);

	if (rows->n == rows->size)
	{
		rows->size *= 2;
		rows->distances = repalloc_huge(rows->distances, rows->size * sizeof(double));
	}
	rows->distances[rows->n++] = row->distance;
}

int64
hc_georows_within(const HcGeoRows *rows, double distance)
{
	int64		within = 0;
	int64		i;

	for (i = 0; i < rows->n; i++)
	{
		if (rows->distances[i] <= distance)
			within++;
	}
	return within;
}

bool
hc_georows_next(HcGeoRows *rows, HcGeoRow *row)
{
	TupleTableSlot *slot = rows->slot;
	bytea	   *member;

	if (!rows->sorted)
	{
		tuplesort_performsort(rows->sort);
		rows->sorted = true;
	}
	if (rows->left-- <= 0 ||
		!tuplesort_gettupleslot(rows->sort, true, false, slot, NULL))
		return false;
	slot_getallattrs(slot);
	row->distance = DatumGetFloat8(slot->tts_values[COLUMN_ORDER]);
	if (rows->descending)
		row->distance = -row->distance;
	member = DatumGetByteaPP(slot->tts_values[COLUMN_MEMBER]);
	row->member.data = VARDATA_ANY(member);
	row->member.len = VARSIZE_ANY_EXHDR(member);
	row->longitude = DatumGetFloat8(slot->tts_values[COLUMN_LONGITUDE]);
	row->latitude = DatumGetFloat8(slot->tts_values[COLUMN_LATITUDE]);
	row->item = slot->tts_isnull[COLUMN_ITEM] ? (Datum) 0 :
		slot->tts_values[COLUMN_ITEM];
	return true;
}

void
hc_georows_end(HcGeoRows *rows)
{
	ExecDropSingleTupleTableSlot(rows->slot);
	tuplesort_end(rows->sort);
}
