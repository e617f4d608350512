/*
 * lookup.h
 *	  From an entry back to its row.
 */
#ifndef HC_LOOKUP_H
#define HC_LOOKUP_H

#include "capture/shape.h"

/*
 * Captures the entry as the row of the mapping that has it is now.  false if no
 * row has it; then nothing is captured.  The caller holds a lock that keeps
 * writers out of the mapping's table and its partitions.  Sees what is
 * committed or this transaction's own, whatever row security says.  Reads the
 * whole table where no index leads to the row.
 */
extern bool hc_lookup_capture(const HcCandidate *candidate, HcBytes key,
							  const HcBytes *member);

#endif							/* HC_LOOKUP_H */
