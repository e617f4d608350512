/*
 * entries.h
 *	  A set of entries, in little memory: which ones do rows have?
 */
#ifndef HC_ENTRIES_H
#define HC_ENTRIES_H

#include "mapping/op.h"

typedef struct HcEntries HcEntries;

/*
 * An empty set for about so many entries, in the current context; NULL if that
 * would take more than half of maintenance_work_mem.
 */
extern HcEntries *hc_entries_create(double estimated);

/*
 * The hash of an entry, other in each set; member is NULL for a whole key.  Is it
 * there?  Adds it, and says whether it was there.  Another entry can be taken for
 * it: with a chance of about one in a billion.
 */
extern uint64 hc_entries_hash(const HcEntries *entries, HcBytes key,
							  const HcBytes *member);
extern bool hc_entries_has(const HcEntries *entries, uint64 hash);
extern bool hc_entries_add(HcEntries *entries, uint64 hash);

/* It will be asked for or added soon. */
extern void hc_entries_expect(const HcEntries *entries, uint64 hash);

/* Has all that was added; if not, has() and add() are always false. */
extern bool hc_entries_is_complete(const HcEntries *entries);

#endif							/* HC_ENTRIES_H */
