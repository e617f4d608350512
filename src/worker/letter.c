/*
 * letter.c
 *	  Changes that Redis refused for good: the table hybrid_cache.dead_letter.
 *
 * A letter says which entry is not what its row says, and why.  The value is
 * not kept: the row is the truth, and values can be private.
 *
 * The table is written below SQL, as the ledger is (see ledger.c), and the sync
 * worker waits for nobody who uses it: whoever holds a lock on a letter only
 * makes it come a second time, whoever locks the whole table makes it be lost.
 *
 * There is one letter per entry, however often it is refused, found by a hash
 * of key and member, since an index cannot hold keys of any length.
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
#include "postmaster/bgworker.h"
#include "redis/reply.h"
#include "settings.h"
#include "shmem.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/letter.h"
#include "worker/wire.h"

/* How long somebody may lock the whole table before letters are lost. */
#define LOCK_WAIT_MS	1000
#define LOCK_STEP_MS	10

/* Refusals and losses come in floods: say it once, then again after this time. */
#define LOG_INTERVAL_MS	60000

/* The mappings of a table, kept while letters are written. */
typedef struct Origin
{
	Oid			relid;
	List	   *candidates;
} Origin;

typedef struct Writer
{
	Relation	rel;
	Oid			sequence;
	Oid			entry_index;	/* InvalidOid: look through the table */
	List	   *origins;		/* Origin *, in context */
	MemoryContext context;
	MemoryContext step;			/* reset after each letter */
} Writer;

/*
 * How many letters there are at most, -1 if that is not known.  Only this
 * process adds any.
 */
static int64 n_letters = -1;

/* Where the next refusal goes: when there is no room, it is the oldest's place. */
static HcRefusal *
next_refusal(HcBatch *batch)
{
	if (batch->n_refusals >= hc_max_dead_letters)
	{
		uint64		place = batch->n_unkept++;

		return batch->n_refusals == 0 ? NULL :
			&batch->refusals[place % batch->n_refusals];
	}
	if (batch->n_refusals == batch->max_refusals)
	{
		batch->max_refusals = Max(16, 2 * batch->max_refusals);
		batch->refusals = batch->refusals == NULL ?
			palloc(batch->max_refusals * sizeof(HcRefusal)) :
			repalloc(batch->refusals, batch->max_refusals * sizeof(HcRefusal));
	}
	return &batch->refusals[batch->n_refusals++];
}

/* Says it, now and then. */
static void
say_refused(HcBatch *batch, int slot, const char *message)
{
	static TimestampTz last_logged = 0;
	static uint64 n_unlogged = 0;
	TimestampTz now = GetCurrentTimestamp();
	char	   *key = hc_reply_clean(hc_batch_key(batch, slot));
	char	   *words = hc_reply_clean(message);

	n_unlogged++;
	if (last_logged == 0 ||
		TimestampDifferenceExceeds(last_logged, now, LOG_INTERVAL_MS))
	{
		ereport(LOG,
				(errcode(hc_reply_sqlstate(message)),
				 errmsg("Redis refused a change of key \"%s\"", key),
				 errdetail_plural("%s; " UINT64_FORMAT " change refused since the last message.",
								  "%s; " UINT64_FORMAT " changes refused since the last message.",
								  (unsigned long) n_unlogged,
								  words, n_unlogged),
				 hc_reply_hint(message) ? errhint("%s", hc_reply_hint(message)) : 0));
		last_logged = now;
		n_unlogged = 0;
	}
	hc_shmem_set_error(hc_shmem_mine(), psprintf("key \"%s\": %s", key, words));
	pfree(key);
	pfree(words);
}

void
hc_letter_add(HcBatch *batch, int slot, const char *message)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	HcRefusal  *refusal = next_refusal(batch);

	say_refused(batch, slot, message);
	if (refusal != NULL)
	{
		/* usually it is the same words over and over */
		if (batch->refusal_text == NULL ||
			strcmp(batch->refusal_text, message) != 0)
			batch->refusal_text = pstrdup(message);
		refusal->slot = slot;
		refusal->message = batch->refusal_text;
	}
	MemoryContextSwitchTo(old);
}

/* These letters are not kept, or not any longer. */
static void
count_dropped(uint64 n, const char *why)
{
	static TimestampTz last_logged = 0;
	static uint64 n_unlogged = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (n == 0)
		return;
	hc_shmem_count(HC_COUNT_DROPPED, n);
	n_unlogged += n;
	if (last_logged != 0 &&
		!TimestampDifferenceExceeds(last_logged, now, LOG_INTERVAL_MS))
		return;
	ereport(LOG,
			(errmsg_plural("%s dropped " UINT64_FORMAT " dead letter",
						   "%s dropped " UINT64_FORMAT " dead letters",
						   (unsigned long) n_unlogged,
						   MyBgworkerEntry->bgw_name, n_unlogged),
			 errdetail_internal("%s", why)));
	last_logged = now;
	n_unlogged = 0;
}

