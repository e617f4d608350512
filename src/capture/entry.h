/*
 * entry.h
 *	  One row's entry, into the transaction's change record.
 */
#ifndef HC_ENTRY_H
#define HC_ENTRY_H

#include "mapping/render.h"

/*
 * hc_render_entry() for capture: counts rows that Redis cannot hold, and warns
 * of a value that is too long, whose op is then the removal of the entry.  That
 * removal must not get a version: it ends no version, it always counts.
 */
extern HcRendered hc_entry_render(HcRenderer *renderer, TupleTableSlot *slot,
								  HcOp *op);

/* Counts and warns of a value or event that is too long for Redis. */
extern void hc_entry_warn_oversize(const HcOp *op);

/* The version of a row of this table: it is tid of its present storage. */
extern HcVersion hc_entry_version(Relation rel, ItemPointer tid);

/*
 * Captures that the row version has its entry, or that its entry ends with it.
 * known: the version is not new, so Redis may have the entry.
 * Return whether there was one.
 */
extern bool hc_entry_set(HcRenderer *renderer, TupleTableSlot *slot,
						 HcVersion version, bool known);
extern bool hc_entry_remove(HcRenderer *renderer, TupleTableSlot *slot,
							HcVersion version);

/* Captures that a version had arrived whose end was captured already. */
extern bool hc_entry_arrive(HcRenderer *renderer, TupleTableSlot *slot,
							HcVersion version);

#endif							/* HC_ENTRY_H */
