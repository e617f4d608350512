/*
 * synchronous.h
 *	  hybrid_cache.synchronous: commits that wait until Redis has them.
 */
#ifndef HC_SYNCHRONOUS_H
#define HC_SYNCHRONOUS_H

#include "access/xlogdefs.h"

/* Registers what waits; called once, from _PG_init. */
extern void hc_synchronous_init(void);

/*
 * For XACT_EVENT_COMMIT: if the session has asked for it, the transaction will
 * wait, once it has released its locks, until Redis has what committed up to
 * lsn.  Raises nothing.
 */
extern void hc_synchronous_expect(XLogRecPtr lsn);

/* For the sync worker: wakes the sessions whose wait up to lsn is over. */
extern void hc_synchronous_wake(XLogRecPtr lsn);

/* How many sessions of the database wait for a position after lsn? */
extern int	hc_synchronous_count(Oid database, XLogRecPtr lsn);

#endif							/* HC_SYNCHRONOUS_H */
