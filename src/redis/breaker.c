/*
 * breaker.c
 *	  Whether a Redis server is known to be down, shared by all who ask it.
 *
 * What opens it is a connection that cannot be made.  A command that is not
 * answered in time does not: it may just be a slow one, and whoever waited for
 * it connects anew the next time, which tells.  An error that Redis replies is
 * the answer of a server that is up.
 *
 * What closes it is any answer: of a session that probes, or of the sync worker,
 * which asks at least every second while it is connected.
 *
 * Locking: mutex is held for a few instructions and the copy of a short text,
 * never while somebody connects.  In the state of rest, closed, nobody takes it.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "redis/breaker.h"
#include "utils/timestamp.h"

/* The pauses between two tries: this long first, then twice as long. */
#define FIRST_PAUSE_MS		100
#define LONGEST_PAUSE_MS	5000

/*
 * A session that waits for ever does not keep others from trying, nor does one
 * that has died.
 */
#define LONGEST_PROBE_MS	5000
#define PROBE_MARGIN_MS		1000

/* An answer that is older than this says nothing about now. */
#define FRESH_MS			2000

void
hc_breaker_init(HcBreaker *breaker)
{
	SpinLockInit(&breaker->mutex);
	pg_atomic_init_u64(&breaker->server, 0);
	pg_atomic_init_u32(&breaker->open, 0);
	pg_atomic_init_u64(&breaker->answered_at, 0);
}

static uint64
hash_url(const char *url)
{
	return hash_bytes_extended((const unsigned char *) url, strlen(url), 0);
}

void
hc_breaker_assign(HcBreaker *breaker, const char *url)
{
	uint64		server = hash_url(url);

	if (pg_atomic_read_u64(&breaker->server) == server)
		return;
	SpinLockAcquire(&breaker->mutex);
	pg_atomic_write_u64(&breaker->server, server);
	pg_atomic_write_u32(&breaker->open, 0);
	pg_atomic_write_u64(&breaker->answered_at, 0);
	SpinLockRelease(&breaker->mutex);
}

bool
hc_breaker_concerns(HcBreaker *breaker, const char *url)
{
	return pg_atomic_read_u64(&breaker->server) == hash_url(url);
}

bool
hc_breaker_is_open(HcBreaker *breaker)
{
	return pg_atomic_read_u32(&breaker->open) != 0;
}

/* The caller holds the mutex. */
static void
copy_state(HcBreaker *breaker, HcBreakerState *state)
{
	state->since = breaker->since;
	memcpy(state->reason, breaker->reason, sizeof(state->reason));
}

bool
hc_breaker_look(HcBreaker *breaker, HcBreakerState *state)
{
	bool		open;

	if (!hc_breaker_is_open(breaker))
		return false;
	SpinLockAcquire(&breaker->mutex);
	open = hc_breaker_is_open(breaker);
	copy_state(breaker, state);
	SpinLockRelease(&breaker->mutex);
	return open;
}

HcBreakerAnswer
hc_breaker_ask(HcBreaker *breaker, int timeout_ms, HcBreakerState *state)
{
	HcBreakerAnswer answer = HC_BREAKER_OPEN;
	TimestampTz now;

	if (!hc_breaker_is_open(breaker))
		return HC_BREAKER_CLOSED;
	now = GetCurrentTimestamp();

	SpinLockAcquire(&breaker->mutex);
	if (!hc_breaker_is_open(breaker))
		answer = HC_BREAKER_CLOSED;
	else if (now >= breaker->probe_at)
	{
		/* until it reports, as long as that can take */
		breaker->probe_at = TimestampTzPlusMilliseconds(now,
														Min(timeout_ms, LONGEST_PROBE_MS) + PROBE_MARGIN_MS);
		answer = HC_BREAKER_PROBE;
	}
	else
		copy_state(breaker, state);
	SpinLockRelease(&breaker->mutex);
	return answer;
}

void
hc_breaker_answered(HcBreaker *breaker)
{
	pg_atomic_write_u64(&breaker->answered_at, GetCurrentTimestamp());
	if (!hc_breaker_is_open(breaker))
		return;
	SpinLockAcquire(&breaker->mutex);
	pg_atomic_write_u32(&breaker->open, 0);
	SpinLockRelease(&breaker->mutex);
}

void
hc_breaker_failed(HcBreaker *breaker, const char *reason, bool timed_out,
				  bool probing)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next;
	size_t		len = pg_mbcliplen(reason, strlen(reason),
								   HC_BREAKER_REASON_SIZE - 1);

	if (timed_out && !hc_breaker_is_open(breaker) &&
		!TimestampDifferenceExceeds(pg_atomic_read_u64(&breaker->answered_at),
									now, FRESH_MS))
		return;

	SpinLockAcquire(&breaker->mutex);
	if (!hc_breaker_is_open(breaker))
	{
		breaker->since = now;
		breaker->pause_ms = FIRST_PAUSE_MS;
		breaker->probe_at = 0;
		pg_atomic_write_u32(&breaker->open, 1);
	}
	else if (probing)
	{
		breaker->pause_ms = Min(breaker->pause_ms * 2, LONGEST_PAUSE_MS);
		breaker->probe_at = 0;
	}

	/* somebody else may be probing: that turn is not cut short */
	next = TimestampTzPlusMilliseconds(now, breaker->pause_ms);
	breaker->probe_at = Max(breaker->probe_at, next);
	memcpy(breaker->reason, reason, len);
	breaker->reason[len] = '\0';
	SpinLockRelease(&breaker->mutex);
}

void
hc_breaker_give_back(HcBreaker *breaker)
{
	SpinLockAcquire(&breaker->mutex);
	breaker->probe_at = 0;
	SpinLockRelease(&breaker->mutex);
}
