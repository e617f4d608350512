/*
 * letterbox.c
 *	  The table hybrid_cache.dead_letter: letters are put in, found again by their
 *	  entry, and taken out.
 *
 * The table is written below SQL, as the ledger is (see ledger.c), and the sync
 * worker waits for nobody who uses it: whoever holds a lock on a letter only
 * makes it come a second time, whoever locks the whole table makes it be lost.
 *
 * There is one letter per entry, however often it is refused, found by a hash
 * of key and member, since an index cannot hold keys of any length.  An event has
 * no row from which it could be made again, so it has a letter of its own, and
 * that has all of it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "capture/ledger.h"
#include "capture/shape.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "compat.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "redis/reply.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/letterbox.h"

/* How long somebody may lock the whole table before letters are lost. */
#define LOCK_WAIT_MS	1000
#define LOCK_STEP_MS	10

/* The mappings of a table, kept while letters are written. */
typedef struct Origin
{
	Oid			relid;
	List	   *candidates;
} Origin;

struct HcLetterbox
{
	Relation	rel;
	Oid			sequence;
	Oid			entry_index;	/* InvalidOid: look through the table */
	List	   *origins;		/* Origin *, in context */
	MemoryContext context;		/* of this struct */
};

static bool take_old(HcLetterbox *box, int64 entry, const text *key,
					 const text *member, Datum *values);
static bool same_text(Datum value, bool isnull, const text *other);
static uint64 hash_entry(HcBytes key, const HcBytes *member);
static text *readable(HcBytes bytes);
static void set_origin(HcLetterbox *box, Oid relid, HcBytes key,
					   const HcBytes *member, Datum *values, bool *nulls);
static List *find_mappings(HcLetterbox *box, Oid relid, HcBytes key,
						   const HcBytes *member);

HcLetterbox *
hc_letterbox_open(void)
{
	Oid			relid = hc_ledger_oid("dead_letter");
	Oid			sequence = hc_ledger_oid("dead_letter_id_seq");
	HcLetterbox *box;
	Relation	rel;
	int			waited = 0;

	if (!OidIsValid(relid) || !OidIsValid(sequence))
		return NULL;
	while (!ConditionalLockRelationOid(relid, RowExclusiveLock))
	{
		if (waited >= LOCK_WAIT_MS)
			return NULL;
		(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOCK_STEP_MS,
						 HC_WAIT_WORKER);
		CHECK_FOR_INTERRUPTS();
		waited += LOCK_STEP_MS;
	}
	rel = try_table_open(relid, NoLock);
	if (rel == NULL)
		return NULL;
	box = palloc0(sizeof(HcLetterbox));
	box->rel = rel;
	box->sequence = sequence;
	box->entry_index = hc_letterbox_index(rel, "dead_letter_entry_idx");
	box->context = CurrentMemoryContext;
	return box;
}

void
hc_letterbox_close(HcLetterbox *box)
{
	table_close(box->rel, NoLock);
}

