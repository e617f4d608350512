/*
 * wal.h
 *	  Where the WAL ends.
 */
#ifndef HC_WAL_H
#define HC_WAL_H

#include "access/xlogdefs.h"

/*
 * Writes to disk what is in the WAL by now, of all sessions, and returns where
 * that ends.  Not during recovery.
 */
extern XLogRecPtr hc_wal_flush(void);

#endif							/* HC_WAL_H */
