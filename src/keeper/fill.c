/*
 * fill.c
 *	  Filling in entries that readers have missed in Redis.
 *
 * The reader does not send the value that it has read: by the time it arrived,
 * it could be older than what Redis has.  It only names the key, and the keeper
 * reads the rows again, in a window (window.h).
 *
 * However many miss a key at the same time, it is filled once: a key that is
 * waited for, or being filled, is not asked for again, nor is one that was filled
 * after the reader had missed it.
 *
 * The keys that are waited for have a fixed place in shared memory.  If that is
 * full, readers read from the table and ask for nothing: then Redis has so much
 * to be filled with that a moment more is no matter.
 *
 * A reader can also be faster than the sync worker, and miss what has only just
 * been committed.  So the keeper first lets that be applied, and then asks Redis
 * which keys are still missing; only for those it writes anything.
 *
 * Rows that share a key are filled in together or not at all, in one MULTI: half
 * a collection would look like a whole one.
 *
 * Locking: mutex is held while the places are looked through and one key is
 * copied.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "capture/entry.h"
#include "capture/ledger.h"
#include "capture/lookup.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "keeper/chunk.h"
#include "keeper/fill.h"
#include "keeper/keeper.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "redis/connection.h"
#include "settings.h"
#include "shmem.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/recover.h"

/* A table without an index that leads to the rows is read up to this size. */
#define MOST_BLOCKS		1024

/* A window that is lost so often is left to the next reader. */
#define MOST_ATTEMPTS	3

/* What a mapping owes of which more is missing than can be filled in. */
#define OWED_MISSING	"readers have missed entries"

/* microseconds between 1970 and 2000 */
#define UNIX_EPOCH_OFFSET \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* The keeper's connection for asking what is missing, or NULL. */
static HcConnection *connection = NULL;

/* A request that the keeper has taken. */
typedef struct Taken
{
	int			place;
	Oid			mapping;
	HcBytes		key;
	bool		shared;			/* rows share it */
} Taken;

/* What is being filled in. */
typedef struct Filling
{
	HcChunk		chunk;
	int			n_ops;			/* up to now */
	int			n_filled;		/* keys for which there were rows */
	bool		too_many;		/* ops for one MULTI */
} Filling;

void
hc_fill_init(HcFill *fill)
{
	SpinLockInit(&fill->mutex);
	pg_atomic_init_u32(&fill->waiting, 0);
}

/* The caller holds the mutex. */
static void
set_state(HcFill *fill, HcFillRequest *request, HcFillState state)
{
	int			change = (state == HC_FILL_WAITING) -
		(request->state == HC_FILL_WAITING);

	request->state = state;
	pg_atomic_write_u32(&fill->waiting,
						pg_atomic_read_u32(&fill->waiting) + change);
}

void
hc_fill_abandon(HcFill *fill)
{
	int			i;

	SpinLockAcquire(&fill->mutex);
	for (i = 0; i < HC_FILL_REQUESTS; i++)
	{
		if (fill->requests[i].state == HC_FILL_TAKEN)
			set_state(fill, &fill->requests[i], HC_FILL_WAITING);
	}
	SpinLockRelease(&fill->mutex);
}

/* The request for the key, or NULL.  The caller holds the mutex. */
static HcFillRequest *
find(HcFill *fill, Oid mapping, HcBytes key, uint64 hash)
{
	int			i;

	for (i = 0; i < HC_FILL_REQUESTS; i++)
	{
		HcFillRequest *request = &fill->requests[i];

		if (request->state != HC_FILL_FREE && request->hash == hash &&
			request->mapping == mapping && request->len == key.len &&
			memcmp(request->key, key.data, key.len) == 0)
			return request;
	}
	return NULL;
}

/* A place for another one, or NULL.  The caller holds the mutex. */
static HcFillRequest *
find_place(HcFill *fill)
{
	HcFillRequest *oldest = NULL;
	int			i;

	for (i = 0; i < HC_FILL_REQUESTS; i++)
	{
		HcFillRequest *request = &fill->requests[i];

		if (request->state == HC_FILL_FREE)
			return request;
		if (request->state == HC_FILL_DONE &&
			(oldest == NULL || request->done_at < oldest->done_at))
			oldest = request;
	}
	return oldest;
}

/* Notes the request; false if that is not needed, or not possible. */
static bool
enter(HcFill *fill, Oid mapping, HcBytes key, TimestampTz missed_at)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) key.data,
										   key.len, 0);
	HcFillRequest *request;
	bool		entered = false;

	SpinLockAcquire(&fill->mutex);
	request = find(fill, mapping, key, hash);
	if (request == NULL)
		request = find_place(fill);
	else if (request->state != HC_FILL_DONE || request->done_at >= missed_at)
		request = NULL;
	if (request != NULL)
	{
		set_state(fill, request, HC_FILL_WAITING);
		request->mapping = mapping;
		request->hash = hash;
		request->len = (uint16) key.len;
		memcpy(request->key, key.data, key.len);
		entered = true;
	}
	SpinLockRelease(&fill->mutex);
	return entered;
}

