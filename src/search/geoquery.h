/*
 * geoquery.h
 *	  What is asked of a geo index, and what Redis answers.
 */
#ifndef HC_GEOQUERY_H
#define HC_GEOQUERY_H

#include "mapping/op.h"
#include "redis/reply.h"
#include "search/geoarea.h"

typedef enum HcGeoSort
{
	HC_GEO_UNSORTED,
	HC_GEO_NEAREST_FIRST,
	HC_GEO_NEAREST_LAST
} HcGeoSort;

typedef struct HcGeoQuery
{
	HcBytes		key;			/* as Redis has it */
	HcBytes		member;			/* the centre is its position, if data is not NULL */
	HcGeoArea	area;			/* lengths are in units */
	const char *unit;			/* for Redis, */
	double		metres;			/* and so long */
	HcGeoSort	sort;
	int			count;			/* 0: all */
	bool		any;			/* with a count: the first that are found will do */
} HcGeoQuery;

/* The key as Redis has it: with hybrid_cache.key_prefix, in UTF-8. */
extern HcBytes hc_geoquery_key(const text *key);

/*
 * Asks Redis, for the nearest few in a smaller area where that finds the same.  The
 * reply is an array of those that hc_geoquery_read() reads.  NULL where there is no
 * such member to begin at, and, unless hybrid_cache.fallback is off, where Redis is
 * down; then *down is why.  Raises what hc_session_ask() raises, and what Redis says.
 */
extern const redisReply *hc_geoquery_ask(const HcGeoQuery *query, ErrorData **down);

/* One of the answer. */
typedef struct HcGeoFound
{
	const redisReply *member;
	double		distance;		/* in the query's unit */
	double		longitude;
	double		latitude;
} HcGeoFound;

extern HcGeoFound hc_geoquery_read(const redisReply *reply);

#endif							/* HC_GEOQUERY_H */
