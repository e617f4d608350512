/*
 * due.h
 *	  Timers fire: pending events are added to their streams when it is time.
 *
 * The registry of the database (timer.h) is a sorted set of the streams that have
 * pending timers.  The score of each, in ms since 1970, is not later than its
 * earliest timer.  lua/fire.lua does what is due of a stream and puts that right.
 */
#ifndef HC_DUE_H
#define HC_DUE_H

#include "redis/connection.h"
#include "worker/announce.h"
#include "worker/fence.h"

typedef struct HcDue
{
	TimestampTz next;			/* nothing is due before, as far as is known;
								 * DT_NOEND: ever */
	TimestampTz look_at;		/* look then all the same */
	HcAnnounce	announce;		/* of timers that are not in the registry */
	bool		foreign;		/* there were mappings that may not be written */
	TimestampTz said_at;		/* that Redis refuses something; 0: never */
} HcDue;

/* Nothing is known; all zero before the first time.  For each new connection. */
extern void hc_due_init(HcDue *due);

/* A timer is due at, in ms since 1970: this process has just written it. */
extern void hc_due_expect(HcDue *due, double at);

/*
 * Does what is due at now, a bounded amount of it; true if there may be more.
 * Everything that was committed before now is applied, and nothing is in flight
 * on the connection.  Waits for replies, serving interrupts.  Raises 08006, 55006,
 * and what says that Redis cannot be used at all.
 */
extern bool hc_due_work(HcDue *due, HcConnection *conn, HcFence *fence,
						TimestampTz now);

/* When something is due, as far as is known; DT_NOEND: nothing. */
extern TimestampTz hc_due_wake_at(const HcDue *due);

#endif							/* HC_DUE_H */
