/*
 * orphan.c
 *	  Removes the entries of a mapping that no row has.
 *
 * Entries are looked for in Redis, some at a time, and then the table is read to
 * see which of them a row has.  The others are removed, in a window (window.h):
 * so an entry that a row gets meanwhile stays.  When Redis was read does not
 * matter.
 *
 * This needs a template that reads back: where it can match what it has not
 * made, the entries are only counted and reported.
 *
 * Neither a transaction nor a window is open while Redis is read.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "mapping/bytes.h"
#include "redis/connection.h"
#include "redis/reply.h"
#include "settings.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "worker/chunk.h"
#include "worker/keeper.h"
#include "worker/orphan.h"
#include "worker/search.h"

/* Entries that are compared with the table at a time: as much memory. */
#define MAX_BYTES		(32 * 1024 * 1024)

/* So often too much may be changed while the table is read. */
#define MOST_OVERFLOWS	3

typedef struct Candidate
{
	uint64		hash;			/* hash key */
	HcBytes		key;
	HcBytes		member;			/* data is NULL for a whole key */
	char		status;
} Candidate;

#define SH_PREFIX		candidates
#define SH_ELEMENT_TYPE	Candidate
#define SH_KEY_TYPE		uint64
#define SH_KEY			hash
#define SH_HASH_KEY(tb, key)	((uint32) (key))
#define SH_EQUAL(tb, a, b)		((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct Orphans
{
	HcSettle   *settle;
	bool		remove;			/* or else only count them */
	HcShape		shape;
	List	   *others;			/* HcShape *, of other mappings */
	HcSearch   *search;
	HcConnection *conn;
	MemoryContext context;		/* of the candidates */
	candidates_hash *candidates;
} Orphans;

static uint64
hash_entry(HcBytes key, HcBytes member)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) key.data,
										   key.len, 0);

	if (member.data != NULL)
		hash = hash_bytes_extended((const unsigned char *) member.data,
								   member.len, hash);
	return hash;
}

/* An entry that was found in Redis. */
static void
take_candidate(HcBytes key, const HcBytes *member, void *arg)
{
	Orphans    *orphans = arg;
	HcBytes		none = {NULL, 0};
	Candidate  *candidate;
	bool		found;

	candidate = candidates_insert(orphans->candidates,
								  hash_entry(key, member ? *member : none), &found);

	/* it came before; or, never, another one looks like it, and stays */
	if (found)
		return;
	candidate->key = hc_bytes_copy(orphans->context, key);
	candidate->member = member ? hc_bytes_copy(orphans->context, *member) : none;
}

/* An entry that a row has. */
static void
take_row(const HcOp *op, void *arg)
{
	Orphans    *orphans = arg;
	HcBytes		member = {NULL, 0};
	Candidate  *candidate;

	if (hc_op_has_member(op->kind))
		member = op->member;
	candidate = candidates_lookup(orphans->candidates, hash_entry(op->key, member));
	if (candidate != NULL && hc_bytes_equal(candidate->key, op->key) &&
		hc_bytes_equal(candidate->member, member))
		candidates_delete(orphans->candidates, candidate->hash);
}

static const redisReply *
ask(int argc, const char *const *argv, const size_t *argvlen, void *arg)
{
	Orphans    *orphans = arg;

	return hc_connection_command(orphans->conn,
								 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															 hc_command_timeout),
								 argc, argv, argvlen);
}

/* Reads on in Redis; false if there is nothing more. */
static bool
read_candidates(Orphans *orphans)
{
	bool		more = true;

	MemoryContextReset(orphans->context);
	orphans->candidates = candidates_create(orphans->context, 256, NULL);
	while (more && MemoryContextMemAllocated(orphans->context, true) < MAX_BYTES)
	{
		hc_keeper_obey();
		more = hc_search_step(orphans->search, take_candidate, orphans);
	}
	return orphans->candidates->members > 0;
}

/* Leaves the candidates that no row has, in a transaction. */
static bool
read_rows(Orphans *orphans)
{
	HcSettle   *settle = orphans->settle;
	ListCell   *lc;

	if (!hc_settle_is_current(settle))
		return false;
	foreach(lc, hc_settle_tables(settle))
	{
		HcCaptureRange range = {.end = InvalidBlockNumber,.identity = true,
		.put = take_row,.arg = orphans};
		Relation	rel = try_table_open(lfirst_oid(lc), AccessShareLock);

		if (rel == NULL)
			continue;
		hc_settle_read(settle, rel, &range, NULL);
		table_close(rel, NoLock);
	}
	return true;
}

