/*
 * resolve.c
 *	  The version rule for transactions that do not fit into one batch.
 *
 * Rows can hand an entry on to each other within a transaction (UPDATE t SET id
 * = id + 1), and the removal by the old owner may come after the set by the new
 * one, batches later.  Only an entry that is removed after it was set can be
 * concerned: a table that is emptied and filled again is not.  So the first
 * pass puts the entries that are set into a Bloom filter, and those of them
 * that are removed later into a second one.  The second pass follows just the
 * entries that this one knows: a set is void when its version ends, and a
 * removal while other sets hold.  A bulk update that removes some entries and
 * sets others needs no memory per row.
 *
 * Of the entries that remain, the last MAX_ENTRIES are remembered, since rows
 * that hand on their keys mostly do so to their neighbours.  An entry that was
 * forgotten and comes again is missed.  The missed ones are followed once more,
 * from the first op on, as many passes as it takes to remember all of them.
 *
 * Arrivals (op.h) are not followed here, since they count only within a batch; but
 * for those of timers.
 *
 * When that would be too many passes, the resolution is not complete: some
 * removals count that should be void, and their entries are missing in Redis
 * until they are compared with their table.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/bloomfilter.h"
#include "utils/memutils.h"
#include "worker/resolve.h"
#include "worker/stream.h"

#define FILTER_KB		8192
#define MAX_ENTRIES		(64 * 1024)

/* Passes for those that were missed. */
#define MAX_PASSES		32

/* Sets that hold at a time, of all entries: many of one entry are a mistake. */
#define MAX_OWNERS		(256 * 1024)

/* Steps along the owners of entries; more would take minutes. */
#define MAX_STEPS		(100 * 1000 * 1000)

/* Which ops are void is a bitmap in pieces, most of which do not exist. */
#define PIECE_BITS		65536

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
	bool		kept;			/* a timer */
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
	uint64	  **voids;			/* bitmaps of PIECE_BITS ops each; NULL: none void */
	uint64	  **unkept;			/* the same: timers that only seem to be kept */
	uint64		n_pieces;

	/* while it is made */
	owners_hash *owners;
	Print	   *ring;			/* the entries in owners, in the order they came */
	uint64		n_entries;		/* that ever came */
	bloom_filter *forgotten;	/* entries; NULL: none */
	bloom_filter *missed;		/* those of them that came again; NULL: none */
	uint64		n_missed;
	int			n_owners;
	int64		n_steps;
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

/* Notes an op, or takes that back. */
static void
mark(HcResolution *resolution, uint64 **pieces, uint64 number, bool value)
{
	uint64	  **piece;
	uint64		bit = UINT64CONST(1) << (number % 64);

	/* pieces of a damaged transaction are missing */
	if (number / PIECE_BITS >= resolution->n_pieces)
		return;
	piece = &pieces[number / PIECE_BITS];
	if (*piece == NULL && value)
		*piece = MemoryContextAllocZero(resolution->context, PIECE_BITS / 8);
	if (value)
		(*piece)[number % PIECE_BITS / 64] |= bit;
	else if (*piece != NULL)
		(*piece)[number % PIECE_BITS / 64] &= ~bit;
}

static bool
is_marked(const HcResolution *resolution, uint64 **pieces, uint64 number)
{
	const uint64 *piece = NULL;

	if (number / PIECE_BITS < resolution->n_pieces)
		piece = pieces[number / PIECE_BITS];
	return piece != NULL &&
		(piece[number % PIECE_BITS / 64] >> (number % 64) & 1) != 0;
}

static void
add_void(HcResolution *resolution, uint64 number)
{
	mark(resolution, resolution->voids, number, true);
}

static void
free_owner(HcResolution *resolution, Owner *owner)
{
	pfree(owner);
	resolution->n_owners--;
}

static void
free_owners(HcResolution *resolution, OwnerElement *entry)
{
	while (entry->last != NULL)
	{
		Owner	   *owner = entry->last;

		entry->last = owner->older;
		free_owner(resolution, owner);
	}
}

/* The set of the version that ends is void; false if there is none. */
static bool
take_back(HcResolution *resolution, OwnerElement *entry, const HcVersion *ended)
{
	Owner	  **link;

	for (link = &entry->last; *link != NULL; link = &(*link)->older)
	{
		Owner	   *owner = *link;

		resolution->n_steps++;
		if (!hc_op_ends(ended, &owner->version))
			continue;
		add_void(resolution, owner->number);
		*link = owner->older;
		free_owner(resolution, owner);
		return true;
	}
	return false;
}

