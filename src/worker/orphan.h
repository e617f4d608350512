/*
 * orphan.h
 *	  Removes the entries of a mapping that no row has.
 */
#ifndef HC_ORPHAN_H
#define HC_ORPHAN_H

#include "worker/settle.h"

/*
 * As the mapping's option orphans says.  false if the mapping is not what it
 * was.
 */
extern bool hc_orphan_remove(HcSettle *settle);

#endif							/* HC_ORPHAN_H */
