/*
 * found.c
 *	  What differs in a chunk of a run, and what is done about it.
 *
 * What differs becomes change records, sorted by what is wrong, so that the sync
 * worker can say how much of it was true when it came to it: an entry that
 * somebody has changed since differs from the snapshot and is right.  Nothing is
 * counted that was not taken.
 */
#include "postgres.h"

#include "access/xact.h"
#include "keeper/found.h"
#include "keeper/twice.h"
#include "mapping/bytes.h"
#include "redis/reply.h"
#include "utils/memutils.h"
#include "worker/letter.h"

/* So many keys of another type are named in the log per run. */
#define MOST_NAMED		8

/* So many rows that could not be rendered are kept of a chunk. */
#define MOST_FAILURES	1000

/* So many entries later the place of one in memory is at hand. */
#define EXPECTED		16

typedef struct Difference
{
	HcFound		found;
	HcOp		op;				/* its bytes are the comparison's */
} Difference;

typedef struct HcFindings
{
	uint64		n_added;
	uint64	   *seen;			/* hashes of entries that the run came by before;
								 * sorted when the chunk is over */
	int			n_seen;
	int			max_seen;
	uint64		expected[EXPECTED]; /* hashes, the last ones; a ring */
	uint64		n_expected;		/* of all that were in it */
	Difference *differences;	/* in the chunk's context */
	int			n_differences;
	int			max_differences;
	bool		again;			/* these rows were read before */
	uint64		n_foreign;		/* entries in keys of another type, left alone */
	bool		orphans;		/* it is entries that no row has */
	bool		report;			/* ... and they are only counted */
	List	   *failures;		/* HcLetterRow * */
	uint64		n_failures;

	/* of the whole run */
	List	   *named;			/* HcBytes *, keys that the log has named */
} HcFindings;

void
hc_found_begin(HcSettle *settle, bool again)
{
	HcFindings *findings = settle->findings;

	if (findings == NULL)
	{
		findings = MemoryContextAllocZero(settle->context, sizeof(HcFindings));
		settle->findings = findings;
	}
	MemoryContextReset(settle->chunk_context);
	findings->n_added = 0;
	findings->seen = NULL;
	findings->n_seen = findings->max_seen = 0;
	findings->n_expected = 0;
	findings->differences = NULL;
	findings->n_differences = 0;
	findings->max_differences = 0;
	findings->n_foreign = 0;
	findings->again = again;
	findings->orphans = false;
	findings->report = false;
	findings->failures = NIL;
	findings->n_failures = 0;
}

static uint64
hash_op(const HcSettle *settle, const HcOp *op)
{
	return hc_entries_hash(settle->entries, op->key,
						   hc_op_has_member(op->kind) ? &op->member : NULL);
}

void
hc_found_add(HcSettle *settle, const HcOp *op)
{
	hc_compare_add(settle->compare, op);
	settle->findings->n_added++;
}

/* An array of the chunk's context, larger. */
static void *
grow(HcSettle *settle, void *array, int *max, size_t size)
{
	*max = Max(64, 2 * *max);
	return array == NULL
		? MemoryContextAlloc(settle->chunk_context, *max * size)
		: repalloc_huge(array, *max * size);
}

/* Did a row have the entry before? */
static void
look_for_twin(HcSettle *settle, uint64 hash)
{
	HcFindings *findings = settle->findings;

	if (hc_entries_add(settle->entries, hash) && !findings->again)
	{
		if (findings->n_seen == findings->max_seen)
			findings->seen = grow(settle, findings->seen, &findings->max_seen,
								  sizeof(uint64));
		findings->seen[findings->n_seen++] = hash;
	}
}

/* It is looked for some rows later, which takes less time. */
static void
expect_twin(HcSettle *settle, uint64 hash)
{
	HcFindings *findings = settle->findings;
	uint64	   *place = &findings->expected[findings->n_expected % EXPECTED];

	if (findings->n_expected++ >= EXPECTED)
		look_for_twin(settle, *place);
	*place = hash;
	hc_entries_expect(settle->entries, hash);
}

/* Looks for those that are left. */
static void
look_for_twins(HcSettle *settle)
{
	HcFindings *findings = settle->findings;
	uint64		i = findings->n_expected > EXPECTED
		? findings->n_expected - EXPECTED : 0;

	for (; i < findings->n_expected; i++)
		look_for_twin(settle, findings->expected[i % EXPECTED]);
	findings->n_expected = 0;
}

void
hc_found_add_row(HcSettle *settle, const HcOp *op)
{
	if (settle->entries != NULL)
		expect_twin(settle, hash_op(settle, op));
	hc_found_add(settle, op);
}

bool
hc_found_is_full(const HcSettle *settle)
{
	/* what was compared last is there until the next is added */
	return settle->findings->n_added > 0 && hc_compare_is_full(settle->compare);
}

void
hc_found_fail(HcSettle *settle, const HcCaptureFailure *failure)
{
	HcFindings *findings = settle->findings;
	MemoryContext old;
	HcLetterRow *row;

	if (failure->has_place)
		hc_found_add(settle, &failure->op);
	if (findings->n_failures++ >= MOST_FAILURES)
		return;
	old = MemoryContextSwitchTo(settle->chunk_context);
	row = palloc0(sizeof(HcLetterRow));
	row->relid = settle->trigger->relid;
	row->mapping = settle->trigger->name;
	if (failure->has_place)
	{
		row->key = hc_bytes_copy(CurrentMemoryContext, failure->op.key);
		row->has_member = hc_op_has_member(failure->op.kind);
		if (row->has_member)
			row->member = hc_bytes_copy(CurrentMemoryContext, failure->op.member);
	}
	else
	{
		row->key.data = hc_catalog_option(settle->trigger, HC_OPTION_KEY);
		row->key.len = strlen(row->key.data);
	}
	row->message = pstrdup(failure->error->message);
	row->sqlstate = failure->error->sqlerrcode;
	findings->failures = lappend(findings->failures, row);
	MemoryContextSwitchTo(old);
}

