/*
 * nearest.c
 *	  The nearest n around a position, by searching a small circle first.
 *
 * GEOSEARCH with COUNT collects and sorts every member in the area asked, and
 * then throws most of them away.  But if a circle within this area has n
 * members, the nearest n of them are the nearest n of the whole area.  So a
 * small circle is searched first, as large as earlier answers let one expect
 * that n members need, and a larger one if it had too few.  Every answer is that
 * of one GEOSEARCH, so it is true of one moment, whatever happens between two
 * of them.  A wrong guess costs time, never exactness: here is what makes a
 * small circle stand for the area asked.
 *
 * Redis looks into the cell of a grid that contains the position and into its
 * eight neighbours, and keeps what is in the area by its distance, which does
 * not depend on the area.  The grid is chosen by the radius, so the question is
 * whether these cells hold the area.
 *
 * - Cells are at least as high as the radius once Redis has taken a coarser
 *	 grid, which it does when it sees that they are not.
 * - Their width, in degrees, is then at least 4 times that of the radius on the
 *	 equator, 8 times beyond a latitude of 66 degrees and 16 times beyond 80.  A
 *	 circle of angular radius d around latitude y reaches asin(sin d / cos y)
 *	 degrees to the east.  This is less as long as y + d is at most 89.5 degrees.
 * - Neighbours are left out where Redis thinks that the circle does not reach:
 *	 beyond d / cos(y + d) degrees.  This is more than it reaches, if y + d is
 *	 less than 90 degrees.  Beyond that it is negative, and Redis misses members.
 * - From a fourth of half the circumference on, Redis looks at all cells.
 *
 * So a circle that ends before 89.5 degrees of latitude is searched completely,
 * and so are all smaller ones, and one of more than 5010 km.  Where that is not
 * so, Redis can miss members, and which ones depends on the radius: then only
 * the area asked is searched, to give what Redis gives.  At a longitude of 180
 * or a latitude of 85.05112878 exactly the position is in a cell that does not
 * exist, and one side of it is missed; but it is the same side with every radius.
 *
 * A box holds a circle whose radius is at most half its height and a fourth of
 * its width.  Redis puts a member in the box if, along the meridian, it is within
 * half the height, which is at most its distance; and if on the member's latitude
 * it is within half the width of the meridian, which is at most twice its
 * distance, since there is a way by the position and along the meridian.  The
 * cells searched for the box are at least as large as those for the circle, and
 * the neighbours left out are fewer, if the box ends before 89.5 degrees too.
 *
 * Members at exactly the same distance come in any order, and if the last place
 * is one of theirs any of them gets it, as from GEOSEARCH itself: its sort is not
 * stable, and what it does depends on all members in the area.
 *
 * The memory is the session's own: it only guides guesses, and sharing it would
 * need a lock in every search.
 */
#include "postgres.h"

#include <math.h>

#include "common/hashfn.h"
#include "search/geoarea.h"
#include "search/nearest.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* How far the farthest point is. */
#define FARTHEST			(HC_METRES_PER_DEGREE * 180)

/* Away from any edge by more than what floating-point numbers lose. */
#define INSIDE				0.999

/* A smaller circle is not worth the trouble. */
#define MIN_RADIUS			1.0

/*
 * A circle is worth a round trip if it is smaller than the area asked by this
 * factor; after two that had too few, by the second one.
 */
#define WORTH_IT			4.0
#define WORTH_A_THIRD		1000.0

/*
 * Redis takes the next coarser grid for a radius of CELL and each of its halves,
 * and often already for one that is a little smaller.  Then it looks at four
 * times as many members, so a circle is made a little smaller not to need it, and
 * larger as long as it does not.
 */
#define CELL				20037726.37
#define WITHIN_CELL			0.94
#define LITTLE_LESS			1.2
#define MUCH_MORE			1.4

/* The first circle in a collection of which nothing is known but its size. */
#define UNKNOWN_RADIUS		300.0

/* How much larger a circle is than expected to be necessary; logarithms. */
#define FIRST_MARGIN		0.3
#define MAX_MARGIN			4.0

/*
 * Of the first circles this part is to be large enough: the margin grows by
 * RAISE * MARGIN_STEP after a failure and shrinks by the rest after a success.
 */
#define MARGIN_STEP			0.4
#define RAISE				0.95

