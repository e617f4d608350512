/*
 * suspects.h
 *	  A set of entries that were found in Redis, until it is known whose they are.
 */
#ifndef HC_SUSPECTS_H
#define HC_SUSPECTS_H

#include "mapping/op.h"

typedef struct HcSuspect
{
	uint64		hash;			/* hash key; of what follows the prefix */
	HcBytes		key;
	HcBytes		member;			/* data is NULL for a whole key */
	bool		named;			/* free for the caller; false at first */
	char		status;
} HcSuspect;

typedef struct HcSuspects HcSuspects;

/*
 * An empty set, in a context of its own below the current one.  prefix is how many
 * bytes the keys that are added begin with that are not compared.
 */
extern HcSuspects *hc_suspects_create(size_t prefix);

/* Takes all out, and gives back their memory. */
extern void hc_suspects_clear(HcSuspects *suspects);

/* How many there are, and how much memory they take. */
extern uint64 hc_suspects_number(const HcSuspects *suspects);
extern Size hc_suspects_bytes(const HcSuspects *suspects);

/*
 * Adds a copy of an entry; one that is there already stays as it is.  An
 * HcSearchFound (search.h) whose argument is the set.
 */
extern void hc_suspects_add(HcBytes key, const HcBytes *member, void *suspects);

/*
 * The suspect that is the op's entry, or NULL; prefix is what is not compared of
 * the op's key.
 */
extern HcSuspect *hc_suspects_find(const HcSuspects *suspects,
									   const HcOp *op, size_t prefix);

/*
 * All of them, in no order: begin(), then next() until NULL.  Meanwhile nothing is
 * added, and only the one that came last may be taken out.
 */
extern void hc_suspects_begin(HcSuspects *suspects);
extern HcSuspect *hc_suspects_next(HcSuspects *suspects);
extern void hc_suspects_remove(HcSuspects *suspects, HcSuspect *suspect);

#endif							/* HC_SUSPECTS_H */
