/*
 * schedule.c
 *	  What the keeper of a database has to do, and in which order.
 *
 * It is found out anew after each run: so who asks while a long list is worked
 * off comes next, and nothing has to be told to a keeper but that there is news.
 */
#include "postgres.h"

#include "access/xact.h"
#include "capture/ledger.h"
#include "commands/trigger.h"
#include "keeper/purge.h"
#include "keeper/request.h"
#include "keeper/run.h"
#include "keeper/schedule.h"
#include "settings.h"
#include "shmem.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Where only new rows are compared, every so many times all are. */
#define FULL_EVERY	24

/* Until then nothing becomes due by the time alone. */
static TimestampTz next_due = 0;

/* The reasons for which something is owed, in one line. */
static const char *
owed_reason(Oid mapping)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, hc_owed_reasons(mapping))
		appendStringInfo(&text, "%s%s", text.len > 0 ? "; " : "",
						 (char *) lfirst(lc));
	return text.data;
}

/* The mapping's job, made if there is none; it keeps its place. */
static HcJob *
job_of(List **jobs, Oid mapping)
{
	ListCell   *lc;
	HcJob	   *job;

	foreach(lc, *jobs)
	{
		job = lfirst(lc);
		if (job->mapping == mapping)
			return job;
	}
	job = palloc0(sizeof(HcJob));
	job->mapping = mapping;
	job->rate = -1;
	*jobs = lappend(*jobs, job);
	return job;
}

static void
add_requested(List **jobs, HcDatabase *db)
{
	ListCell   *lc;

	foreach(lc, hc_request_waiting(db))
	{
		HcRequested *requested = lfirst(lc);
		HcJob	   *job = job_of(jobs, requested->mapping);

		job->asked = true;
		job->rate = requested->rate;
		job->anew = requested->anew;
		job->kind = requested->full ? HC_RUN_RECONCILE : HC_RUN_INCREMENTAL;

		/* what was cancelled is wanted now */
		if (requested->full && hc_owed_is_declined(job->mapping))
			job->kind = HC_RUN_REPAIR;
		job->reason = "asked for";
	}
}

/* What is owed is not limited in its rate, whoever asks for it too. */
static void
add_owed(List **jobs)
{
	ListCell   *lc;

	foreach(lc, hc_owed_work())
	{
		HcJob	   *job = job_of(jobs, lfirst_oid(lc));

		job->kind = HC_RUN_REPAIR;
		job->reason = owed_reason(job->mapping);
	}
}

/* Is a comparison of that mapping with its table of use now? */
static bool
can_compare(const HcTrigger *trigger)
{
	ListCell   *lc;

	if (trigger->function != HC_FUNCTION_WRITE_THROUGH ||
		(trigger->enabled != TRIGGER_FIRES_ON_ORIGIN &&
		 trigger->enabled != TRIGGER_FIRES_ALWAYS))
		return false;
	foreach(lc, hc_owed_reasons(trigger->oid))
	{
		if (strcmp(lfirst(lc), HC_OWED_FOREIGN) == 0)
			return false;
	}

	/* nobody wants its rows in Redis, or not now */
	return !hc_owed_is_declined(trigger->oid);
}

/*
 * When is a mapping to be compared again, and how?  Where the rows that are new
 * can be told, the others are looked at less often.
 */
static TimestampTz
due_at(const HcTrigger *trigger, const HcRunState *last, HcRunKind *kind)
{
	int64		interval = hc_reconcile_interval * USECS_PER_SEC;
	bool		partly = hc_catalog_option(trigger, HC_OPTION_SINCE) != NULL;
	bool		given_up = last->ended != 0 && last->phase != HC_RUN_OVER;
	TimestampTz full_at = (given_up ? last->ended : last->full_started) +
	(partly ? FULL_EVERY : 1) * interval;
	TimestampTz new_at = last->started + interval;

	*kind = partly && new_at < full_at ? HC_RUN_INCREMENTAL : HC_RUN_RECONCILE;

	/* a keeper was ended in the middle of one */
	if (last->ended == 0)
		return last->started;
	return partly ? Min(new_at, full_at) : full_at;
}

static void
add_due(List **jobs)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	next_due = DT_NOEND;
	if (hc_reconcile_interval == 0)
		return;
	foreach(lc, hc_catalog_database())
	{
		const HcTrigger *trigger = lfirst(lc);
		HcRunState	last;
		TimestampTz at;
		HcRunKind	kind;
		HcJob	   *job;

		if (!can_compare(trigger) || !hc_run_load(trigger->oid, &last))
			continue;
		at = due_at(trigger, &last, &kind);
		next_due = Min(next_due, at);
		if (at > now)
			continue;
		job = job_of(jobs, trigger->oid);
		if (job->reason != NULL)
			continue;
		job->kind = kind;
		job->reason = "periodic";
	}
}

List *
hc_schedule_list(HcDatabase *db)
{
	List	   *jobs = NIL;

	if (db != NULL)
		add_requested(&jobs, db);
	add_owed(&jobs);
	add_due(&jobs);
	return jobs;
}

List *
hc_schedule_jobs(HcDatabase *db)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *jobs;

	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	jobs = hc_schedule_list(db);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return jobs;
}

void
hc_schedule_give_up(Oid mapping)
{
	MemoryContext context = CurrentMemoryContext;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	hc_run_give_up(mapping);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/*
 * Time counts for a mapping from when it was first seen.  The keeper, who keeps
 * the table, may be at work: a lock lets it see what is added here.
 */
static void
note_unknown(void)
{
	bool		locked = false;
	ListCell   *lc;

	foreach(lc, hc_catalog_database())
	{
		const HcTrigger *trigger = lfirst(lc);
		HcRunState	state;

		if (trigger->function != HC_FUNCTION_WRITE_THROUGH ||
			hc_run_load(trigger->oid, &state))
			continue;
		if (!locked)
		{
			Oid			relid = hc_ledger_oid("run");

			if (!OidIsValid(relid))
				return;
			LockRelationOid(relid, ShareRowExclusiveLock);
			locked = true;
			if (hc_run_load(trigger->oid, &state))
				continue;
		}
		memset(&state, 0, sizeof(state));
		state.mapping = trigger->oid;
		state.kind = HC_RUN_RECONCILE;
		state.reason = "seen for the first time";
		state.phase = HC_RUN_OVER;
		state.started = state.ended = state.full_started = GetCurrentTimestamp();
		hc_run_save(&state);
	}
}

bool
hc_schedule_look(HcDatabase *db)
{
	MemoryContext context = CurrentMemoryContext;
	bool		found;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	note_unknown();
	found = hc_schedule_list(db) != NIL || hc_purge_is_asked();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return found;
}

bool
hc_schedule_may_be_due(void)
{
	return next_due <= GetCurrentTimestamp();
}
