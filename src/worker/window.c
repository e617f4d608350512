/*
 * window.c
 *	  Windows: for which entries change records of the keeper count.
 *
 * An entry is remembered as a 64-bit hash.  If two entries have the same, one
 * is taken for touched that is not, and stays as it was until its row changes;
 * among the most entries that are remembered that will not happen.
 *
 * What is remembered is limited.  When there is more, the window is given up,
 * and the keeper does the same again with fewer rows.
 *
 * A window serves many records, since opening one takes a round trip through the
 * WAL.  It ends when the keeper says so, or opens another.
 *
 * The answer to the keeper is in shared memory, for the one record that it waits
 * for.  It is given when the record is read, which is before it is applied: so it
 * counts only once the applied position has passed the record.  If the record is read again in between (the
 * worker lost its connection), it is answered again, and then perhaps
 * otherwise.
 *
 * Locking: atomics only.
 */
#include "postgres.h"

#include "broken.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "worker/window.h"

/* The most entries that are remembered, 16 bytes each, with some to spare. */
#define MAX_TOUCHED		(512 * 1024)

typedef struct TouchedEntry
{
	uint64		hash;			/* hash key */
	char		status;
} TouchedEntry;

#define SH_PREFIX		touched
#define SH_ELEMENT_TYPE	TouchedEntry
#define SH_KEY_TYPE		uint64
#define SH_KEY			hash
#define SH_HASH_KEY(tb, key)	((uint32) (key))
#define SH_EQUAL(tb, a, b)		((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* The keeper's newest window, in this process. */
static uint64 newest = 0;

struct HcWindow
{
	MemoryContext context;
	uint64		id;				/* 0: none is open */
	bool		overflowed;		/* not all entries could be remembered */
	touched_hash *touched;		/* NULL unless open and not overflowed */
};

HcWindow *
hc_window_create(void)
{
	HcWindow   *window = palloc0(sizeof(HcWindow));

	window->context = CurrentMemoryContext;
	return window;
}

static void
forget(HcWindow *window)
{
	if (window->touched != NULL)
		touched_destroy(window->touched);
	window->touched = NULL;
	window->id = 0;
}

void
hc_window_close(HcWindow *window, uint64 id)
{
	if (window->id == id)
		forget(window);
}

void
hc_window_open(HcWindow *window, uint64 id)
{
	forget(window);
	window->id = id;
	window->overflowed = false;
	window->touched = touched_create(window->context, 256, NULL);
}

bool
hc_window_is_known(const HcWindow *window, uint64 id)
{
	return window->id == id && !window->overflowed;
}

static uint64
hash_of_key(HcBytes key)
{
	return hash_bytes_extended((const unsigned char *) key.data, key.len, 0);
}

/* With the key's hash as seed: so it tells the members of two keys apart. */
static uint64
hash_of_member(uint64 key_hash, HcBytes member)
{
	return hash_bytes_extended((const unsigned char *) member.data, member.len,
							   key_hash);
}

void
hc_window_touch(HcWindow *window, HcBatch *batch, int first)
{
	int			i;

	for (i = first; i < batch->n_slots && window->touched != NULL; i++)
	{
		HcOpKind	kind;
		HcBytes		key;
		HcBytes		member;
		uint64		hash;
		bool		found;

		/* one that does not count is replaced by another, or has done nothing */
		if (!hc_batch_entry(batch, i, &kind, &key, &member))
			continue;
		hash = hash_of_key(key);
		if (hc_op_has_member(kind))
			hash = hash_of_member(hash, member);
		(void) touched_insert(window->touched, hash, &found);
		if (window->touched->members > MAX_TOUCHED)
		{
			touched_destroy(window->touched);
			window->touched = NULL;
			window->overflowed = true;
		}
	}
}

/* An op of a whole key decides about all its members. */
bool
hc_window_is_touched(const HcWindow *window, const HcOp *op)
{
	uint64		hash = hash_of_key(op->key);

	if (hc_breaks(HC_BREAK_WINDOW))
		return false;
	if (touched_lookup(window->touched, hash) != NULL)
		return true;
	return hc_op_has_member(op->kind) &&
		touched_lookup(window->touched, hash_of_member(hash, op->member)) != NULL;
}

/*
 * The low bits of a window's id are 0, so that its sum with the number of a record
 * names that one.
 */
bool
hc_window_report(HcWindow *window, uint64 id, uint64 number, const uint64 *taken)
{
	HcDatabase *db = hc_shmem_mine();
	HcWindowOutcome outcome = HC_WINDOW_TAKEN;
	int			i;

	if (db == NULL || pg_atomic_read_u64(&db->keep.ticket) != id + number)
		return false;
	if (taken == NULL)
		outcome = window->id == id && window->overflowed
			? HC_WINDOW_OVERFLOWED : HC_WINDOW_VOID;
	for (i = 0; i < HC_NUM_FOUND; i++)
		pg_atomic_write_u64(&db->keep.taken[i], taken != NULL ? taken[i] : 0);
	pg_atomic_write_u32(&db->keep.outcome, outcome);

	/* the applied position moves after it */
	pg_write_barrier();
	return true;
}

uint64
hc_window_new(void)
{
	do
	{
		newest = pg_prng_uint64(&pg_global_prng_state) &
			~((uint64) HC_WINDOW_RECORDS - 1);
	} while (newest == 0);
	return newest;
}

bool
hc_window_is_newest(uint64 id)
{
	return id == newest;
}

void
hc_window_expect(HcDatabase *db, uint64 id, uint64 number)
{
	pg_atomic_write_u64(&db->keep.ticket, 0);
	pg_atomic_write_u32(&db->keep.outcome, HC_WINDOW_PENDING);
	pg_write_barrier();
	pg_atomic_write_u64(&db->keep.ticket, id + number);
}

HcWindowOutcome
hc_window_outcome(HcDatabase *db, uint64 *taken)
{
	int			i;

	pg_read_barrier();
	for (i = 0; i < HC_NUM_FOUND; i++)
		taken[i] = pg_atomic_read_u64(&db->keep.taken[i]);
	return (HcWindowOutcome) pg_atomic_read_u32(&db->keep.outcome);
}
