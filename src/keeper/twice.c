/*
 * twice.c
 *	  Rows that seem to share an entry.
 *
 * Several rows with one entry are an error of the model: each overwrites what the
 * other has.  If a run did so as well, every run would find the same again, and
 * Redis would never come to rest.  So an entry that differs is not written if the
 * run came by it before (entries.h); it stays as the first row has it, or as it was.
 *
 * That it came by can have other reasons: the row has moved while the table was
 * read, or another entry was taken for it.  So in the end the tables are read once
 * more, in one go, for these few entries alone.
 */
#include "postgres.h"

#include "keeper/entries.h"
#include "keeper/found.h"
#include "keeper/rows.h"
#include "keeper/twice.h"
#include "mapping/bytes.h"
#include "redis/reply.h"
#include "utils/memutils.h"

/* Of more entries than that it is not found out. */
#define MOST_ENTRIES	10000

/* So often too much may be changed while the tables are read. */
#define MOST_OVERFLOWS	5

typedef struct Shared
{
	uint64		hash;			/* hash key */
	char		status;
	uint32		n_rows;			/* that have it */
	HcBytes		encoded;		/* the op of the first */
} Shared;

#define SH_PREFIX		shared
#define SH_ELEMENT_TYPE	Shared
#define SH_KEY_TYPE		uint64
#define SH_KEY			hash
#define SH_HASH_KEY(tb, key)	((uint32) (key))
#define SH_EQUAL(tb, a, b)		((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct Twice
{
	HcSettle   *settle;
	shared_hash *entries;
	MemoryContext context;		/* of the ops, reset with each attempt */
} Twice;

bool
hc_twice_add(HcSettle *settle, uint64 hash)
{
	Shared	   *shared;
	bool		found;

	if (settle->twice == NULL)
		settle->twice = shared_create(settle->context, 64, NULL);
	if (((shared_hash *) settle->twice)->members >= MOST_ENTRIES)
		return false;
	shared = shared_insert(settle->twice, hash, &found);
	if (!found)
		shared->n_rows = 0;
	return true;
}

static void
take_row(const HcOp *op, void *arg)
{
	Twice	   *twice = arg;
	Shared	   *shared = shared_lookup(twice->entries,
									   hc_entries_hash(twice->settle->entries, op->key,
													   hc_op_has_member(op->kind) ? &op->member : NULL));

	if (shared != NULL && ++shared->n_rows == 1)
	{
		MemoryContext old = MemoryContextSwitchTo(twice->context);
		StringInfoData buf;

		initStringInfo(&buf);
		hc_op_encode(&buf, op);
		shared->encoded.data = buf.data;
		shared->encoded.len = buf.len;
		MemoryContextSwitchTo(old);
	}
}

/* Nothing was read yet. */
static void
begin(void *arg)
{
	Twice	   *twice = arg;
	shared_iterator iterator;
	Shared	   *shared;

	MemoryContextReset(twice->context);
	shared_start_iterate(twice->entries, &iterator);
	while ((shared = shared_iterate(twice->entries, &iterator)) != NULL)
		shared->n_rows = 0;
}

/* false if the mapping is not what it was. */
static bool
read_rows(Twice *twice)
{
	HcCaptureRange what = {.put = take_row,.arg = twice};

	return hc_rows_read_all(twice->settle, &what, begin);
}

/* What only one row has is compared like any other; returns how many it is not. */
static uint64
add_single(Twice *twice, const Shared **example)
{
	shared_iterator iterator;
	Shared	   *shared;
	uint64		n = 0;

	hc_found_begin(twice->settle, true);
	shared_start_iterate(twice->entries, &iterator);
	while ((shared = shared_iterate(twice->entries, &iterator)) != NULL)
	{
		const char *cursor = shared->encoded.data;
		HcOp		op;

		if (shared->n_rows > 1)
		{
			n++;
			*example = shared;
		}
		else if (shared->n_rows == 1 &&
				 hc_op_decode(&cursor, cursor + shared->encoded.len, &op))
			hc_found_add(twice->settle, &op);
	}
	return n;
}

static void
say(HcSettle *settle, uint64 n, const Shared *example)
{
	const char *cursor = example->encoded.data;
	HcOp		op;

	if (!hc_op_decode(&cursor, cursor + example->encoded.len, &op))
		return;
	ereport(LOG,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg_plural("%llu entry of mapping \"%s\" belongs to several rows",
						   "%llu entries of mapping \"%s\" belong to several rows",
						   (unsigned long) n, (unsigned long long) n,
						   settle->trigger->name),
			 hc_op_has_member(op.kind)
			 ? errdetail("One is member \"%s\" of the Redis key \"%s\".",
						 hc_reply_clean(pnstrdup(op.member.data, op.member.len)),
						 hc_reply_clean(pnstrdup(op.key.data, op.key.len)))
			 : errdetail("One is the Redis key \"%s\".",
						 hc_reply_clean(pnstrdup(op.key.data, op.key.len))),
			 errhint("Key and member must tell the rows apart.")));
}

HcRunResult
hc_twice_settle(HcSettle *settle)
{
	Twice		twice = {.settle = settle,.entries = settle->twice};
	bool		anew = false;
	int			overflows = 0;

	if (twice.entries == NULL)
		return HC_RUN_DONE;
	twice.context = AllocSetContextCreate(settle->context, "hybrid_cache shared entries",
										  ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		const Shared *example = NULL;
		uint64		n;

		hc_chunk_renew(&settle->chunk, anew);
		if (!read_rows(&twice))
			return HC_RUN_CHANGED;
		n = add_single(&twice, &example);
		switch (hc_found_settle(settle))
		{
			case HC_WINDOW_TAKEN:
				settle->state.counts.conflicting += n;
				if (n > 0)
					say(settle, n, example);
				MemoryContextDelete(twice.context);
				return HC_RUN_DONE;
			case HC_WINDOW_OVERFLOWED:
				if (++overflows > MOST_OVERFLOWS)
					ereport(ERROR,
							(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							 errmsg("too much was changed while the table of mapping \"%s\" was read",
									settle->trigger->name)));
				break;
			default:
				break;
		}
		anew = true;
	}
}
