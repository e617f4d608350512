/*
 * georedis.h
 *	  A geo index, searched in Redis.
 */
#ifndef HC_GEOREDIS_H
#define HC_GEOREDIS_H

#include "search/geotable.h"

/*
 * Finds what hc_geotable_search() finds, with items, nearest first, as the current
 * user; but only rows that are in Redis too.  NULL if Redis cannot answer: it is
 * down, which is counted, or errs about such an area, or rows cannot be found by
 * their members.  Raises what a query of Redis and one of the table raise.  SPI is
 * connected.
 */
extern HcGeoRows *hc_georedis_search(HcGeoTable *table, const HcGeoArea *area,
									 int count, const char *filter);

#endif							/* HC_GEOREDIS_H */
