/*
 * settle.c
 *	  A run: makes one mapping equal to its table, while others change it.
 *
 * Two things can be wrong with Redis: a row's entry is missing or old, and an
 * entry is there that no row has.  For the first, the rows are read and compared
 * with Redis (pass.c); for the second, entries are looked for in Redis and compared
 * with the rows (orphan.c).  What differs is made good by change records
 * (found.c, chunk.c), so that it keeps its place among the changes of others.
 *
 * Where an absent entry is right (ttl, missing=ignore), none is brought back,
 * unless the mapping is to be populated.  Where an entry is to live for some time
 * from the last change of its row on, and is old, nobody knows any more when that
 * was: so it is removed.
 *
 * No transaction is open while it waits for Redis or for the sync worker.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "capture/ledger.h"
#include "capture/recent.h"
#include "common/hashfn.h"
#include "keeper/orphan.h"
#include "keeper/pass.h"
#include "keeper/progress.h"
#include "keeper/rows.h"
#include "keeper/settle.h"
#include "keeper/twice.h"
#include "optimizer/plancat.h"
#include "settings.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "worker/letterbox.h"

/* How often the place of a run is noted where nothing is repaired. */
#define NOTE_MS			1000

/* A run that was ended is gone on with if it is not older than this. */
#define MOST_XIDS		((uint64) 1 << 30)
#define MOST_MS			(24 * 60 * 60 * 1000)

/* Is it owed that the mapping is populated?  In a transaction. */
static bool
is_to_populate(Oid mapping)
{
	ListCell   *lc;

	foreach(lc, hc_owed_reasons(mapping))
	{
		if (strcmp(lfirst(lc), HC_OWED_POPULATE) == 0)
			return true;
	}
	return false;
}

static int64
hash_definition(const HcTrigger *trigger)
{
	uint64		hash = trigger->function;
	int			i;

	for (i = 0; i < trigger->nargs; i++)
		hash = hash_bytes_extended((const unsigned char *) trigger->args[i],
								   strlen(trigger->args[i]), hash);
	return (int64) hash_bytes_extended((const unsigned char *) hc_key_prefix,
									   strlen(hc_key_prefix), hash);
}

/* A run that knows nothing of one before it must look at all rows. */
static void
set_kind(HcSettle *settle)
{
	HcRunState	last;

	if (settle->kind == HC_RUN_INCREMENTAL &&
		(settle->options.values[HC_OPTION_SINCE] == NULL ||
		 !hc_run_load(settle->trigger->oid, &last) || last.mark == 0 ||
		 last.definition != hash_definition(settle->trigger)))
		settle->kind = HC_RUN_RECONCILE;
}

/* What is right in Redis. */
static void
set_rules(HcSettle *settle)
{
	const char *missing = settle->options.values[HC_OPTION_MISSING];
	bool		has_ttl = settle->options.values[HC_OPTION_TTL] != NULL;
	bool		ignores = missing != NULL && strcmp(missing, "ignore") == 0;

	settle->populate = settle->kind == HC_RUN_REPAIR &&
		is_to_populate(settle->trigger->oid);
	settle->may_be_absent = (has_ttl || ignores) && !settle->populate;
	settle->only_remove = has_ttl && !settle->populate;
}

/* Is it the same run that was ended before? */
static bool
can_go_on(const HcRunState *last, const HcRunState *state)
{
	return last->ended == 0 && last->kind == state->kind &&
		last->populate == state->populate &&
		last->definition == state->definition &&
		state->first_xid - last->first_xid < MOST_XIDS &&
		!TimestampDifferenceExceeds(last->started, state->started, MOST_MS);
}

/* Where the run begins, or goes on. */
static void
find_place(HcSettle *settle)
{
	HcRunState *state = &settle->state;
	HcRunState	last;

	memset(state, 0, sizeof(*state));
	state->mapping = settle->trigger->oid;
	state->kind = settle->kind;
	state->reason = pstrdup(hc_progress_get_reason());
	state->phase = HC_RUN_ROWS;
	state->populate = settle->populate;
	state->definition = hash_definition(settle->trigger);
	state->started = GetCurrentTimestamp();
	state->first_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	if (hc_run_load(state->mapping, &last))
	{
		state->full_started = last.full_started;
		state->mark = last.mark;
		if (can_go_on(&last, state))
		{
			*state = last;
			settle->resumed = true;
		}
	}
	if (settle->options.values[HC_OPTION_SINCE] != NULL && !settle->resumed)
		settle->mark = hc_recent_mark(state->mark);
	if (settle->kind == HC_RUN_INCREMENTAL)
		settle->newer = state->mark;
	hc_run_save(state);
}

