/*
 * suspects.c
 *	  A set of entries that were found in Redis, until it is known whose they are.
 *
 * They are kept by the hashes of their keys and members.  Two entries with the
 * same hash of 64 bits do not come together in practice; if they did, the second
 * would not be a suspect, and so would stay in Redis.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "keeper/suspects.h"
#include "mapping/bytes.h"
#include "utils/memutils.h"

#define SH_PREFIX		suspects
#define SH_ELEMENT_TYPE	HcSuspect
#define SH_KEY_TYPE		uint64
#define SH_KEY			hash
#define SH_HASH_KEY(tb, key)	((uint32) (key))
#define SH_EQUAL(tb, a, b)		((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct HcSuspects
{
	MemoryContext context;		/* of the table and what is in it */
	size_t		prefix;			/* bytes of their keys that are not compared */
	suspects_hash *table;
	suspects_iterator iterator;
};

static HcBytes
without_prefix(HcBytes key, size_t prefix)
{
	HcBytes		rest = {key.data + prefix, key.len - prefix};

	return rest;
}

static uint64
hash_entry(HcBytes rest, HcBytes member)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) rest.data,
										   rest.len, 0);

	if (member.data != NULL)
		hash = hash_bytes_extended((const unsigned char *) member.data,
								   member.len, hash);
	return hash;
}

HcSuspects *
hc_suspects_create(size_t prefix)
{
	HcSuspects *suspects = palloc0(sizeof(HcSuspects));

	suspects->context = AllocSetContextCreate(CurrentMemoryContext,
												"hybrid_cache suspects",
												ALLOCSET_DEFAULT_SIZES);
	suspects->prefix = prefix;
	hc_suspects_clear(suspects);
	return suspects;
}

void
hc_suspects_clear(HcSuspects *suspects)
{
	MemoryContextReset(suspects->context);
	suspects->table = suspects_create(suspects->context, 256, NULL);
}

uint64
hc_suspects_number(const HcSuspects *suspects)
{
	return suspects->table->members;
}

Size
hc_suspects_bytes(const HcSuspects *suspects)
{
	return MemoryContextMemAllocated(suspects->context, true);
}

void
hc_suspects_add(HcBytes key, const HcBytes *member, void *suspects)
{
	HcSuspects *set = suspects;
	HcBytes		none = {NULL, 0};
	HcSuspect *suspect;
	bool		found;

	suspect = suspects_insert(set->table,
								  hash_entry(without_prefix(key, set->prefix),
											 member ? *member : none), &found);
	if (found)
		return;
	suspect->key = hc_bytes_copy(set->context, key);
	suspect->member = member ? hc_bytes_copy(set->context, *member) : none;
	suspect->named = false;
}

HcSuspect *
hc_suspects_find(const HcSuspects *suspects, const HcOp *op, size_t prefix)
{
	HcBytes		rest = without_prefix(op->key, prefix);
	HcBytes		member = {NULL, 0};
	HcSuspect *suspect;

	if (hc_op_has_member(op->kind))
		member = op->member;
	suspect = suspects_lookup(suspects->table, hash_entry(rest, member));
	if (suspect != NULL && hc_bytes_equal(suspect->member, member) &&
		hc_bytes_equal(without_prefix(suspect->key, suspects->prefix), rest))
		return suspect;
	return NULL;
}

void
hc_suspects_begin(HcSuspects *suspects)
{
	suspects_start_iterate(suspects->table, &suspects->iterator);
}

HcSuspect *
hc_suspects_next(HcSuspects *suspects)
{
	return suspects_iterate(suspects->table, &suspects->iterator);
}

void
hc_suspects_remove(HcSuspects *suspects, HcSuspect *suspect)
{
	suspects_delete_item(suspects->table, suspect);
}
