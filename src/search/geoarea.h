/*
 * geoarea.h
 *	  A circle or a box on the Earth, as Redis measures it.
 *
 * Distances are in metres, along great circles of the sphere that Redis takes the
 * Earth for; positions are in degrees.
 */
#ifndef HC_GEOAREA_H
#define HC_GEOAREA_H

#include "c.h"

#include <math.h>

/* The range of the Mercator projection that Redis's geohashes divide. */
#define HC_MAX_LONGITUDE	180.0
#define HC_MAX_LATITUDE		85.05112878

/*
 * The sphere that Redis takes the Earth for.  It finds all that is in a circle if
 * this ends before HC_MAX_REACH degrees of latitude, or if its radius is more than
 * HC_SEARCHES_ALL metres: nearest.c says why.
 */
#define HC_EARTH_RADIUS		6372797.560856
#define HC_METRES_PER_DEGREE	(HC_EARTH_RADIUS * M_PI / 180.0)
#define HC_MAX_REACH		89.5
#define HC_SEARCHES_ALL		5010000.0

typedef struct HcGeoArea
{
	bool		box;			/* not a circle */
	double		longitude;		/* of the centre */
	double		latitude;
	double		radius;			/* of a circle */
	double		width;			/* of a box */
	double		height;
} HcGeoArea;

/* Contains every position of an area; west > east: across the 180th meridian. */
typedef struct HcGeoBounds
{
	bool		all_longitudes;
	double		west;
	double		east;
	double		south;
	double		north;
} HcGeoBounds;

/* Is the position in the area?  If so, *distance is its distance from the centre. */
extern bool hc_geoarea_contains(const HcGeoArea *area, double longitude,
								double latitude, double *distance);

/* The distance from the centre beyond which nothing is in the area. */
extern double hc_geoarea_reach(const HcGeoArea *area);

/* Bounds that are a little wider than needed. */
extern void hc_geoarea_bounds(const HcGeoArea *area, HcGeoBounds *bounds);

/* The bounds of what is in the area and no further away than distance. */
extern void hc_geoarea_bounds_within(const HcGeoArea *area, double distance,
									 HcGeoBounds *bounds);

/* The position that Redis has for one that it was given: it keeps 52 bits. */
extern void hc_geoarea_round(double *longitude, double *latitude);

/* The metres of a unit, in lower or upper case; 0: there is no such unit. */
extern double hc_geoarea_unit(const char *unit);

#endif							/* HC_GEOAREA_H */
