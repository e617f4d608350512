/*
 * keeper.h
 *	  The keeper of a database: makes mappings equal to their tables again.
 */
#ifndef HC_KEEPER_H
#define HC_KEEPER_H

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"
#include "shmem.h"

/* The main function of the background worker; its argument is the database. */
extern PGDLLEXPORT void hc_keeper_main(Datum arg);

/*
 * For the sync worker: has a keeper started if there is something for it to do.
 * Opens a transaction of its own.
 */
extern void hc_keeper_call(void);

/*
 * For the sync worker: records of the keeper for these mappings (Oid) cannot be
 * handed out again, as it reads the WAL from the middle of their windows.  To be
 * called before the watermark can pass them.
 */
extern void hc_keeper_owe(List *mappings);

/*
 * For what the keeper runs.  obey() does what others ask for, which may be to
 * end; it is to be called often, also in a transaction.  wait() waits, outside
 * of transactions, until everything that committed up to lsn is in Redis.
 */
extern void hc_keeper_obey(void);
extern void hc_keeper_wait(XLogRecPtr lsn);

/* After an error: ends what may be open. */
extern void hc_keeper_abort(void);

#endif							/* HC_KEEPER_H */