/* What the mapping is now; false if there is none.  In a transaction. */
static bool
look_at_mapping(HcSettle *settle, Oid mapping)
{
	MemoryContext old = MemoryContextSwitchTo(settle->context);
	HcTrigger  *trigger = hc_catalog_trigger(mapping, NULL);

	if (trigger != NULL && hc_catalog_is_row(trigger))
	{
		settle->trigger = trigger;
		hc_options_parse(trigger->function, trigger->nargs, trigger->args,
						 &settle->options);
		set_kind(settle);
		set_rules(settle);
		find_place(settle);
	}
	else
	{
		hc_owed_clear(mapping);
		hc_run_forget(mapping);
	}
	MemoryContextSwitchTo(old);
	return settle->trigger != NULL;
}

/*
 * Finds out what is to be done, and notes that it is being done.  false if
 * there is nothing.
 */
static bool
begin_mapping(HcSettle *settle, Oid mapping)
{
	MemoryContext old = CurrentMemoryContext;
	bool		found;

	/*
	 * What is owed stays so if this run does not do all about it.  What is owed
	 * since an earlier run was ended is not done by going on with that one; and
	 * this has to be known as long as the reason is marked, whatever happens.
	 */
	if (settle->kind == HC_RUN_REPAIR)
	{
		StartTransactionCommand();
		if (hc_owed_take(mapping))
			hc_run_give_up(mapping);
		CommitTransactionCommand();

		StartTransactionCommand();
		hc_owed_wait();
		CommitTransactionCommand();
	}

	/* not before, to see what they did */
	StartTransactionCommand();
	found = look_at_mapping(settle, mapping);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	return found;
}

/* Opens a connection to Redis, for comparing alone. */
static void
connect_to_redis(HcSettle *settle)
{
	MemoryContext old = MemoryContextSwitchTo(settle->context);
	HcCompareExpiry expiry = HC_COMPARE_NO_EXPIRY;
	const char *problem;
	HcUrl		url;

	if (!hc_url_parse(hc_redis_url, &url, &problem))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"%s\"",
						"hybrid_cache.redis_url"),
				 errdetail("%s", problem)));
	if (settle->options.values[HC_OPTION_TTL] != NULL)
		expiry = HC_COMPARE_SOME_EXPIRY;
	else if (settle->options.values[HC_OPTION_EXPIRES_AT] != NULL)
		expiry = HC_COMPARE_SAME_EXPIRY;
	settle->conn = hc_connection_open(&url, hc_connect_timeout);
	settle->compare = hc_compare_create(settle->conn, expiry);
	MemoryContextSwitchTo(old);
}

static void
disconnect_from_redis(HcSettle *settle)
{
	hc_connection_close(settle->conn);
	settle->conn = NULL;
}

void
hc_settle_reconnect(HcSettle *settle)
{
	disconnect_from_redis(settle);
	connect_to_redis(settle);
}

/* In a transaction of its own. */
static void
save(HcSettle *settle)
{
	MemoryContext old = CurrentMemoryContext;

	StartTransactionCommand();
	hc_run_save(&settle->state);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	settle->saved_at = GetCurrentTimestamp();
	settle->saved_repaired = settle->state.counts.repaired;
}

void
hc_settle_note(HcSettle *settle, HcRunPhase phase, const HcPass *pass)
{
	HcRunState *state = &settle->state;
	bool		other = phase != state->phase;

	state->phase = phase;
	if (pass != NULL)
		state->pass = *pass;

	/* what was repaired is not found again */
	if (other || state->counts.repaired != settle->saved_repaired ||
		TimestampDifferenceExceeds(settle->saved_at, GetCurrentTimestamp(), NOTE_MS))
		save(settle);
}

static void
say_done(const HcSettle *settle)
{
	const HcTrigger *trigger = settle->trigger;
	const HcRunCounts *counts = &settle->state.counts;

	ereport(settle->kind == HC_RUN_REPAIR || counts->repaired > 0 ? LOG : DEBUG1,
			(errmsg("mapping \"%s\" of table \"%s\" is equal to its table again",
					trigger->name, get_rel_name(trigger->relid)),
			 errdetail("Entries checked: %llu, missing: %llu, stale: %llu, orphaned: %llu, conflicting: %llu, repaired: %llu.",
					   (unsigned long long) counts->checked,
					   (unsigned long long) counts->missing,
					   (unsigned long long) counts->stale,
					   (unsigned long long) counts->orphaned,
					   (unsigned long long) counts->conflicting,
					   (unsigned long long) counts->repaired)));
	if (counts->failed > 0)
		ereport(LOG,
				(errmsg_plural("%llu row was left out of mapping \"%s\" of table \"%s\"",
							   "%llu rows were left out of mapping \"%s\" of table \"%s\"",
							   (unsigned long) counts->failed,
							   (unsigned long long) counts->failed, trigger->name,
							   get_rel_name(trigger->relid)),
				 errdetail_internal("%s", settle->problem)));
}

