/*
 * launcher.c
 *	  Keeps a sync worker running in each database that has the extension, and the
 *	  processes with other roles where there is something for them to do.
 *
 * Which databases have it can only be seen from inside, so the launcher starts
 * a worker in each, one after the other; where there is nothing to do it leaves
 * at once, and the launcher remembers that until somebody creates the
 * extension.  So a server with a hundred databases starts a hundred short-lived
 * processes once, not again and again.
 *
 * Locking: the fields of hc_shared and of its slots that are not atomic are read
 * under hc_shared->lock.
 */
#include "postgres.h"

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
#include "utils/timestamp.h"
#include "worker/launcher.h"
#include "worker/place.h"
#include "worker/recover.h"

/* A database that nobody told of is found after this time. */
#define SCAN_MS				60000

/* Databases without a slot that have ops are looked at this often at most. */
#define UNSERVED_MS			60000

static List *places = NIL;		/* HcPlace * */
static bool outdated = false;	/* an answer may be from before a rescan */
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

/* The worker has ended; decides when the next one may be started. */
static void
worker_ended(HcPlace *place, TimestampTz now)
{
	HcDatabase *db = hc_shmem_find(place->database);
	bool		on_purpose = place->absent;

	/* it ran, and has given up the place of its database: DROP EXTENSION */
	if (place->running && db == NULL)
		on_purpose = true;
	place->running = false;
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
	hc_process_end(&place->worker, on_purpose, now);
}

/* Where a worker was started that has not answered yet; or NULL. */
static HcPlace *
find_starting(void)
{
	ListCell   *cell;

	foreach(cell, places)
	{
		HcPlace    *place = lfirst(cell);

		if (place->starting)
			return place;
	}
	return NULL;
}

/* Looks at the answer of the worker that was started last. */
static void
hear_answer(void)
{
	HcPlace    *starting = find_starting();
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
			if (starting->worker.handle == NULL)
				starting->starting = false;
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
	starting->starting = false;
}

/* Is one of them without one of its processes for want of a place? */
static bool
any_refused(void)
{
	ListCell   *cell;

	foreach(cell, places)
	{
		const HcPlace *place = lfirst(cell);
		int			i;

		if (place->worker.refused)
			return true;
		for (i = 0; i < HC_NUM_ROLES; i++)
		{
			if (place->roles[i].refused)
				return true;
		}
	}
	return false;
}

/* false: there is no process for it. */
static bool
start_worker(HcPlace *place, TimestampTz now)
{
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	hc_shared->probe_database = place->database;
	hc_shared->probe = HC_PROBE_NONE;
	LWLockRelease(hc_shared->lock);

	if (!hc_process_start(&place->worker, "hc_sync_main", "sync worker",
						  place->database, NameStr(place->name), any_refused(),
						  now))
		return false;
	place->starting = true;
	outdated = false;
	return true;
}

/* When may a worker be started there?  DT_NOEND: not until something happens. */
static TimestampTz
may_start_at(HcPlace *place)
{
	TimestampTz at = place->worker.start_at;
	int			i;

	if (place->absent || place->worker.handle != NULL || !place->seen)
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

/* A process has ended: nothing is left to do, or it has failed. */
static void
role_ended(HcPlace *place, HcRole role, TimestampTz now)
{
	HcDatabase *db = hc_shmem_find(place->database);
	bool		on_purpose = false;

	if (db != NULL)
	{
		LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
		if (db->database == place->database)
		{
			on_purpose = db->posts[role].left;
			db->posts[role].left = false;
			if (!on_purpose)
				pg_atomic_write_u32(&db->posts[role].wanted, 1);
		}
		LWLockRelease(hc_shared->lock);
	}
	hc_process_end(&place->roles[role], on_purpose, now);
}

/* When may one be started there?  DT_NOEND: not until something happens. */
static TimestampTz
role_may_start_at(HcPlace *place, HcRole role)
{
	HcDatabase *db = hc_shmem_find(place->database);
	TimestampTz at = DT_NOEND;

	if (place->roles[role].handle != NULL || !place->seen || db == NULL)
		return DT_NOEND;

	LWLockAcquire(hc_shared->lock, LW_SHARED);
	if (db->database == place->database && db->worker_pid != 0 &&
		db->posts[role].pid == 0 &&
		pg_atomic_read_u32(&db->posts[role].wanted) != 0 &&
		pg_atomic_read_u32(&db->connected) != 0)
		at = Max(place->roles[role].start_at, db->aside_until);
	LWLockRelease(hc_shared->lock);
	return at;
}

/* Starts the process if it has something to do; returns when to look again. */
static TimestampTz
look_after_role(HcPlace *place, HcRole role, TimestampTz now)
{
	HcProcess  *process = &place->roles[role];
	TimestampTz at;

	if (hc_process_has_ended(process))
		role_ended(place, role, now);
	at = role_may_start_at(place, role);
	if (at > now)
		return at;
	(void) hc_process_start(process, hc_role_function(role), hc_role_name(role),
							place->database, NameStr(place->name),
							any_refused(), now);
	return process->start_at > now ? process->start_at : DT_NOEND;
}

/* The same for all roles. */
static TimestampTz
look_after_roles(HcPlace *place, TimestampTz now)
{
	TimestampTz next = DT_NOEND;
	int			i;

	for (i = 0; i < HC_NUM_ROLES; i++)
	{
		TimestampTz at = look_after_role(place, (HcRole) i, now);

		next = Min(next, at);
	}
	return next;
}

/* Forgets which databases have no extension, or are just about to say so. */
static void
forget_absent(void)
{
	ListCell   *cell;

	outdated = true;
	foreach(cell, places)
		((HcPlace *) lfirst(cell))->absent = false;
}

/*
 * A scan failed.  That a slot cannot be dropped, say, must not keep the launcher
 * from its main task, and is not to be said each time.  Called with the error
 * data set.
 */
static void
recover(void)
{
	ErrorData  *error = hc_recover_error();

	ereport(hc_recover_is_news(&problem, error) ? LOG : DEBUG1,
			(errcode(error->sqlerrcode),
			 errmsg("hybrid_cache launcher could not look after databases: %s",
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
	FreeErrorData(error);
}

/* Finds out which databases there are. */
static void
scan(void)
{
	PG_TRY();
	{
		hc_place_scan(&places);
		hc_place_keep_slots();
		hc_recover_forget(&problem);
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
	bool		starting;
	ListCell   *cell;

	/* before, to know why one has ended; after, since it may not have answered */
	hear_answer();
	foreach(cell, places)
	{
		HcPlace    *place = lfirst(cell);

		if (hc_process_has_ended(&place->worker))
			worker_ended(place, now);
	}
	hear_answer();

	foreach(cell, places)
	{
		TimestampTz at = look_after_roles(lfirst(cell), now);

		next = Min(next, at);
	}
	starting = find_starting() != NULL;
	foreach(cell, places)
	{
		HcPlace    *place = lfirst(cell);
		TimestampTz at;

		/* one at a time: there is one place for an answer */
		if (starting)
			break;
		at = may_start_at(place);
		if (at <= now)
			starting = start_worker(place, now);
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
