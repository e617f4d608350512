/*
 * companion.h
 *	  The TRUNCATE trigger of a mapping, on its table and on every partition.
 */
#ifndef HC_COMPANION_H
#define HC_COMPANION_H

#include "capture/catalog.h"

/*
 * To be called by the object access hook when a trigger was created (or
 * replaced): the row trigger of a table or of a partition, or the TRUNCATE
 * trigger of a table.  They can come in any order.
 */
extern void hc_companion_row_created(const HcTrigger *row);
extern void hc_companion_truncate_created(const HcTrigger *truncate);

/* The TRUNCATE trigger of a table was enabled or disabled. */
extern void hc_companion_truncate_altered(const HcTrigger *truncate);

#endif							/* HC_COMPANION_H */
