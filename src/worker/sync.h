/*
 * sync.h
 *	  The sync worker of a database.
 */
#ifndef HC_SYNC_H
#define HC_SYNC_H

/* The main function of the background worker; its argument is the database. */
extern PGDLLEXPORT void hc_sync_main(Datum arg);

#endif							/* HC_SYNC_H */
