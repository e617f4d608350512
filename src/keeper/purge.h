/*
 * purge.h
 *	  Removes the entries that a dropped mapping left in Redis.
 */
#ifndef HC_PURGE_H
#define HC_PURGE_H

#include "datatype/timestamp.h"
#include "shmem.h"

/* In a transaction: are there entries to be removed? */
extern bool hc_purge_is_asked(void);

/*
 * For the keeper: removes the entries of all leftovers that are to be purged, but
 * for those that failed a moment ago.  Returns when to try them again, DT_NOEND
 * if there is none, and 0 if something was done.  Opens transactions of its own;
 * what goes wrong is logged, and only leaving the process gets out of it.
 */
extern TimestampTz hc_purge_run(HcDatabase *db);

#endif							/* HC_PURGE_H */
