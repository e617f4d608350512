/*
 * rows.h
 *	  The rows of a mapping, as a run reads them.
 */
#ifndef HC_ROWS_H
#define HC_ROWS_H

#include "keeper/settle.h"

/*
 * In a transaction: is the mapping what it was at the beginning?  And the tables
 * (list of Oid) that have its rows.
 */
extern bool hc_rows_is_current(const HcSettle *settle);
extern List *hc_rows_tables(const HcSettle *settle);

/*
 * In a transaction: reads rows of a table of the mapping with a new snapshot, into
 * range->put.  *oldest is a transaction that is not older than any that the
 * snapshot does not see; may be NULL.
 */
extern void hc_rows_read(HcSettle *settle, Relation rel, HcCaptureRange *range,
						 TransactionId *oldest);

/*
 * After an error in hc_rows_read() that a row's expressions raised, which is thrown
 * away: from now on such rows are left out.  What was being compared is forgotten.
 * Anything else is raised again.
 */
extern void hc_rows_take_care(HcSettle *settle);

/*
 * Reads all rows in a transaction of its own, whatever their expressions do: so
 * often anew, after begin(what->arg), which may be NULL.  identity, put and arg are
 * taken from what.  false if the mapping is not what it was.
 */
extern bool hc_rows_read_all(HcSettle *settle, const HcCaptureRange *what,
							 void (*begin) (void *arg));

#endif							/* HC_ROWS_H */
