/*
 * process.c
 *	  A background process in a database, which is started again when it has ended.
 *
 * The postmaster could do that, but not as needed here: a process that ended
 * because its database is being dropped must not come back, and one that fails
 * each time is to be tried more and more rarely.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/process.h"

/* A process that lived shorter than this has failed. */
#define HEALTHY_MS			10000

/* After a failure: wait this long, then twice as long, up to the most. */
#define RETRY_FIRST_MS		1000
#define RETRY_MOST_MS		60000

bool
hc_process_start(HcProcess *process, const char *function, const char *type,
				 Oid database, const char *name, bool quiet, TimestampTz now)
{
	BackgroundWorker worker;
	MemoryContext old;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "hybrid_cache", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "hybrid_cache %s for %s", type, name);
	snprintf(worker.bgw_type, BGW_MAXLEN, "hybrid_cache %s", type);
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	process->refused = !RegisterDynamicBackgroundWorker(&worker, &process->handle);
	MemoryContextSwitchTo(old);

	if (process->refused)
	{
		process->handle = NULL;
		process->start_at = TimestampTzPlusMilliseconds(now, RETRY_FIRST_MS);
		ereport(quiet ? DEBUG1 : WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a %s for database \"%s\"", type, name),
				 errdetail("Commits go on; they reach Redis when there is one."),
				 errhint("You might need to increase max_worker_processes.")));
		return false;
	}
	process->started_at = now;
	return true;
}

bool
hc_process_has_ended(const HcProcess *process)
{
	pid_t		pid;

	return process->handle != NULL &&
		GetBackgroundWorkerPid(process->handle, &pid) == BGWH_STOPPED;
}

void
hc_process_end(HcProcess *process, bool on_purpose, TimestampTz now)
{
	pfree(process->handle);
	process->handle = NULL;
	process->start_at = now;
	if (on_purpose ||
		TimestampDifferenceExceeds(process->started_at, now, HEALTHY_MS))
	{
		process->failures = 0;
		return;
	}

	/* the first failure may be anything, say pg_terminate_backend() */
	if (process->failures > 0)
		process->start_at =
			TimestampTzPlusMilliseconds(now,
										Min(RETRY_FIRST_MS << Min(process->failures - 1, 10),
											RETRY_MOST_MS));
	process->failures++;
}
