/*
 * announce.h
 *	  Which streams have pending timers: finding out what the registry should know.
 */
#ifndef HC_ANNOUNCE_H
#define HC_ANNOUNCE_H

#include "nodes/pg_list.h"
#include "redis/connection.h"
#include "worker/fence.h"

typedef struct HcAnnounce
{
	MemoryContext context;		/* of the matchers; NULL: before the first begin() */
	bool		begun;			/* the mappings are still to be read */
	List	   *matchers;		/* HcMatcher *, of the keys to be searched for */
	char		cursor[32];		/* of the search; empty: there is none */
} HcAnnounce;

/* From here on each step goes on, until all is announced.  All zero: nothing is. */
extern void hc_announce_begin(HcAnnounce *announce);

/*
 * Puts some of the streams of the database's timers into the registry, as if
 * something was due.  false if there is nothing more to do.  Nothing may be in
 * flight on the connection.  Opens a transaction of its own.  Raises 08006, 55006;
 * what Redis refuses is not announced.
 */
extern bool hc_announce_step(HcAnnounce *announce, HcConnection *conn,
							 HcFence *fence);

#endif							/* HC_ANNOUNCE_H */
