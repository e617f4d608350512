/*
 * capture.h
 *	  Turning all rows of a table into ops of the current transaction.
 */
#ifndef HC_CAPTURE_H
#define HC_CAPTURE_H

#include "mapping/mapping.h"
#include "mapping/render.h"

/*
 * Captures every row of the table (and, for a partitioned table, of its
 * partitions) as the mapping's entry, or the entry's removal.  The caller
 * holds a lock that keeps writers out.  Sees all rows that are committed or
 * this transaction's own, whatever the isolation level and row security.
 * Returns the number of entries.
 */
extern uint64 hc_capture_table(Relation rel, const char *name,
							   const HcOptions *options, bool remove);

/* The same for one table with rows of its own, by its renderer. */
extern uint64 hc_capture_rows(Relation rel, HcRenderer *renderer, bool remove);

#endif							/* HC_CAPTURE_H */
