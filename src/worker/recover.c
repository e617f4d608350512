/*
 * recover.c
 *	  What a background process does after an error.
 *
 * It is what PostgreSQL's own main loops do there, for processes that have no
 * session: they hold lightweight locks, buffers and a transaction at most.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "worker/recover.h"

void
hc_recover_abort(void)
{
	HOLD_INTERRUPTS();
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	pgstat_report_wait_end();
	UnlockBuffers();
	AbortOutOfAnyTransaction();
	RESUME_INTERRUPTS();
}

ErrorData *
hc_recover_error(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	FlushErrorState();
	hc_recover_abort();
	MemoryContextSwitchTo(TopMemoryContext);
	return error;
}

bool
hc_recover_is_news(char **told, const ErrorData *error)
{
	if (*told != NULL && strcmp(*told, error->message) == 0)
		return false;
	hc_recover_forget(told);
	*told = MemoryContextStrdup(TopMemoryContext, error->message);
	return true;
}

void
hc_recover_forget(char **told)
{
	if (*told != NULL)
		pfree(*told);
	*told = NULL;
}
