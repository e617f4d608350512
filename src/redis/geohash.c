/*
 * geohash.c
 *	  The score that Redis gives a position.
 *
 * Redis keeps a position as the score of a sorted set: each coordinate is cut
 * into 2^26 equal steps of its range, and the bits of the two numbers take
 * turns, the latitude's in the even places from the lowest.  This is described
 * in the documentation of GEOADD ("How does it work?"); the order of the
 * divisions, on which the last bit depends, is that of geohashEncode() in
 * Redis's geohash.c.  Own code.
 */
#include "postgres.h"

#include "redis/geohash.h"

#define MAX_LONGITUDE	180.0
#define MAX_LATITUDE	85.05112878

/* 2^26: two of these make 52 bits, which a double holds exactly */
#define STEPS	67108864.0

/* Which step; the very end of the range counts as one more. */
static uint32
step_of(double value, double most)
{
	double		share = (value - -most) / (most - -most);

	return (uint32) (share * STEPS);
}

/* Puts a zero bit before each bit. */
static uint64
spread(uint64 bits)
{
	bits = (bits | (bits << 16)) & UINT64CONST(0x0000FFFF0000FFFF);
	bits = (bits | (bits << 8)) & UINT64CONST(0x00FF00FF00FF00FF);
	bits = (bits | (bits << 4)) & UINT64CONST(0x0F0F0F0F0F0F0F0F);
	bits = (bits | (bits << 2)) & UINT64CONST(0x3333333333333333);
	bits = (bits | (bits << 1)) & UINT64CONST(0x5555555555555555);
	return bits;
}

double
hc_geohash_score(double longitude, double latitude)
{
	return (double) (spread(step_of(latitude, MAX_LATITUDE)) |
					 (spread(step_of(longitude, MAX_LONGITUDE)) << 1));
}
