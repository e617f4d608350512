/*
 * letter.h
 *	  Changes that Redis refused for good: the table hybrid_cache.dead_letter.
 */
#ifndef HC_LETTER_H
#define HC_LETTER_H

#include "utils/relcache.h"
#include "worker/batch.h"

/* The columns of the table. */
#define Anum_letter_id			1
#define Anum_letter_relation	2
#define Anum_letter_mapping		3
#define Anum_letter_op			4
#define Anum_letter_key			5
#define Anum_letter_member		6
#define Anum_letter_error		7
#define Anum_letter_sqlstate	8
#define Anum_letter_lsn			9
#define Anum_letter_attempts	10
#define Anum_letter_since		11
#define Anum_letter_at			12
#define Anum_letter_entry		13
#define Natts_letter			13

/*
 * Notes that Redis refuses the op, with its words (copied), and says so in the
 * log now and then.  At most hybrid_cache.max_dead_letters per batch are kept,
 * the others only counted.
 */
extern void hc_letter_add(HcBatch *batch, int slot, const char *message);

/*
 * Counts and writes what was noted, in a transaction of its own, once the batch is
 * applied.  Never waits for another transaction.  Raises what writing a table
 * raises.
 */
extern void hc_letter_write(HcBatch *batch);

/*
 * Deletes a letter with the current transaction, without waiting; false if
 * somebody else is doing something with it.
 */
extern bool hc_letter_delete(Relation rel, ItemPointer tid);

#define HC_LETTER_PRIMARY_KEY	"dead_letter_pkey"

/* An index of the table by its name; InvalidOid if somebody dropped it. */
extern Oid	hc_letter_index(Relation rel, const char *name);

#endif							/* HC_LETTER_H */
