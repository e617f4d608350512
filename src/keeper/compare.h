/*
 * compare.h
 *	  Does Redis hold what the rows of a table say it should?
 *
 * Rows are added as ops while they are read from the table; Redis is asked for
 * their entries meanwhile, without waiting.  The answers are awaited later, when
 * no transaction is open any more.
 */
#ifndef HC_COMPARE_H
#define HC_COMPARE_H

#include "mapping/op.h"
#include "redis/connection.h"

typedef enum HcVerdict
{
	HC_VERDICT_MISSING,			/* there is no such entry */
	HC_VERDICT_STALE,			/* it holds something else, or is there and
								 * should not be */
	HC_VERDICT_CONFLICTING		/* the key holds another type of Redis */
} HcVerdict;

/* What is asked about the time at which a key expires. */
typedef enum HcCompareExpiry
{
	HC_COMPARE_NO_EXPIRY,		/* nothing */
	HC_COMPARE_SOME_EXPIRY,		/* that there is one, where the op has one (ttl) */
	HC_COMPARE_SAME_EXPIRY		/* that it is the op's, or none (expires_at) */
} HcCompareExpiry;

typedef struct HcCompare HcCompare;

typedef void (*HcCompareFound) (const HcOp *op, HcVerdict verdict, void *arg);

/*
 * Lives in the current memory context.  The connection must have no reply
 * outstanding, and is used by nobody else between the first add and finish.  If
 * anything raises in between, it must be closed, and this thrown away with it.
 */
extern HcCompare *hc_compare_create(HcConnection *conn, HcCompareExpiry expiry);

/*
 * Adds what an entry should be (a removal: it should not be there), copying what
 * is needed.  Sends and reads what can be without waiting.  Raises 08006, 08P01.
 */
extern void hc_compare_add(HcCompare *compare, const HcOp *op);

/* Is it time to finish?  So is the memory bounded that this takes. */
extern bool hc_compare_is_full(const HcCompare *compare);

/*
 * Waits for the answers, serving interrupts, and calls found, in the order of the
 * adds, for each entry that is not as it should be; the op's bytes last until
 * the next add.  An absent entry that has expired, or an absent timer that was due, is as it
 * should be.  Then all
 * is forgotten, and it can be used again.
 *
 * Raises what Redis refuses, 08006 if it is silent for hybrid_cache.command_timeout
 * or lost, 08P01.  Not to be called in a transaction.
 */
extern void hc_compare_finish(HcCompare *compare, HcCompareFound found, void *arg);

#endif							/* HC_COMPARE_H */
