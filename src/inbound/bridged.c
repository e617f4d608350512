/*
 * bridged.c
 *	  The table hybrid_cache.bridged: which messages of Redis become
 *	  notifications, on which channels.
 *
 * It is written below SQL, like the other tables of the extension, so that who may
 * call the functions needs no rights on it.  It stays small, so it is scanned.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "capture/ledger.h"
#include "catalog/indexing.h"
#include "common/hashfn.h"
#include "inbound/bridged.h"
#include "mapping/bytes.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#define Anum_bridged_pattern	1
#define Anum_bridged_channel	2
#define Anum_bridged_with_channel 3
#define Natts_bridged			3

static uint64
make_id(HcBytes subject, const char *channel)
{
	uint64		id = hash_bytes_extended((const unsigned char *) subject.data,
										 (int) subject.len, 0);

	id = hash_bytes_extended((const unsigned char *) channel, (int) strlen(channel), id);
	return id != 0 ? id : 1;
}

static HcBridged *
read_tuple(Relation rel, HeapTuple tuple)
{
	HcBridged  *bridge = palloc0(sizeof(HcBridged));
	Datum		values[Natts_bridged];
	bool		nulls[Natts_bridged];

	heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
	bridge->pattern = DatumGetTextPCopy(values[Anum_bridged_pattern - 1]);
	bridge->subject = hc_bytes_encode(bridge->pattern);
	bridge->channel = TextDatumGetCString(values[Anum_bridged_channel - 1]);
	bridge->with_channel = DatumGetBool(values[Anum_bridged_with_channel - 1]);
	bridge->id = make_id(bridge->subject, bridge->channel);
	return bridge;
}

List *
hc_bridged_list(bool *exists)
{
	Relation	rel = hc_ledger_open("bridged", AccessShareLock);
	List	   *bridges = NIL;
	SysScanDesc scan;
	HeapTuple	tuple;

	*exists = rel != NULL;
	if (rel == NULL)
		return NIL;
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		bridges = lappend(bridges, read_tuple(rel, tuple));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return bridges;
}

/*
 * Opened so that nobody else writes to it: what is looked for stays as it is until
 * this transaction ends.
 */
static Relation
open_to_change(void)
{
	Relation	rel = hc_ledger_open("bridged", ShareRowExclusiveLock);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the table hybrid_cache.bridged does not exist")));
	return rel;
}

/* Where it is in the table; false: nowhere. */
static bool
find(Relation rel, text *pattern, const char *channel, ItemPointerData *tid)
{
	HcBytes		subject = hc_bytes_encode(pattern);
	bool		found = false;
	SysScanDesc scan;
	HeapTuple	tuple;

	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		const HcBridged *bridge = read_tuple(rel, tuple);

		found = hc_bytes_equal(bridge->subject, subject) &&
			strcmp(bridge->channel, channel) == 0;
		if (found)
			*tid = tuple->t_self;
	}
	systable_endscan(scan);
	return found;
}

bool
hc_bridged_add(text *pattern, const char *channel, bool with_channel)
{
	Relation	rel = open_to_change();
	ItemPointerData tid;
	bool		result = !find(rel, pattern, channel, &tid);

	if (result)
	{
		Datum		values[Natts_bridged];
		bool		nulls[Natts_bridged] = {0};

		values[Anum_bridged_pattern - 1] = PointerGetDatum(pattern);
		values[Anum_bridged_channel - 1] = CStringGetTextDatum(channel);
		values[Anum_bridged_with_channel - 1] = BoolGetDatum(with_channel);
		CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls));
	}
	table_close(rel, NoLock);
	return result;
}

bool
hc_bridged_remove(text *pattern, const char *channel)
{
	Relation	rel = open_to_change();
	ItemPointerData tid;
	bool		result = find(rel, pattern, channel, &tid);

	if (result)
		CatalogTupleDelete(rel, &tid);
	table_close(rel, NoLock);
	return result;
}
