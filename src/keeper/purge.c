/*
 * purge.c
 *	  Removes the entries that a dropped mapping left in Redis: exactly those.
 *
 * The session that drops a mapping only notes that its entries are to go
 * (capture/leftover.h).  This is what the keeper does about it, after everything
 * that the mapping wrote has been applied: it searches Redis by the templates
 * (search.h), some entries at a time, and removes those that are the mapping's.
 * Which are they?
 *
 * - Where the templates read back without doubt, each that matches: nothing but a
 *   row of the mapping is written like that.
 * - Where they do not, since a column of them may hold any text, what matches can
 *   as well be somebody else's key.  Then an entry is the mapping's if a row of
 *   the table names it.  For that only the columns of the templates are looked
 *   at, neither filter nor value: a row that was changed meanwhile still names
 *   its entry, unless those columns were changed.  What no row names may have
 *   been the entry of a row that is gone, or a foreign key: it stays, its number
 *   is noted in the leftover, and who has looked at the list may have it removed
 *   with force.
 *
 * Other ways to know more in the second case were refused: to keep the trigger
 * until all is removed (it would fire for a mapping that does not exist, and
 * could only be dropped with a lock that writers wait for), and to keep the rows
 * as they were by a snapshot (it would hold back vacuum while Redis is down).
 * detach() removes the entries of a small table itself, see manage/attach.c.
 *
 * What a living mapping could have written is left out, whoever wrote it.  That
 * is looked at in the transaction that writes the removals, and no mapping can be
 * made before it has committed (hc_check_lock()).  So the removals are an
 * ordinary transaction and need no window: an entry that a newer mapping writes
 * is written by a later one.  And they hold if Redis loses what it had
 * acknowledged, since they are applied again like everything else.
 *
 * A mapping with the same templates inherits the entries: it makes them right by
 * itself, and there is nothing to remove.
 *
 * A keeper that ends in the middle has removed a part; the next one begins anew.
 * No transaction is open while it waits for Redis.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "capture/buffer.h"
#include "capture/ledger.h"
#include "capture/leftover.h"
#include "encoding.h"
#include "keeper/keeper.h"
#include "keeper/named.h"
#include "keeper/purge.h"
#include "keeper/retry.h"
#include "keeper/search.h"
#include "keeper/suspects.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "redis/connection.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/owner.h"
#include "worker/recover.h"

/* Entries that are removed at a time, so that others get their turn. */
#define MAX_ENTRIES		10000

/* The same where each time the table is read: as much memory. */
#define MAX_BYTES		(32 * 1024 * 1024)

/* What the mapping owes to which the entries belong now. */
#define OWED_INHERITED	"has entries of a dropped mapping"

/* A leftover that is being purged. */
typedef struct Purge
{
	HcDatabase *db;
	HcLeftover *leftover;		/* as it was at the beginning */
	HcShape		shape;
	const char *owned;			/* the key template as owner.h has it */
	bool		all;			/* what matches is the mapping's */
	HcSearch   *search;
	HcConnection *conn;
	HcSuspects *entries;		/* named: by a row (named.h) */
	uint64		removed;
	uint64		remaining;
} Purge;

static List *troubles = NIL;	/* HcRetry *, of those that could not be purged */

static const redisReply *
ask(int argc, const char *const *argv, const size_t *argvlen, void *arg)
{
	Purge	   *purge = arg;

	return hc_connection_command(purge->conn,
								 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															 hc_command_timeout),
								 argc, argv, argvlen);
}

/* Reads on in Redis; false if there is nothing more. */
static bool
read_entries(Purge *purge)
{
	bool		more = true;

	hc_suspects_clear(purge->entries);
	while (more && (purge->all ? hc_suspects_number(purge->entries) < MAX_ENTRIES :
					hc_suspects_bytes(purge->entries) < MAX_BYTES))
	{
		hc_keeper_obey();
		more = hc_search_step(purge->search, hc_suspects_add, purge->entries);
	}
	return hc_suspects_number(purge->entries) > 0;
}

/*
 * In a transaction that changes something: is the leftover still to be purged?
 * From here to its end nobody can make another mapping.
 */
