/*
 * recent.h
 *	  Which rows of a table are new, as a column of theirs says (the option since).
 */
#ifndef HC_RECENT_H
#define HC_RECENT_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "mapping/mapping.h"
#include "storage/block.h"
#include "utils/snapshot.h"

typedef struct HcRecent HcRecent;

/*
 * In a transaction: a time that no transaction can be older than which a snapshot
 * that is taken from now on does not see.  So rows that say when their
 * transaction began, and say an older time, are seen.  If it cannot be known, it
 * is last, which is what it was before, or 0.
 */
extern TimestampTz hc_recent_mark(TimestampTz last);

/*
 * The rows of the mapping's table that are not older than from, in the current
 * context.  Uses an index of the column if there is one.
 */
extern HcRecent *hc_recent_find(Relation rel, const HcMapping *mapping,
								TimestampTz from, Snapshot snapshot);

/*
 * Moves *first on to the first block from there on that can have such rows, and
 * *end back to where the blocks that follow it without a gap end.  false if there
 * are none before *end.
 */
extern bool hc_recent_blocks(const HcRecent *recent, BlockNumber *first,
							 BlockNumber *end);

/* Is this one?  Not if the column is NULL. */
extern bool hc_recent_has(const HcRecent *recent, TupleTableSlot *slot);

#endif							/* HC_RECENT_H */
