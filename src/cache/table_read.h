/*
 * table_read.h
 *	  What a mapping has at one key, read from its table.
 */
#ifndef HC_TABLE_READ_H
#define HC_TABLE_READ_H

#include "cache/readable.h"
#include "executor/tuptable.h"
#include "mapping/render.h"
#include "utils/jsonb.h"

/*
 * Reads the rows with a query of the current user, under the policies and with
 * the snapshot that it has; values are those of readable->keys, key what they
 * render.  slot is a virtual one of the table.  The result is in the current
 * memory context; NULL: no row has an entry there.  Raises what the query and
 * the mapping's expressions raise.
 */
extern Jsonb *hc_table_read(HcReadable *readable, HcRenderer *renderer,
							TupleTableSlot *slot, Datum *values, HcBytes key);

#endif							/* HC_TABLE_READ_H */
