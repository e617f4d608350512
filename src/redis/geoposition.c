/*
 * geoposition.c
 *	  The position that Redis gives back for a score.
 *
 * The other direction of geohash.c: a score names a cell, and the position is
 * its middle.  Computed here, so that what is read from a table is rounded like
 * what comes from Redis, and a whole index is read with one command.
 */
#include "postgres.h"

#include "redis/geoposition.h"

#define MAX_LONGITUDE	180.0
#define MAX_LATITUDE	85.05112878

/* 2^26 steps each way; both together are 52 bits */
#define STEPS			67108864.0
#define SCORE_END		4503599627370496.0

/* Takes every other bit, from the lowest. */
static uint32
gather(uint64 bits)
{
	bits &= UINT64CONST(0x5555555555555555);
	bits = (bits | (bits >> 1)) & UINT64CONST(0x3333333333333333);
	bits = (bits | (bits >> 2)) & UINT64CONST(0x0F0F0F0F0F0F0F0F);
	bits = (bits | (bits >> 4)) & UINT64CONST(0x00FF00FF00FF00FF);
	bits = (bits | (bits >> 8)) & UINT64CONST(0x0000FFFF0000FFFF);
	bits = (bits | (bits >> 16)) & UINT64CONST(0x00000000FFFFFFFF);
	return (uint32) bits;
}

/* The middle of a step.  The order of the operations decides the last bit. */
static double
middle_of(uint32 step, double most)
{
	double		range = most - -most;
	double		low = -most + (step / STEPS) * range;
	double		high = -most + (((double) step + 1) / STEPS) * range;
	double		middle = (low + high) / 2;

	return Max(Min(middle, most), -most);
}

void
hc_geoposition_of(double score, double *longitude, double *latitude)
{
	uint64		bits = score >= 0 && score < SCORE_END ? (uint64) score : 0;

	*latitude = middle_of(gather(bits), MAX_LATITUDE);
	*longitude = middle_of(gather(bits >> 1), MAX_LONGITUDE);
}
