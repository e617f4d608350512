/*
 * lookup.h
 *	  From an entry back to its row.
 */
#ifndef HC_LOOKUP_H
#define HC_LOOKUP_H

#include "capture/shape.h"
#include "mapping/render.h"
#include "storage/block.h"

/*
 * A row that has the entry; it is the mapping's, and renderer that of its table.
 * false: no more rows are wanted.
 */
typedef bool (*HcLookupFound) (HcRenderer *renderer, Relation rel,
							   TupleTableSlot *slot, void *arg);

/*
 * Calls found for the rows of the mapping that have the entry; member NULL: any
 * entry at the key.  Sees what is committed or this transaction's own, whatever
 * row security says.  Where no index leads to the rows, a table is read from its
 * beginning to its end; if it has more than most_blocks, it is not, and the
 * result is false.  InvalidBlockNumber: there is no limit.  Takes ACCESS SHARE
 * locks only.
 */
extern bool hc_lookup_rows(const HcCandidate *candidate, HcBytes key,
						   const HcBytes *member, BlockNumber most_blocks,
						   HcLookupFound found, void *arg);

/*
 * Captures the entry as the row of the mapping that has it is now.  false if no
 * row has it; then nothing is captured.  The caller holds a lock that keeps
 * writers out of the mapping's table and its partitions.  Reads the whole table
 * where no index leads to the row.
 */
extern bool hc_lookup_capture(const HcCandidate *candidate, HcBytes key,
							  const HcBytes *member);

#endif							/* HC_LOOKUP_H */
