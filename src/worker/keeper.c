/*
 * keeper.c
 *	  The keeper of a database: makes mappings equal to their tables again.
 *
 * It is started when something is owed and ends when nothing is, so that a
 * database where all is well needs one process, not two.  What it has done
 * stands in hybrid_cache.owed, so it can be ended at any moment.
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
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "shmem.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/keeper.h"
#include "worker/settle.h"

/* After a failure: wait this long, then twice as long, up to the most. */
#define RETRY_FIRST_MS		1000
#define RETRY_MOST_MS		60000

/* How often it looks around while it waits. */
#define LOOK_MS				1000

/*
 * What is owed again is done again after this time: somebody may be changing
 * rows all the time with capture off.
 */
#define PAUSE_MS			1000

/* Without Redis for so long, it ends; the sync worker calls it again. */
#define ALONE_MS			10000

/* A table that is locked for longer is left for later. */
#define LOCK_TIMEOUT		"10s"

/* A mapping that could not be made equal. */
typedef struct Trouble
{
	Oid			mapping;
	int			failures;		/* in a row */
	TimestampTz retry_at;
	char	   *problem;		/* the message that was logged last */
} Trouble;

static HcDatabase *keeper_db = NULL;
static List *troubles = NIL;

/* Ends this process; the launcher starts another when something is owed. */
static void
leave(bool unfinished)
{
	if (unfinished)
		pg_atomic_write_u32(&keeper_db->keep.owing, 1);
	hc_shmem_keeper_leave(keeper_db);
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
	if (pg_atomic_read_u32(&keeper_db->keep.recheck) != 0)
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

static Trouble *
find_trouble(Oid mapping)
{
	ListCell   *lc;

	foreach(lc, troubles)
	{
		Trouble    *trouble = lfirst(lc);

		if (trouble->mapping == mapping)
			return trouble;
	}
	return NULL;
}

static void
forget_trouble(Oid mapping)
{
	Trouble    *trouble = find_trouble(mapping);

	if (trouble == NULL)
		return;
	troubles = list_delete_ptr(troubles, trouble);
	pfree(trouble->problem);
	pfree(trouble);
}

void
hc_keeper_abort(void)
{
	HOLD_INTERRUPTS();
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	pgstat_report_wait_end();
	UnlockBuffers();
	AbortOutOfAnyTransaction();
	RESUME_INTERRUPTS();
}

/* The mapping will be tried again later.  Called with the error data set. */
static void
recover(Oid mapping)
{
	Trouble    *trouble = find_trouble(mapping);
	ErrorData  *error;

	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	FlushErrorState();
	hc_keeper_abort();
	MemoryContextSwitchTo(TopMemoryContext);

	if (trouble == NULL)
	{
		trouble = palloc0(sizeof(Trouble));
		trouble->mapping = mapping;
		troubles = lappend(troubles, trouble);
	}
	trouble->retry_at =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									Min(RETRY_FIRST_MS << Min(trouble->failures, 10),
										RETRY_MOST_MS));
	trouble->failures++;

	/* once per change of state, not once per attempt */
	if (trouble->problem == NULL || strcmp(trouble->problem, error->message) != 0)
	{
		if (trouble->problem != NULL)
			pfree(trouble->problem);
		trouble->problem = pstrdup(error->message);
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("%s cannot make mapping %u equal to its table: %s",
						MyBgworkerEntry->bgw_name, mapping, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0));
	}
	FreeErrorData(error);
}

/* The mappings to be dealt with; lives in the current context. */
static List *
find_work(void)
{
	MemoryContext old = CurrentMemoryContext;
	List	   *work;

	StartTransactionCommand();
	MemoryContextSwitchTo(old);
	work = hc_owed_work();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	return work;
}

void
hc_keeper_call(void)
{
	if (hc_repair && hc_enabled && find_work() != NIL)
		hc_shmem_owe();
}

void
hc_keeper_owe(List *mappings)
{
	MemoryContext old = CurrentMemoryContext;
	ListCell   *lc;

	if (mappings == NIL)
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(lc, mappings)
	{
		if (hc_catalog_trigger(lfirst_oid(lc), NULL) != NULL)
			hc_owed_mark(lfirst_oid(lc), "A repair was lost.");
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	list_free(mappings);
}

/* Sleeps until then, or, if wake, until something new is owed. */
static void
rest(TimestampTz until, bool wake)
{
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (now >= until)
			return;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(RETRY_MOST_MS, (until - now + 999) / 1000),
						 HC_WAIT_WORKER);
		ResetLatch(MyLatch);
		hc_keeper_obey();
		if (wake && pg_atomic_read_u32(&keeper_db->keep.owing) != 0)
			return;
	}
}

/* Deals with those that are not to wait; returns when to go on. */
static TimestampTz
work_through(List *work)
{
	volatile TimestampTz next = DT_NOEND;
	ListCell   *lc;

	foreach(lc, work)
	{
		Oid			mapping = lfirst_oid(lc);
		Trouble    *trouble = find_trouble(mapping);

		hc_keeper_obey();
		if (trouble != NULL && trouble->retry_at > GetCurrentTimestamp())
		{
			next = Min(next, trouble->retry_at);
			continue;
		}
		PG_TRY();
		{
			hc_settle_mapping(keeper_db, mapping);
			forget_trouble(mapping);
			next = 0;
		}
		PG_CATCH();
		{
			recover(mapping);
			next = Min(next, find_trouble(mapping)->retry_at);
		}
		PG_END_TRY();
	}
	return next;
}

void
hc_keeper_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	MemoryContext turn_context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);

	/* nothing of this database is to have a say in what its keeper does */
	SetConfigOption("search_path", "pg_catalog", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET,
					PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET,
					PGC_S_OVERRIDE);
	SetConfigOption("synchronous_commit", "local", PGC_SUSET, PGC_S_OVERRIDE);

	keeper_db = hc_shmem_keep(database);
	if (keeper_db == NULL)
		proc_exit(0);
	if (!hc_repair || !hc_enabled)
	{
		pg_atomic_write_u32(&keeper_db->keep.owing, 0);
		leave(false);
	}
	turn_context = AllocSetContextCreate(TopMemoryContext, "hybrid_cache turn",
										 ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		List	   *work;
		TimestampTz next;

		hc_keeper_obey();
		MemoryContextSwitchTo(turn_context);
		MemoryContextReset(turn_context);

		/* what is owed from here on calls again */
		pg_atomic_write_u32(&keeper_db->keep.owing, 0);
		pg_memory_barrier();
		work = find_work();
		if (work == NIL)
			leave(false);

		pgstat_report_activity(STATE_RUNNING, "making mappings equal to their tables");
		next = work_through(work);
		pgstat_report_activity(STATE_IDLE, NULL);
		pgstat_report_stat(false);

		/* whether anything is left is found out at once */
		if (find_work() == NIL)
			continue;
		rest(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PAUSE_MS), false);
		rest(next, true);
	}
}
