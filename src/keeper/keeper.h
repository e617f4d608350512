/*
 * keeper.h
 *	  The keeper of a database: makes mappings equal to their tables again.
 */
#ifndef HC_KEEPER_H
#define HC_KEEPER_H

#include "access/xlogdefs.h"
#include "shmem.h"

/* The main function of the background worker; its argument is the database. */
extern PGDLLEXPORT void hc_keeper_main(Datum arg);

/* Lets the sync worker look for what there is to do; called once, from _PG_init. */
extern void hc_keeper_init(void);

/*
 * For what the keeper runs.  obey() does what others ask for, which may be to
 * end; it is to be called often, also in a transaction.  wait() waits, outside
 * of transactions, until everything that committed up to lsn is in Redis.
 */
extern void hc_keeper_obey(void);
extern void hc_keeper_wait(XLogRecPtr lsn);

#endif							/* HC_KEEPER_H */
