/*
 * capture.h
 *	  Turning all rows of a table into ops of the current transaction.
 */
#ifndef HC_CAPTURE_H
#define HC_CAPTURE_H

#include "mapping/mapping.h"
#include "mapping/render.h"
#include "storage/block.h"
#include "utils/snapshot.h"

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

/* A row that cannot be rendered. */
typedef struct HcCaptureFailure
{
	bool		has_place;		/* op is the removal of the entry that it has */
	HcOp		op;
	const ErrorData *error;
} HcCaptureFailure;

/* Which rows of a table the keeper reads, and what it makes of them. */
typedef struct HcCaptureRange
{
	ItemPointerData next;		/* where the rows are; invalid: from the first */
	BlockNumber end;			/* up to before this block, or InvalidBlockNumber */
	TransactionId since;		/* if valid: only versions that it or a later
								 * transaction made */
	TimestampTz newer;			/* if not 0: only rows whose since column is not
								 * older */
	const struct HcRecent *recent;	/* which those are, or NULL */
	bool		identity;		/* which entries there are, as removals */
	bool		careful;		/* leave a row out that cannot be rendered */

	/* called for each op, which has no version, and now and then */
	void		(*put) (const HcOp *op, void *arg);
	void		(*pause) (void);

	/* may be NULL: for a row that is left out; to end before the next one */
	void		(*failed) (const HcCaptureFailure *failure, void *arg);
	bool		(*is_full) (void *arg);
	void	   *arg;

	/* result; next is where to go on */
	bool		at_end;			/* all was read */
	uint64		n_rows;			/* that were read, rendered or not */
	uint64		n_failed;		/* rows that were left out */
	char		problem[256];	/* why the first of them */
} HcCaptureRange;

/*
 * Renders the rows of a table with storage that snapshot sees, in the order of
 * their places.  Where the table cannot be read from the middle, it is read from
 * its beginning, and what comes before range->next is left out.  Takes no lock
 * but the caller's, and writes nothing.  Raises what the mapping's expressions
 * raise, unless careful.
 */
extern void hc_capture_range(Relation rel, HcRenderer *renderer,
							 Snapshot snapshot, HcCaptureRange *range);

#endif							/* HC_CAPTURE_H */
