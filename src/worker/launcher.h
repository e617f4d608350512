/*
 * launcher.h
 *	  The process that starts a sync worker for each database that has the
 *	  extension.
 */
#ifndef HC_LAUNCHER_H
#define HC_LAUNCHER_H

/* Registers the launcher; called once, from _PG_init. */
extern void hc_launcher_init(void);

/* The main function of the background worker. */
extern PGDLLEXPORT void hc_launcher_main(Datum arg);

#endif							/* HC_LAUNCHER_H */
