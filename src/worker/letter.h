/*
 * letter.h
 *	  Changes that Redis refused for good, and rows that could not be rendered:
 *	  what becomes of them.
 */
#ifndef HC_LETTER_H
#define HC_LETTER_H

#include "worker/batch.h"

/*
 * Notes that Redis refuses the op, with its words (copied), and says so in the
 * log now and then.  At most hybrid_cache.max_dead_letters per batch are kept,
 * the others only counted.
 */
extern void hc_letter_add(HcBatch *batch, int slot, const char *message);

/*
 * Counts and writes what was noted, in a transaction of its own, once the batch is
 * applied.  Never waits for another transaction: letters of events that cannot be
 * written now are tried again by a later call, whatever its batch has.  Raises what
 * writing a table raises.
 */
extern void hc_letter_write(HcBatch *batch);

/* A row that could not be rendered. */
typedef struct HcLetterRow
{
	Oid			relid;
	const char *mapping;
	HcBytes		key;			/* or the key template */
	HcBytes		member;
	bool		has_member;
	const char *message;
	int			sqlstate;		/* ERRCODE_* */
} HcLetterRow;

/*
 * For the keeper: the same for rows that could not be rendered (HcLetterRow *),
 * in a transaction of its own.
 */
extern void hc_letter_rows(const List *rows);

#endif							/* HC_LETTER_H */
