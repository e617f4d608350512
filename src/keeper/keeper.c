/*
 * keeper.c
 *	  The keeper of a database: makes mappings equal to their tables again.
 *
 * It is started when something is to be done and ends when nothing is, so that a
 * database where all is well needs one process, not two.  What is left to do
 * stands in tables, so it can be ended at any moment.  What there is to do, and
 * in which order, is a matter of schedule.c.
 *
 * It never writes to Redis: what it finds becomes change records, which the sync
 * worker applies in order with everything else.
 *
 * Locking: of its part of shared memory it writes the atomics alone; see
 * shmem.h for the rest.
 */
#include "postgres.h"

#include "access/xact.h"
#include "capture/ledger.h"
#include "compat.h"
#include "keeper/fill.h"
#include "keeper/keeper.h"
#include "keeper/pace.h"
#include "keeper/progress.h"
#include "keeper/purge.h"
#include "keeper/request.h"
#include "keeper/retry.h"
#include "keeper/schedule.h"
#include "keeper/settle.h"
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
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/recover.h"
#include "worker/sync.h"

/* How often it looks around while it waits. */
#define LOOK_MS				1000

/*
 * What is owed again is done again after this time: somebody may be changing
 * rows all the time with capture off.
 */
#define PAUSE_MS			1000

/* Without Redis for so long, it ends; the sync worker calls it again. */
#define ALONE_MS			10000

/* With nothing to do it stays for so long, since more may come. */
#define LINGER_MS			5000

/* A table that is locked for longer is left for later. */
#define LOCK_TIMEOUT		"10s"

static HcDatabase *keeper_db = NULL;
static List *pasts = NIL;		/* HcRetry *, of mappings */

/* Ends this process; the launcher starts another when something is owed. */
static void
leave(bool unfinished)
{
	hc_role_leave(keeper_db, HC_ROLE_KEEPER, unfinished);
	proc_exit(0);
}

void
hc_keeper_obey(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending && !IsTransactionState())
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		if (!hc_repair || !hc_enabled)
			leave(false);
	}

	/* the settings of a database are only read when a process starts */
	if (pg_atomic_read_u32(&keeper_db->posts[HC_ROLE_KEEPER].recheck) != 0)
		leave(true);
	if (keeper_db->aside_until != 0 && hc_shmem_is_aside(MyDatabaseId))
		leave(true);
}

/* Ends if Redis is away for long. */
static void
look_for_redis(TimestampTz *alone_since)
{
	TimestampTz now = GetCurrentTimestamp();

	if (pg_atomic_read_u32(&keeper_db->connected) != 0)
		*alone_since = 0;
	else if (*alone_since == 0)
		*alone_since = now;
	else if (TimestampDifferenceExceeds(*alone_since, now, ALONE_MS))
		leave(false);
}

void
hc_keeper_wait(XLogRecPtr lsn)
{
	TimestampTz alone_since = 0;

	ConditionVariablePrepareToSleep(&keeper_db->applied_cv);
	while (pg_atomic_read_u64(&keeper_db->applied) < lsn)
	{
		hc_keeper_obey();
		look_for_redis(&alone_since);
		hc_shmem_advance(&keeper_db->wanted, lsn);
		hc_shmem_wake();
		(void) ConditionVariableTimedSleep(&keeper_db->applied_cv, LOOK_MS,
										   HC_WAIT_WORKER);
	}
	ConditionVariableCancelSleep();
}

/* The mapping will be tried again later.  Called with the error data set. */
static void
recover(Oid mapping)
{
	ErrorData  *error = hc_recover_error();

	if (hc_retry_failed(hc_retry_find(&pasts, mapping), error))
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("%s cannot make mapping %u equal to its table: %s",
						MyBgworkerEntry->bgw_name, mapping, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0));
	hc_request_fail(keeper_db, error->sqlerrcode, error->message);
	FreeErrorData(error);
}

/* Has a keeper started if there is something for it to do. */
static void
call(void)
{
	if (hc_repair && hc_enabled && hc_schedule_look(hc_shmem_mine()))
		hc_role_call(HC_ROLE_KEEPER);
}

/* Sleeps until then, or until there is something new to do. */
static void
rest(TimestampTz until)
{
	TimestampTz now = GetCurrentTimestamp();

	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(false);
	while (now < until && pg_atomic_read_u32(&keeper_db->posts[HC_ROLE_KEEPER].wanted) == 0)
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(HC_RETRY_MOST_MS, (until - now + 999) / 1000),
						 HC_WAIT_WORKER);
		ResetLatch(MyLatch);
		hc_keeper_obey();
		now = GetCurrentTimestamp();
	}
}

