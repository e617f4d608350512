/*
 * sync.c
 *	  The sync worker: keeps one Redis server equal to the mapped tables of one
 *	  database.
 *
 * The work itself is done by the pipeline (pipeline.h).  Here is what is around
 * it: when to open it and when to wait, what to do after an error, when to leave.
 *
 * No transaction is open while it waits for the network: one would hold back
 * vacuum in the whole database for as long as Redis is away.
 *
 * Locking: of its slot in shared memory the worker writes the atomics alone;
 * see shmem.h for the rest.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "commands/extension.h"
#include "compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/gap.h"
#include "worker/pipeline.h"
#include "worker/position.h"
#include "worker/recover.h"
#include "worker/retention.h"
#include "worker/slot.h"
#include "worker/sync.h"
#include "worker/unlogged.h"

/* After a failure: wait this long, then twice as long, up to the most. */
#define RETRY_FIRST_MS		100
#define RETRY_MOST_MS		5000

/* So often damaged WAL is looked at before it is given up. */
#define WAL_ATTEMPTS		3

/* What is looked after when there is nothing to apply. */
#define TICK_MS				1000

/* Every so many ticks the worker looks whether the extension is still there. */
#define TICKS_PER_CHECK		10

/* COMMIT PREPARED may come without a sign. */
#define POLL_MS				20

/* How long a worker may take to finish after DROP EXTENSION. */
#define RETIRE_MS			10000

/* A commit is flushed a moment before other sessions see it. */
#define HELD_MS				1

/* From this many transactions per second on, they are gathered for GATHER_MS. */
#define BUSY_RATE			2000
#define GATHER_MS			1
#define RATE_WINDOW_MS		10

typedef struct HcSync
{
	HcDatabase *db;
	HcPipeline *line;
	char	   *url;			/* hybrid_cache.redis_url that it is opened with */

	TimestampTz retry_at;		/* not connected: try again then */
	int			retry_ms;
	int			failures;		/* since something worked */
	int			wal_failures;	/* the same for errors in reading WAL */
	bool		homeless;		/* it was said that there is no redis_url */
	bool		looked;			/* at what a crash has emptied */
	char	   *problem;		/* the message that was logged last */

	XLogRecPtr	retire_lsn;		/* the extension is gone: apply up to there and end */
	TimestampTz retire_by;		/* ... but not later than this */

	TimestampTz tick_at;
	int			ticks;

	TimestampTz rate_since;
	bool		busy;			/* they come faster than BUSY_RATE */
} HcSync;

/* Set by hc_sync_add_watch(). */
static struct
{
	bool		(*is_due) (void);
	void		(*look) (void);
}			watches[HC_NUM_ROLES];
static int	n_watches = 0;

void
hc_sync_add_watch(bool (*is_due) (void), void (*look) (void))
{
	Assert(n_watches < HC_NUM_ROLES);
	watches[n_watches].is_due = is_due;
	watches[n_watches].look = look;
	n_watches++;
}

/* Looks for work for other processes, or only where that is known to be due. */
static void
look_for_work(bool everywhere)
{
	int			i;

	for (i = 0; i < n_watches; i++)
	{
		if (everywhere ||
			(watches[i].is_due != NULL && watches[i].is_due()))
			watches[i].look();
	}
}

static bool
extension_exists(void)
{
	MemoryContext old = CurrentMemoryContext;
	bool		exists;

	StartTransactionCommand();

	/* also renews RecentXmin, by which old transactions are known as ended */
	(void) GetTransactionSnapshot();
	exists = OidIsValid(get_extension_oid("hybrid_cache", true));
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	return exists;
}

/* Something came back as it should. */
static void
succeeded(HcSync *sync)
{
	if (sync->failures > 0)
		ereport(LOG,
				(errmsg("%s applies changes to Redis server \"%s\" again",
						MyBgworkerEntry->bgw_name,
						hc_connection_name(sync->line->conn)),
				 errdetail_plural("There was %d failure.",
								  "There were %d failures.",
								  sync->failures, sync->failures)));
	pg_atomic_write_u32(&sync->db->failing, 0);
	sync->line->answered = false;
	sync->failures = 0;
	sync->wal_failures = 0;
	sync->retry_ms = 0;
	hc_gap_forget();
	hc_recover_forget(&sync->problem);
}

