/*
 * twice.h
 *	  Rows that seem to share an entry.
 */
#ifndef HC_TWICE_H
#define HC_TWICE_H

#include "keeper/settle.h"

/*
 * An entry differs, and the run came by it before.  false if there are too many
 * of those.
 */
extern bool hc_twice_add(HcSettle *settle, uint64 hash);

/*
 * After all rows are read: finds out which of those entries several rows have,
 * which are counted as conflicting and named in the log, and makes the others
 * equal.
 */
extern HcRunResult hc_twice_settle(HcSettle *settle);

#endif							/* HC_TWICE_H */
