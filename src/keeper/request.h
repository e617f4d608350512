/*
 * request.h
 *	  Comparisons that sessions ask the keeper for, and wait for.
 *
 * They go through shared memory: the transaction of who asks is open, so no table
 * could tell the keeper, and nothing may be left of what nobody waits for.
 */
#ifndef HC_REQUEST_H
#define HC_REQUEST_H

#include "datatype/timestamp.h"
#include "keeper/run.h"
#include "nodes/pg_list.h"
#include "storage/condition_variable.h"

struct HcDatabase;

/* So many at a time in a database. */
#define HC_REQUESTS		32

typedef enum HcRequestState
{
	HC_REQUEST_FREE,
	HC_REQUEST_WAITING,			/* for a run that begins from now on */
	HC_REQUEST_RUNNING,
	HC_REQUEST_DONE,
	HC_REQUEST_CHANGED,			/* the mapping is not what it was */
	HC_REQUEST_CANCELLED,
	HC_REQUEST_FAILED			/* see message */
} HcRequestState;

/* The fields are guarded by hc_shared->lock. */
typedef struct HcRequest
{
	HcRequestState state;
	Oid			mapping;
	bool		full;			/* the whole table, not only what is new */
	int			rate;			/* rows per second at most, 0: no limit */
	HcRunCounts counts;
	TimestampTz started;		/* of the run */
	TimestampTz ended;
	int			sqlerrcode;		/* why it has failed */
	char		message[256];
} HcRequest;

typedef struct HcRequests
{
	ConditionVariable cv;		/* broadcast when a state changes */
	HcRequest	requests[HC_REQUESTS];
} HcRequests;

/* What the keeper is asked for. */
typedef struct HcRequested
{
	Oid			mapping;
	bool		full;			/* by one of those who ask, at least */
	int			rate;			/* the highest of theirs */
	bool		anew;			/* one of them has asked since a run was begun */
} HcRequested;

extern void hc_request_init(HcRequests *requests);

/*
 * Asks for a run.  NULL if there are too many requests.  It is to be freed,
 * however the wait for it ends; nothing becomes of it without the keeper, who
 * has to be called.
 */
extern HcRequest *hc_request_put(struct HcDatabase *db, Oid mapping, bool full,
								 int rate);
extern void hc_request_free(HcRequest *request);

/* A copy of it as it is now.  wait() sleeps until that changes, or ms are over. */
extern void hc_request_look(const HcRequest *request, HcRequest *copy);
extern void hc_request_wait(struct HcDatabase *db, const HcRequest *request,
							HcRequestState state, long ms);

/* Ends what waits for a run of the mapping; false if there was nothing. */
extern bool hc_request_cancel(struct HcDatabase *db, Oid mapping);

/* What is asked for: a list of HcRequested *, a mapping at most once. */
extern List *hc_request_waiting(struct HcDatabase *db);

/*
 * For the keeper.  A run begins: who has asked for it waits for this one.  It has
 * ended; it has failed; this keeper ends, and the next one has to do it.
 */
extern void hc_request_begin(struct HcDatabase *db, Oid mapping, HcRunKind kind);
extern void hc_request_end(struct HcDatabase *db, HcRunResult result,
						   const HcRunCounts *counts);
extern void hc_request_fail(struct HcDatabase *db, int sqlerrcode,
							const char *message);
extern void hc_request_return(struct HcDatabase *db);

#endif							/* HC_REQUEST_H */
