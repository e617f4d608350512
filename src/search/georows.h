/*
 * georows.h
 *	  What a search found, sorted by distance.
 */
#ifndef HC_GEOROWS_H
#define HC_GEOROWS_H

#include "mapping/op.h"

typedef struct HcGeoRow
{
	Datum		item;			/* the row; 0: not kept */
	double		distance;		/* in metres */
	HcBytes		member;
	double		longitude;
	double		latitude;
} HcGeoRow;

typedef struct HcGeoRows HcGeoRows;

/*
 * Lives in the current memory context and in temporary files, until
 * hc_georows_end().  item_type: the type of the items, InvalidOid if none are
 * kept.  count: no more than that many, the first ones, come out; 0: all.
 */
extern HcGeoRows *hc_georows_begin(Oid item_type, int count, bool descending);

/* Takes a copy of the row. */
extern void hc_georows_add(HcGeoRows *rows, const HcGeoRow *row);

/* How many were added that are no further away than this? */
extern int64 hc_georows_within(const HcGeoRows *rows, double distance);

/*
 * The next row, nearest first (descending: last), those of one distance by their
 * members; false after the last.  It stays until the next call.  After the first
 * call nothing can be added.
 */
extern bool hc_georows_next(HcGeoRows *rows, HcGeoRow *row);

extern void hc_georows_end(HcGeoRows *rows);

#endif							/* HC_GEOROWS_H */
