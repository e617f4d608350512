/*
 * readable.c
 *	  A mapping whose entries hybrid_cache.get() reads, kept by the session.
 *
 * A call of get() is to cost little more than the question to Redis, so all
 * that follows from the catalogs is found once, and forgotten when the table, a
 * function or a type changes.  What is owed, and which mappings there are, can
 * change without that: then the table hybrid_cache.owed is invalidated
 * (hc_ledger_changed()), and what follows from it is found again.
 */
#include "postgres.h"

#include "cache/readable.h"
#include "capture/ledger.h"
#include "capture/shape.h"
#include "catalog/pg_class.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

typedef struct MappingName
{
	Oid			relid;
	NameData	name;
} MappingName;

/* What is kept; the mapping comes first, so that it leads back here. */
typedef struct Kept
{
	HcReadable	readable;
	MemoryContext context;		/* holds all of this */
	int			users;
	bool		valid;

	/* from the ledger */
	MemoryContext ledger_context;	/* holds the matchers */
	bool		ledger_known;
	bool		fires;			/* every change is captured */
	bool		foreign;		/* Redis has another database's entries there */
	bool		partial;		/* rows may be missing from a key */
	List	   *rivals;			/* HcMatcher * of keys that others may have */
} Kept;

typedef struct Entry
{
	MappingName name;			/* hash key */
	Kept	   *kept;
} Entry;

static HTAB *cache = NULL;

/* The table of what is owed, once it was looked at. */
static Oid	owed_relid = InvalidOid;

/* counts invalidations, to notice one that comes in the middle */
static uint64 generation = 0;

static void
forget(Entry *entry)
{
	Kept	   *kept = entry->kept;

	(void) hash_search(cache, &entry->name, HASH_REMOVE, NULL);
	kept->valid = false;
	if (kept->users == 0)
		MemoryContextDelete(kept->context);
}

static void
release(void *arg)
{
	Kept	   *kept = arg;

	kept->users--;
	if (!kept->valid && kept->users == 0)
		MemoryContextDelete(kept->context);
}

static void
free_plan(void *arg)
{
	HcReadable *readable = arg;

	if (readable->plan != NULL)
		(void) SPI_freeplan(readable->plan);
}

/* InvalidOid: of all tables */
static void
forget_relation(Oid relid)
{
	HASH_SEQ_STATUS status;
	Entry	   *entry;

	generation++;
	if (cache == NULL)
		return;
	hash_seq_init(&status, cache);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (!OidIsValid(relid) || entry->name.relid == relid)
			forget(entry);
		else if (relid == owed_relid)
			entry->kept->ledger_known = false;
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
hc_readable_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, syscache_callback, (Datum) 0);
}

/* The trigger that is the mapping; raises if there is none that can be read. */
static HcTrigger *
find_trigger(Relation rel, const char *name)
{
	HcTrigger  *trigger = NULL;
	ListCell   *lc;
	bool		timer;

	foreach(lc, hc_catalog_relation(RelationGetRelid(rel), NULL))
	{
		HcTrigger  *candidate = lfirst(lc);

		if (hc_catalog_is_row(candidate) && strcmp(candidate->name, name) == 0)
			trigger = candidate;
	}
	if (trigger == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("mapping \"%s\" of table \"%s\" does not exist",
						name, RelationGetRelationName(rel)),
				 errhint("The view hybrid_cache.mapping lists the mappings.")));
	if (OidIsValid(trigger->parent))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("mapping \"%s\" does not belong to partition \"%s\" alone",
						name, RelationGetRelationName(rel)),
				 errhint("Read it from table \"%s\".",
						 get_rel_name(hc_catalog_mapping(trigger)->relid))));
	timer = strcmp(hc_catalog_kind(trigger), hc_kind_name(HC_KIND_TIMER)) == 0;
	if (trigger->function != HC_FUNCTION_WRITE_THROUGH || timer)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("mapping \"%s\" of table \"%s\" has nothing to read",
						name, RelationGetRelationName(rel)),
				 hc_catalog_is_event(trigger)
				 ? errdetail("A mapping of kind \"%s\" sends events when rows change.",
							 hc_catalog_kind(trigger))
				 : timer
				 ? errdetail("A mapping of kind \"timer\" adds events to a stream.")
				 : errdetail("A mapping of kind \"invalidate\" only removes keys.")));
	return trigger;
}

/* The columns of the key template, each once. */
static void
find_keys(HcReadable *readable)
{
	const HcTemplate *tmpl = readable->mapping->key;
	int			i;

	readable->keys = palloc0(Max(tmpl->n_parts, 1) * sizeof(HcReadableKey));
	for (i = 0; i < tmpl->n_parts; i++)
	{
		const char *name = tmpl->parts[i].text;
		HcReadableKey *key = &readable->keys[readable->n_keys];
		Form_pg_attribute att;
		int			other;

		if (!tmpl->parts[i].is_column)
			continue;
		for (other = 0; other < readable->n_keys; other++)
		{
			if (strcmp(readable->keys[other].name, name) == 0)
				break;
		}
		if (other < readable->n_keys)
			continue;
		key->name = pstrdup(name);
		key->attnum = get_attnum(readable->mapping->relid, name);
		att = TupleDescAttr(readable->desc, key->attnum - 1);
		key->typmod = att->atttypmod;
		key->type = getBaseTypeAndTypmod(att->atttypid, &key->typmod);
		key->collation = att->attcollation;
		key->equality = lookup_type_cache(key->type, TYPECACHE_EQ_OPR)->eq_opr;
		readable->n_keys++;
	}
}

