/*
 * breaker.h
 *	  Whether a Redis server is known to be down, shared by all who ask it.
 *
 * Closed: everybody connects and asks.  Open: everybody is told at once that
 * the server is down, and one at a time tries whether it still is.
 */
#ifndef HC_BREAKER_H
#define HC_BREAKER_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/spin.h"

#define HC_BREAKER_REASON_SIZE	200

/* Lives in shared memory. */
typedef struct HcBreaker
{
	slock_t		mutex;

	/* guarded by mutex */
	TimestampTz since;			/* when it opened */
	TimestampTz probe_at;		/* from then on somebody may try */
	int			pause_ms;		/* between the last tries */
	char		reason[HC_BREAKER_REASON_SIZE]; /* without a password */

	/* atomics, the first two written under mutex */
	pg_atomic_uint64 server;	/* hash of the URL it is about; 0: none */
	pg_atomic_uint32 open;
	pg_atomic_uint64 answered_at;	/* the server was alive at this time */
} HcBreaker;

/* What there is to know about an open one. */
typedef struct HcBreakerState
{
	TimestampTz since;
	char		reason[HC_BREAKER_REASON_SIZE];
} HcBreakerState;

typedef enum HcBreakerAnswer
{
	HC_BREAKER_CLOSED,			/* go on */
	HC_BREAKER_PROBE,			/* it is for you to try */
	HC_BREAKER_OPEN				/* do not even try */
} HcBreakerAnswer;

extern void hc_breaker_init(HcBreaker *breaker);

/*
 * For the sync worker: from now on the breaker is about the server of this URL.
 * Closes it if that was another one.
 */
extern void hc_breaker_assign(HcBreaker *breaker, const char *url);

/* Is it about the server of this URL? */
extern bool hc_breaker_concerns(HcBreaker *breaker, const char *url);

extern bool hc_breaker_is_open(HcBreaker *breaker);

/* The same, and then *state says more. */
extern bool hc_breaker_look(HcBreaker *breaker, HcBreakerState *state);

/*
 * May the server be connected to?  Fills *state for HC_BREAKER_OPEN.  Who gets
 * HC_BREAKER_PROBE is the only one for at least timeout_ms, and reports with
 * one of the next three; should it die, another one gets its turn.
 */
extern HcBreakerAnswer hc_breaker_ask(HcBreaker *breaker, int timeout_ms,
									  HcBreakerState *state);

/* The server has answered, whatever it said: closes. */
extern void hc_breaker_answered(HcBreaker *breaker);

/*
 * Could not connect: opens, or stays open, after a probe for longer than the
 * last time.  After a time-out only if nobody else has had an answer for a
 * while: one session's patience is no measure.
 */
extern void hc_breaker_failed(HcBreaker *breaker, const char *reason,
							  bool timed_out, bool probing);

/* The probe came to no result: the next one may try at once. */
extern void hc_breaker_give_back(HcBreaker *breaker);

#endif							/* HC_BREAKER_H */