/*
 * WAL could not be read from lsn on.  If it is gone, or stays damaged, the
 * worker goes on after it.  Returns what an administrator should know.
 */
static const char *
skip_wal(HcSync *sync, int sqlerrcode, XLogRecPtr lsn)
{
	if (sqlerrcode != ERRCODE_UNDEFINED_FILE &&
		sqlerrcode != ERRCODE_DATA_CORRUPTED)
		return NULL;
	sync->wal_failures++;
	if (sqlerrcode == ERRCODE_UNDEFINED_FILE ||
		sync->wal_failures >= WAL_ATTEMPTS)
		hc_position_skip(lsn);
	return "Only PostgreSQL may remove or change files in pg_wal. The worker goes on after what cannot be read, and every mapping must be compared with its table.";
}

/*
 * A turn failed.  Everything that could be in an unknown state is thrown away.
 * Called with the error data set.
 */
static void
recover(HcSync *sync)
{
	ErrorData  *error = hc_recover_error();
	XLogRecPtr	failed_at;
	const char *hint = NULL;

	HOLD_INTERRUPTS();
	failed_at = hc_pipeline_failed_at(sync->line);
	hc_pipeline_close(sync->line);
	sync->line->answered = false;
	RESUME_INTERRUPTS();

	if (sync->line->reopen)
	{
		sync->line->reopen = false;
		sync->retry_at = 0;
		FreeErrorData(error);
		return;
	}
	if (!XLogRecPtrIsInvalid(failed_at))
		hint = skip_wal(sync, error->sqlerrcode, failed_at);

	sync->retry_ms = Min(Max(RETRY_FIRST_MS, sync->retry_ms * 2), RETRY_MOST_MS);
	sync->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												 sync->retry_ms);
	sync->failures++;
	hc_shmem_count(HC_COUNT_RECONNECTS, 1);
	hc_shmem_set_error(sync->db, error->message);
	pg_atomic_write_u32(&sync->db->failing, 1);
	if (error->sqlerrcode == ERRCODE_OBJECT_IN_USE)
		pg_atomic_write_u32(&sync->db->ours, 0);
	if (error->sqlerrcode == ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION)
		hc_breaker_failed(&sync->db->breaker, error->message, false, false);

	if (hc_recover_is_news(&sync->problem, error))
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("%s cannot apply changes: %s",
						MyBgworkerEntry->bgw_name, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) :
				 hint ? errhint("%s", hint) :
				 error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE ?
				 errhint("The sync worker needs wal_level = replica or higher, and max_replication_slots.") :
				 0));
	FreeErrorData(error);
}

/* Does the server shut down?  It says so in its lock file. */
static bool
server_stops(void)
{
	char		line[1024];
	int			number = 1;
	bool		stops = false;
	FILE	   *file = fopen("postmaster.pid", "r");

	if (file == NULL)
		return false;
	while (fgets(line, sizeof(line), file) != NULL)
	{
		if (number++ == LOCK_FILE_LINE_PM_STATUS)
			stops = strncmp(line, PM_STATUS_STOPPING, strlen(PM_STATUS_STOPPING)) == 0;
	}
	fclose(file);
	return stops;
}

/*
 * This process ends.  If the whole server does, another copy of the database may
 * go on at once; otherwise the next worker does, and until then the lease keeps
 * copies out.
 */
static void
sync_exit(int code, Datum arg)
{
	if (server_stops())
		hc_pipeline_leave((HcPipeline *) DatumGetPointer(arg), false);
}

/* Ends this worker; the launcher starts another one. */
static void
leave(HcSync *sync)
{
	hc_shmem_leave(sync->db);
	proc_exit(0);
}

/*
 * The extension was dropped.  What was committed before still goes to Redis,
 * such as the removals that detach() has captured.
 */
static void
begin_to_retire(HcSync *sync)
{
	if (!XLogRecPtrIsInvalid(sync->retire_lsn))
		return;
	sync->retire_lsn = GetFlushRecPtr(NULL);
	sync->retire_by = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  RETIRE_MS);
}

