/*
 * cache.c
 *	  The mappings of the triggers that fired in this process.
 *
 * Compiling parses SQL, so a mapping is kept until something changes that it
 * may depend on: its table (a relcache message, which also covers the trigger
 * itself), or any function or type.  A mapping that is in use when it becomes
 * invalid is freed by its last user.
 */
#include "postgres.h"

#include "mapping/mapping.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

typedef struct CachedMapping
{
	HcMapping  *mapping;
	MemoryContext context;		/* holds all of this */
	int			users;
	bool		valid;
} CachedMapping;

typedef struct CacheEntry
{
	Oid			trigger;		/* hash key */
	CachedMapping *cached;
} CacheEntry;

static HTAB *cache = NULL;

/* counts invalidations, to notice one that comes while compiling */
static uint64 generation = 0;

static void
release(void *arg)
{
	CachedMapping *cached = arg;

	cached->users--;
	if (!cached->valid && cached->users == 0)
		MemoryContextDelete(cached->context);
}

static void
forget(CacheEntry *entry)
{
	CachedMapping *cached = entry->cached;

	(void) hash_search(cache, &entry->trigger, HASH_REMOVE, NULL);
	cached->valid = false;
	if (cached->users == 0)
		MemoryContextDelete(cached->context);
}

/* InvalidOid: of all relations */
static void
forget_relation(Oid relid)
{
	HASH_SEQ_STATUS status;
	CacheEntry *entry;

	generation++;
	if (cache == NULL)
		return;
	hash_seq_init(&status, cache);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (!OidIsValid(relid) || entry->cached->mapping->relid == relid)
			forget(entry);
	}
}

static void
relcache_callback(Datum arg, Oid relid)
{
	forget_relation(relid);
}

static void
syscache_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	forget_relation(InvalidOid);
}

void
hc_mapping_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, syscache_callback, (Datum) 0);
}

/* Compiles into a context of its own, child of CurrentMemoryContext. */
static CachedMapping *
compile(Relation rel, const Trigger *trigger, HcFunction function)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache mapping",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CachedMapping *cached = palloc0(sizeof(CachedMapping));
	HcOptions	options;

	hc_options_parse(function, trigger->tgnargs, trigger->tgargs, &options);
	cached->mapping = hc_mapping_compile(rel, trigger->tgname, &options);
	cached->context = context;
	MemoryContextSwitchTo(old);
	return cached;
}

HcMapping *
hc_mapping_get(Relation rel, const Trigger *trigger, HcFunction function,
			   MemoryContext context)
{
	CacheEntry *entry = NULL;
	CachedMapping *cached;
	MemoryContextCallback *callback;

	if (cache == NULL)
	{
		HASHCTL		info = {.keysize = sizeof(Oid),.entrysize = sizeof(CacheEntry)};

		cache = hash_create("hybrid_cache mappings", 32, &info,
							HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(cache, &trigger->tgoid, HASH_FIND, NULL);
	if (entry != NULL)
		cached = entry->cached;
	else
	{
		uint64		before = generation;

		cached = compile(rel, trigger, function);
		if (before == generation)
		{
			entry = hash_search(cache, &trigger->tgoid, HASH_ENTER, NULL);
			entry->cached = cached;
			cached->valid = true;
			MemoryContextSetParent(cached->context, CacheMemoryContext);
		}
		else
		{
			/* used this once; lives as long as its only user */
			MemoryContextSetParent(cached->context, context);
			return cached->mapping;
		}
	}

	callback = MemoryContextAlloc(context, sizeof(MemoryContextCallback));
	callback->func = release;
	callback->arg = cached;
	MemoryContextRegisterResetCallback(context, callback);
	cached->users++;
	return cached->mapping;
}