/* A timer that is kept says the same as the set that it replaces, if that is known. */
static bool
hand_on(HcResolution *resolution, OwnerElement *entry, const HcVersion *replaced,
		const HcVersion *version)
{
	Owner	   *owner;

	for (owner = entry->last; owner != NULL; owner = owner->older)
	{
		resolution->n_steps++;
		if (!hc_op_ends(replaced, &owner->version))
			continue;
		owner->version = *version;
		return true;
	}
	return false;
}

static void
add_owner(HcResolution *resolution, OwnerElement *entry, const HcOp *op,
		  uint64 number)
{
	Owner	   *owner = palloc(sizeof(Owner));

	resolution->n_owners++;
	owner->version = op->version;
	owner->number = number;
	owner->kept = op->kept && (entry->last == NULL || entry->last->kept);
	if (op->kept && !owner->kept)
		mark(resolution, resolution->unkept, number, true);
	owner->older = entry->last;
	entry->last = owner;
}

/* Does the op say nothing here? */
static bool
is_ignored(const HcOp *op)
{
	return hc_op_is_event(op->kind) || (op->arrived && hc_op_is_removal(op->kind));
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

	if (op->arrived)
	{
		/* what was captured of its successors is not kept */
		if (entry->last != NULL && entry->last->kept)
		{
			entry->last->kept = false;
			mark(resolution, resolution->unkept, entry->last->number, true);
		}
	}
	else if (op->kept && hc_op_replaced(op, &replaced) &&
		hand_on(resolution, entry, &replaced, &op->version))
		add_void(resolution, number);
	else if (!hc_op_is_removal(op->kind))
	{
		if (hc_op_replaced(op, &replaced) &&
			!take_back(resolution, entry, &replaced))
			entry->over = true;
		add_owner(resolution, entry, op, number);
	}
	else if (!is_versioned_removal(op))
		free_owners(resolution, entry); /* whatever was set before, it goes */
	else
	{
		bool		taken = take_back(resolution, entry, &op->version);

		if (!taken)
			entry->over = true;
		if (entry->last != NULL || !entry->over)
			add_void(resolution, number);
	}
}

static bool
filter_has(bloom_filter *filter, const Print *print)
{
	return filter != NULL &&
		!bloom_lacks_element(filter, (unsigned char *) print, sizeof(Print));
}

static void
filter_add(bloom_filter *filter, const Print *print)
{
	bloom_add_element(filter, (unsigned char *) print, sizeof(Print));
}

static bloom_filter *
filter_create(HcTransaction *txn)
{
	return bloom_create((int64) Min(txn->n_ops, PG_INT32_MAX), FILTER_KB, 0);
}

/* The entries that are removed after they were set, and maybe others. */
static bloom_filter *
find_contested(HcReader *reader, HcTransaction *txn)
{
	bloom_filter *set = filter_create(txn);
	bloom_filter *contested = filter_create(txn);
	HcStream	stream;
	HcOp		op;
	uint64		number;

	hc_stream_begin(&stream, reader, txn);
	while (hc_stream_next(&stream, &op, &number))
	{
		Print		print;

		if (is_ignored(&op) ||
			(hc_op_is_removal(op.kind) && !is_versioned_removal(&op)))
			continue;
		print = print_of(&op);
		if (!hc_op_is_removal(op.kind) && !op.arrived)
			filter_add(set, &print);
		else if (filter_has(set, &print))
			filter_add(contested, &print);
	}
	bloom_free(set);
	return contested;
}

/* A new entry to be followed; the oldest one makes room for it. */
static OwnerElement *
add_entry(HcResolution *resolution, HcTransaction *txn, Print print)
{
	Print	   *place = &resolution->ring[resolution->n_entries % MAX_ENTRIES];
	OwnerElement *entry;
	bool		found;

	if (resolution->n_entries >= MAX_ENTRIES)
	{
		entry = owners_lookup(resolution->owners, *place);
		if (entry != NULL)
		{
			if (resolution->forgotten == NULL)
				resolution->forgotten = filter_create(txn);
			filter_add(resolution->forgotten, place);
			free_owners(resolution, entry);
			owners_delete(resolution->owners, *place);
		}
	}
	*place = print;
	resolution->n_entries++;
	entry = owners_insert(resolution->owners, print, &found);
	entry->last = NULL;
	entry->over = false;
	return entry;
}

/* The entry will be followed in another pass. */
static void
miss(HcResolution *resolution, HcTransaction *txn, const Print *print)
{
	if (filter_has(resolution->missed, print))
		return;
	if (resolution->missed == NULL)
		resolution->missed = filter_create(txn);
	filter_add(resolution->missed, print);
	resolution->n_missed++;
}