bool
hc_letter_delete(Relation rel, ItemPointer tid)
{
	TM_FailureData failure;

	return table_tuple_delete(rel, tid, GetCurrentCommandId(true), SnapshotSelf,
							  InvalidSnapshot, false, &failure, false) == TM_Ok;
}

Oid
hc_letter_index(Relation rel, const char *name)
{
	Oid			index = get_relname_relid(name, RelationGetNamespace(rel));

	if (!OidIsValid(index) ||
		IndexGetRelation(index, true) != RelationGetRelid(rel))
		return InvalidOid;
	return index;
}

/* Opens the table; false if it is not there or somebody has locked it. */
static bool
open_table(Writer *writer)
{
	Oid			relid = hc_ledger_oid("dead_letter");
	int			waited = 0;

	writer->sequence = hc_ledger_oid("dead_letter_id_seq");
	if (!OidIsValid(relid) || !OidIsValid(writer->sequence))
		return false;
	while (!ConditionalLockRelationOid(relid, RowExclusiveLock))
	{
		if (waited >= LOCK_WAIT_MS)
			return false;
		(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOCK_STEP_MS,
						 HC_WAIT_WORKER);
		CHECK_FOR_INTERRUPTS();
		waited += LOCK_STEP_MS;
	}
	writer->rel = try_table_open(relid, NoLock);
	if (writer->rel == NULL)
		return false;
	writer->entry_index = hc_letter_index(writer->rel, "dead_letter_entry_idx");
	return true;
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

/*
 * Takes the letter of this entry out of the table, if there is one: sets what
 * the new one goes on with.
 */
static bool
take_old(Writer *writer, int64 entry, const text *key, const text *member,
		 Datum *values)
{
	Relation	rel = writer->rel;
	bool		taken = false;
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData search;

	ScanKeyInit(&search, Anum_letter_entry, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(entry));
	scan = systable_beginscan(rel, writer->entry_index,
							  OidIsValid(writer->entry_index), SnapshotSelf, 1,
							  &search);
	while (!taken && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		old[Natts_letter];
		bool		nulls[Natts_letter];

		heap_deform_tuple(tuple, RelationGetDescr(rel), old, nulls);
		if (!same_text(old[Anum_letter_key - 1], nulls[Anum_letter_key - 1], key) ||
			!same_text(old[Anum_letter_member - 1],
					   nulls[Anum_letter_member - 1], member) ||
			!hc_letter_delete(rel, &tuple->t_self))
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

/* The mappings that could have made the op. */
static List *
find_mappings(Writer *writer, Oid relid, HcBytes key, const HcBytes *member)
{
	Origin	   *origin = NULL;
	ListCell   *lc;
	MemoryContext old;

	foreach(lc, writer->origins)
	{
		origin = lfirst(lc);
		if (origin->relid == relid)
			return hc_shape_having(origin->candidates, key, member);
	}
	old = MemoryContextSwitchTo(writer->context);
	origin = palloc(sizeof(Origin));
	origin->relid = relid;
	origin->candidates = hc_shape_candidates(relid);
	writer->origins = lappend(writer->origins, origin);
	MemoryContextSwitchTo(old);
	return hc_shape_having(origin->candidates, key, member);
}

/* Where the op comes from, as far as that can be told. */
static void
set_origin(Writer *writer, Oid relid, HcBytes key, const HcBytes *member,
		   Datum *values, bool *nulls)
{
	List	   *mappings = find_mappings(writer, relid, key, member);

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

/* The text, or what can be shown of it. */
static text *
readable(HcBytes bytes)
{
	text	   *result = hc_bytes_text(bytes);

	if (result == NULL)
		result = cstring_to_text(hc_reply_clean(pnstrdup(bytes.data, bytes.len)));
	return result;
}

/* Writes one letter; returns how many more there are in the table. */
static int
write_letter(Writer *writer, HcBatch *batch, const HcRefusal *refusal)
{
	const HcSlot *slot = &batch->slots[refusal->slot];
	bool		has_member = hc_op_has_member(slot->kind);
	HcBytes		key = {batch->text.data + slot->key, slot->key_len};
	HcBytes		member = {batch->text.data + slot->member, slot->member_len};
	Datum		values[Natts_letter] = {0};
	bool		nulls[Natts_letter] = {0};
	text	   *key_text = readable(key);
	text	   *member_text = has_member ? readable(member) : NULL;
	uint64		hash = hash_bytes_extended((const unsigned char *) key.data,
										   (int) key.len, 0);
	bool		old;
	HeapTuple	tuple;

	if (has_member)
		hash = hash_combine64(hash,
							  hash_bytes_extended((const unsigned char *) member.data,
												  (int) member.len, 1));

	values[Anum_letter_entry - 1] = Int64GetDatum((int64) hash);
	old = take_old(writer, (int64) hash, key_text, member_text, values);
	values[Anum_letter_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	if (!old)
	{
		values[Anum_letter_id - 1] =
			Int64GetDatum(nextval_internal(writer->sequence, false));
		values[Anum_letter_attempts - 1] = Int64GetDatum(1);
		values[Anum_letter_since - 1] = values[Anum_letter_at - 1];
	}
	set_origin(writer, slot->version.relation, key,
			   has_member ? &member : NULL, values, nulls);
	values[Anum_letter_op - 1] = CStringGetTextDatum(hc_wire_verb(slot->kind));
	values[Anum_letter_key - 1] = PointerGetDatum(key_text);
	nulls[Anum_letter_member - 1] = !has_member;
	values[Anum_letter_member - 1] = PointerGetDatum(member_text);
	values[Anum_letter_error - 1] = CStringGetTextDatum(hc_reply_clean(refusal->message));
	values[Anum_letter_sqlstate - 1] =
		CStringGetTextDatum(unpack_sql_state(hc_reply_sqlstate(refusal->message)));
	values[Anum_letter_lsn - 1] = LSNGetDatum(slot->lsn);

	tuple = heap_form_tuple(RelationGetDescr(writer->rel), values, nulls);
	CatalogTupleInsert(writer->rel, tuple);
	return old ? 0 : 1;
}

static int64
count_letters(Relation rel)
{
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, SnapshotSelf, 0,
										  NULL);
	int64		n = 0;

	while (HeapTupleIsValid(systable_getnext(scan)))
		n++;
	systable_endscan(scan);
	return n;
}

/* Deletes the n letters with the smallest ids. */
static void
delete_oldest(Relation rel, int64 n)
{
	Oid			primary = hc_letter_index(rel, HC_LETTER_PRIMARY_KEY);
	Relation	index;
	SysScanDesc scan;
	HeapTuple	tuple;
	uint64		deleted = 0;

	if (!OidIsValid(primary))
		return;
	index = index_open(primary, AccessShareLock);
	scan = systable_beginscan_ordered(rel, index, SnapshotSelf, 0, NULL);
	while (n-- > 0 &&
		   HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		if (hc_letter_delete(rel, &tuple->t_self))
			deleted++;
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	count_dropped(deleted,
				  "There were more than hybrid_cache.max_dead_letters.");
}

/* Others may have deleted letters, so it is counted before anything goes. */
static void
keep_bound(Relation rel)
{
	if (n_letters >= 0 && n_letters <= hc_max_dead_letters)
		return;
	n_letters = count_letters(rel);
	if (n_letters > hc_max_dead_letters)
	{
		delete_oldest(rel, n_letters - hc_max_dead_letters);
		n_letters = hc_max_dead_letters;
	}
}

static void
write_letters(HcBatch *batch)
{
	Writer		writer = {0};
	MemoryContext old;
	int			i;

	if (!open_table(&writer))
	{
		count_dropped(batch->n_refusals,
					  "The table hybrid_cache.dead_letter was locked or is gone.");
		return;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	writer.context = CurrentMemoryContext;
	writer.step = AllocSetContextCreate(CurrentMemoryContext,
										"hybrid_cache letter",
										ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(writer.step);
	for (i = 0; i < batch->n_refusals; i++)
	{
		int			more;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(writer.step);
		more = write_letter(&writer, batch, &batch->refusals[i]);
		if (n_letters >= 0)
			n_letters += more;
	}
	MemoryContextSwitchTo(old);
	CommandCounterIncrement();
	keep_bound(writer.rel);
	PopActiveSnapshot();
	table_close(writer.rel, NoLock);
}

void
hc_letter_write(HcBatch *batch)
{
	MemoryContext old = CurrentMemoryContext;

	hc_shmem_count(HC_COUNT_REFUSED, batch->n_refusals + batch->n_unkept);
	count_dropped(batch->n_unkept,
				  "There were more than hybrid_cache.max_dead_letters.");
	batch->n_unkept = 0;
	if (batch->n_refusals == 0)
		return;
	StartTransactionCommand();
	write_letters(batch);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	batch->n_refusals = 0;
}
