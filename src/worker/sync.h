/*
 * sync.h
 *	  The sync worker of a database.
 */
#ifndef HC_SYNC_H
#define HC_SYNC_H

/* The main function of the background worker; its argument is the database. */
extern PGDLLEXPORT void hc_sync_main(Datum arg);

/*
 * The sync worker is always there, the processes with other roles are not: so it
 * looks for work for them.  look() has one started if there is any, with a
 * transaction of its own; it is called now and then, and when is_due(), which is
 * quick, says so; that may be NULL.  To be added once per role, from _PG_init.
 */
extern void hc_sync_add_watch(bool (*is_due) (void), void (*look) (void));

#endif							/* HC_SYNC_H */
