/*
 * broken.h
 *	  Builds that break one promise, to see that the tests notice it.
 *
 * make BREAK=commit (flush, watermark ...) defines HC_BREAK; see test/broken.
 * In any other build hc_breaks() is false at compile time, and nothing of what
 * depends on it is there.
 */
#ifndef HC_BROKEN_H
#define HC_BROKEN_H

#define HC_BREAK_NOTHING	0
#define HC_BREAK_COMMIT		1	/* applies ops before their transaction commits */
#define HC_BREAK_FLUSH		2	/* applies commits that a crash can take back */
#define HC_BREAK_WATERMARK	3	/* does not look at the position in Redis */
#define HC_BREAK_FENCE		4	/* lets late batches of old connections land */
#define HC_BREAK_SUBABORT	5	/* keeps the ops of savepoints rolled back */
#define HC_BREAK_REPLY		6	/* takes an error reply for a success */
#define HC_BREAK_SUPERSEDED 7	/* captures a version that was replaced before */
#define HC_BREAK_WINDOW		8	/* repairs entries that were changed meanwhile */
#define HC_BREAK_LATE		9	/* forgets rows that move within the table */
#define HC_BREAK_ONCE		10	/* applies events of a cut transaction again */
#define HC_BREAK_ORDER		11	/* applies events before what came before them */
#define HC_BREAK_LEASE		12	/* stores results that an invalidation has overtaken */
#define HC_BREAK_MARK		13	/* keeps what a rolled back transaction holds */
#define HC_BREAK_DUE		14	/* fires timers before changes made in time */

#ifndef HC_BREAK
#define HC_BREAK	HC_BREAK_NOTHING
#endif

#define hc_breaks(promise)	(HC_BREAK == (promise))

#endif							/* HC_BROKEN_H */
