/*
 * request.c
 *	  Comparisons that sessions ask the keeper for, and wait for.
 *
 * There is one run at a time, so the requests that wait for it are just those
 * that are RUNNING.  A request whose session has gone is free at once: the run
 * goes on, and finds nobody to tell.
 *
 * Locking: all fields under hc_shared->lock, which is held for a look through
 * HC_REQUESTS entries.
 */
#include "postgres.h"

#include "compat.h"
#include "keeper/request.h"
#include "mb/pg_wchar.h"
#include "shmem.h"
#include "utils/timestamp.h"

void
hc_request_init(HcRequests *requests)
{
	memset(requests->requests, 0, sizeof(requests->requests));
	ConditionVariableInit(&requests->cv);
}

HcRequest *
hc_request_put(HcDatabase *db, Oid mapping, bool full, int rate)
{
	HcRequest  *request = NULL;
	int			i;

	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < HC_REQUESTS && request == NULL; i++)
	{
		if (db->keep.requests.requests[i].state == HC_REQUEST_FREE)
			request = &db->keep.requests.requests[i];
	}
	if (request != NULL)
	{
		memset(request, 0, sizeof(*request));
		request->state = HC_REQUEST_WAITING;
		request->mapping = mapping;
		request->full = full;
		request->rate = rate;
	}
	LWLockRelease(hc_shared->lock);
	return request;
}

void
hc_request_free(HcRequest *request)
{
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	request->state = HC_REQUEST_FREE;
	LWLockRelease(hc_shared->lock);
}

void
hc_request_look(const HcRequest *request, HcRequest *copy)
{
	LWLockAcquire(hc_shared->lock, LW_SHARED);
	*copy = *request;
	LWLockRelease(hc_shared->lock);
}

void
hc_request_wait(HcDatabase *db, const HcRequest *request, HcRequestState state,
				long ms)
{
	HcRequest	now;

	ConditionVariablePrepareToSleep(&db->keep.requests.cv);
	hc_request_look(request, &now);
	if (now.state == state)
		(void) ConditionVariableTimedSleep(&db->keep.requests.cv, ms,
										   HC_WAIT_WORKER);
	ConditionVariableCancelSleep();
}

/*
 * Those in state from, and of that mapping if it is valid, go to another state;
 * returns how many.  result, if not NULL, has what they get with it.
 */
static int
move(HcDatabase *db, HcRequestState from, Oid mapping, bool incremental_only,
	 const HcRequest *result)
{
	int			n = 0;
	int			i;

	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < HC_REQUESTS; i++)
	{
		HcRequest  *request = &db->keep.requests.requests[i];
		Oid			its_mapping = request->mapping;
		bool		full = request->full;
		int			rate = request->rate;
		TimestampTz started = request->started;

		if (request->state != from ||
			(OidIsValid(mapping) && its_mapping != mapping) ||
			(incremental_only && full))
			continue;
		*request = *result;
		request->mapping = its_mapping;
		request->full = full;
		request->rate = rate;

		/* also one that an earlier keeper had begun with */
		if (started != 0)
			request->started = started;
		n++;
	}
	LWLockRelease(hc_shared->lock);
	if (n > 0)
		ConditionVariableBroadcast(&db->keep.requests.cv);
	return n;
}

bool
hc_request_cancel(HcDatabase *db, Oid mapping)
{
	HcRequest	result = {.state = HC_REQUEST_CANCELLED};

	return move(db, HC_REQUEST_WAITING, mapping, false, &result) > 0;
}

List *
hc_request_waiting(HcDatabase *db)
{
	HcRequest	copy[HC_REQUESTS];
	List	   *result = NIL;
	int			i;

	/* nothing is allocated while the lock is held */
	LWLockAcquire(hc_shared->lock, LW_SHARED);
	memcpy(copy, db->keep.requests.requests, sizeof(copy));
	LWLockRelease(hc_shared->lock);

	for (i = 0; i < HC_REQUESTS; i++)
	{
		HcRequested *requested = NULL;
		ListCell   *lc;

		if (copy[i].state != HC_REQUEST_WAITING)
			continue;
		foreach(lc, result)
		{
			if (((HcRequested *) lfirst(lc))->mapping == copy[i].mapping)
				requested = lfirst(lc);
		}
		if (requested == NULL)
		{
			requested = palloc0(sizeof(HcRequested));
			requested->mapping = copy[i].mapping;
			requested->rate = copy[i].rate;
			result = lappend(result, requested);
		}
		requested->full |= copy[i].full;
		if (copy[i].rate == 0 || requested->rate == 0)
			requested->rate = 0;
		else
			requested->rate = Max(requested->rate, copy[i].rate);
		requested->anew |= copy[i].started == 0;
	}
	return result;
}

void
hc_request_begin(HcDatabase *db, Oid mapping, HcRunKind kind)
{
	HcRequest	result = {.state = HC_REQUEST_RUNNING};

	result.started = GetCurrentTimestamp();
	(void) move(db, HC_REQUEST_WAITING, mapping, kind == HC_RUN_INCREMENTAL, &result);
}

void
hc_request_end(HcDatabase *db, HcRunResult result, const HcRunCounts *counts)
{
	HcRequest	answer = {0};

	switch (result)
	{
		case HC_RUN_DONE:
			answer.state = HC_REQUEST_DONE;
			break;
		case HC_RUN_CHANGED:
			answer.state = HC_REQUEST_CHANGED;
			break;
		case HC_RUN_CANCELLED:
			answer.state = HC_REQUEST_CANCELLED;
			break;
	}
	answer.counts = *counts;
	answer.ended = GetCurrentTimestamp();
	(void) move(db, HC_REQUEST_RUNNING, InvalidOid, false, &answer);
}

void
hc_request_fail(HcDatabase *db, int sqlerrcode, const char *message)
{
	HcRequest	answer = {.state = HC_REQUEST_FAILED};

	answer.sqlerrcode = sqlerrcode;
	strlcpy(answer.message, message,
			pg_mbcliplen(message, strlen(message), sizeof(answer.message) - 1) + 1);
	(void) move(db, HC_REQUEST_RUNNING, InvalidOid, false, &answer);
}

void
hc_request_return(HcDatabase *db)
{
	HcRequest	answer = {.state = HC_REQUEST_WAITING};

	(void) move(db, HC_REQUEST_RUNNING, InvalidOid, false, &answer);
}
