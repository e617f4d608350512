/*
 * named.h
 *	  Which entries of a dropped mapping do the rows of its table name?
 */
#ifndef HC_NAMED_H
#define HC_NAMED_H

#include "capture/leftover.h"
#include "keeper/suspects.h"

/*
 * In a transaction: marks those of the entries as named that a row has now, by the
 * columns of the templates alone; none if the table is gone, or lacks one of them.
 */
extern void hc_named_mark(const HcLeftover *leftover, const HcShape *shape,
						  HcSuspects *entries);

#endif							/* HC_NAMED_H */
