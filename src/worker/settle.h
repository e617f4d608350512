/*
 * settle.h
 *	  Makes one mapping equal to its table.
 */
#ifndef HC_SETTLE_H
#define HC_SETTLE_H

#include "capture/capture.h"
#include "capture/catalog.h"
#include "shmem.h"

/* A mapping that is being made equal. */
typedef struct HcSettle
{
	HcDatabase *db;
	MemoryContext context;		/* of all below */
	HcTrigger  *trigger;		/* as it was at the beginning */
	HcOptions	options;
	bool		remove;			/* an absent entry is right, an old one is not */
	bool		careful;		/* a row whose expressions raise is left out */
	bool		reading;		/* expressions are being evaluated */

	uint64		n_written;
	uint64		n_orphans;		/* entries without a row that were removed */
	uint64		n_failed;		/* rows that were left out */
	char		problem[256];	/* why the first of them */
} HcSettle;

/*
 * Captures the rows of a mapping again, removes the entries that no row has, and
 * forgets what was owed when it began.  If the mapping changes or vanishes
 * meanwhile, it stops, and owes what it owed.  Opens transactions of its own;
 * blocks no writer.  Raises whatever goes wrong.
 */
extern void hc_settle_mapping(HcDatabase *db, Oid mapping);

/*
 * In a transaction: is the mapping what it was at the beginning?  And the tables
 * (list of Oid) that have its rows.
 */
extern bool hc_settle_is_current(const HcSettle *settle);
extern List *hc_settle_tables(const HcSettle *settle);

/*
 * Reads rows of a table of the mapping with a new snapshot, into range->put.
 * *oldest is a transaction that is not older than any that the snapshot does not
 * see; may be NULL.
 */
extern void hc_settle_read(HcSettle *settle, Relation rel,
						   HcCaptureRange *range, TransactionId *oldest);

#endif							/* HC_SETTLE_H */