#define MAX_KEYS			256
#define MAX_PLACES			32

/* What an answer taught. */
typedef struct Place
{
	float		longitude;
	float		latitude;
	float		area;			/* ln(square metres for each member) */
} Place;

typedef struct HcNearestMemory
{
	uint64		key;			/* its hash: a mix-up would do no harm */
	int			n_places;
	int			next;			/* the place to be replaced next */
	float		margins[2];		/* without and with a known position */
	Place		places[MAX_PLACES];
} HcNearestMemory;

static HTAB *memories;

static HcNearestMemory *find_memory(uint64 key);
static double expect(const HcNearest *search);
static int	nearest_place(const HcNearestMemory *memory, double longitude,
						  double latitude, double *degrees);
static void remember(HcNearest *search, int found, double last,
					 double longitude, double latitude);
static double limit(const HcNearest *search, double latitude);
static void choose(HcNearest *search, double area, double worth);
static double fit(double radius);
static double enough(int count);

void
hc_nearest_circle(HcNearest *search, double radius)
{
	radius = Min(radius, FARTHEST);
	search->area = M_PI * radius * radius;
	search->outer = radius;
	search->north = radius;
	search->inner = radius * INSIDE;
}

void
hc_nearest_box(HcNearest *search, double width, double height)
{
	width = Min(width, 2 * FARTHEST);
	height = Min(height, 2 * FARTHEST);
	search->area = width * height;
	search->outer = hypot(width, height) / 2;
	search->north = height / 2;
	search->inner = Min(height / 2, width / 4) * INSIDE;
}

bool
hc_nearest_begin(HcNearest *search)
{
	double		each;

	search->n_narrow = 0;
	search->radius = 0;
	search->memory = NULL;

	/* Then there is nothing to choose, and nothing that need be known. */
	if (limit(search, search->placed ? search->latitude : 0) == 0)
		return true;

	search->memory = find_memory(hash_bytes_extended((const unsigned char *) search->key,
													 (int) search->key_len, 0));
	if (search->memory->n_places == 0)
		return false;
	each = exp(expect(search) + search->memory->margins[search->placed]);
	choose(search, each * enough(search->count), WORTH_IT);
	return true;
}

/*
 * No more than all members can be in the area asked.  They may well be much
 * closer to each other: a circle with too few of them costs little.
 */
void
hc_nearest_begin_with(HcNearest *search, long long members)
{
	double		wanted = enough(search->count);

	if (members > WORTH_IT * wanted)
		choose(search,
			   Min(search->area / members * wanted,
				   M_PI * UNKNOWN_RADIUS * UNKNOWN_RADIUS),
			   WORTH_IT);
}

bool
hc_nearest_found(HcNearest *search, int found, double last,
				 double longitude, double latitude)
{
	bool		whole = search->radius == 0;
	HcNearestMemory *memory = search->memory;
	double		each;

	if (memory == NULL)
		return true;
	if (search->placed)
	{
		longitude = search->longitude;
		latitude = search->latitude;
	}

	if (!whole && ++search->n_narrow == 1 && memory->n_places > 0)
	{
		float	   *margin = &memory->margins[search->placed];

		*margin += MARGIN_STEP * (found < search->count ? RAISE : RAISE - 1);
		*margin = Max(0, Min(*margin, MAX_MARGIN));
	}

	if (whole || found >= search->count)
	{
		if (search->placed || found > 0)
			remember(search, found, last, longitude, latitude);

		/*
		 * Around a member: now its latitude is known, from the first one found
		 * (itself, or one at the same place).
		 */
		if (whole || search->placed ||
			search->radius <= limit(search, latitude))
			return true;
		search->radius = 0;
		return false;
	}

	/* What was found tells how many there are here; nothing: fewer than that. */
	each = M_PI * search->radius * search->radius / Max(found, 0.5);
	choose(search,
		   Max(each * exp(FIRST_MARGIN) * enough(search->count),
			   M_PI * search->radius * search->radius * WORTH_IT),
		   search->n_narrow < 2 ? WORTH_IT : WORTH_A_THIRD);
	return false;
}

