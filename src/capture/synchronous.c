/*
 * synchronous.c
 *	  hybrid_cache.synchronous: commits that wait until Redis has them.
 *
 * The wait comes when the transaction is committed and its locks are released,
 * so that nobody else waits with it: a callback of resource owners is the one
 * place after the locks where extensions are called.  XACT_EVENT_COMMIT is too
 * early for that.  It is too late for an error: whatever happens, the
 * transaction is committed, and all that is left to say is a warning.
 *
 * Interrupts are held there, as in the wait for a synchronous standby, and are
 * looked at in the same way: a cancel ends the wait, and so does a request to
 * terminate, which also closes the connection without an answer, as the client
 * must not take COMMIT's for more than it is.
 *
 * Locking: each process has a place in the table below, which it alone writes
 * and the sync workers read, without a lock.  A place is left on every way out
 * of the wait; should one be read too late, a stranger's latch is set for
 * nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "capture/synchronous.h"
#include "compat.h"
#include "miscadmin.h"
#include "settings.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "storage/shmem.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#define TABLE_NAME		"hybrid_cache waiters"

/* A worker that goes away wakes nobody. */
#define LOOK_AGAIN_MS	100

/* Why a wait ended; all but the first deserve a warning. */
typedef enum Outcome
{
	REACHED,
	NO_SERVER,					/* this database has no Redis */
	NO_WORKER,
	DOWN,						/* Redis, or it takes no changes */
	TOO_LONG,
	TOO_FEW_REPLICAS,			/* only they are missing */
	CANCELED,
	TERMINATED
} Outcome;

typedef struct Waiter
{
	pg_atomic_uint64 lsn;		/* invalid: does not wait */
	Oid			database;		/* only changed while lsn is invalid */
} Waiter;

/* Indexed by the place of the process in the table of processes. */
static Waiter *waiters = NULL;

/* What the transaction that is just being committed is to wait for. */
static XLogRecPtr expected = InvalidXLogRecPtr;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static Size
table_size(void)
{
	return mul_size(MaxBackends, sizeof(Waiter));
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(table_size());
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	waiters = ShmemInitStruct(TABLE_NAME, table_size(), &found);
	if (!found)
	{
		int			i;

		memset(waiters, 0, table_size());
		for (i = 0; i < MaxBackends; i++)
			pg_atomic_init_u64(&waiters[i].lsn, InvalidXLogRecPtr);
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * Only clients wait: the work of background processes must not depend on Redis.
 */
void
hc_synchronous_expect(XLogRecPtr lsn)
{
	HcDatabase *db;

	if (!hc_synchronous || MyBackendType != B_BACKEND)
		return;
	expected = lsn;

	/* the worker is not to gather commits for a better batch */
	db = hc_shmem_mine();
	if (db != NULL)
		hc_shmem_advance(&db->wanted, lsn);
}

static bool
is_reached(HcDatabase *db, XLogRecPtr lsn)
{
	return db != NULL &&
		pg_atomic_read_u64(hc_wait_replicas > 0 ? &db->replicated :
						   &db->applied) >= lsn;
}

/*
 * Is there no point in waiting?  Fields of the slot are read without its lock:
 * an old value costs a warning, or is seen in the next turn.
 */
static bool
is_hopeless(HcDatabase *db, Outcome *why)
{
	if (hc_redis_url == NULL || hc_redis_url[0] == '\0')
		*why = NO_SERVER;
	else if (db == NULL || (db->worker_pid == 0 && !db->restart))
		*why = NO_WORKER;
	else if (pg_atomic_read_u32(&db->connected) == 0 &&
			 (hc_breaker_is_open(&db->breaker) ||
			  pg_atomic_read_u32(&db->failing) != 0))
		*why = DOWN;
	else
		return false;
	return true;
}

/* In the table of waiters already; interrupts are held. */
static Outcome
sleep_until(HcDatabase *db, XLogRecPtr lsn)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   hc_sync_timeout);

	for (;;)
	{
		Outcome		why;
		long		remaining;
		int			events;

		ResetLatch(MyLatch);
		if (is_reached(db, lsn))
			return REACHED;
		if (ProcDiePending)
			return TERMINATED;
		if (QueryCancelPending)
		{
			QueryCancelPending = false;
			return CANCELED;
		}

		/* DROP DATABASE waits for all processes of the server to see this */
		if (ProcSignalBarrierPending)
			ProcessProcSignalBarrier();
		if (is_hopeless(db, &why))
			return why;
		remaining = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													deadline);
		if (remaining <= 0)
			return pg_atomic_read_u64(&db->applied) >= lsn ? TOO_FEW_REPLICAS :
				TOO_LONG;
		events = WaitLatch(MyLatch,
						   WL_LATCH_SET | WL_TIMEOUT | WL_POSTMASTER_DEATH,
						   Min(remaining, LOOK_AGAIN_MS), HC_WAIT_WORKER);

		/* nobody is left who could make it come true */
		if (events & WL_POSTMASTER_DEATH)
		{
			ProcDiePending = true;
			whereToSendOutput = DestNone;
			return TERMINATED;
		}
	}
}

