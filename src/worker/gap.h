/*
 * gap.h
 *	  Changes that may be missing in Redis and will not be read again: every
 *	  mapping owes a comparison with its table, and the log says why.
 */
#ifndef HC_GAP_H
#define HC_GAP_H

#include "access/transam.h"
#include "nodes/pg_list.h"

/*
 * The position from which to read on is known, and changes before it may be
 * missing: marks that as owed, in a transaction of its own.  reason is a
 * sentence; it is logged, unless it was the last one and nothing has worked
 * since.
 *
 * Transactions that are open at this moment may have written changes before
 * that position, which nobody will find when they commit.  So everything is
 * owed once more when all of them have ended.
 */
extern void hc_gap_owe(const char *reason);

/*
 * The same with the caller's transaction; open is what hc_gap_open_now() said
 * after the position was known and before the transaction got an xid.
 */
extern void hc_gap_owe_here(const char *reason, FullTransactionId open);

/*
 * Records of the keeper for these mappings (a list of Oid, freed) cannot be handed
 * out again, as the WAL is read from the middle of their windows: they owe.  To be
 * called before the watermark can pass them.  Opens a transaction of its own.
 */
extern void hc_gap_owe_lost(List *mappings);

/* All open transactions are before this one; invalid if there are none. */
extern FullTransactionId hc_gap_open_now(void);

/* Something worked: a gap after this is news. */
extern void hc_gap_forget(void);

/* Such transactions are still open: those before this one. */
extern void hc_gap_set_unsettled(FullTransactionId unsettled);

/* Have they ended by now?  To be called now and then, outside transactions. */
extern void hc_gap_look(void);

#endif							/* HC_GAP_H */