/* The run is over: it is not gone on with. */
static void
end_mapping(HcSettle *settle, HcRunResult result)
{
	HcRunState *state = &settle->state;
	MemoryContext old = CurrentMemoryContext;

	StartTransactionCommand();
	state->ended = GetCurrentTimestamp();

	/* or else it was given up there, and is not due again at once */
	if (result != HC_RUN_CANCELLED)
		state->phase = HC_RUN_OVER;
	if (result == HC_RUN_DONE)
	{
		if (settle->kind == HC_RUN_REPAIR)
			hc_owed_settle(state->mapping);
		if (settle->kind != HC_RUN_INCREMENTAL)
		{
			state->full_started = state->started;
			hc_letterbox_forget(settle->trigger->relid, settle->trigger->name,
							 state->started);
		}
		if (settle->mark != 0)
			state->mark = settle->mark;
		say_done(settle);
	}
	if (hc_catalog_trigger(state->mapping, NULL) != NULL)
		hc_run_save(state);
	else
		hc_run_forget(state->mapping);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

/* How many rows the tables have, as the planner thinks.  In a transaction. */
static double
estimate_rows(const List *tables)
{
	double		n = 0;
	ListCell   *lc;

	foreach(lc, tables)
	{
		Relation	rel = try_table_open(lfirst_oid(lc), AccessShareLock);
		BlockNumber pages;
		double		tuples;
		double		all_visible;

		if (rel == NULL)
			continue;
		estimate_rel_size(rel, NULL, &pages, &tuples, &all_visible);
		n += tuples;
		table_close(rel, NoLock);
	}
	return n;
}

/* The tables that are to be read, in order of their oids. */
static List *
find_tables(HcSettle *settle)
{
	MemoryContext old = CurrentMemoryContext;
	List	   *tables;
	double		n;

	StartTransactionCommand();
	MemoryContextSwitchTo(old);
	tables = hc_rows_tables(settle);
	list_sort(tables, list_oid_cmp);
	n = estimate_rows(tables);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);

	/* what was read before it was ended is not known any more */
	if (!settle->resumed && settle->kind != HC_RUN_INCREMENTAL)
		settle->entries = hc_entries_create(n);
	hc_progress_phase("comparing rows", (uint64) n);
	return tables;
}

static HcRunResult
settle_rows(HcSettle *settle)
{
	HcPass		place = settle->state.pass;
	ListCell   *lc;

	foreach(lc, find_tables(settle))
	{
		HcPass		pass = {.relid = lfirst_oid(lc)};

		if (pass.relid < place.relid)
			continue;
		switch (hc_pass_table(settle, pass.relid == place.relid ? &place : &pass))
		{
			case HC_PASS_DONE:
				break;
			case HC_PASS_CHANGED:
				return HC_RUN_CHANGED;
			case HC_PASS_CANCELLED:
				return HC_RUN_CANCELLED;
		}
	}
	return hc_twice_settle(settle);
}

/* All steps.  If one finds that the mapping has changed, it is all for later. */
static HcRunResult
settle_steps(HcSettle *settle)
{
	HcRunResult result = HC_RUN_DONE;

	/* what clients make of an invalidated key cannot be compared with anything */
	if (settle->kind != HC_RUN_REPAIR &&
		settle->trigger->function == HC_FUNCTION_INVALIDATE)
		return HC_RUN_DONE;

	connect_to_redis(settle);
	hc_chunk_begin(&settle->chunk, settle->db, settle->trigger->oid);
	if (settle->state.phase == HC_RUN_ROWS)
		result = settle_rows(settle);
	if (result == HC_RUN_DONE && settle->kind != HC_RUN_INCREMENTAL)
	{
		hc_settle_note(settle, HC_RUN_ORPHANS, NULL);
		hc_progress_phase("looking for orphans", 0);
		result = hc_orphan_remove(settle);
	}
	(void) hc_chunk_end(&settle->chunk);
	return result;
}

HcRunResult
hc_settle_mapping(HcDatabase *db, Oid mapping, HcRunKind kind,
				  HcRunCounts *counts)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "hybrid_cache settle",
												  ALLOCSET_DEFAULT_SIZES);
	HcSettle   *settle;
	volatile HcRunResult result = HC_RUN_DONE;

	MemoryContextSwitchTo(context);
	settle = palloc0(sizeof(HcSettle));
	settle->db = db;
	settle->kind = kind;
	settle->paced_at = GetCurrentTimestamp();
	settle->context = context;
	settle->chunk_context = AllocSetContextCreate(context, "hybrid_cache chunk",
												  ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		if (begin_mapping(settle, mapping))
		{
			result = settle_steps(settle);
			end_mapping(settle, result);
		}
		else
			result = HC_RUN_CHANGED;
	}
	PG_FINALLY();
	{
		disconnect_from_redis(settle);
		*counts = settle->state.counts;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return result;
}
