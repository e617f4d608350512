/*
 * shmem.c
 *	  What the sessions of a database, its sync worker and the launcher share.
 *
 * One slot per database, found by a linear search: there are few, and each
 * process remembers its own.  A session touches only atomics of its slot at
 * commit, so that a commit never waits for a lock that the worker or launcher
 * holds.
 *
 * Locking: hc_shared->lock guards which slot belongs to which database and the
 * non-atomic fields of a slot.  Latch pointers are also read without it: they
 * point into the process table, so the worst that a stale one does is to wake
 * a stranger.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "settings.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define TRANCHE_NAME	"hybrid_cache"

HcShared   *hc_shared = NULL;

static HcDatabase *my_slot = NULL;
static uint64 rechecks_seen = 0;	/* hc_shared->rechecks, before the settings of
									 * the database were read */
static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static Size
shared_size(void)
{
	return add_size(offsetof(HcShared, databases),
					mul_size(hc_max_databases, sizeof(HcDatabase)));
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	hc_shared = ShmemInitStruct(TRANCHE_NAME, shared_size(), &found);
	if (!found)
	{
		int			i;
		int			j;

		memset(hc_shared, 0, shared_size());
		if (!pg_strong_random(&hc_shared->start, sizeof(hc_shared->start)))
			ereport(FATAL,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random number")));
		pg_atomic_init_u64(&hc_shared->rechecks, 0);
		hc_shared->lock = &(GetNamedLWLockTranche(TRANCHE_NAME))->lock;
		for (i = 0; i < hc_max_databases; i++)
		{
			HcDatabase *db = &hc_shared->databases[i];

			pg_atomic_init_u64(&db->published, InvalidXLogRecPtr);
			pg_atomic_init_u64(&db->wanted, InvalidXLogRecPtr);
			pg_atomic_init_u64(&db->applied, InvalidXLogRecPtr);
			pg_atomic_init_u64(&db->replicated, InvalidXLogRecPtr);
			pg_atomic_init_u32(&db->connected, 0);
			pg_atomic_init_u32(&db->ours, 0);
			pg_atomic_init_u32(&db->failing, 0);
			pg_atomic_init_u32(&db->recheck, 0);
			pg_atomic_init_u32(&db->marks_aborted, 0);
			for (j = 0; j < HC_NUM_COUNTERS; j++)
				pg_atomic_init_u64(&db->counters[j], 0);
			ConditionVariableInit(&db->applied_cv);
			hc_breaker_init(&db->breaker);
			for (j = 0; j < HC_NUM_ROLES; j++)
				hc_role_init(&db->posts[j]);
			pg_atomic_init_u64(&db->keep.ticket, 0);
			pg_atomic_init_u32(&db->keep.outcome, HC_WINDOW_PENDING);
			pg_atomic_init_u64(&db->keep.purging, 0);
			pg_atomic_init_u64(&db->keep.purged, 0);
			for (j = 0; j < HC_NUM_FOUND; j++)
				pg_atomic_init_u64(&db->keep.taken[j], 0);
			hc_progress_init(&db->keep.progress);
			hc_fill_init(&db->keep.fill);
			hc_request_init(&db->keep.requests);
			hc_traffic_init(db->bridges);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

void
hc_shmem_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* The caller holds the lock. */
static HcDatabase *
find_locked(Oid database)
{
	int			i;

	for (i = 0; i < hc_max_databases; i++)
	{
		if (hc_shared->databases[i].database == database)
			return &hc_shared->databases[i];
	}
	return NULL;
}

HcDatabase *
hc_shmem_find(Oid database)
{
	HcDatabase *db;

	LWLockAcquire(hc_shared->lock, LW_SHARED);
	db = find_locked(database);
	LWLockRelease(hc_shared->lock);
	return db;
}

/*
 * The remembered slot is checked without the lock: it passes on to another
 * database only after DROP EXTENSION here, and publishing into a stranger's
 * slot in that moment only wakes the stranger.
 */
HcDatabase *
hc_shmem_mine(void)
{
	if (my_slot == NULL || my_slot->database != MyDatabaseId)
		my_slot = hc_shmem_find(MyDatabaseId);
	return my_slot;
}

static void
wake(HcDatabase *db)
{
	Latch	   *latch = *(Latch *volatile *) &db->worker_latch;

	if (latch != NULL)
		SetLatch(latch);
}

static void
wake_launcher_locked(void)
{
	if (hc_shared->launcher_latch != NULL)
		SetLatch(hc_shared->launcher_latch);
}

void
hc_shmem_advance(pg_atomic_uint64 *position, XLogRecPtr lsn)
{
	uint64		old = pg_atomic_read_u64(position);

	while (old < lsn &&
		   !pg_atomic_compare_exchange_u64(position, &old, lsn))
		 /* old was read again */ ;
}

void
hc_shmem_publish(XLogRecPtr lsn)
{
	HcDatabase *db = hc_shmem_mine();

	if (db != NULL)
	{
		hc_shmem_advance(&db->published, lsn);
		wake(db);
	}
	else
	{
		/* no place to tell it: who reads the WAL is to find it there at once */
		XLogFlush(lsn);
		if (hc_shared->unserved)
			return;

		/* ops without a worker: the launcher missed that database */
		LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
		hc_shared->unserved = true;
		wake_launcher_locked();
		LWLockRelease(hc_shared->lock);
	}
}

void
hc_shmem_wake(void)
{
	HcDatabase *db = hc_shmem_mine();

	if (db != NULL)
		wake(db);
}

void
hc_shmem_count(HcCounter counter, uint64 n)
{
	HcDatabase *db = hc_shmem_mine();

	if (db != NULL)
		pg_atomic_fetch_add_u64(&db->counters[counter], n);
}

void
hc_shmem_rescan(void)
{
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	hc_shared->rescan = true;
	wake_launcher_locked();
	LWLockRelease(hc_shared->lock);
}

void
hc_shmem_scan(void)
{
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	hc_shared->scan = true;
	wake_launcher_locked();
	LWLockRelease(hc_shared->lock);
}

void
hc_shmem_recheck(Oid database)
{
	HcDatabase *db;
	int			i;

	/* first, for a process that is not to be found yet */
	pg_atomic_fetch_add_u64(&hc_shared->rechecks, 1);
	db = hc_shmem_find(database);
	if (db == NULL)
		return;
	pg_atomic_write_u32(&db->recheck, 1);
	for (i = 0; i < HC_NUM_ROLES; i++)
		pg_atomic_write_u32(&db->posts[i].recheck, 1);
	wake(db);
	hc_role_wake(db);
}

void
hc_shmem_step_aside(Oid database, TimestampTz until)
{
	HcDatabase *db;

	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	db = find_locked(database);
	if (db != NULL)
	{
		db->aside_until = until;
		wake(db);
		hc_role_wake(db);
		wake_launcher_locked();
	}
	LWLockRelease(hc_shared->lock);
}

bool
hc_shmem_is_aside(Oid database)
{
	HcDatabase *db;
	TimestampTz until = 0;

	LWLockAcquire(hc_shared->lock, LW_SHARED);
	db = find_locked(database);
	if (db != NULL)
		until = db->aside_until;
	LWLockRelease(hc_shared->lock);
	return until != 0 && until > GetCurrentTimestamp();
}

/* The worker is gone, however it ended: it holds nothing in its slot. */
static void
worker_exit(int code, Datum arg)
{
	HcDatabase *db = (HcDatabase *) DatumGetPointer(arg);

	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	if (db->worker_pid == MyProcPid)
	{
		db->worker_pid = 0;
		db->worker_latch = NULL;
		pg_atomic_write_u32(&db->connected, 0);
	}
	wake_launcher_locked();
	LWLockRelease(hc_shared->lock);
}

void
hc_shmem_connect(Oid database)
{
	rechecks_seen = pg_atomic_read_u64(&hc_shared->rechecks);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
}

bool
hc_shmem_is_outdated(void)
{
	return pg_atomic_read_u64(&hc_shared->rechecks) != rechecks_seen;
}

HcDatabase *
hc_shmem_claim(Oid database, bool *taken)
{
	HcDatabase *db;

	*taken = false;
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	db = find_locked(database);
	if (db == NULL)
	{
		int			i;

		db = find_locked(InvalidOid);
		if (db == NULL)
		{
			LWLockRelease(hc_shared->lock);
			return NULL;
		}
		db->database = database;
		db->aside_until = 0;
		db->last_error[0] = '\0';
		db->last_error_at = 0;
		pg_atomic_write_u64(&db->published, InvalidXLogRecPtr);
		pg_atomic_write_u64(&db->wanted, InvalidXLogRecPtr);
		pg_atomic_write_u64(&db->applied, InvalidXLogRecPtr);
		pg_atomic_write_u64(&db->replicated, InvalidXLogRecPtr);
		pg_atomic_write_u32(&db->ours, 0);
		pg_atomic_write_u32(&db->recheck, 0);
		for (i = 0; i < HC_NUM_ROLES; i++)
			pg_atomic_write_u32(&db->posts[i].wanted, 0);
		for (i = 0; i < HC_NUM_COUNTERS; i++)
			pg_atomic_write_u64(&db->counters[i], 0);
	}
	else if (db->worker_pid != 0)
	{
		LWLockRelease(hc_shared->lock);
		*taken = true;
		return NULL;
	}
	db->worker_pid = MyProcPid;
	db->worker_latch = MyLatch;
	db->restart = false;
	pg_atomic_write_u32(&db->failing, 0);
	LWLockRelease(hc_shared->lock);
	if (hc_shmem_is_outdated())
		pg_atomic_write_u32(&db->recheck, 1);

	before_shmem_exit(worker_exit, PointerGetDatum(db));
	return db;
}

void
hc_shmem_release(Oid database)
{
	HcDatabase *db;

	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	db = find_locked(database);
	if (db != NULL)
	{
		db->database = InvalidOid;
		db->worker_pid = 0;
		db->worker_latch = NULL;
		pg_atomic_write_u32(&db->connected, 0);
	}
	LWLockRelease(hc_shared->lock);
}

void
hc_shmem_answer(Oid database, HcProbe probe)
{
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	if (hc_shared->probe_database == database)
	{
		hc_shared->probe = probe;
		wake_launcher_locked();
	}
	LWLockRelease(hc_shared->lock);
}

void
hc_shmem_leave(HcDatabase *db)
{
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	db->restart = true;
	LWLockRelease(hc_shared->lock);
}

void
hc_shmem_set_error(HcDatabase *db, const char *message)
{
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	strlcpy(db->last_error, message,
			pg_mbcliplen(message, strlen(message),
						 sizeof(db->last_error) - 1) + 1);
	db->last_error_at = GetCurrentTimestamp();
	LWLockRelease(hc_shared->lock);
}