static bool
is_current(Purge *purge)
{
	HcLeftover *now;
	HcTrigger  *heir;

	hc_check_lock();
	now = hc_leftover_get(purge->leftover->id);
	if (now == NULL || !now->asked ||
		!ItemPointerEquals(&now->tid, &purge->leftover->tid))
		return false;
	heir = hc_leftover_heir(now);
	if (heir == NULL)
		return true;
	if (hc_leftover_delete(now))
	{
		hc_owed_mark(heir->oid, OWED_INHERITED);
		ereport(LOG,
				(errmsg("the entries of dropped mapping \"%s\" of table %s now belong to mapping \"%s\" of table \"%s\"",
						now->mapping, now->relation, heir->name,
						get_rel_name(heir->relid)),
				 errdetail("That one is compared with its table; nothing else was removed.")));
	}
	return false;
}

static bool
is_of_others(const List *others, const HcSuspect *entry)
{
	ListCell   *lc;

	foreach(lc, others)
	{
		if (hc_shape_matches(lfirst(lc), entry->key,
							 entry->member.data != NULL ? &entry->member : NULL))
			return true;
	}
	return false;
}

/* Captures the removals, in a transaction. */
static void
write_removals(Purge *purge)
{
	List	   *others = hc_shape_others(InvalidOid);
	HcSuspect *entry;

	hc_suspects_begin(purge->entries);
	while ((entry = hc_suspects_next(purge->entries)) != NULL)
	{
		/* no row version: such a removal always counts */
		HcOp		op = {.kind = hc_shape_removal(&purge->shape)};

		CHECK_FOR_INTERRUPTS();
		if (is_of_others(others, entry))
			continue;
		if (!purge->all && !entry->named)
		{
			purge->remaining++;
			continue;
		}
		op.key = entry->key;
		if (hc_op_has_member(op.kind))
			op.member = entry->member;
		hc_buffer_append(&op);
		purge->removed++;
	}
}

/* Removes what is to be removed of the entries that were read. */
static bool
remove_entries(Purge *purge)
{
	MemoryContext old = CurrentMemoryContext;
	bool		current;

	/* not in one transaction: no table is locked while mappings are */
	if (!purge->all)
	{
		StartTransactionCommand();
		hc_named_mark(purge->leftover, &purge->shape, purge->entries);
		CommitTransactionCommand();
	}
	StartTransactionCommand();
	current = is_current(purge);
	if (current)
		write_removals(purge);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	if (current)
	{
		hc_keeper_wait(XactLastCommitEnd);
		pg_atomic_write_u64(&purge->db->keep.purged, purge->removed);
	}
	return current;
}