/* The transaction is committed: say what is missing. */
static void
warn(HcDatabase *db, Outcome outcome)
{
	const char *detail = _("The transaction has already committed locally; its changes reach Redis later.");
	HcBreakerState state;

	switch (outcome)
	{
		case REACHED:
			break;
		case NO_SERVER:
			ereport(WARNING,
					(errmsg("commit does not wait for Redis: this database has no Redis server"),
					 errdetail_internal("%s", detail),
					 errhint("Set hybrid_cache.redis_url in postgresql.conf, or for this database with ALTER DATABASE ... SET.")));
			break;
		case NO_WORKER:
			ereport(WARNING,
					(errmsg("commit does not wait for Redis: no sync worker runs"),
					 errdetail_internal("%s", detail),
					 errhint("The server log says why, unless the server has just started.")));
			break;
		case DOWN:
			if (hc_breaker_look(&db->breaker, &state))
				ereport(WARNING,
						(errmsg("commit does not wait for Redis: it is known to be down"),
						 errdetail("The transaction has already committed locally; its changes reach Redis later. Since %s: %s.",
								   timestamptz_to_str(state.since), state.reason)));
			else
				ereport(WARNING,
						(errmsg("commit does not wait for Redis: it takes no changes now"),
						 errdetail_internal("%s", detail),
						 errhint("See last_error in the view hybrid_cache.status.")));
			break;
		case TOO_LONG:
			ereport(WARNING,
					(errmsg("Redis did not take the changes of the transaction within %d ms",
							hc_sync_timeout),
					 errdetail_internal("%s", detail),
					 errhint("The time limit is hybrid_cache.sync_timeout.")));
			break;
		case TOO_FEW_REPLICAS:
			ereport(WARNING,
					(errmsg_plural("%d replica of Redis did not get the changes of the transaction within %d ms",
								   "%d replicas of Redis did not get the changes of the transaction within %d ms",
								   hc_wait_replicas,
								   hc_wait_replicas, hc_sync_timeout),
					 errdetail("The transaction has already committed locally; its changes are in Redis, but might not be in the replicas."),
					 errhint("The settings are hybrid_cache.wait_replicas and hybrid_cache.sync_timeout.")));
			break;
		case CANCELED:
			ereport(WARNING,
					(errmsg("canceling wait for Redis due to user request"),
					 errdetail_internal("%s", detail)));
			break;
		case TERMINATED:
			ereport(WARNING,
					(errcode(ERRCODE_ADMIN_SHUTDOWN),
					 errmsg("canceling the wait for Redis and terminating connection due to administrator command"),
					 errdetail_internal("%s", detail)));
			whereToSendOutput = DestNone;
			break;
	}
}

static void
wait_for_redis(XLogRecPtr lsn)
{
	HcDatabase *db = hc_shmem_mine();
	Waiter	   *me = &waiters[hc_compat_my_place()];
	Outcome		outcome;

	me->database = MyDatabaseId;
	pg_write_barrier();
	pg_atomic_write_u64(&me->lsn, lsn);

	/* pairs with the one of the worker: one of us sees the other's position */
	pg_memory_barrier();
	outcome = sleep_until(db, lsn);
	pg_atomic_write_u64(&me->lsn, InvalidXLogRecPtr);
	if (outcome != REACHED)
		warn(db, outcome);
}

static void
release_resources(ResourceReleasePhase phase, bool isCommit, bool isTopLevel,
				  void *arg)
{
	XLogRecPtr	lsn = expected;

	if (XLogRecPtrIsInvalid(lsn) || phase != RESOURCE_RELEASE_AFTER_LOCKS ||
		!isTopLevel || CurrentResourceOwner != TopTransactionResourceOwner)
		return;
	expected = InvalidXLogRecPtr;
	if (isCommit)
		wait_for_redis(lsn);
}

void
hc_synchronous_wake(XLogRecPtr lsn)
{
	int			i;

	pg_memory_barrier();
	for (i = 0; i < MaxBackends; i++)
	{
		XLogRecPtr	awaited = pg_atomic_read_u64(&waiters[i].lsn);

		if (XLogRecPtrIsInvalid(awaited) || awaited > lsn)
			continue;
		pg_read_barrier();
		if (waiters[i].database == MyDatabaseId)
			SetLatch(&GetPGProcByNumber(i)->procLatch);
	}
}

int
hc_synchronous_count(Oid database, XLogRecPtr lsn)
{
	int			n = 0;
	int			i;

	for (i = 0; i < MaxBackends; i++)
	{
		XLogRecPtr	awaited = pg_atomic_read_u64(&waiters[i].lsn);

		pg_read_barrier();
		if (!XLogRecPtrIsInvalid(awaited) && awaited > lsn &&
			waiters[i].database == database)
			n++;
	}
	return n;
}

void
hc_synchronous_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
	RegisterResourceReleaseCallback(release_resources, NULL);
}
