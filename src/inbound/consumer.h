/*
 * consumer.h
 *	  The process that reads Redis streams and calls handlers with their messages.
 */
#ifndef HC_CONSUMER_H
#define HC_CONSUMER_H

/* The main function of the background worker; its argument is the database. */
extern PGDLLEXPORT void hc_consumer_main(Datum arg);

/*
 * For what the process runs: does what others ask for, which may be to end.  To be
 * called often, outside of transactions.
 */
extern void hc_consumer_obey(void);

/* Lets the sync worker look for consumers; called once, from _PG_init. */
extern void hc_consumer_init(void);

#endif							/* HC_CONSUMER_H */
