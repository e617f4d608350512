/*
 * schedule.h
 *	  What the keeper of a database has to do, and in which order.
 */
#ifndef HC_SCHEDULE_H
#define HC_SCHEDULE_H

#include "keeper/run.h"
#include "nodes/pg_list.h"
#include "shmem.h"

/* A run that is to be. */
typedef struct HcJob
{
	Oid			mapping;
	HcRunKind	kind;
	bool		asked;			/* somebody waits for it ... */
	bool		anew;			/* ... and it is not to go on with another one */
	int			rate;			/* rows per second it may go at, see pace.h */
	const char *reason;			/* as hybrid_cache.progress shows it */
} HcJob;

/*
 * What is to be done now, a list of HcJob *, a mapping at most once: what is
 * asked for, then what is owed, then what is due again.  Opens a transaction of
 * its own.
 */
extern List *hc_schedule_jobs(HcDatabase *db);

/* The same with the caller's transaction; db may be NULL. */
extern List *hc_schedule_list(HcDatabase *db);

/*
 * Nobody goes on with a run of the mapping that was ended in the middle: somebody
 * has cancelled it, or asks for all of it from now on.  Opens a transaction of its
 * own.
 */
extern void hc_schedule_give_up(Oid mapping);

/*
 * For the sync worker.  Is anything to be done?  And, quick: can that have changed
 * since, by the time alone?
 */
extern bool hc_schedule_look(HcDatabase *db);
extern bool hc_schedule_may_be_due(void);

#endif							/* HC_SCHEDULE_H */
