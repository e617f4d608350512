/*
 * launcher.c
 *	  Keeps a sync worker running in each database that has the extension, and a
 *	  keeper where something is owed.
 *
 * Which databases have it can only be seen from inside, so the launcher starts
 * a worker in each, one after the other; where there is nothing to do it leaves
 * at once, and the launcher remembers that until somebody creates the
 * extension.  So a server with a hundred databases starts a hundred short-lived
 * processes once, not again and again.
 *
 * Workers are started here again when they end, not by the postmaster: a worker
 * that ended because its database is being dropped must not come back.
 *
 * Locking: the fields of hc_shared and of its slots that are not atomic are read
 * under hc_shared->lock.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/launcher.h"
#include "worker/retention.h"
#include "worker/slot.h"

/* A database that nobody told of is found after this time. */
#define SCAN_MS				60000

/* A worker that lived shorter than this has failed. */
#define HEALTHY_MS			10000

/* After a failure: wait this long, then twice as long, up to the most. */
#define RETRY_FIRST_MS		1000
#define RETRY_MOST_MS		60000

/* Databases without a slot that have ops are looked at this often at most. */
#define UNSERVED_MS			60000

typedef struct Place
{
	Oid			database;
	NameData	name;
	bool		seen;			/* by the scan that is going on */
	bool		absent;			/* it has no extension */
	bool		running;		/* its worker has said that it runs */
	BackgroundWorkerHandle *handle; /* NULL: we have started none */
	TimestampTz started_at;
	TimestampTz start_at;		/* not before */
	int			failures;		/* in a row */
	bool		refused;		/* there was no process for it */

	/* the same of its keeper */
	BackgroundWorkerHandle *keeper;
	TimestampTz keeper_started_at;
	TimestampTz keeper_start_at;
	int			keeper_failures;
	bool		keeper_refused;
} Place;

static List *places = NIL;
static Place *starting = NULL;	/* its worker has not answered yet */
static bool outdated = false;	/* its answer may be from before a rescan */
static bool out_of_slots = false;
static char *problem = NULL;	/* why the last scan failed, as it was logged */

void
hc_launcher_init(void)
{
	BackgroundWorker worker;

	/* pg_upgrade must find the databases as they are */
	if (IsBinaryUpgrade)
		return;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "hybrid_cache", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "hc_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "hybrid_cache launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "hybrid_cache launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	if (hc_shared->launcher_latch == MyLatch)
		hc_shared->launcher_latch = NULL;
	LWLockRelease(hc_shared->lock);
}

static Place *
find_place(Oid database)
{
	ListCell   *cell;

	foreach(cell, places)
	{
		Place	   *place = lfirst(cell);

		if (place->database == database)
			return place;
	}
	return NULL;
}

/* Notes the databases that there are. */
static void
scan_databases(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	ListCell   *cell;

	foreach(cell, places)
		((Place *) lfirst(cell))->seen = false;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		Place	   *place;

		if (!form->datallowconn || database_is_invalid_form(form))
			continue;
		place = find_place(form->oid);
		if (place == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			place = palloc0(sizeof(Place));
			place->database = form->oid;
			places = lappend(places, place);
			MemoryContextSwitchTo(old);
		}
		place->name = form->datname;
		place->seen = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();

	foreach(cell, places)
	{
		Place	   *place = lfirst(cell);

		if (place->seen || place->handle != NULL || place->keeper != NULL)
			continue;
		hc_shmem_release(place->database);
		if (starting == place)
			starting = NULL;
		places = foreach_delete_current(places, cell);
		pfree(place);
	}
}

/* Does pg_database have it, whether or not one may connect to it? */
static bool
database_exists(Oid database)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (!found &&
		   HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
		found = ((Form_pg_database) GETSTRUCT(tuple))->oid == database;
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return found;
}

/*
 * A slot outlives its database, and would keep WAL for ever.  Where there is no
 * worker, nobody else minds the limits.
 */
static void
look_after_slots(void)
{
	List	   *databases = hc_slot_databases();
	ListCell   *cell;

	foreach(cell, databases)
	{
		Oid			database = lfirst_oid(cell);

		if (database_exists(database))
			hc_retention_limit_unused(database);
		else if (hc_slot_drop(database))
			ereport(LOG,
					(errmsg("dropped the replication slot of database %u, which does not exist any more",
							database)));
	}
	list_free(databases);
}

/*
 * When to start a process again that has ended: at once if it has lived long or
 * meant to end, later the more often it has failed.
 */
static TimestampTz
start_again_at(TimestampTz started_at, TimestampTz now, bool on_purpose,
			   int *failures)
{
	TimestampTz at = now;

	if (on_purpose || TimestampDifferenceExceeds(started_at, now, HEALTHY_MS))
		*failures = 0;
	else
	{
		/* the first failure may be anything, say pg_terminate_backend() */
		if (*failures > 0)
			at = TimestampTzPlusMilliseconds(now,
											 Min(RETRY_FIRST_MS << Min(*failures - 1, 10),
												 RETRY_MOST_MS));
		(*failures)++;
	}
	return at;
}

