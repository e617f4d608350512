/*
 * orphan.h
 *	  Removes the entries of a mapping that no row has.
 */
#ifndef HC_ORPHAN_H
#define HC_ORPHAN_H

#include "keeper/settle.h"

/* As the mapping's option orphans says; counts them either way. */
extern HcRunResult hc_orphan_remove(HcSettle *settle);

#endif							/* HC_ORPHAN_H */
