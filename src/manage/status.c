/*
 * status.c
 *	  hybrid_cache.wait_for_sync() and what the view hybrid_cache.status shows.
 *
 * Locking: see shmem.h; a row of the view is read under the lock, its counters
 * are not exactly of one moment.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "capture/buffer.h"
#include "capture/synchronous.h"
#include "commands/dbcommands.h"
#include "compat.h"
#include "fmgr.h"
#include "funcapi.h"
#include "manage/status.h"
#include "miscadmin.h"
#include "settings.h"
#include "shmem.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

/* A database may get its worker while somebody waits for it. */
#define LOOK_AGAIN_MS	100

PG_FUNCTION_INFO_V1(hybrid_cache_wait_for_sync);
PG_FUNCTION_INFO_V1(hybrid_cache_worker_status);

/* Sleeps until the worker has got further or ms have passed. */
static void
sleep_for_progress(HcDatabase *db, XLogRecPtr target, long ms)
{
	if (db == NULL)
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(ms, LOOK_AGAIN_MS), HC_WAIT_WORKER);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		return;
	}

	ConditionVariablePrepareToSleep(&db->applied_cv);
	hc_shmem_advance(&db->wanted, target);
	hc_shmem_wake();
	if (pg_atomic_read_u64(&db->applied) < target)
		(void) ConditionVariableTimedSleep(&db->applied_cv, ms, HC_WAIT_WORKER);
	ConditionVariableCancelSleep();
}

bool
hc_status_wait(TimestampTz deadline)
{
	HcDatabase *db = hc_shmem_mine();

	/* what is committed is flushed, or was published with its position */
	XLogRecPtr	target = GetFlushRecPtr(NULL);

	if (db != NULL)
		target = Max(target, pg_atomic_read_u64(&db->published));

	for (;;)
	{
		TimestampTz now;

		db = hc_shmem_mine();
		if (db != NULL && pg_atomic_read_u64(&db->applied) >= target)
			return true;
		now = GetCurrentTimestamp();
		if (now >= deadline)
			return false;
		sleep_for_progress(db, target,
						   Min((deadline - now) / 1000 + 1, 1000));
	}
}

/*
 * Waits until everything that was committed before the call is in Redis.  NULL
 * as timeout: however long that takes.
 */
Datum
hybrid_cache_wait_for_sync(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = DT_NOEND;

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is in progress"),
				 errhint("hybrid_cache.wait_for_sync() cannot be executed during recovery.")));
	if (!PG_ARGISNULL(0))
		deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
														   TimestampTzGetDatum(GetCurrentTimestamp()),
														   PG_GETARG_DATUM(0)));
	if (hc_buffer_pending())
		ereport(WARNING,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("changes of the current transaction are not waited for"),
				 errdetail("They reach Redis after the transaction has committed.")));
	PG_RETURN_BOOL(hc_status_wait(deadline));
}

#define N_COLUMNS	(10 + HC_NUM_COUNTERS)

/* The row of a database, if the slot has one. */
static void
put_row(ReturnSetInfo *result, HcDatabase *db, XLogRecPtr flushed)
{
	Datum		values[N_COLUMNS] = {0};
	bool		nulls[N_COLUMNS] = {0};
	XLogRecPtr	published = pg_atomic_read_u64(&db->published);
	XLogRecPtr	applied = pg_atomic_read_u64(&db->applied);
	XLogRecPtr	newest = Max(published, flushed);
	HcBreakerState breaker;
	bool		down;
	Oid			database;
	pid_t		worker_pid;
	TimestampTz last_error_at;
	char		last_error[sizeof(db->last_error)];
	char	   *name;
	NameData	database_name;
	int			column = 0;
	int			i;

	/* catalogs cannot be read while the lock is held */
	LWLockAcquire(hc_shared->lock, LW_SHARED);
	database = db->database;
	worker_pid = db->worker_pid;
	last_error_at = db->last_error_at;
	strlcpy(last_error, db->last_error, sizeof(last_error));
	LWLockRelease(hc_shared->lock);
	name = OidIsValid(database) ? get_database_name(database) : NULL;
	if (name == NULL)
		return;

	down = hc_breaker_look(&db->breaker, &breaker);
	namestrcpy(&database_name, name);
	values[column++] = NameGetDatum(&database_name);
	nulls[column] = worker_pid == 0;
	values[column++] = Int32GetDatum(worker_pid);
	values[column++] = BoolGetDatum(pg_atomic_read_u32(&db->connected) != 0);
	nulls[column] = !down;
	values[column++] = TimestampTzGetDatum(down ? breaker.since : 0);
	values[column++] = Int32GetDatum(hc_synchronous_count(database, InvalidXLogRecPtr));
	nulls[column] = XLogRecPtrIsInvalid(published);
	values[column++] = LSNGetDatum(published);
	nulls[column] = XLogRecPtrIsInvalid(applied);
	values[column++] = LSNGetDatum(applied);
	nulls[column] = XLogRecPtrIsInvalid(applied);
	values[column++] = Int64GetDatum(newest > applied ? newest - applied : 0);
	for (i = 0; i < HC_NUM_COUNTERS; i++)
		values[column++] = Int64GetDatum(pg_atomic_read_u64(&db->counters[i]));
	nulls[column] = last_error_at == 0;
	values[column++] = CStringGetTextDatum(last_error);
	nulls[column] = last_error_at == 0;
	values[column++] = TimestampTzGetDatum(last_error_at);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* One row per database that has the extension. */
Datum
hybrid_cache_worker_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	XLogRecPtr	flushed;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	flushed = RecoveryInProgress() ? InvalidXLogRecPtr : GetFlushRecPtr(NULL);
	for (i = 0; i < hc_max_databases; i++)
		put_row(result, &hc_shared->databases[i], flushed);
	return (Datum) 0;
}