/* Is it too much?  Then the resolution stays incomplete. */
static bool
is_exhausted(HcResolution *resolution)
{
	if (resolution->n_owners > MAX_OWNERS || resolution->n_steps > MAX_STEPS ||
		resolution->owners->members > 2 * MAX_ENTRIES)
		resolution->complete = false;
	return !resolution->complete;
}

/* Follows the owners of the entries in the filter. */
static void
follow(HcResolution *resolution, HcReader *reader, HcTransaction *txn,
	   bloom_filter *contested)
{
	HcStream	stream;
	HcOp		op;
	uint64		number;

	hc_stream_begin(&stream, reader, txn);
	while (!is_exhausted(resolution) && hc_stream_next(&stream, &op, &number))
	{
		Print		print = print_of(&op);
		OwnerElement *entry = owners_lookup(resolution->owners, print);

		if (is_ignored(&op))
			continue;
		if (entry == NULL)
		{
			if (!filter_has(contested, &print))
				continue;
			if (filter_has(resolution->forgotten, &print))
			{
				miss(resolution, txn, &print);
				continue;
			}
			if (hc_op_is_removal(op.kind) || op.arrived)
				continue;
			entry = add_entry(resolution, txn, print);
		}
		follow_op(resolution, entry, &op, number);
		if (entry->last == NULL)
			owners_delete(resolution->owners, print);
	}
}

/* Follows those of the missed entries whose turn it is in this pass. */
static void
follow_missed(HcResolution *resolution, HcReader *reader, HcTransaction *txn,
			  uint64 pass, uint64 n_passes)
{
	HcStream	stream;
	HcOp		op;
	uint64		number;

	hc_stream_begin(&stream, reader, txn);
	while (!is_exhausted(resolution) && hc_stream_next(&stream, &op, &number))
	{
		Print		print = print_of(&op);
		OwnerElement *entry;
		bool		found;

		if (is_ignored(&op) || print.b % n_passes != pass ||
			!filter_has(resolution->missed, &print))
			continue;
		/* what was found out about this op was not all */
		mark(resolution, resolution->voids, number, false);
		entry = owners_lookup(resolution->owners, print);
		if (entry == NULL)
		{
			if (hc_op_is_removal(op.kind) || op.arrived)
				continue;
			entry = owners_insert(resolution->owners, print, &found);
			entry->last = NULL;
			entry->over = false;
		}
		follow_op(resolution, entry, &op, number);
		if (entry->last == NULL)
			owners_delete(resolution->owners, print);
	}
}

/* Forgets all entries, for another pass. */
static void
forget_all(HcResolution *resolution)
{
	owners_iterator iterator;
	OwnerElement *entry;

	owners_start_iterate(resolution->owners, &iterator);
	while ((entry = owners_iterate(resolution->owners, &iterator)) != NULL)
		free_owners(resolution, entry);
	owners_reset(resolution->owners);
}

/* All passes. */
static void
resolve(HcResolution *resolution, HcReader *reader, HcTransaction *txn)
{
	bloom_filter *contested = find_contested(reader, txn);
	uint64		n_passes;
	uint64		pass;

	follow(resolution, reader, txn, contested);
	bloom_free(contested);
	if (resolution->missed == NULL)
		return;

	bloom_free(resolution->forgotten);
	resolution->forgotten = NULL;
	n_passes = resolution->n_missed / MAX_ENTRIES + 1;
	if (n_passes > MAX_PASSES)
		resolution->complete = false;
	for (pass = 0; pass < n_passes && resolution->complete; pass++)
	{
		forget_all(resolution);
		follow_missed(resolution, reader, txn, pass, n_passes);
	}
}

static uint64 **
make_pieces(HcResolution *resolution)
{
	return MemoryContextAllocExtended(resolution->context,
									  resolution->n_pieces * sizeof(uint64 *),
									  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

HcResolution *
hc_resolve_transaction(HcReader *reader, HcTransaction *txn)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache resolution",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext making = AllocSetContextCreate(context,
												 "hybrid_cache owners",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HcResolution *resolution = palloc0(sizeof(HcResolution));

	resolution->context = context;
	resolution->complete = true;
	resolution->n_pieces = txn->n_ops / PIECE_BITS + 1;
	resolution->voids = make_pieces(resolution);
	resolution->unkept = make_pieces(resolution);

	MemoryContextSwitchTo(making);
	resolution->owners = owners_create(making, 256, NULL);
	resolution->ring = palloc(MAX_ENTRIES * sizeof(Print));
	resolve(resolution, reader, txn);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(making);
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
	return is_marked(resolution, resolution->voids, number);
}

bool
hc_resolve_is_unkept(HcResolution *resolution, uint64 number)
{
	return is_marked(resolution, resolution->unkept, number);
}

bool
hc_resolve_is_complete(HcResolution *resolution)
{
	return resolution->complete;
}