bool
hc_letterbox_put(HcLetterbox *box, const HcLetter *letter)
{
	Datum		values[Natts_letter] = {0};
	bool		nulls[Natts_letter] = {0};
	text	   *key = readable(letter->key);
	text	   *member = letter->member != NULL ? readable(*letter->member) : NULL;
	int64		hash = (int64) hash_entry(letter->key, letter->member);
	bool		old;
	HeapTuple	tuple;

	values[Anum_letter_entry - 1] = Int64GetDatum(hash);
	old = letter->event == NULL && take_old(box, hash, key, member, values);
	values[Anum_letter_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	if (!old)
	{
		values[Anum_letter_id - 1] =
			Int64GetDatum(nextval_internal(box->sequence, false));
		values[Anum_letter_attempts - 1] = Int64GetDatum(1);
		values[Anum_letter_since - 1] = values[Anum_letter_at - 1];
	}
	if (letter->event != NULL)
	{
		values[Anum_letter_relation - 1] = ObjectIdGetDatum(letter->relid);
		nulls[Anum_letter_relation - 1] = !OidIsValid(letter->relid);
		nulls[Anum_letter_mapping - 1] = true;
	}
	else if (letter->mapping == NULL)
		set_origin(box, letter->relid, letter->key, letter->member,
				   values, nulls);
	else
	{
		values[Anum_letter_relation - 1] = ObjectIdGetDatum(letter->relid);
		values[Anum_letter_mapping - 1] =
			DirectFunctionCall1(namein, CStringGetDatum(letter->mapping));
	}
	values[Anum_letter_op - 1] = CStringGetTextDatum(letter->op);
	values[Anum_letter_key - 1] = PointerGetDatum(key);
	nulls[Anum_letter_member - 1] = member == NULL;
	values[Anum_letter_member - 1] = PointerGetDatum(member);
	values[Anum_letter_error - 1] = CStringGetTextDatum(letter->message);
	values[Anum_letter_sqlstate - 1] =
		CStringGetTextDatum(unpack_sql_state(letter->sqlstate));
	values[Anum_letter_lsn - 1] = LSNGetDatum(letter->lsn);
	nulls[Anum_letter_payload - 1] = letter->event == NULL;
	if (letter->event != NULL)
		values[Anum_letter_payload - 1] =
			PointerGetDatum(cstring_to_text_with_len(letter->event->data,
													 (int) letter->event->len));

	tuple = heap_form_tuple(RelationGetDescr(box->rel), values, nulls);
	CatalogTupleInsert(box->rel, tuple);
	return !old;
}

int64
hc_letterbox_count(HcLetterbox *box)
{
	SysScanDesc scan = systable_beginscan(box->rel, InvalidOid, false,
										  SnapshotSelf, 0, NULL);
	int64		n = 0;

	while (HeapTupleIsValid(systable_getnext(scan)))
		n++;
	systable_endscan(scan);
	return n;
}

uint64
hc_letterbox_delete_oldest(HcLetterbox *box, int64 n)
{
	Relation	rel = box->rel;
	Oid			primary = hc_letterbox_index(rel, HC_LETTER_PRIMARY_KEY);
	Relation	index;
	SysScanDesc scan;
	HeapTuple	tuple;
	uint64		deleted = 0;

	if (!OidIsValid(primary))
		return 0;
	index = index_open(primary, AccessShareLock);
	scan = systable_beginscan_ordered(rel, index, SnapshotSelf, 0, NULL);
	while (n-- > 0 &&
		   HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		if (hc_letterbox_delete(rel, &tuple->t_self))
			deleted++;
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	return deleted;
}

void
hc_letterbox_forget(Oid relid, const char *mapping, TimestampTz before)
{
	Oid			table = hc_ledger_oid("dead_letter");
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData key;

	if (!OidIsValid(table) || !ConditionalLockRelationOid(table, RowExclusiveLock))
		return;
	rel = try_table_open(table, NoLock);
	if (rel == NULL)
		return;
	ScanKeyInit(&key, Anum_letter_relation, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_letter];
		bool		nulls[Natts_letter];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		if (!nulls[Anum_letter_mapping - 1] &&
			strcmp(NameStr(*DatumGetName(values[Anum_letter_mapping - 1])), mapping) == 0 &&
			strcmp(TextDatumGetCString(values[Anum_letter_op - 1]), HC_LETTER_RENDER) == 0 &&
			DatumGetTimestampTz(values[Anum_letter_at - 1]) < before)
			(void) hc_letterbox_delete(rel, &tuple->t_self);
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
}

bool
hc_letterbox_delete(Relation rel, ItemPointer tid)
{
	TM_FailureData failure;

	return table_tuple_delete(rel, tid, GetCurrentCommandId(true), SnapshotSelf,
							  InvalidSnapshot, false, &failure, false) == TM_Ok;
}

Oid
hc_letterbox_index(Relation rel, const char *name)
{
	Oid			index = get_relname_relid(name, RelationGetNamespace(rel));

	if (!OidIsValid(index) ||
		IndexGetRelation(index, true) != RelationGetRelid(rel))
		return InvalidOid;
	return index;
}

/*
 * Takes the letter of this entry out of the table, if there is one: sets what
 * the new one goes on with.
 */
static bool
take_old(HcLetterbox *box, int64 entry, const text *key, const text *member,
		 Datum *values)
{
	Relation	rel = box->rel;
	bool		taken = false;
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData search;

	ScanKeyInit(&search, Anum_letter_entry, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(entry));
	scan = systable_beginscan(rel, box->entry_index,
							  OidIsValid(box->entry_index), SnapshotSelf, 1,
							  &search);
	while (!taken && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		old[Natts_letter];
		bool		nulls[Natts_letter];

		heap_deform_tuple(tuple, RelationGetDescr(rel), old, nulls);
		if (!nulls[Anum_letter_payload - 1] ||
			!same_text(old[Anum_letter_key - 1], nulls[Anum_letter_key - 1], key) ||
			!same_text(old[Anum_letter_member - 1],
					   nulls[Anum_letter_member - 1], member) ||
			!hc_letterbox_delete(rel, &tuple->t_self))
			continue;
		values[Anum_letter_id - 1] = old[Anum_letter_id - 1];
		values[Anum_letter_attempts - 1] =
			Int64GetDatum(DatumGetInt64(old[Anum_letter_attempts - 1]) + 1);
		values[Anum_letter_since - 1] = old[Anum_letter_since - 1];
		taken = true;
	}
	systable_endscan(scan);
	return taken;
}

static bool
same_text(Datum value, bool isnull, const text *other)
{
	text	   *mine;

	if (isnull || other == NULL)
		return isnull && other == NULL;
	mine = DatumGetTextPP(value);
	return VARSIZE_ANY_EXHDR(mine) == VARSIZE_ANY_EXHDR(other) &&
		memcmp(VARDATA_ANY(mine), VARDATA_ANY(other),
			   VARSIZE_ANY_EXHDR(other)) == 0;
}

static uint64
hash_entry(HcBytes key, const HcBytes *member)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) key.data,
										   (int) key.len, 0);

	if (member == NULL)
		return hash;
	return hash_combine64(hash,
						  hash_bytes_extended((const unsigned char *) member->data,
											  (int) member->len, 1));
}

