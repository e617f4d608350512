/*
 * rowplan.h
 *	  Queries for rows of a table, whose plans are kept for the session.
 */
#ifndef HC_ROWPLAN_H
#define HC_ROWPLAN_H

#include "executor/spi.h"

/*
 * Executes a query of one column with the snapshot of the caller, and calls take()
 * for each value that is not NULL, in a memory context that lasts until it
 * returns.  SPI is connected.
 */
extern void hc_rowplan_run(SPIPlanPtr plan, ParamListInfo params,
						   void (*take) (Datum item, void *arg), void *arg);

/* The same for a query whose plan is kept, to be found by its text. */
extern void hc_rowplan_execute(const char *query, int n_params, Oid *types,
							   ParamListInfo params,
							   void (*take) (Datum item, void *arg), void *arg);

#endif							/* HC_ROWPLAN_H */
