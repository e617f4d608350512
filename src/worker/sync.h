/*
 * sync.h
 *	  The sync worker of a database.
 */
#ifndef HC_SYNC_H
#define HC_SYNC_H

/* The main function of the background worker; its argument is the database. */
extern PGDLLEXPORT void hc_sync_main(Datum arg);

/*
 * The sync worker is always there, the keeper is not: so it looks for work for the
 * keeper.  look() has a keeper started if there is any, with a transaction of its
 * own; it is called now and then, and when is_due(), which is quick, says so.  To
 * be set once, from _PG_init.
 */
extern void hc_sync_set_watch(bool (*is_due) (void), void (*look) (void));

#endif							/* HC_SYNC_H */