/* The worker has ended; decides when the next one may be started. */
static void
worker_ended(Place *place, TimestampTz now)
{
	HcDatabase *db = hc_shmem_find(place->database);
	bool		on_purpose = place->absent;

	/* it ran, and has given up the place of its database: DROP EXTENSION */
	if (place->running && db == NULL)
		on_purpose = true;
	place->running = false;
	pfree(place->handle);
	place->handle = NULL;
	if (db != NULL)
	{
		LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
		if (db->database == place->database && db->restart)
		{
			on_purpose = true;
			db->restart = false;
		}
		LWLockRelease(hc_shared->lock);
	}

	place->start_at = start_again_at(place->started_at, now, on_purpose,
									 &place->failures);
}

/* Looks at the answer of the worker that was started last. */
static void
hear_answer(void)
{
	HcProbe		probe;

	if (starting == NULL)
		return;
	LWLockAcquire(hc_shared->lock, LW_SHARED);
	probe = hc_shared->probe;
	LWLockRelease(hc_shared->lock);

	switch (probe)
	{
		case HC_PROBE_NONE:
			/* it may have died without a word */
			if (starting->handle == NULL)
				starting = NULL;
			return;
		case HC_PROBE_RUNNING:
			starting->running = true;
			break;
		case HC_PROBE_ABSENT:
			starting->absent = !outdated;
			break;
		case HC_PROBE_FULL:
			starting->absent = true;
			if (!out_of_slots)
				ereport(WARNING,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("no sync worker for database \"%s\": all places are taken",
								NameStr(starting->name)),
						 errhint("Increase hybrid_cache.max_databases and restart the server.")));
			out_of_slots = true;
			break;
	}
	starting = NULL;
}

/* Is one of them without one of its processes for want of a place? */
static bool
any_refused(void)
{
	ListCell   *cell;

	foreach(cell, places)
	{
		const Place *place = lfirst(cell);

		if (place->refused || place->keeper_refused)
			return true;
	}
	return false;
}

/* Registers a process in the place's database; type: what it is called. */
static bool
start_process(Place *place, const char *function, const char *type,
			  BackgroundWorkerHandle **handle, bool *refused)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "hybrid_cache", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "hybrid_cache %s for %s", type,
			 NameStr(place->name));
	snprintf(worker.bgw_type, BGW_MAXLEN, "hybrid_cache %s", type);
	worker.bgw_main_arg = ObjectIdGetDatum(place->database);
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(old);

	if (!started)
	{
		*handle = NULL;
		ereport(any_refused() ? DEBUG1 : WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a %s for database \"%s\"",
						type, NameStr(place->name)),
				 errdetail("Commits go on; they reach Redis when there is one."),
				 errhint("You might need to increase max_worker_processes.")));
	}
	*refused = !started;
	return started;
}

static void
start_worker(Place *place, TimestampTz now)
{
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	hc_shared->probe_database = place->database;
	hc_shared->probe = HC_PROBE_NONE;
	LWLockRelease(hc_shared->lock);

	if (start_process(place, "hc_sync_main", "sync worker", &place->handle,
					  &place->refused))
	{
		place->started_at = now;
		starting = place;
		outdated = false;
	}
	else
		place->start_at = TimestampTzPlusMilliseconds(now, RETRY_FIRST_MS);
}

/* When may a worker be started there?  DT_NOEND: not until something happens. */
static TimestampTz
may_start_at(Place *place)
{
	TimestampTz at = place->start_at;
	int			i;

	if (place->absent || place->handle != NULL || !place->seen)
		return DT_NOEND;

	LWLockAcquire(hc_shared->lock, LW_SHARED);
	for (i = 0; i < hc_max_databases; i++)
	{
		HcDatabase *db = &hc_shared->databases[i];

		if (db->database != place->database)
			continue;
		if (db->worker_pid != 0)
			at = DT_NOEND;		/* a launcher before this one started it */
		else
			at = Max(at, db->aside_until);
		break;
	}
	LWLockRelease(hc_shared->lock);
	return at;
}

/* The keeper has ended, since nothing is owed any more or by a failure. */
static void
keeper_ended(Place *place, TimestampTz now)
{
	HcDatabase *db = hc_shmem_find(place->database);
	bool		on_purpose = false;

	pfree(place->keeper);
	place->keeper = NULL;
	if (db != NULL)
	{
		LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
		if (db->database == place->database)
		{
			on_purpose = db->keep.left;
			db->keep.left = false;
			if (!on_purpose)
				pg_atomic_write_u32(&db->keep.owing, 1);
		}
		LWLockRelease(hc_shared->lock);
	}
	place->keeper_start_at = start_again_at(place->keeper_started_at, now,
											on_purpose, &place->keeper_failures);
}

