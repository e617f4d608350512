/*
 * timer.h
 *	  Where pending timers are in Redis.
 *
 * Those of a stream are a sorted set beside it: the score of a member is when it is
 * due, in ms since 1970.  The streams of a database that have any are in a registry
 * (due.h), another sorted set.
 */
#ifndef HC_TIMER_H
#define HC_TIMER_H

#include "mapping/op.h"

#define HC_TIMER_WHAT			"timers"
#define HC_TIMER_REGISTRY_SIZE	128

/* Begins the names of all sets of pending timers. */
#define HC_TIMER_PREFIX			"hybrid_cache:" HC_TIMER_WHAT ":"

/* Appends the name of the set of a stream's pending timers. */
extern void hc_timer_key(StringInfo buf, HcBytes stream);

/*
 * The streams that have a set of this name: there is one mostly, and can be two.
 * Returns how many; they point into name.
 */
extern int	hc_timer_streams(HcBytes name, HcBytes streams[2]);

/* The registry of the current database; buf has HC_TIMER_REGISTRY_SIZE bytes. */
extern void hc_timer_registry(char *buf);

#endif							/* HC_TIMER_H */
