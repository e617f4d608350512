/*
 * geotable.h
 *	  A geo index, searched in the table it is made from.
 */
#ifndef HC_GEOTABLE_H
#define HC_GEOTABLE_H

#include "capture/shape.h"
#include "mapping/render.h"
#include "search/geoarea.h"
#include "search/georows.h"

/* One key of a mapping of kind geo. */
typedef struct HcGeoTable
{
	Relation	rel;
	HcMapping  *mapping;
	HcShape		shape;
	HcRenderer *renderer;
	HcBytes		key;			/* with hybrid_cache.key_prefix, in UTF-8 */
	bool		as_owner;		/* the current user is the mapping's owner, the
								 * settings are pinned: any expression may be
								 * part of a query */
	bool		rounded;		/* positions are to be those that Redis has */
	TupleTableSlot *slot;
} HcGeoTable;

/*
 * Opens the index of a mapping: trigger is that of rel, on which the caller
 * holds a lock.  It lasts as long as the current memory context, but is to be
 * closed where no error is raised.
 */
extern HcGeoTable *hc_geotable_open(Relation rel, const HcTrigger *trigger,
									HcBytes key);

extern void hc_geotable_close(HcGeoTable *table);

/*
 * What the row (of the table's type) is in the index: everything but the
 * distance.  false if it has no entry at this key.  The member stays until the
 * second next call.
 */
extern bool hc_geotable_read(HcGeoTable *table, Datum item, HcGeoRow *row);

/* "SELECT row FROM table WHERE ": what every query here begins with. */
extern void hc_geotable_begin_query(const HcGeoTable *table, StringInfo query);

/*
 * Searches the table as the current user: rows of the index in the area for
 * which filter, SQL over the row, is true (NULL: all rows), with count > 0 no
 * more than the nearest.  With an item if items is true.
 *
 * With an index on longitude or latitude only that part of the table is read; if
 * there is a count, beginning with a small area.  SPI is connected.
 */
extern HcGeoRows *hc_geotable_search(HcGeoTable *table, const HcGeoArea *area,
									 int count, bool descending,
									 const char *filter, bool items);

/*
 * Where the index has the member, and whether it has it; as the current user.  SPI
 * is connected.
 */
extern bool hc_geotable_locate(HcGeoTable *table, HcBytes member,
							   double *longitude, double *latitude);

#endif							/* HC_GEOTABLE_H */
