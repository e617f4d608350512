/*
 * traffic.h
 *	  What each bridge has carried, in shared memory.
 */
#ifndef HC_TRAFFIC_H
#define HC_TRAFFIC_H

#include "datatype/timestamp.h"
#include "port/atomics.h"

/* Bridges of a database that are counted; more are not. */
#define HC_TRAFFIC_BRIDGES	64

/* Written by the bridge process alone. */
typedef struct HcTraffic
{
	pg_atomic_uint64 id;		/* of the bridge; 0: free */
	pg_atomic_uint64 subscribed_at; /* TimestampTz; 0: it is not subscribed */
	pg_atomic_uint64 last_at;	/* TimestampTz of the last message; 0: none yet */
	pg_atomic_uint64 messages;	/* that became notifications */
	pg_atomic_uint64 dropped;	/* that could not */
	pg_atomic_uint64 interruptions; /* times that the subscription was lost */
} HcTraffic;

extern void hc_traffic_init(HcTraffic *traffic);

/*
 * The counters of a bridge, which begin with 0 if there are none and add is set;
 * NULL: none are there, or no place is left.
 */
extern HcTraffic *hc_traffic_find(HcTraffic *traffic, uint64 id, bool add);

/* Frees the counters of all bridges but these n. */
extern void hc_traffic_keep(HcTraffic *traffic, const uint64 *ids, int n);

/* It is, or is not, subscribed since now; no matter if that is known already. */
extern void hc_traffic_subscribed(HcTraffic *traffic, bool subscribed);

/* None is subscribed any more: the process ends. */
extern void hc_traffic_end(HcTraffic *traffic);

#endif							/* HC_TRAFFIC_H */