/* The text, or what can be shown of it. */
static text *
readable(HcBytes bytes)
{
	text	   *result = hc_bytes_text(bytes);

	if (result == NULL)
		result = cstring_to_text(hc_reply_clean(pnstrdup(bytes.data, bytes.len)));
	return result;
}

/* Where the op comes from, as far as that can be told. */
static void
set_origin(HcLetterbox *box, Oid relid, HcBytes key, const HcBytes *member,
		   Datum *values, bool *nulls)
{
	List	   *mappings = find_mappings(box, relid, key, member);

	nulls[Anum_letter_mapping - 1] = list_length(mappings) != 1;
	if (list_length(mappings) == 1)
	{
		const HcTrigger *mapping = ((HcCandidate *) linitial(mappings))->mapping;

		relid = mapping->relid;
		values[Anum_letter_mapping - 1] =
			DirectFunctionCall1(namein, CStringGetDatum(mapping->name));
	}
	nulls[Anum_letter_relation - 1] = !OidIsValid(relid);
	values[Anum_letter_relation - 1] = ObjectIdGetDatum(relid);
}

/* The mappings that could have made the op. */
static List *
find_mappings(HcLetterbox *box, Oid relid, HcBytes key, const HcBytes *member)
{
	Origin	   *origin = NULL;
	ListCell   *lc;
	MemoryContext old;

	foreach(lc, box->origins)
	{
		origin = lfirst(lc);
		if (origin->relid == relid)
			return hc_shape_having(origin->candidates, key, member);
	}
	old = MemoryContextSwitchTo(box->context);
	origin = palloc(sizeof(Origin));
	origin->relid = relid;
	origin->candidates = hc_shape_candidates(relid);
	box->origins = lappend(box->origins, origin);
	MemoryContextSwitchTo(old);
	return hc_shape_having(origin->candidates, key, member);
}
