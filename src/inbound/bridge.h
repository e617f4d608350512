/*
 * bridge.h
 *	  The bridge process of a database: messages of Redis become notifications.
 */
#ifndef HC_BRIDGE_H
#define HC_BRIDGE_H

#include "postgres.h"

extern PGDLLEXPORT void hc_bridge_main(Datum arg);

/* To be called once, from _PG_init. */
extern void hc_bridge_init(void);

#endif							/* HC_BRIDGE_H */
