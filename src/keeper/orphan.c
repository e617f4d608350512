/*
 * orphan.c
 *	  Removes the entries of a mapping that no row has.
 *
 * Entries are looked for in Redis, some at a time, and then the table is read to
 * see which of them a row has.  The others are removed, in a window (window.h):
 * so an entry that a row gets meanwhile stays.  When Redis was searched does not
 * matter; those that are left are looked for once more in the window, since what
 * was removed with its row in between is no orphan.
 *
 * Usually the rows have just been read, and which entries they have is known
 * (entries.h): then the table is read again only for the others.
 *
 * This needs a template that reads back: where it can match what it has not
 * made, the entries are only counted and reported.
 *
 * No transaction is open while Redis is read.
 */
#include "postgres.h"

#include "access/xact.h"
#include "keeper/entries.h"
#include "keeper/found.h"
#include "keeper/keeper.h"
#include "keeper/orphan.h"
#include "keeper/pace.h"
#include "keeper/progress.h"
#include "keeper/rows.h"
#include "keeper/search.h"
#include "keeper/suspects.h"
#include "redis/connection.h"
#include "settings.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* Entries that are compared with the table at a time: as much memory. */
#define MAX_BYTES		(32 * 1024 * 1024)

/* To go on in Redis is as much work as to compare so many rows. */
#define ROWS_PER_STEP	200

/* So often too much may be changed while the table is read. */
#define MOST_OVERFLOWS	5

typedef struct Orphans
{
	HcSettle   *settle;
	bool		remove;			/* or else only count them */
	HcShape		shape;
	HcSearch   *search;
	HcEntries  *entries;		/* those that rows had, or NULL: all are compared */
	HcSuspects *suspects;
} Orphans;

/* An entry that was found in Redis. */
static void
take_suspect(HcBytes key, const HcBytes *member, void *arg)
{
	Orphans    *orphans = arg;

	if (orphans->entries == NULL ||
		!hc_entries_has(orphans->entries,
						hc_entries_hash(orphans->entries, key, member)))
		hc_suspects_add(key, member, orphans->suspects);
}

/* An entry that a row has. */
static void
take_row(const HcOp *op, void *arg)
{
	Orphans    *orphans = arg;
	HcSuspect *suspect = hc_suspects_find(orphans->suspects, op, 0);

	if (suspect != NULL)
		hc_suspects_remove(orphans->suspects, suspect);
}

static const redisReply *
ask(int argc, const char *const *argv, const size_t *argvlen, void *arg)
{
	Orphans    *orphans = arg;

	return hc_connection_command(orphans->settle->conn,
								 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															 hc_command_timeout),
								 argc, argv, argvlen);
}

/* Reads on in Redis; false if there is nothing more. */
static bool
read_suspects(Orphans *orphans)
{
	bool		more = true;

	hc_suspects_clear(orphans->suspects);
	while (more && hc_suspects_bytes(orphans->suspects) < MAX_BYTES)
	{
		hc_keeper_obey();
		more = hc_search_step(orphans->search, take_suspect, orphans);
		hc_pace_wait(orphans->settle, ROWS_PER_STEP);
		if (hc_progress_cancelled())
			break;
	}
	return hc_suspects_number(orphans->suspects) > 0;
}

/* Leaves the suspects that no row has; false if the mapping is not what it was. */
static bool
read_rows(Orphans *orphans)
{
	HcCaptureRange what = {.identity = true,.put = take_row,.arg = orphans};

	return hc_rows_read_all(orphans->settle, &what, NULL);
}

/* The suspects should not be there. */
static void
add_removals(Orphans *orphans)
{
	HcSuspect *suspect;

	hc_suspects_begin(orphans->suspects);
	while ((suspect = hc_suspects_next(orphans->suspects)) != NULL)
	{
		HcOp		op = {.kind = hc_shape_removal(&orphans->shape)};

		op.key = suspect->key;
		op.member = suspect->member;
		hc_found_add(orphans->settle, &op);
	}
}

/* Deals with those of the suspects that are orphans. */
static HcRunResult
remove_orphans(Orphans *orphans)
{
	HcSettle   *settle = orphans->settle;
	bool		anew = false;
	int			overflows = 0;

	for (;;)
	{
		HcWindowOutcome outcome;

		hc_chunk_renew(&settle->chunk, anew);
		if (!read_rows(orphans))
			return HC_RUN_CHANGED;
		hc_found_begin(settle, true);
		add_removals(orphans);
		outcome = hc_found_settle_orphans(settle, !orphans->remove);
		if (outcome == HC_WINDOW_TAKEN)
			return HC_RUN_DONE;
		if (outcome == HC_WINDOW_OVERFLOWED && ++overflows > MOST_OVERFLOWS)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("too much was changed while the table of mapping \"%s\" was read",
							settle->trigger->name)));
		anew = true;
	}
}

/* What to look for; in a transaction. */
static bool
prepare(Orphans *orphans)
{
	const HcTrigger *trigger = orphans->settle->trigger;

	if (!hc_shape_of_trigger(&orphans->shape, trigger))
		return false;
	orphans->search = hc_search_create(&orphans->shape,
									   hc_shape_others(trigger->oid), ask, orphans);
	return true;
}

static HcRunResult
look_through(Orphans *orphans)
{
	HcSettle   *settle = orphans->settle;
	uint64		before = settle->state.counts.orphaned;
	uint64		n;

	for (;;)
	{
		bool		found = read_suspects(orphans);
		HcRunResult result;

		if (hc_progress_cancelled())
			return HC_RUN_CANCELLED;
		if (!found)
			break;
		result = remove_orphans(orphans);
		if (result != HC_RUN_DONE)
			return result;
		hc_progress_counts(&settle->state.counts);
	}
	n = settle->state.counts.orphaned - before;
	if (!orphans->remove && n > 0)
		ereport(LOG,
				(errmsg_plural("%llu entry in Redis looks like one of mapping \"%s\", but no row has it",
							   "%llu entries in Redis look like those of mapping \"%s\", but no row has them",
							   (unsigned long) n,
							   (unsigned long long) n, settle->trigger->name),
				 errdetail("The key template is \"%s\". Nothing was removed.",
						   hc_catalog_option(settle->trigger, HC_OPTION_KEY))));
	return HC_RUN_DONE;
}

HcRunResult
hc_orphan_remove(HcSettle *settle)
{
	const char *option = settle->options.values[HC_OPTION_ORPHANS];
	MemoryContext context = CurrentMemoryContext;
	Orphans    *orphans;
	bool		found;

	if (settle->trigger->function == HC_FUNCTION_INVALIDATE ||
		(option != NULL && strcmp(option, "ignore") == 0))
		return HC_RUN_DONE;

	orphans = palloc0(sizeof(Orphans));
	orphans->settle = settle;
	if (settle->entries != NULL && hc_entries_is_complete(settle->entries))
		orphans->entries = settle->entries;
	orphans->suspects = hc_suspects_create(0);
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	found = prepare(orphans);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	if (!found)
		return HC_RUN_DONE;
	orphans->remove = hc_shape_is_certain(&orphans->shape) &&
		(option == NULL || strcmp(option, "delete") == 0);
	return look_through(orphans);
}
