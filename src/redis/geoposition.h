/*
 * geoposition.h
 *	  The position that Redis gives back for a score.
 */
#ifndef HC_GEOPOSITION_H
#define HC_GEOPOSITION_H

/*
 * What GEOPOS says of a member with this score, see geohash.h; also for scores
 * that no position has.
 */
extern void hc_geoposition_of(double score, double *longitude, double *latitude);

#endif							/* HC_GEOPOSITION_H */