void
hc_fill_ask(Oid mapping, HcBytes key, TimestampTz missed_at)
{
	HcDatabase *db = hc_shmem_mine();
	HcFill	   *fill;
	HcPost	   *post;

	/* who does not repair does not fill in, either */
	if (db == NULL || key.len > HC_FILL_KEY_SIZE || !hc_repair || !hc_enabled ||
		RecoveryInProgress())
		return;
	fill = &db->keep.fill;
	post = &db->posts[HC_ROLE_KEEPER];

	/* a keeper may have gone without having seen to those that wait */
	if (enter(fill, mapping, key, missed_at) ||
		(pg_atomic_read_u32(&fill->waiting) > 0 &&
		 pg_atomic_read_u32(&post->wanted) == 0 &&
		 *(Latch *volatile *) &post->latch == NULL))
		hc_role_call(HC_ROLE_KEEPER);
}

bool
hc_fill_is_wanted(void)
{
	HcDatabase *db = hc_shmem_mine();

	return db != NULL && pg_atomic_read_u32(&db->keep.fill.waiting) > 0;
}

/* Takes all requests; lives in the current context. */
static List *
take(HcFill *fill)
{
	HcFillRequest *copies = palloc(sizeof(fill->requests));
	List	   *taken = NIL;
	int			i;

	SpinLockAcquire(&fill->mutex);
	memcpy(copies, fill->requests, sizeof(fill->requests));
	for (i = 0; i < HC_FILL_REQUESTS; i++)
	{
		if (copies[i].state == HC_FILL_WAITING)
			set_state(fill, &fill->requests[i], HC_FILL_TAKEN);
	}
	SpinLockRelease(&fill->mutex);

	for (i = 0; i < HC_FILL_REQUESTS; i++)
	{
		Taken	   *request;

		if (copies[i].state != HC_FILL_WAITING)
			continue;
		request = palloc(sizeof(Taken));
		request->place = i;
		request->mapping = copies[i].mapping;
		request->key.data = copies[i].key;
		request->key.len = copies[i].len;
		taken = lappend(taken, request);
	}
	return taken;
}

/*
 * Those are done with, filled in or not.  Who missed one after now may ask
 * again.
 */
static void
finish(HcFill *fill, List *requests)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	SpinLockAcquire(&fill->mutex);
	foreach(lc, requests)
	{
		HcFillRequest *request =
			&fill->requests[((Taken *) lfirst(lc))->place];

		set_state(fill, request, HC_FILL_DONE);
		request->done_at = now;
	}
	SpinLockRelease(&fill->mutex);
}

/* A row that has a key which is waited for. */
static bool
add_row(HcRenderer *renderer, Relation rel, TupleTableSlot *slot, void *arg)
{
	Filling    *filling = arg;
	HcOp		op;

	if (hc_entry_render(renderer, slot, &op) != HC_RENDERED_ENTRY)
		return true;
	if (op.expires_at != 0 &&
		op.expires_at <= (GetCurrentTimestamp() + UNIX_EPOCH_OFFSET) / 1000)
		return true;			/* absent is right */
	if (filling->n_ops >= hc_atomic_ops)
	{
		filling->too_many = true;
		return false;
	}
	filling->n_ops++;
	hc_chunk_put(&op, &filling->chunk);
	return true;
}

/*
 * Reads the rows of the keys and writes the change record, in a transaction.
 * false: nothing was written, since there is nothing that can be filled in.
 */
static bool
read_rows(Filling *filling, List *requests)
{
	Oid			mapping = filling->chunk.mapping;
	HcTrigger  *trigger = hc_catalog_trigger(mapping, NULL);
	HcCandidate candidate;
	ListCell   *lc;

	if (trigger == NULL || !hc_catalog_is_row(trigger) ||
		(trigger->enabled != TRIGGER_FIRES_ON_ORIGIN &&
		 trigger->enabled != TRIGGER_FIRES_ALWAYS) ||
		!hc_shape_of_trigger(&candidate.shape, trigger))
		return false;

	/* while somebody keeps the table, nobody else waits for the keeper */
	if (!ConditionalLockRelationOid(trigger->relid, AccessShareLock))
		return false;
	candidate.mapping = trigger;
	PushActiveSnapshot(GetLatestSnapshot());
	foreach(lc, requests)
	{
		Taken	   *request = lfirst(lc);
		int			before = filling->n_ops;

		if (!hc_lookup_rows(&candidate, request->key, NULL, MOST_BLOCKS,
							add_row, filling) &&
			candidate.shape.member != NULL)
			filling->too_many = true;
		if (filling->n_ops > before)
			filling->n_filled++;
	}
	PopActiveSnapshot();
	if (!filling->too_many)
		hc_chunk_write(&filling->chunk);
	return !filling->too_many;
}