/* What is known about a key: nothing yet, or what earlier answers taught. */
static HcNearestMemory *
find_memory(uint64 key)
{
	HcNearestMemory *memory;
	bool		found;

	/* When it is full, the keys that are still in use come back soon. */
	if (memories != NULL && hash_get_num_entries(memories) >= MAX_KEYS &&
		hash_search(memories, &key, HASH_FIND, NULL) == NULL)
	{
		HTAB	   *full = memories;

		memories = NULL;
		hash_destroy(full);
	}
	if (memories == NULL)
	{
		HASHCTL		info = {.keysize = sizeof(uint64),
			.entrysize = sizeof(HcNearestMemory),
		.hcxt = TopMemoryContext};

		memories = hash_create("hybrid_cache distances", 16, &info,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}

	memory = hash_search(memories, &key, HASH_ENTER, &found);
	if (!found)
	{
		memory->n_places = 0;
		memory->next = 0;
		memory->margins[0] = memory->margins[1] = FIRST_MARGIN;
	}
	return memory;
}

/* ln(square metres for each member): as at the nearest place that is known. */
static double
expect(const HcNearest *search)
{
	const HcNearestMemory *memory = search->memory;
	double		sum = 0;
	double		degrees;

	if (search->placed)
		return memory->places[nearest_place(memory, search->longitude,
											search->latitude, &degrees)].area;
	for (int i = 0; i < memory->n_places; i++)
		sum += memory->places[i].area;
	return sum / memory->n_places;
}

/* The nearest of the places, of which there are some, and how far it is. */
static int
nearest_place(const HcNearestMemory *memory, double longitude, double latitude,
			  double *degrees)
{
	float		narrow = cos(latitude * M_PI / 180);
	float		least = 0;
	int			result = -1;

	for (int i = 0; i < memory->n_places; i++)
	{
		const Place *place = &memory->places[i];
		float		x = fabsf(place->longitude - (float) longitude);
		float		y = place->latitude - (float) latitude;
		float		square;

		x = Min(x, 360 - x) * narrow;
		square = x * x + y * y;
		if (result < 0 || square < least)
		{
			result = i;
			least = square;
		}
	}
	*degrees = sqrtf(least);
	return result;
}

/* Learns from an answer: the whole area asked, or count members. */
static void
remember(HcNearest *search, int found, double last, double longitude,
		 double latitude)
{
	HcNearestMemory *memory = search->memory;
	double		area = search->area;
	double		degrees;
	Place	   *place;
	int			i;

	if (found >= search->count)
	{
		last = Max(last, MIN_RADIUS);
		area = Min(area, M_PI * last * last);
	}
	area = log(area / Max(found, 0.5));

	/* The same place again: one answer is partly chance. */
	if (memory->n_places > 0)
	{
		i = nearest_place(memory, longitude, latitude, &degrees);
		if (degrees * HC_METRES_PER_DEGREE <= last)
		{
			place = &memory->places[i];
			place->area = (place->area + area) / 2;
			return;
		}
	}

	place = &memory->places[memory->next];
	memory->next = (memory->next + 1) % MAX_PLACES;
	memory->n_places = Max(memory->n_places, memory->next == 0 ? MAX_PLACES : memory->next);
	place->longitude = longitude;
	place->latitude = latitude;
	place->area = area;
}

/* The radius up to which circles can stand for the area asked, or 0. */
static double
limit(const HcNearest *search, double latitude)
{
	double		reach = (HC_MAX_REACH - fabs(latitude)) * HC_METRES_PER_DEGREE;
	double		result = search->inner;

	if (search->outer >= HC_SEARCHES_ALL)
		result = Min(result, reach);
	else if (search->north > reach)
		return 0;
	return result < MIN_RADIUS ? 0 : result;
}

/* The next circle is one of about this area, if that is worth it. */
static void
choose(HcNearest *search, double area, double worth)
{
	double		radius = fit(Max(sqrt(area / M_PI), MIN_RADIUS));

	if (M_PI * radius * radius * worth > search->area ||
		radius > limit(search, search->placed ? search->latitude : 0))
		radius = 0;
	search->radius = radius;
}

/* A radius for which Redis looks at few members in vain. */
static double
fit(double radius)
{
	double		cell = WITHIN_CELL * CELL;

	cell /= exp2(ceil(log2(cell / radius)));
	if (radius <= cell * LITTLE_LESS)
		return cell;
	return Min(2 * cell, radius * MUCH_MORE);
}

/* So many members are to be expected in a circle that is to have count. */
static double
enough(int count)
{
	return count + 2 * sqrt(count) + 2;
}
