/*
 * retry.c
 *	  When what has failed is tried again.
 *
 * Each thing by itself, so that one that always fails does not keep the others
 * waiting.  It is remembered by the process alone: another one tries at once.
 */
#include "postgres.h"

#include "keeper/retry.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/recover.h"

HcRetry *
hc_retry_find(List **list, int64 id)
{
	MemoryContext old;
	ListCell   *lc;
	HcRetry    *retry;

	foreach(lc, *list)
	{
		retry = lfirst(lc);
		if (retry->id == id)
			return retry;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	retry = palloc0(sizeof(HcRetry));
	retry->id = id;
	*list = lappend(*list, retry);
	MemoryContextSwitchTo(old);
	return retry;
}

bool
hc_retry_failed(HcRetry *retry, const ErrorData *error)
{
	retry->again_at =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									Min(HC_RETRY_FIRST_MS << Min(retry->failures, 10),
										HC_RETRY_MOST_MS));
	retry->failures++;
	return hc_recover_is_news(&retry->problem, error);
}

void
hc_retry_succeeded(HcRetry *retry, int pause_ms)
{
	hc_recover_forget(&retry->problem);
	retry->failures = 0;
	retry->again_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause_ms);
}

void
hc_retry_forget(List **list, int64 id)
{
	HcRetry    *retry = hc_retry_find(list, id);

	*list = list_delete_ptr(*list, retry);
	hc_recover_forget(&retry->problem);
	pfree(retry);
}