/* More is missing than is filled in here: the mapping is to be gone through. */
static void
owe(Oid mapping)
{
	MemoryContext old = CurrentMemoryContext;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (hc_catalog_trigger(mapping, NULL) != NULL)
		hc_owed_mark(mapping, OWED_MISSING);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

static void
connect_to_redis(void)
{
	const char *problem;
	HcUrl		url;

	if (connection != NULL && hc_connection_usable(connection))
		return;
	hc_connection_close(connection);
	connection = NULL;
	if (!hc_url_parse(hc_redis_url, &url, &problem))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"%s\"",
						"hybrid_cache.redis_url"),
				 errdetail("%s", problem)));
	connection = hc_connection_open(&url, hc_connect_timeout);
}

/* Those of the keys that Redis does not have, now that it has what is committed. */
static List *
still_missing(HcDatabase *db, List *taken)
{
	List	   *missing = NIL;
	TimestampTz deadline;
	ListCell   *lc;

	hc_keeper_wait(pg_atomic_read_u64(&db->published));
	connect_to_redis();
	foreach(lc, taken)
	{
		const Taken *request = lfirst(lc);
		const char *words[] = {"EXISTS", request->key.data};
		size_t		lengths[] = {strlen(words[0]), request->key.len};

		hc_connection_append(connection, lengthof(words), words, lengths);
	}
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), hc_command_timeout);
	foreach(lc, taken)
	{
		Taken	   *request = lfirst(lc);
		redisReply *reply = hc_connection_reply(connection, deadline);

		/* others may have members at a key that rows share */
		if (reply->type != REDIS_REPLY_INTEGER || reply->integer == 0 ||
			request->shared)
			missing = lappend(missing, request);
	}
	return missing;
}

/* Fills in keys of one mapping. */
static void
fill_keys(HcDatabase *db, Oid mapping, List *requests)
{
	MemoryContext context = CurrentMemoryContext;
	int			attempt;

	for (attempt = 0; attempt < MOST_ATTEMPTS; attempt++)
	{
		Filling		filling = {0};
		bool		written;

		hc_chunk_begin(&filling.chunk, db, mapping);
		StartTransactionCommand();
		written = read_rows(&filling, requests);

		/* what was written of too many rows must not count */
		if (written)
			CommitTransactionCommand();
		else
			AbortCurrentTransaction();
		MemoryContextSwitchTo(context);
		if (filling.too_many)
			owe(mapping);
		if (!written)
		{
			filling.chunk.n_ops = filling.chunk.n_records = 0;
			(void) hc_chunk_end(&filling.chunk);
			return;
		}
		if (hc_chunk_end(&filling.chunk) == HC_WINDOW_TAKEN)
		{
			hc_shmem_count(HC_COUNT_FILLS, filling.n_filled);
			return;
		}
	}
}

/* Finds out which keys hold several rows. */
static void
look_at_mappings(List *taken)
{
	MemoryContext old = CurrentMemoryContext;
	ListCell   *lc;

	StartTransactionCommand();
	foreach(lc, taken)
	{
		Taken	   *request = lfirst(lc);
		HcTrigger  *trigger = hc_catalog_trigger(request->mapping, NULL);
		HcClaim		claim;

		request->shared = trigger != NULL &&
			hc_check_trigger_claim(&claim, trigger) && claim.member != NULL;
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

/* All that was taken, keys of a mapping together if each has one row. */
static void
fill_all(HcDatabase *db, List *taken)
{
	look_at_mappings(taken);
	taken = still_missing(db, taken);
	while (taken != NIL)
	{
		const Taken *first = linitial(taken);
		List	   *together = NIL;
		List	   *rest = NIL;
		ListCell   *lc;

		foreach(lc, taken)
		{
			Taken	   *request = lfirst(lc);

			if (request->mapping == first->mapping &&
				(together == NIL || !first->shared))
				together = lappend(together, request);
			else
				rest = lappend(rest, request);
		}
		hc_keeper_obey();
		fill_keys(db, first->mapping, together);
		taken = rest;
	}
}

/* Says what went wrong, once for each problem.  Called with the error data set. */
static void
report(MemoryContext context)
{
	static char last[256];
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	hc_recover_abort();
	MemoryContextSwitchTo(context);
	ereport(strncmp(last, error->message, sizeof(last) - 1) == 0 ? DEBUG1 : LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not fill in entries that were missed in Redis: %s",
					error->message)));
	strlcpy(last, error->message, sizeof(last));
}

/* The same, but errors do not get out. */
static void
fill_carefully(HcDatabase *db, List *taken)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		fill_all(db, taken);
	}
	PG_CATCH();
	{
		report(context);
	}
	PG_END_TRY();
}

void
hc_keeper_serve(void)
{
	HcDatabase *db = hc_shmem_mine();
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context;
	List	   *taken;

	if (!hc_fill_is_wanted())
		return;
	context = AllocSetContextCreate(old, "hybrid_cache fill", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	taken = take(&db->keep.fill);
	fill_carefully(db, taken);
	finish(&db->keep.fill, taken);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
