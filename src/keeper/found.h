/*
 * found.h
 *	  What differs in a chunk of a run, and what is done about it.
 */
#ifndef HC_FOUND_H
#define HC_FOUND_H

#include "keeper/settle.h"

/*
 * A chunk begins: all that was found before is forgotten.  To be called before
 * the transaction that reads it.  again: it may have rows that were read before.
 */
extern void hc_found_begin(HcSettle *settle, bool again);

/*
 * What an entry should be; the bytes are copied.  add_row() also remembers which
 * entries rows have.  Is it enough for a chunk?
 */
extern void hc_found_add(HcSettle *settle, const HcOp *op);
extern void hc_found_add_row(HcSettle *settle, const HcOp *op);
extern bool hc_found_is_full(const HcSettle *settle);

/*
 * A row that could not be rendered: its entry, if it is known, is removed, and it
 * becomes a dead letter once the chunk is over.
 */
extern void hc_found_fail(HcSettle *settle, const HcCaptureFailure *failure);

/*
 * The chunk ends, and no transaction is open: compares what was added with Redis,
 * writes what differs as change records of the open window, waits until they are
 * applied, and counts.  If the outcome is not HC_WINDOW_TAKEN, nothing counts, and
 * the chunk is to be done again.
 */
extern HcWindowOutcome hc_found_settle(HcSettle *settle);

/*
 * The same for removals of entries that no row has; report: they are only to be
 * counted.
 */
extern HcWindowOutcome hc_found_settle_orphans(HcSettle *settle, bool report);

#endif							/* HC_FOUND_H */
