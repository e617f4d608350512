/*
 * entries.c
 *	  A set of entries, in little memory: which ones do rows have?
 *
 * Of each entry 32 bits of a hash are kept, in a place that other bits of it say
 * (or in one of the next, as far as those are taken).  A Bloom filter would be
 * smaller, but wrong too often: what is wrong here is an entry that is not found
 * to be an orphan, until the next time.
 *
 * A set is larger than the caches of the processor, so who has many entries says
 * some of them in advance.
 *
 * The size is fixed, since the other bits are not known any more.  If there are
 * more entries than expected, the set is given up.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "keeper/entries.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

struct HcEntries
{
	uint64		seed;
	uint64		mask;			/* number of places - 1 */
	uint64		most;			/* that may be taken */
	uint64		n;
	uint32	   *places;			/* 0: free; NULL: given up */
};

HcEntries *
hc_entries_create(double estimated)
{
	uint64		most = (uint64) maintenance_work_mem * 1024 / 2 / sizeof(uint32);
	double		wanted = 2048 + 1.5 * Max(estimated, 0);
	HcEntries  *entries;
	uint64		n;

	if (wanted > most)
		return NULL;
	n = pg_nextpower2_64((uint64) wanted);
	if (n > most)
		return NULL;
	entries = palloc0(sizeof(HcEntries));
	entries->seed = pg_prng_uint64(&pg_global_prng_state);
	entries->mask = n - 1;
	entries->most = n - n / 8;
	entries->places = MemoryContextAllocExtended(CurrentMemoryContext,
												 n * sizeof(uint32),
												 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	return entries;
}

uint64
hc_entries_hash(const HcEntries *entries, HcBytes key, const HcBytes *member)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) key.data,
										   (int) key.len, entries->seed);

	if (member != NULL)
		hash = hash_bytes_extended((const unsigned char *) member->data,
								   (int) member->len, hash);
	return hash;
}

/* The place that has it, or the free one where it belongs. */
static uint32 *
find(const HcEntries *entries, uint64 hash, uint32 *rest)
{
	uint64		i = hash & entries->mask;

	*rest = Max((uint32) (hash >> 32), 1);
	while (entries->places[i] != 0 && entries->places[i] != *rest)
		i = (i + 1) & entries->mask;
	return &entries->places[i];
}

bool
hc_entries_has(const HcEntries *entries, uint64 hash)
{
	uint32		rest;

	return entries->places != NULL && *find(entries, hash, &rest) != 0;
}

bool
hc_entries_add(HcEntries *entries, uint64 hash)
{
	uint32		rest;
	uint32	   *place;

	if (entries->places == NULL)
		return false;
	place = find(entries, hash, &rest);
	if (*place != 0)
		return true;
	*place = rest;
	if (++entries->n > entries->most)
	{
		pfree(entries->places);
		entries->places = NULL;
	}
	return false;
}

void
hc_entries_expect(const HcEntries *entries, uint64 hash)
{
	if (entries->places != NULL)
		__builtin_prefetch(&entries->places[hash & entries->mask], 1);
}

bool
hc_entries_is_complete(const HcEntries *entries)
{
	return entries->places != NULL;
}