/* Somebody has cancelled the run: what the mapping owes is left alone. */
static void
decline(Oid mapping)
{
	MemoryContext old = CurrentMemoryContext;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) hc_owed_cancel(mapping);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	hc_schedule_give_up(mapping);
}

static void
run(const HcJob *job)
{
	HcRunCounts counts;
	HcRunResult result;

	pgstat_report_activity(STATE_RUNNING, "making mappings equal to their tables");
	hc_progress_reason(job->reason);
	hc_pace_limit(job->rate);
	PG_TRY();
	{
		hc_request_begin(keeper_db, job->mapping, job->kind);
		if (job->anew)
			hc_schedule_give_up(job->mapping);
		hc_progress_begin(keeper_db, job->mapping, job->kind);
		result = hc_settle_mapping(keeper_db, job->mapping, job->kind, &counts);
		if (result == HC_RUN_CANCELLED)
			decline(job->mapping);
		hc_progress_end();
		hc_request_end(keeper_db, result, &counts);
		hc_retry_succeeded(hc_retry_find(&pasts, job->mapping), PAUSE_MS);
	}
	PG_CATCH();
	{
		hc_progress_end();
		recover(job->mapping);
	}
	PG_END_TRY();
}

/* Nothing is to be done, by the settings. */
static List *
refuse(void)
{
	hc_request_begin(keeper_db, InvalidOid, HC_RUN_RECONCILE);
	hc_request_fail(keeper_db, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					hc_enabled ? "hybrid_cache.repair is off" :
					"hybrid_cache.enabled is off");
	return NIL;
}

/*
 * Does the first that is not to wait; returns when there is the next, DT_NOEND if
 * there is none.
 */
static TimestampTz
work(const List *jobs)
{
	TimestampTz next = DT_NOEND;
	ListCell   *lc;

	foreach(lc, jobs)
	{
		const HcJob *job = lfirst(lc);
		TimestampTz again_at = hc_retry_find(&pasts, job->mapping)->again_at;

		if (job->asked || again_at <= GetCurrentTimestamp())
		{
			run(job);
			return 0;
		}
		next = Min(next, again_at);
	}
	return next;
}

/* Who was asked to do something must be asked again. */
static void
keeper_exit(int code, Datum arg)
{
	pg_atomic_write_u64(&keeper_db->keep.ticket, 0);
	hc_progress_reset(keeper_db);
	hc_fill_abandon(&keeper_db->keep.fill);
	hc_request_return(keeper_db);
}

void
hc_keeper_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	MemoryContext turn_context;
	TimestampTz leave_at = 0;	/* if nothing is to be done until then; 0: there is */

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	hc_shmem_connect(database);

	/* nothing of this database is to have a say in what its keeper does */
	SetConfigOption("search_path", "pg_catalog", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);

	/* would end it while it reads a large table; not all versions have it */
	if (GetConfigOption("transaction_timeout", true, false) != NULL)
		SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET,
					PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET,
					PGC_S_OVERRIDE);
	SetConfigOption("synchronous_commit", "local", PGC_SUSET, PGC_S_OVERRIDE);

	keeper_db = hc_role_take(HC_ROLE_KEEPER, database);
	if (keeper_db == NULL)
		proc_exit(0);
	before_shmem_exit(keeper_exit, 0);
	turn_context = AllocSetContextCreate(TopMemoryContext, "hybrid_cache turn",
										 ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		TimestampTz next;

		hc_keeper_obey();
		MemoryContextSwitchTo(turn_context);
		MemoryContextReset(turn_context);

		/* what is owed from here on calls again */
		pg_atomic_write_u32(&keeper_db->posts[HC_ROLE_KEEPER].wanted, 0);
		pg_memory_barrier();
		if (hc_fill_is_wanted())
			leave_at = 0;
		hc_keeper_serve();
		next = work(hc_repair && hc_enabled ? hc_schedule_jobs(keeper_db) : refuse());

		/* also between comparisons: there may always be one that is due */
		if (hc_repair && hc_enabled)
			next = Min(next, hc_purge_run(keeper_db));
		if (next != DT_NOEND)
		{
			leave_at = 0;
			rest(next);
		}
		else if (leave_at == 0)
			leave_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LINGER_MS);
		else if (GetCurrentTimestamp() >= leave_at)
			leave(false);
		else
			rest(leave_at);
	}
}

void
hc_keeper_init(void)
{
	hc_sync_add_watch(hc_schedule_may_be_due, call);
}
