/*
 * nearest.h
 *	  The nearest n around a position, by searching a small circle first.
 */
#ifndef HC_NEAREST_H
#define HC_NEAREST_H

/* A search.  Lengths are in metres, positions in degrees. */
typedef struct HcNearest
{
	/* What is asked, set by the caller. */
	const char *key;			/* as Redis has it, key_len bytes */
	size_t		key_len;
	int			count;			/* so many are wanted, the nearest first */
	bool		placed;			/* the position is known before the answer */
	double		longitude;		/* if placed */
	double		latitude;

	/* The area asked, set by hc_nearest_circle() or hc_nearest_box(). */
	double		area;			/* square metres */
	double		outer;			/* a circle of this radius holds all of it */
	double		north;			/* from the position to its northern end */
	double		inner;			/* the largest circle that can stand for it */

	/* What to search next: a circle of this radius, or 0: the area asked. */
	double		radius;

	/* Private. */
	struct HcNearestMemory *memory;
	int			n_narrow;		/* circles tried */
} HcNearest;

/* What is asked for: the members in a circle, or in a box. */
extern void hc_nearest_circle(HcNearest *search, double radius);
extern void hc_nearest_box(HcNearest *search, double width, double height);

/*
 * Begins the search: sets search->radius.  False: nothing is known about this
 * key; then the caller tells how many members it has.
 */
extern bool hc_nearest_begin(HcNearest *search);
extern void hc_nearest_begin_with(HcNearest *search, long long members);

/*
 * Tells what the search of search->radius found: how many members (at most
 * count), how far the last one is, where the first one is.  True: this is the
 * answer.  False: search->radius is what to search instead.
 */
extern bool hc_nearest_found(HcNearest *search, int found, double last,
							 double longitude, double latitude);

#endif							/* HC_NEAREST_H */
