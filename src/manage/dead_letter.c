/*
 * dead_letter.c
 *	  hybrid_cache.retry_dead_letter(): an entry that Redis refused, once more.
 *
 * A dead letter names the entry, not the value: what is sent is what the row
 * says now.  It goes the way of all changes, into this transaction's change
 * record, so it keeps its place among the others; and while the row is looked
 * for, writers are kept out of the table, so that what they do comes after.
 *
 * Of an event the letter has all, and that is sent.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "capture/buffer.h"
#include "capture/ledger.h"
#include "capture/lookup.h"
#include "catalog/pg_inherits.h"
#include "compat.h"
#include "fmgr.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "worker/letterbox.h"

PG_FUNCTION_INFO_V1(hybrid_cache_retry_dead_letter);

typedef struct Letter
{
	int64		id;
	Oid			relid;			/* InvalidOid: unknown */
	HcBytes		key;
	HcBytes		member;
	bool		has_member;
	bytea	   *event;			/* encoded; NULL: it is about an entry */
	ItemPointerData tid;
} Letter;

static bool
read_letter(Relation rel, int64 id, Letter *letter)
{
	Oid			index = hc_letterbox_index(rel, HC_LETTER_PRIMARY_KEY);
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData key;

	ScanKeyInit(&key, Anum_letter_id, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(id));
	scan = systable_beginscan(rel, index, OidIsValid(index), SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Datum		values[Natts_letter];
		bool		nulls[Natts_letter];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		letter->id = id;
		letter->relid = nulls[Anum_letter_relation - 1] ? InvalidOid :
			DatumGetObjectId(values[Anum_letter_relation - 1]);
		letter->key = hc_bytes_encode(DatumGetTextPCopy(values[Anum_letter_key - 1]));
		letter->has_member = !nulls[Anum_letter_member - 1];
		if (letter->has_member)
			letter->member =
				hc_bytes_encode(DatumGetTextPCopy(values[Anum_letter_member - 1]));
		letter->event = nulls[Anum_letter_payload - 1] ? NULL :
			DatumGetByteaPCopy(values[Anum_letter_payload - 1]);
		letter->tid = tuple->t_self;
	}
	systable_endscan(scan);
	return HeapTupleIsValid(tuple);
}

/* The mappings that could have the entry: HcCandidate *; none for an event. */
static List *
find_mappings(const Letter *letter)
{
	if (letter->event != NULL)
		return NIL;
	return hc_shape_having(hc_shape_candidates(letter->relid), letter->key,
						   letter->has_member ? &letter->member : NULL);
}

static void
check_owner(Oid relid)
{
	if (!hc_compat_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
}

/*
 * Whoever may decide over the table may decide what is sent of it.  Of a letter
 * without a table, only superusers.
 */
static void
check_rights(const Letter *letter, const List *mappings)
{
	ListCell   *lc;

	if (superuser())
		return;
	foreach(lc, mappings)
		check_owner(((HcCandidate *) lfirst(lc))->mapping->relid);
	if (mappings != NIL)
		return;
	if (get_rel_name(letter->relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to retry a dead letter without a table")));
	check_owner(letter->relid);
}

/* Keeps writers out of the tables of the mappings; returns their oids. */
static List *
lock_tables(const List *mappings)
{
	List	   *relids = NIL;
	ListCell   *lc;

	foreach(lc, mappings)
		relids = list_append_unique_oid(relids,
										((HcCandidate *) lfirst(lc))->mapping->relid);

	/* two sessions must not take two of them in different order */
	list_sort(relids, list_oid_cmp);
	foreach(lc, relids)
	{
		LockRelationOid(lfirst_oid(lc), ShareRowExclusiveLock);
		if (get_rel_name(lfirst_oid(lc)) != NULL)
			(void) find_all_inheritors(lfirst_oid(lc), ShareRowExclusiveLock, NULL);
	}
	return relids;
}

/* No row has the entry: so it must not be in Redis. */
static void
capture_removal(const Letter *letter, const HcCandidate *candidate)
{
	HcOp		op = {0};

	op.kind = hc_shape_removal(&candidate->shape);
	op.key = letter->key;
	op.member = letter->member;
	hc_buffer_append(&op);
}

/* Sends the event. */
static void
capture_event(const Letter *letter)
{
	const char *cursor = VARDATA(letter->event);
	const char *end = cursor + VARSIZE(letter->event) - VARHDRSZ;
	HcOp		op;

	if (!hc_op_decode(&cursor, end, &op) || cursor != end ||
		!hc_op_is_event(op.kind))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the event of dead letter %lld cannot be decoded",
						(long long) letter->id)));
	hc_buffer_append(&op);
}

/* Sends what the rows of these mappings have; false if there is none of them. */
static bool
capture_letter(const Letter *letter, const List *mappings, const List *locked)
{
	const HcCandidate *known = NULL;
	bool		found = false;
	ListCell   *lc;

	foreach(lc, mappings)
	{
		const HcCandidate *candidate = lfirst(lc);

		/* one that came just now sends its rows itself */
		if (!list_member_oid(locked, candidate->mapping->relid))
			continue;
		known = candidate;
		if (hc_lookup_capture(candidate, letter->key,
							  letter->has_member ? &letter->member : NULL))
			found = true;
	}
	if (known != NULL && !found)
		capture_removal(letter, known);
	return known != NULL;
}

/*
 * retry_dead_letter(id): sends the entry again with this transaction, as its
 * row is now, or the event, and deletes the letter.  false if nothing was sent: somebody else
 * was faster, or the mapping is gone.
 */
Datum
hybrid_cache_retry_dead_letter(PG_FUNCTION_ARGS)
{
	int64		id;
	Oid			relid;
	Relation	rel;
	Letter		letter = {0};
	List	   *locked;
	bool		sent = false;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of hybrid_cache.retry_dead_letter() must not be null",
						"id")));
	id = PG_GETARG_INT64(0);
	PreventCommandIfReadOnly("hybrid_cache.retry_dead_letter()");
	if (!hc_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("changes are not captured while hybrid_cache.enabled is off")));

	relid = hc_ledger_oid("dead_letter");
	rel = OidIsValid(relid) ? table_open(relid, RowExclusiveLock) : NULL;
	if (rel == NULL || !read_letter(rel, id, &letter))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("dead letter %lld does not exist", (long long) id),
				 errhint("The table hybrid_cache.dead_letter lists the refused changes.")));
	check_rights(&letter, find_mappings(&letter));
	locked = lock_tables(find_mappings(&letter));

	/* it may have been retried, or refused again, while we waited */
	if (read_letter(rel, id, &letter))
	{
		if (!hc_letterbox_delete(rel, &letter.tid))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("dead letter %lld is being changed by another session",
							(long long) id)));
		if (letter.event != NULL)
		{
			capture_event(&letter);
			sent = true;
		}
		else
			sent = capture_letter(&letter, find_mappings(&letter), locked);
		if (!sent)
			ereport(WARNING,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("dead letter %lld belongs to no mapping any more",
							(long long) id),
					 errdetail("There was nothing to send, and the letter is deleted.")));
	}
	table_close(rel, NoLock);
	PG_RETURN_BOOL(sent);
}
