/*
 * utility.h
 *	  What commands mean for the background processes.
 */
#ifndef HC_UTILITY_H
#define HC_UTILITY_H

/* Registers the hooks; called once, from _PG_init. */
extern void hc_utility_init(void);

#endif							/* HC_UTILITY_H */
