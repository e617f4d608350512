/*
 * fallback.h
 *	  What redis_geosearch() asks for, answered by tables while Redis is down.
 */
#ifndef HC_FALLBACK_H
#define HC_FALLBACK_H

#include "nodes/execnodes.h"
#include "search/geoquery.h"

/*
 * Puts what is near into the result of the SQL function, as Redis would say it;
 * down is why it cannot.  Warns once per session, and counts.  false if no
 * mapping has the key, or its owner cannot see all rows: then nothing happened.
 */
extern bool hc_fallback_search(const HcGeoQuery *query, const ErrorData *down,
							   ReturnSetInfo *rsinfo);

#endif							/* HC_FALLBACK_H */