/* Says, once per key and run, that somebody else has it. */
static void
name_foreign(HcSettle *settle, HcBytes key)
{
	HcFindings *findings = settle->findings;
	MemoryContext old;
	HcBytes    *copy;
	ListCell   *lc;

	foreach(lc, findings->named)
	{
		if (hc_bytes_equal(*(HcBytes *) lfirst(lc), key))
			return;
	}
	if (list_length(findings->named) >= MOST_NAMED)
		return;
	old = MemoryContextSwitchTo(settle->context);
	copy = palloc(sizeof(HcBytes));
	*copy = hc_bytes_copy(CurrentMemoryContext, key);
	findings->named = lappend(findings->named, copy);
	MemoryContextSwitchTo(old);
	ereport(LOG,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("mapping \"%s\" cannot have the Redis key \"%s\", which holds another type",
					settle->trigger->name,
					hc_reply_clean(pnstrdup(key.data, key.len))),
			 errhint("Remove or rename the key in Redis, then reconcile the mapping.")));
}

static int
compare_hashes(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/* Is it one that is left for later, since another row may have it as well? */
static bool
is_shared(HcSettle *settle, const HcOp *op)
{
	const HcFindings *findings = settle->findings;
	uint64		hash;

	if (findings->n_seen == 0)
		return false;
	hash = hash_op(settle, op);
	return bsearch(&hash, findings->seen, findings->n_seen, sizeof(uint64),
				   compare_hashes) != NULL && hc_twice_add(settle, hash);
}

static void
take_verdict(const HcOp *op, HcVerdict verdict, void *arg)
{
	HcSettle   *settle = arg;
	HcFindings *findings = settle->findings;
	Difference *difference;
	HcFound		found = HC_FOUND_STALE;

	switch (verdict)
	{
		case HC_VERDICT_MISSING:
			if (settle->may_be_absent)
				return;
			found = HC_FOUND_MISSING;
			break;
		case HC_VERDICT_STALE:
			if (findings->orphans)
				found = HC_FOUND_ORPHANED;
			break;
		case HC_VERDICT_CONFLICTING:

			/* the search for entries finds keys of the right type only */
			if (findings->orphans)
				return;
			if (hc_op_has_member(op->kind))
			{
				findings->n_foreign++;
				name_foreign(settle, op->key);
				return;
			}
			found = HC_FOUND_CONFLICTING;
			break;
	}

	if (is_shared(settle, op))
		return;
	if (findings->n_differences == findings->max_differences)
		findings->differences = grow(settle, findings->differences,
									 &findings->max_differences,
									 sizeof(Difference));
	difference = &findings->differences[findings->n_differences++];
	difference->found = found;
	difference->op = *op;
	if (settle->only_remove && !hc_op_is_removal(op->kind))
	{
		difference->op.kind = hc_op_removal_of(op->kind);
		difference->op.expires_at = 0;
	}
}

/* Writes what differs, in a transaction of its own. */
static void
write_differences(HcSettle *settle)
{
	MemoryContext old = CurrentMemoryContext;
	HcFindings *findings = settle->findings;
	HcFound		found;
	int			i;

	StartTransactionCommand();
	for (found = 0; found < HC_NUM_FOUND; found++)
	{
		hc_chunk_sort(&settle->chunk, found, findings->report);
		for (i = 0; i < findings->n_differences; i++)
		{
			if (findings->differences[i].found == found)
				hc_chunk_put(&findings->differences[i].op, &settle->chunk);
		}
	}
	hc_chunk_write(&settle->chunk);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

HcWindowOutcome
hc_found_settle(HcSettle *settle)
{
	HcFindings *findings = settle->findings;
	HcRunCounts *counts = &settle->state.counts;
	uint64		taken[HC_NUM_FOUND] = {0};

	look_for_twins(settle);
	if (findings->n_seen > 0)
		qsort(findings->seen, findings->n_seen, sizeof(uint64), compare_hashes);
	hc_compare_finish(settle->compare, take_verdict, settle);
	if (findings->n_differences > 0)
	{
		HcWindowOutcome outcome;

		write_differences(settle);
		outcome = hc_chunk_confirm(&settle->chunk, taken);
		if (outcome != HC_WINDOW_TAKEN)
			return outcome;
	}
	counts->missing += taken[HC_FOUND_MISSING];
	counts->stale += taken[HC_FOUND_STALE];
	counts->orphaned += taken[HC_FOUND_ORPHANED];
	counts->conflicting += taken[HC_FOUND_CONFLICTING] + findings->n_foreign;
	if (!findings->report)
		counts->repaired += taken[HC_FOUND_MISSING] + taken[HC_FOUND_STALE] +
			taken[HC_FOUND_ORPHANED] + taken[HC_FOUND_CONFLICTING];
	hc_letter_rows(findings->failures);
	return HC_WINDOW_TAKEN;
}

HcWindowOutcome
hc_found_settle_orphans(HcSettle *settle, bool report)
{
	settle->findings->orphans = true;
	settle->findings->report = report;
	return hc_found_settle(settle);
}
