/*
 * pace.c
 *	  How fast a run may go: hybrid_cache.reconcile_rate.
 *
 * What was dealt with in no time is paid for by a pause after it.  A pause that
 * took longer than it should is not made up for: the load is what is limited.
 */
#include "postgres.h"

#include "compat.h"
#include "keeper/fill.h"
#include "keeper/keeper.h"
#include "keeper/pace.h"
#include "keeper/progress.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

/* What is done at once takes this part of a second of the rate. */
#define CHUNKS_PER_SECOND	5

/* The longest sleep without a look around. */
#define LOOK_MS				200

/* What the session has that asked for the run, or -1. */
static int	asked_rate = -1;

void
hc_pace_limit(int rate)
{
	asked_rate = rate;
}

/* Rows per second; 0: no limit.  The setting can be raised in mid-run. */
static int
limit(const HcSettle *settle)
{
	if (settle->kind == HC_RUN_REPAIR || hc_reconcile_rate == 0 || asked_rate == 0)
		return 0;
	return Max(asked_rate, hc_reconcile_rate);
}

uint64
hc_pace_rows(const HcSettle *settle)
{
	return limit(settle) > 0
		? (uint64) Max(limit(settle) / CHUNKS_PER_SECOND, 1) : PG_UINT64_MAX;
}

void
hc_pace_wait(HcSettle *settle, uint64 rows)
{
	TimestampTz now = GetCurrentTimestamp();

	hc_keeper_obey();
	hc_keeper_serve();
	if (limit(settle) == 0)
		return;
	settle->rest_until = Max(settle->rest_until, settle->paced_at) +
		(TimestampTz) ((double) rows * USECS_PER_SEC / limit(settle));
	while (now < settle->rest_until && !hc_progress_cancelled())
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(LOOK_MS, (settle->rest_until - now + 999) / 1000),
						 HC_WAIT_WORKER);
		ResetLatch(MyLatch);
		hc_keeper_obey();
		hc_keeper_serve();
		now = GetCurrentTimestamp();
		if (limit(settle) == 0)
			break;
	}
	settle->paced_at = now;
}