/* When may a keeper be started there?  DT_NOEND: not until something happens. */
static TimestampTz
keeper_may_start_at(Place *place)
{
	HcDatabase *db = hc_shmem_find(place->database);
	TimestampTz at = DT_NOEND;

	if (place->keeper != NULL || !place->seen || db == NULL)
		return DT_NOEND;

	LWLockAcquire(hc_shared->lock, LW_SHARED);
	if (db->database == place->database && db->worker_pid != 0 &&
		db->keep.pid == 0 &&
		pg_atomic_read_u32(&db->keep.owing) != 0 &&
		pg_atomic_read_u32(&db->connected) != 0)
		at = Max(place->keeper_start_at, db->aside_until);
	LWLockRelease(hc_shared->lock);
	return at;
}

/* Starts the keeper if it has something to do; returns when to look again. */
static TimestampTz
look_after_keeper(Place *place, TimestampTz now)
{
	TimestampTz at;
	pid_t		pid;

	if (place->keeper != NULL &&
		GetBackgroundWorkerPid(place->keeper, &pid) == BGWH_STOPPED)
		keeper_ended(place, now);
	at = keeper_may_start_at(place);
	if (at > now)
		return at;
	if (start_process(place, "hc_keeper_main", "keeper", &place->keeper,
					  &place->keeper_refused))
		place->keeper_started_at = now;
	else
		place->keeper_start_at = TimestampTzPlusMilliseconds(now, RETRY_FIRST_MS);
	return place->keeper_start_at > now ? place->keeper_start_at : DT_NOEND;
}

/* Forgets which databases have no extension, or are just about to say so. */
static void
forget_absent(void)
{
	ListCell   *cell;

	outdated = true;
	foreach(cell, places)
		((Place *) lfirst(cell))->absent = false;
}

/*
 * A scan failed.  That a slot cannot be dropped, say, must not keep the launcher
 * from its main task, and is not to be said each time.  Called with the error
 * data set.
 */
static void
recover(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	FlushErrorState();

	HOLD_INTERRUPTS();
	LWLockReleaseAll();
	pgstat_report_wait_end();
	AbortOutOfAnyTransaction();
	RESUME_INTERRUPTS();

	ereport(problem != NULL && strcmp(problem, error->message) == 0 ? DEBUG1 : LOG,
			(errcode(error->sqlerrcode),
			 errmsg("hybrid_cache launcher could not look after databases: %s",
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
	if (problem != NULL)
		pfree(problem);
	problem = MemoryContextStrdup(TopMemoryContext, error->message);
	FreeErrorData(error);
}

/* Finds out which databases there are. */
static void
scan(void)
{
	PG_TRY();
	{
		scan_databases();
		look_after_slots();
		if (problem != NULL)
			pfree(problem);
		problem = NULL;
	}
	PG_CATCH();
	{
		recover();
	}
	PG_END_TRY();
}

/* Starts what is to be started; returns when to look again. */
static TimestampTz
look_after_workers(TimestampTz now)
{
	TimestampTz next = TimestampTzPlusMilliseconds(now, SCAN_MS);
	ListCell   *cell;

	/* before, to know why one has ended; after, since it may not have answered */
	hear_answer();
	foreach(cell, places)
	{
		Place	   *place = lfirst(cell);
		pid_t		pid;

		if (place->handle != NULL &&
			GetBackgroundWorkerPid(place->handle, &pid) == BGWH_STOPPED)
			worker_ended(place, now);
	}
	hear_answer();

	foreach(cell, places)
	{
		TimestampTz at = look_after_keeper(lfirst(cell), now);

		next = Min(next, at);
	}
	foreach(cell, places)
	{
		Place	   *place = lfirst(cell);
		TimestampTz at;

		/* one at a time: there is one place for an answer */
		if (starting != NULL)
			break;
		at = may_start_at(place);
		if (at <= now)
			start_worker(place, now);
		else
			next = Min(next, at);
	}
	return next;
}

void
hc_launcher_main(Datum arg)
{
	TimestampTz scan_at = 0;
	TimestampTz unserved_at = 0;
	MemoryContext turn_context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_activity(STATE_IDLE, NULL);

	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	hc_shared->launcher_latch = MyLatch;
	LWLockRelease(hc_shared->lock);
	before_shmem_exit(launcher_exit, 0);

	turn_context = AllocSetContextCreate(TopMemoryContext,
										 "hybrid_cache launcher",
										 ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		TimestampTz now;
		TimestampTz next;
		bool		rescan;
		bool		changed;
		bool		unserved;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		MemoryContextReset(turn_context);
		MemoryContextSwitchTo(turn_context);
		now = GetCurrentTimestamp();

		LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
		rescan = hc_shared->rescan;
		hc_shared->rescan = false;
		changed = hc_shared->scan;
		hc_shared->scan = false;
		unserved = hc_shared->unserved && now >= unserved_at;
		if (unserved)
			hc_shared->unserved = false;
		LWLockRelease(hc_shared->lock);

		if (unserved)
			unserved_at = TimestampTzPlusMilliseconds(now, UNSERVED_MS);
		if (rescan || unserved)
			forget_absent();
		if (rescan || changed || unserved || now >= scan_at)
		{
			scan();
			scan_at = TimestampTzPlusMilliseconds(now, SCAN_MS);
		}
		next = look_after_workers(now);

		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Max(0, (long) ((Min(next, scan_at) - now + 999) / 1000)),
						 HC_WAIT_WORKER);
	}
}