static void
write_removals(Orphans *orphans, HcChunk *chunk)
{
	candidates_iterator iterator;
	Candidate  *candidate;

	candidates_start_iterate(orphans->candidates, &iterator);
	while ((candidate = candidates_iterate(orphans->candidates, &iterator)) != NULL)
	{
		HcOp		op = {.kind = hc_shape_removal(&orphans->shape)};

		op.key = candidate->key;
		op.member = candidate->member;
		hc_chunk_put(&op, chunk);
	}
	hc_chunk_write(chunk);
}

/* Removes those of the candidates that are orphans. */
static bool
remove_orphans(Orphans *orphans)
{
	HcSettle   *settle = orphans->settle;
	MemoryContext old = CurrentMemoryContext;
	HcWindowOutcome outcome;
	int			overflows = 0;

	do
	{
		HcChunk		chunk;
		bool		current;

		hc_chunk_begin(&chunk, settle->db, settle->trigger->oid);
		StartTransactionCommand();
		current = read_rows(orphans);
		if (current)
			write_removals(orphans, &chunk);
		CommitTransactionCommand();
		MemoryContextSwitchTo(old);
		if (!current)
			return false;
		outcome = hc_chunk_end(&chunk);
		if (outcome == HC_WINDOW_OVERFLOWED && ++overflows > MOST_OVERFLOWS)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("too much was changed while the table of mapping \"%s\" was read",
							settle->trigger->name)));
	} while (outcome != HC_WINDOW_TAKEN);
	return true;
}

/* The same, but nothing is removed. */
static bool
count_orphans(Orphans *orphans)
{
	MemoryContext old = CurrentMemoryContext;
	bool		current;

	StartTransactionCommand();
	current = read_rows(orphans);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	return current;
}

/* What to look for; in a transaction. */
static bool
prepare(Orphans *orphans)
{
	const HcTrigger *trigger = orphans->settle->trigger;
	ListCell   *lc;

	if (!hc_shape_of_trigger(&orphans->shape, trigger))
		return false;
	foreach(lc, hc_catalog_database())
	{
		const HcTrigger *other = lfirst(lc);
		HcShape    *shape = palloc(sizeof(HcShape));

		if (other->oid != trigger->oid &&
			hc_shape_of_trigger(shape, other) && shape->type != NULL)
			orphans->others = lappend(orphans->others, shape);
	}
	orphans->search = hc_search_create(&orphans->shape, orphans->others, ask,
									   orphans);
	return true;
}

/* Can nothing but a row of the mapping have made what matches? */
static bool
is_certain(const HcShape *shape)
{
	return !shape->key_template->parts[0].is_column &&
		hc_match_is_certain(shape->key) &&
		(shape->member == NULL || hc_match_is_certain(shape->member));
}

static bool
look_through(Orphans *orphans)
{
	HcSettle   *settle = orphans->settle;
	uint64		n = 0;

	while (read_candidates(orphans))
	{
		if (!(orphans->remove ? remove_orphans(orphans) : count_orphans(orphans)))
			return false;
		n += orphans->candidates->members;
	}
	if (orphans->remove)
		settle->n_orphans = n;
	else if (n > 0)
		ereport(LOG,
				(errmsg_plural("%llu entry in Redis looks like one of mapping \"%s\", but no row has it",
							   "%llu entries in Redis look like those of mapping \"%s\", but no row has them",
							   (unsigned long) n,
							   (unsigned long long) n, settle->trigger->name),
				 errdetail("The key template is \"%s\". Nothing was removed.",
						   hc_catalog_option(settle->trigger, HC_OPTION_KEY))));
	return true;
}

bool
hc_orphan_remove(HcSettle *settle)
{
	const char *option = settle->options.values[HC_OPTION_ORPHANS];
	MemoryContext context = CurrentMemoryContext;
	Orphans    *orphans;
	bool		found;
	volatile bool result = true;
	HcUrl		url;
	const char *problem;

	if (settle->trigger->function == HC_FUNCTION_INVALIDATE ||
		(option != NULL && strcmp(option, "ignore") == 0))
		return true;

	orphans = palloc0(sizeof(Orphans));
	orphans->settle = settle;
	orphans->context = AllocSetContextCreate(context, "hybrid_cache orphans",
											 ALLOCSET_DEFAULT_SIZES);
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	found = prepare(orphans);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	if (!found || !hc_url_parse(hc_redis_url, &url, &problem))
		return true;

	orphans->conn = hc_connection_open(&url, hc_connect_timeout);
	PG_TRY();
	{
		orphans->remove = is_certain(&orphans->shape) &&
			(option == NULL || strcmp(option, "delete") == 0);
		result = look_through(orphans);
	}
	PG_FINALLY();
	{
		hc_connection_close(orphans->conn);
	}
	PG_END_TRY();
	return result;
}
