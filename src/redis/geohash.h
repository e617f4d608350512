/*
 * geohash.h
 *	  The score that Redis gives a position.
 */
#ifndef HC_GEOHASH_H
#define HC_GEOHASH_H

/*
 * What ZSCORE says after GEOADD with this position, which GEOADD must accept:
 * degrees, the longitude within 180, the latitude within 85.05112878.
 */
extern double hc_geohash_score(double longitude, double latitude);

#endif							/* HC_GEOHASH_H */