/* Ends this worker for good, if it has nothing left to do. */
static void
retire(HcSync *sync)
{
	bool		done = sync->line->conn != NULL &&
		pg_atomic_read_u64(&sync->db->applied) >= sync->retire_lsn;

	if (!done && sync->line->conn != NULL && GetCurrentTimestamp() < sync->retire_by)
		return;
	if (done)
		hc_pipeline_leave(sync->line, true);
	hc_slot_drop(MyDatabaseId);
	hc_shmem_release(MyDatabaseId);
	ereport(LOG,
			(errmsg("%s ends, since the extension was dropped",
					MyBgworkerEntry->bgw_name),
			 done ? 0 : errdetail("Not all changes have reached Redis.")));
	proc_exit(0);
}

/* What others ask for. */
static void
obey(HcSync *sync)
{
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		if (strcmp(hc_redis_url ? hc_redis_url : "", sync->url) != 0)
		{
			hc_pipeline_leave(sync->line, false);
			hc_pipeline_close(sync->line);
			pfree(sync->url);
			sync->url = MemoryContextStrdup(TopMemoryContext,
											hc_redis_url ? hc_redis_url : "");
			sync->retry_at = 0;
			sync->retry_ms = 0;
			/* nothing is known about that Redis */
			memset(&sync->line->acked, 0, sizeof(sync->line->acked));
		}
	}
	if (sync->db->aside_until != 0 && hc_shmem_is_aside(MyDatabaseId))
		leave(sync);
	if (pg_atomic_exchange_u32(&sync->db->recheck, 0) != 0)
	{
		if (!extension_exists())
		{
			begin_to_retire(sync);
			return;
		}
		/* settings of the database are only read when a process starts */
		leave(sync);
	}
}

static void
tick(HcSync *sync)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		exists;

	if (now < sync->tick_at)
		return;
	sync->tick_at = TimestampTzPlusMilliseconds(now, TICK_MS);
	sync->ticks++;

	exists = extension_exists();
	if (!exists && sync->ticks % TICKS_PER_CHECK == 0)
		begin_to_retire(sync);
	if (exists && sync->line->conn != NULL)
		look_for_work(sync->ticks % TICKS_PER_CHECK == 0);
	hc_retention_apply(sync->line);
	hc_gap_look();
	if (sync->line->conn != NULL && hc_pipeline_is_idle(sync->line))
		hc_pipeline_look(sync->line);
	pgstat_report_stat(false);
}

/* There is no Redis, and WAL is kept for it all the same: once per change. */
static void
say_homeless(HcSync *sync)
{
	if (sync->homeless)
		return;
	sync->homeless = true;
	ereport(LOG,
			(errmsg("%s has no Redis server, since hybrid_cache.redis_url is empty",
					MyBgworkerEntry->bgw_name),
			 errdetail("WAL with changes is kept for it."),
			 errhint("Set hybrid_cache.redis_url, or drop the extension in this database.")));
}

static void
turn(HcSync *sync)
{
	PG_TRY();
	{
		if (!sync->looked)
			hc_unlogged_look();
		sync->looked = true;
		if (sync->line->conn == NULL && GetCurrentTimestamp() >= sync->retry_at)
		{
			hc_pipeline_open(sync->line, sync->url);
			if (sync->line->conn == NULL)
			{
				say_homeless(sync);
				sync->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															 RETRY_MOST_MS);
			}
			else
			{
				sync->homeless = false;
				look_for_work(true);
			}
		}
		if (sync->line->conn != NULL)
			hc_pipeline_work(sync->line);
		tick(sync);
		if (sync->line->answered)
			succeeded(sync);
	}
	PG_CATCH();
	{
		recover(sync);
	}
	PG_END_TRY();
}

/* Transactions per second since the last time that a window was over. */
static void
measure_rate(HcSync *sync, TimestampTz now)
{
	long		elapsed = (now - sync->rate_since) / 1000;

	if (elapsed < RATE_WINDOW_MS)
		return;
	sync->busy = (int64) sync->line->n_transactions * 1000 / elapsed >= BUSY_RATE;
	sync->line->n_transactions = 0;
	sync->rate_since = now;
}

/*
 * Under load, waits for a moment without looking at the latch.  It stays set,
 * so the sessions that commit meanwhile need not wake anybody, and the next
 * batch holds them all.
 */
