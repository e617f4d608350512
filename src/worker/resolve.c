/*
 * resolve.c
 *	  The version rule for transactions that do not fit into one batch.
 *
 * Rows can hand an entry on to each other within a transaction (UPDATE t SET id
 * = id + 1), and the removal by the old owner may come after the set by the new
 * one, batches later.  Only an entry that is both set and removed can be
 * concerned.  So the first pass puts the removed entries into a Bloom filter,
 * and the second one follows just the sets that the filter knows: a set is
 * void when its version ends, and a removal while other sets hold.  A bulk
 * update that removes some entries and sets others needs no memory per row.
 *
 * What remains, entries that really change hands, is limited to MAX_ENTRIES per
 * transaction.  Beyond that removals count.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/bloomfilter.h"
#include "utils/memutils.h"
#include "worker/resolve.h"
#include "worker/stream.h"

#define FILTER_KB		8192
#define MAX_ENTRIES		(512 * 1024)
#define MAX_VOID		(1024 * 1024)

/* 128 bits stand for an entry: two of them will not meet by chance. */
typedef struct Print
{
	uint64		a;
	uint64		b;
} Print;

/* A set that was not taken back. */
typedef struct Owner
{
	HcVersion	version;
	uint64		number;
	struct Owner *older;
} Owner;

typedef struct OwnerElement
{
	Print		print;			/* hash key */
	Owner	   *last;			/* NULL: none */
	bool		over;			/* without owners it has to go */
	char		status;
} OwnerElement;

#define SH_PREFIX		owners
#define SH_ELEMENT_TYPE	OwnerElement
#define SH_KEY_TYPE		Print
#define SH_KEY			print
#define SH_HASH_KEY(tb, key)	((uint32) (key).a)
#define SH_EQUAL(tb, x, y)		((x).a == (y).a && (x).b == (y).b)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct HcResolution
{
	MemoryContext context;
	bool		complete;
	uint64	   *voids;			/* numbers of void ops, ascending */
	int			n_voids;
	int			max_voids;
	int			next;			/* the first that was not asked for yet */
};

static Print
print_of(const HcOp *op)
{
	const unsigned char *key = (const unsigned char *) op->key.data;
	const unsigned char *member = (const unsigned char *) op->member.data;
	Print		print;

	print.a = hash_bytes_extended(key, op->key.len, 0);
	print.b = hash_bytes_extended(key, op->key.len, 1);
	if (hc_op_has_member(op->kind))
	{
		print.a = hash_bytes_extended(member, op->member.len, print.a);
		print.b = hash_bytes_extended(member, op->member.len, print.b);
	}
	return print;
}

static bool
is_versioned_removal(const HcOp *op)
{
	return hc_op_is_removal(op->kind) && OidIsValid(op->version.relation);
}

static void
add_void(HcResolution *resolution, uint64 number)
{
	if (resolution->n_voids == resolution->max_voids)
	{
		resolution->max_voids *= 2;
		resolution->voids = repalloc_huge(resolution->voids,
										  resolution->max_voids * sizeof(uint64));
	}
	resolution->voids[resolution->n_voids++] = number;
}

/* The set of the version that ends is void; false if there is none. */
static bool
take_back(HcResolution *resolution, OwnerElement *entry, const HcVersion *ended)
{
	Owner	  **link;

	for (link = &entry->last; *link != NULL; link = &(*link)->older)
	{
		Owner	   *owner = *link;

		if (!hc_op_ends(ended, &owner->version))
			continue;
		add_void(resolution, owner->number);
		*link = owner->older;
		pfree(owner);
		return true;
	}
	return false;
}

static void
add_owner(OwnerElement *entry, const HcOp *op, uint64 number)
{
	Owner	   *owner = palloc(sizeof(Owner));

	owner->version = op->version;
	owner->number = number;
	owner->older = entry->last;
	entry->last = owner;
}

/*
 * Follows one op of an entry in the filter.  Where it is void depends on what
 * hc_batch_add() would do if it had all of the transaction.
 */
static void
follow_op(HcResolution *resolution, OwnerElement *entry, const HcOp *op,
		  uint64 number)
{
	HcVersion	replaced;

	if (!hc_op_is_removal(op->kind))
	{
		if (hc_op_replaced(op, &replaced) &&
			!take_back(resolution, entry, &replaced))
			entry->over = true;
		add_owner(entry, op, number);
	}
	else if (!is_versioned_removal(op))
		entry->last = NULL;		/* whatever was set before, it goes */
	else
	{
		bool		taken = take_back(resolution, entry, &op->version);

		if (!taken)
			entry->over = true;
		if (entry->last != NULL || !entry->over)
			add_void(resolution, number);
	}
}

static int
compare_numbers(const void *a, const void *b)
{
	uint64		left = *(const uint64 *) a;
	uint64		right = *(const uint64 *) b;

	return (left > right) - (left < right);
}

/* Follows the owners of the entries in the filter. */
static void
follow(HcResolution *resolution, HcReader *reader, HcTransaction *txn,
	   bloom_filter *removed)
{
	MemoryContext context = AllocSetContextCreate(resolution->context,
												  "hybrid_cache owners",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	owners_hash *owners = owners_create(context, 256, NULL);
	HcStream	stream;
	HcOp		op;
	uint64		number;

	hc_stream_begin(&stream, reader, txn);
	while (hc_stream_next(&stream, &op, &number))
	{
		Print		print = print_of(&op);
		OwnerElement *entry = owners_lookup(owners, print);

		if (entry == NULL)
		{
			bool		found;

			if (hc_op_is_removal(op.kind) ||
				bloom_lacks_element(removed, (unsigned char *) &print,
									sizeof(print)))
				continue;
			entry = owners_insert(owners, print, &found);
			entry->last = NULL;
			entry->over = false;
		}
		follow_op(resolution, entry, &op, number);
		if (entry->last == NULL)
			owners_delete(owners, print);

		if (owners->members > MAX_ENTRIES || resolution->n_voids > MAX_VOID)
		{
			resolution->complete = false;
			break;
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	qsort(resolution->voids, resolution->n_voids, sizeof(uint64), compare_numbers);
}

HcResolution *
hc_resolve_transaction(HcReader *reader, HcTransaction *txn)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache resolution",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HcResolution *resolution = palloc0(sizeof(HcResolution));
	bloom_filter *removed;
	HcStream	stream;
	HcOp		op;
	uint64		number;

	resolution->context = context;
	resolution->complete = true;
	resolution->max_voids = 64;
	resolution->voids = palloc(resolution->max_voids * sizeof(uint64));

	removed = bloom_create((int64) Min(txn->n_ops, PG_INT32_MAX), FILTER_KB, 0);
	hc_stream_begin(&stream, reader, txn);
	while (hc_stream_next(&stream, &op, &number))
	{
		if (is_versioned_removal(&op))
		{
			Print		print = print_of(&op);

			bloom_add_element(removed, (unsigned char *) &print, sizeof(print));
		}
	}
	follow(resolution, reader, txn, removed);
	bloom_free(removed);
	MemoryContextSwitchTo(old);
	return resolution;
}

void
hc_resolve_free(HcResolution *resolution)
{
	MemoryContextDelete(resolution->context);
}

bool
hc_resolve_is_void(HcResolution *resolution, uint64 number)
{
	while (resolution->next < resolution->n_voids &&
		   resolution->voids[resolution->next] < number)
		resolution->next++;
	return resolution->next < resolution->n_voids &&
		resolution->voids[resolution->next] == number;
}

bool
hc_resolve_is_complete(HcResolution *resolution)
{
	return resolution->complete;
}
