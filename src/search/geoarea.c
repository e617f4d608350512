/*
 * geoarea.c
 *	  A circle or a box on the Earth, as Redis measures it.
 *
 * A table and Redis are to give the same answer, so the sphere has the radius
 * that Redis takes, and a box is what Redis takes for one: as high along the
 * meridian and as wide along the parallel of the position in question.
 */
#include "postgres.h"

#include <float.h>
#include <math.h>

#include "search/geoarea.h"

#define RADIANS(degrees)	((degrees) * (M_PI / 180.0))
#define DEGREES(radians)	((radians) * (180.0 / M_PI))

/* How much wider bounds are than they would have to be, in degrees: a cell of
 * Redis's grid, which also covers what arithmetic loses. */
#define SLACK	1e-5

/* Cells of Redis's grid, each way. */
#define CELLS	67108864.0

static double
distance_between(double longitude1, double latitude1,
				 double longitude2, double latitude2)
{
	double		phi1 = RADIANS(latitude1);
	double		phi2 = RADIANS(latitude2);
	double		u = sin((phi2 - phi1) / 2);
	double		v = sin((RADIANS(longitude2) - RADIANS(longitude1)) / 2);

	return 2 * HC_EARTH_RADIUS * asin(sqrt(Min(u * u + cos(phi1) * cos(phi2) * v * v, 1)));
}

bool
hc_geoarea_contains(const HcGeoArea *area, double longitude, double latitude,
					double *distance)
{
	if (area->box &&
		(distance_between(area->longitude, area->latitude,
						  area->longitude, latitude) > area->height / 2 ||
		 distance_between(area->longitude, latitude,
						  longitude, latitude) > area->width / 2))
		return false;
	*distance = distance_between(area->longitude, area->latitude,
								 longitude, latitude);
	return area->box || *distance <= area->radius;
}

double
hc_geoarea_reach(const HcGeoArea *area)
{
	/* there and then along the parallel is a way, if not the shortest one */
	double		reach = area->box ? (area->width + area->height) / 2 : area->radius;

	return Min(reach, M_PI * HC_EARTH_RADIUS) + 1;
}

/* Sets the longitudes up to so many degrees from the centre. */
static void
set_longitudes(HcGeoBounds *bounds, double longitude, double degrees)
{
	degrees += SLACK;
	bounds->all_longitudes = !(degrees < 180);
	bounds->west = longitude - degrees;
	bounds->east = longitude + degrees;
	if (bounds->west < -180)
		bounds->west += 360;
	if (bounds->east > 180)
		bounds->east -= 360;
}

static void
bound_circle(double longitude, double latitude, double radius, HcGeoBounds *bounds)
{
	double		angle = radius / HC_EARTH_RADIUS;

	bounds->south = latitude - DEGREES(angle) - SLACK;
	bounds->north = latitude + DEGREES(angle) + SLACK;

	/* a circle around a pole has all longitudes */
	if (bounds->south <= -90 || bounds->north >= 90)
		set_longitudes(bounds, longitude, 180);
	else
		set_longitudes(bounds, longitude,
					   DEGREES(asin(Min(sin(angle) / cos(RADIANS(latitude)), 1))));
}

static void
bound_box(const HcGeoArea *area, HcGeoBounds *bounds)
{
	double		height = DEGREES(area->height / 2 / HC_EARTH_RADIUS);
	double		angle = area->width / 4 / HC_EARTH_RADIUS;
	double		narrow;

	bounds->south = area->latitude - height - SLACK;
	bounds->north = area->latitude + height + SLACK;

	/* where the parallel is shortest, the width has the most longitudes */
	narrow = cos(RADIANS(Min(Max(fabs(bounds->south), fabs(bounds->north)), 90)));
	if (angle >= M_PI_2 || sin(angle) >= narrow)
		set_longitudes(bounds, area->longitude, 180);
	else
		set_longitudes(bounds, area->longitude,
					   DEGREES(2 * asin(sin(angle) / narrow)));
}

void
hc_geoarea_bounds(const HcGeoArea *area, HcGeoBounds *bounds)
{
	if (area->box)
		bound_box(area, bounds);
	else
		bound_circle(area->longitude, area->latitude, area->radius, bounds);
}

void
hc_geoarea_bounds_within(const HcGeoArea *area, double distance,
						 HcGeoBounds *bounds)
{
	bound_circle(area->longitude, area->latitude,
				 area->box ? distance : Min(distance, area->radius), bounds);
}

/* The middle of the cell that the value is in. */
static double
round_to_cell(double value, double limit)
{
	double		size = 2 * limit / CELLS;
	double		cell = floor((value + limit) / (2 * limit) * CELLS);

	return Min(Max(-limit + (cell + 0.5) * size, -limit), limit);
}

void
hc_geoarea_round(double *longitude, double *latitude)
{
	*longitude = round_to_cell(*longitude, HC_MAX_LONGITUDE);
	*latitude = round_to_cell(*latitude, HC_MAX_LATITUDE);
}

double
hc_geoarea_unit(const char *unit)
{
	static const struct
	{
		const char *name;
		double		metres;
	}			units[] =
	{
		{"m", 1}, {"km", 1000}, {"ft", 0.3048}, {"mi", 1609.34}
	};
	size_t		i;

	for (i = 0; i < (int) lengthof(units); i++)
	{
		if (pg_strcasecmp(unit, units[i].name) == 0)
			return units[i].metres;
	}
	return 0;
}