static bool
gather(HcSync *sync, TimestampTz now)
{
	measure_rate(sync, now);
	if (!sync->busy || sync->line->fed != HC_FEED_END ||
		hc_connection_wants_write(sync->line->conn) ||
		pg_atomic_read_u64(&sync->db->wanted) >
		pg_atomic_read_u64(&sync->db->applied))
		return false;
	(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, GATHER_MS,
					 HC_WAIT_WORKER);
	return true;
}

static long
milliseconds_until(TimestampTz now, TimestampTz then)
{
	return (then <= now) ? 0 : (long) ((then - now + 999) / 1000);
}

static void
wait_for_news(HcSync *sync)
{
	TimestampTz now = GetCurrentTimestamp();
	long		timeout = milliseconds_until(now, sync->tick_at);
	int			events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;

	if (sync->line->conn == NULL)
	{
		timeout = Min(timeout, milliseconds_until(now, sync->retry_at));
		if (WaitLatch(MyLatch, events, timeout, HC_WAIT_WORKER) & WL_LATCH_SET)
		{
			/*
			 * Every commit sets the latch, and none of them makes Redis come
			 * back: so leave it set for a while.
			 */
			CHECK_FOR_INTERRUPTS();
			(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 RETRY_FIRST_MS, HC_WAIT_WORKER);
		}
		return;
	}

	if (sync->line->fed == HC_FEED_MORE || gather(sync, now))
		return;
	timeout = Min(timeout, milliseconds_until(now, hc_pipeline_wake_at(sync->line)));
	if (sync->line->fed == HC_FEED_HELD)
		timeout = Min(timeout, HELD_MS);
	if (hc_feed_must_poll(sync->line->feed))
		timeout = Min(timeout, POLL_MS);
	if (sync->line->lacks_replicas)
		timeout = Min(timeout, POLL_MS);
	if (sync->line->apply.in_flight)
	{
		timeout = Min(timeout, milliseconds_until(now, sync->line->apply.deadline) + 1);
		events |= WL_SOCKET_READABLE;
		if (hc_connection_wants_write(sync->line->conn))
			events |= WL_SOCKET_WRITEABLE;
	}
	else if (sync->line->fed == HC_FEED_FULL)
		return;

	if ((WaitLatchOrSocket(MyLatch, events, hc_connection_socket(sync->line->conn),
						   timeout, HC_WAIT_WORKER) & WL_LATCH_SET) &&
		sync->line->fed == HC_FEED_FULL)
	{
		/* as above: commits are no news while there is more than enough */
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatchOrSocket(NULL, events & ~WL_LATCH_SET,
								 hc_connection_socket(sync->line->conn),
								 Min(timeout, POLL_MS), HC_WAIT_WORKER);
	}
}

void
hc_sync_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	HcSync		sync;
	MemoryContext turn_context;
	bool		taken;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	hc_shmem_connect(database);

	/* nothing of this database is to have a say in what its worker does */
	SetConfigOption("search_path", "pg_catalog", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET,
					PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET,
					PGC_S_OVERRIDE);
	/* its own few rows need not wait for a standby */
	SetConfigOption("synchronous_commit", "local", PGC_SUSET, PGC_S_OVERRIDE);

	if (!extension_exists())
	{
		hc_slot_drop(database);
		hc_shmem_answer(database, HC_PROBE_ABSENT);
		proc_exit(0);
	}

	memset(&sync, 0, sizeof(sync));
	sync.db = hc_shmem_claim(database, &taken);
	if (sync.db == NULL)
	{
		hc_shmem_answer(database, taken ? HC_PROBE_RUNNING : HC_PROBE_FULL);
		proc_exit(0);
	}
	hc_shmem_answer(database, HC_PROBE_RUNNING);

	sync.url = MemoryContextStrdup(TopMemoryContext,
								   hc_redis_url ? hc_redis_url : "");
	MemoryContextSwitchTo(TopMemoryContext);
	sync.line = hc_pipeline_create(sync.db);
	before_shmem_exit(sync_exit, PointerGetDatum(sync.line));
	turn_context = AllocSetContextCreate(TopMemoryContext, "hybrid_cache turn",
										 ALLOCSET_DEFAULT_SIZES);
	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		obey(&sync);
		MemoryContextSwitchTo(turn_context);
		MemoryContextReset(turn_context);
		turn(&sync);
		if (!XLogRecPtrIsInvalid(sync.retire_lsn))
			retire(&sync);
		wait_for_news(&sync);
	}
}