/* What is to be done; false if there is nothing. */
static bool
begin(Purge *purge, int64 id)
{
	MemoryContext old = CurrentMemoryContext;
	bool		result;

	StartTransactionCommand();
	MemoryContextSwitchTo(old);
	purge->leftover = hc_leftover_get(id);
	result = purge->leftover != NULL && purge->leftover->asked &&
		is_current(purge) && hc_leftover_shape(purge->leftover, &purge->shape);
	if (result)
	{
		purge->all = purge->leftover->force || hc_shape_is_certain(&purge->shape);
		purge->owned = hc_owner_field(purge->shape.key_template);
		purge->entries = hc_suspects_create(strlen(hc_encoding_string(purge->leftover->prefix)));
		purge->search = hc_search_create(&purge->shape, hc_shape_others(InvalidOid), ask,
										 purge);
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	return result;
}

/* All is done: says so, and forgets the leftover if nothing is left of it. */
static void
end(Purge *purge)
{
	const HcLeftover *leftover = purge->leftover;
	MemoryContext old = CurrentMemoryContext;

	StartTransactionCommand();
	if (is_current(purge) &&
		(purge->remaining == 0 ? hc_leftover_delete(leftover) :
		 hc_leftover_give_up(purge->leftover, purge->remaining)))
	{
		ereport(LOG,
				(errmsg("the entries of dropped mapping \"%s\" of table %s were removed",
						leftover->mapping, leftover->relation),
				 errdetail("Entries removed: %llu.",
						   (unsigned long long) purge->removed)));
		if (purge->remaining > 0)
			ereport(LOG,
					(errmsg_plural("%llu entry in Redis looks like one of dropped mapping \"%s\", but no row names it",
								   "%llu entries in Redis look like those of dropped mapping \"%s\", but no row names them",
								   (unsigned long) purge->remaining,
								   (unsigned long long) purge->remaining,
								   leftover->mapping),
					 errdetail("The key template is \"%s\".", leftover->key),
					 errhint("To see them: SELECT * FROM hybrid_cache.purge(%lld); to remove them, add dry_run => false, force => true.",
							 (long long) leftover->id)));
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

/* Raises if another database writes keys with this template. */
static void
check_owner(Purge *purge)
{
	uint64		system;
	Oid			database;

	if (!hc_owner_is_other(purge->conn, purge->owned, &system, &database))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("key template \"%s\" belongs to another database",
					purge->leftover->key),
			 errdetail("It belongs to database %u of system " UINT64_FORMAT ".",
					   database, system),
			 errhint("To remove the entries from here all the same, call hybrid_cache.take_over(); to forget them: DELETE FROM hybrid_cache.leftover WHERE id = %lld.",
					 (long long) purge->leftover->id)));
}

static void
look_through(Purge *purge)
{
	check_owner(purge);
	while (read_entries(purge))
	{
		if (!remove_entries(purge))
			return;
	}
	end(purge);
}

/* Purges one; raises what goes wrong. */
static void
purge_leftover(HcDatabase *db, int64 id)
{
	Purge	   *purge = palloc0(sizeof(Purge));
	HcUrl		url;
	const char *problem;

	purge->db = db;
	if (!begin(purge, id) || !hc_url_parse(hc_redis_url, &url, &problem))
		return;

	/* what the mapping wrote last must be there to be found */
	hc_keeper_wait(Max(pg_atomic_read_u64(&db->published), GetFlushRecPtr(NULL)));
	purge->conn = hc_connection_open(&url, hc_connect_timeout);
	PG_TRY();
	{
		look_through(purge);
	}
	PG_FINALLY();
	{
		hc_connection_close(purge->conn);
	}
	PG_END_TRY();
}

/* It will be tried again later.  Called with the error data set. */
static void
recover(const HcLeftover *leftover, HcRetry *trouble)
{
	ErrorData  *error = hc_recover_error();

	if (hc_retry_failed(trouble, error))
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("%s cannot remove the entries of dropped mapping \"%s\" of table %s: %s",
						MyBgworkerEntry->bgw_name, leftover->mapping,
						leftover->relation, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0));
	FreeErrorData(error);
}

bool
hc_purge_is_asked(void)
{
	return hc_leftover_asked() != NIL;
}

TimestampTz
hc_purge_run(HcDatabase *db)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "hybrid_cache purge",
												  ALLOCSET_DEFAULT_SIZES);
	volatile TimestampTz next = DT_NOEND;
	List	   *asked;
	ListCell   *lc;

	StartTransactionCommand();
	MemoryContextSwitchTo(old);
	asked = hc_leftover_asked();
	CommitTransactionCommand();

	/* a keeper that was ended may have left it so */
	pg_atomic_write_u64(&db->keep.purging, 0);
	foreach(lc, asked)
	{
		HcLeftover *leftover = lfirst(lc);
		HcRetry    *trouble = hc_retry_find(&troubles, leftover->id);

		hc_keeper_obey();
		if (trouble->again_at > GetCurrentTimestamp())
		{
			next = Min(next, trouble->again_at);
			continue;
		}
		MemoryContextSwitchTo(context);
		pg_atomic_write_u64(&db->keep.purged, 0);
		pg_atomic_write_u64(&db->keep.purging, leftover->id);
		PG_TRY();
		{
			purge_leftover(db, leftover->id);
			hc_retry_forget(&troubles, leftover->id);
			next = 0;
		}
		PG_CATCH();
		{
			recover(leftover, trouble);
			next = Min(next, trouble->again_at);
		}
		PG_END_TRY();
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	pg_atomic_write_u64(&db->keep.purging, 0);
	MemoryContextDelete(context);
	return next;
}