/* Makes what is kept, in a context of its own below the current one. */
static Kept *
compile(Relation rel, const char *name)
{
	HcTrigger  *trigger = find_trigger(rel, name);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache readable",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Kept	   *kept = palloc0(sizeof(Kept));
	HcReadable *readable = &kept->readable;
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));
	HcOptions	options;
	HcShape		shape;

	kept->context = context;
	kept->ledger_context = AllocSetContextCreate(context, "hybrid_cache rivals",
												 ALLOCSET_SMALL_SIZES);
	callback->func = free_plan;
	callback->arg = readable;
	MemoryContextRegisterResetCallback(context, callback);

	hc_options_parse(trigger->function, trigger->nargs, trigger->args, &options);
	readable->trigger = trigger->oid;
	readable->mapping = hc_mapping_compile(rel, name, &options);
	readable->desc = CreateTupleDescCopy(RelationGetDescr(rel));
	readable->partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	readable->attrs = bms_union(readable->mapping->identity_attrs,
								readable->mapping->value_attrs);
	if (!hc_shape_of_trigger(&shape, trigger))
		elog(ERROR, "templates of mapping \"%s\" do not parse", name);
	readable->shared = shape.member != NULL;
	readable->members = shape.member;
	find_keys(readable);
	MemoryContextSwitchTo(old);
	return kept;
}

HcReadable *
hc_readable_get(Relation rel, const char *name, MemoryContext context)
{
	MemoryContextCallback *callback;
	Entry	   *entry;
	Kept	   *kept;
	MappingName key;

	if (cache == NULL)
	{
		HASHCTL		info = {.keysize = sizeof(MappingName),.entrysize = sizeof(Entry)};

		cache = hash_create("hybrid_cache readables", 16, &info,
							HASH_ELEM | HASH_BLOBS);
	}
	memset(&key, 0, sizeof(key));
	key.relid = RelationGetRelid(rel);
	namestrcpy(&key.name, name);

	entry = hash_search(cache, &key, HASH_FIND, NULL);
	if (entry != NULL)
		kept = entry->kept;
	else
	{
		uint64		before = generation;

		kept = compile(rel, name);
		if (before != generation)
		{
			/* used this once; lives as long as its only user */
			MemoryContextSetParent(kept->context, context);
			return &kept->readable;
		}
		entry = hash_search(cache, &key, HASH_ENTER, NULL);
		entry->kept = kept;
		kept->valid = true;
		MemoryContextSetParent(kept->context, CacheMemoryContext);
	}

	callback = MemoryContextAlloc(context, sizeof(MemoryContextCallback));
	callback->func = release;
	callback->arg = kept;
	MemoryContextRegisterResetCallback(context, callback);
	kept->users++;
	return &kept->readable;
}

bool
hc_readable_is_valid(const HcReadable *readable)
{
	return ((const Kept *) readable)->valid;
}

/* Can the other mapping have a key that this one has, too? */
static bool
is_rival(const HcTrigger *trigger, const HcClaim *claim, const HcTrigger *other)
{
	HcClaim		other_claim;

	if (other->oid == trigger->oid ||
		!hc_check_trigger_claim(&other_claim, other) ||
		other_claim.type == NULL ||
		hc_template_disjoint(claim->key, other_claim.key))
		return false;

	/* a collection that they share, each with its own members */
	return claim->member == NULL || other_claim.member == NULL ||
		strcmp(claim->type, other_claim.type) != 0 ||
		!hc_template_same(claim->key, other_claim.key);
}

static void
find_rivals(Kept *kept, const HcTrigger *trigger)
{
	HcClaim		claim;
	ListCell   *lc;

	if (!hc_check_trigger_claim(&claim, trigger))
		return;
	foreach(lc, hc_catalog_database())
	{
		HcTrigger  *other = lfirst(lc);
		HcShape		shape;

		if (is_rival(trigger, &claim, other) && hc_shape_of_trigger(&shape, other))
			kept->rivals = lappend(kept->rivals, shape.key);
	}
}

/* Finds out what the ledger says about the mapping. */
static void
ask_ledger(Kept *kept)
{
	const char *missing = kept->readable.mapping->options.values[HC_OPTION_MISSING];
	HcTrigger  *trigger;
	MemoryContext old;
	uint64		before = generation;
	ListCell   *lc;

	MemoryContextReset(kept->ledger_context);
	old = MemoryContextSwitchTo(kept->ledger_context);
	owed_relid = hc_ledger_oid("owed");
	kept->foreign = false;
	kept->rivals = NIL;

	/* what is evicted comes back piece by piece */
	kept->partial = missing != NULL && strcmp(missing, "ignore") == 0;
	foreach(lc, hc_owed_reasons(kept->readable.trigger))
	{
		kept->partial = true;
		if (strcmp(lfirst(lc), HC_OWED_FOREIGN) == 0)
			kept->foreign = true;
	}
	trigger = hc_catalog_trigger(kept->readable.trigger, NULL);
	kept->fires = trigger != NULL && hc_catalog_fires(trigger);
	if (kept->fires)
		find_rivals(kept, trigger);
	MemoryContextSwitchTo(old);
	kept->ledger_known = before == generation;
}

bool
hc_readable_is_trusted(HcReadable *readable, HcBytes key)
{
	Kept	   *kept = (Kept *) readable;
	ListCell   *lc;

	if (!kept->ledger_known)
		ask_ledger(kept);
	if (!kept->fires || kept->foreign || (readable->shared && kept->partial))
		return false;
	foreach(lc, kept->rivals)
	{
		if (hc_match(lfirst(lc), key.data, key.len))
			return false;
	}
	return true;
}
