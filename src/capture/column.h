/*
 * column.h
 *	  What DDL on a column means to the mappings of its table.
 *
 * Called by the object access hook, before the command counter moves on.  What
 * changes rows without firing triggers is owed; what would break a mapping is
 * raised.  Quick for tables without mappings.
 */
#ifndef HC_COLUMN_H
#define HC_COLUMN_H

#include "access/attnum.h"

extern void hc_column_added(Oid relid, AttrNumber attnum);
extern void hc_column_dropped(Oid relid, AttrNumber attnum);

/*
 * Its name or its type may have changed.  A column that is named cannot be renamed;
 * PostgreSQL itself would let it happen, where it refuses to drop or retype it.
 */
extern void hc_column_altered(Oid relid, AttrNumber attnum);

/*
 * It has got another default.  Of a generated column that is what computes it, and
 * the rows are computed anew without firing triggers.
 */
extern void hc_column_computed(Oid relid, AttrNumber attnum);

#endif							/* HC_COLUMN_H */
