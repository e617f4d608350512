/*
 * geoquery.c
 *	  What is asked of a geo index, and what Redis answers.
 *
 * A query is kept as what it means, not as a command: so it can be asked again in a
 * smaller circle (search/nearest.c), and tables can answer it
 * (search/fallback.c).
 */
#include "postgres.h"

#include "redis/arguments.h"
#include "search/geoquery.h"
#include "search/nearest.h"
#include "session/session.h"
#include "settings.h"

/* What Redis answers when the search starts from a member that is not there. */
#define NO_SUCH_MEMBER	"ERR could not decode requested zset member"

static const redisReply *ask_area(const HcGeoQuery *query, double circle,
								  ErrorData **down);
static const redisReply *ask_nearest(const HcGeoQuery *query, ErrorData **down);
static long long ask_size(const HcGeoQuery *query, ErrorData **down);
static const redisReply *ask_if_up(const HcArguments *args, ErrorData **down);
static void make_command(const HcGeoQuery *query, double circle,
						 HcArguments *args);

HcBytes
hc_geoquery_key(const text *key)
{
	HcArguments args;
	HcBytes		bytes;

	hc_arguments_begin(&args, NULL);
	hc_arguments_add_key(&args, key);
	bytes.data = args.data[0];
	bytes.len = args.len[0];
	return bytes;
}

const redisReply *
hc_geoquery_ask(const HcGeoQuery *query, ErrorData **down)
{
	/* without ANY, Redis sorts whenever it counts */
	bool		nearest = query->count > 0 && !query->any &&
		query->sort != HC_GEO_NEAREST_LAST;

	*down = NULL;
	return nearest ? ask_nearest(query, down) : ask_area(query, 0, down);
}

HcGeoFound
hc_geoquery_read(const redisReply *reply)
{
	const redisReply *position;
	HcGeoFound	found;

	hc_reply_array(reply, 3);
	position = hc_reply_array(reply->element[2], 2);
	found.member = hc_reply_string(reply->element[0]);
	found.distance = hc_reply_double(reply->element[1]);
	found.longitude = hc_reply_double(position->element[0]);
	found.latitude = hc_reply_double(position->element[1]);
	return found;
}

/*
 * What Redis finds in the area, or, unless that is 0, in a circle of so many metres
 * instead.
 */
static const redisReply *
ask_area(const HcGeoQuery *query, double circle, ErrorData **down)
{
	HcArguments args;
	const redisReply *reply;

	make_command(query, circle, &args);
	reply = ask_if_up(&args, down);
	if (reply == NULL)
		return NULL;

	/*
	 * Redis finds nothing in a key that does not exist, but calls it an error
	 * if the key has no such member.  A row that is not in Redis (yet) must
	 * not end a query over many.
	 */
	if (reply->type == REDIS_REPLY_ERROR &&
		strcmp(reply->str, NO_SUCH_MEMBER) == 0)
		return NULL;
	hc_reply_check(reply, hc_session_server());
	return hc_reply_array(reply, HC_REPLY_ANY_LENGTH);
}

/* The same for a search of the nearest. */
static const redisReply *
ask_nearest(const HcGeoQuery *query, ErrorData **down)
{
	HcNearest	goal = {0};
	const redisReply *reply;
	int			n;
	HcGeoFound	first = {0};
	double		last = 0;

	goal.key = query->key.data;
	goal.key_len = query->key.len;
	goal.count = query->count;
	goal.placed = query->member.data == NULL;
	goal.longitude = query->area.longitude;
	goal.latitude = query->area.latitude;
	if (query->area.box)
		hc_nearest_box(&goal, query->area.width * query->metres,
					   query->area.height * query->metres);
	else
		hc_nearest_circle(&goal, query->area.radius * query->metres);

	if (!hc_nearest_begin(&goal))
		hc_nearest_begin_with(&goal, ask_size(query, down));
	if (*down != NULL)
		return NULL;
	do
	{
		reply = ask_area(query, goal.radius, down);
		if (reply == NULL)
			return NULL;
		n = (int) reply->elements;
		if (n > 0)
		{
			if (!goal.placed)
				first = hc_geoquery_read(reply->element[0]);
			last = hc_reply_double(hc_reply_array(reply->element[n - 1], 3)->element[1]);
		}
	} while (!hc_nearest_found(&goal, n, last * query->metres,
							   first.longitude, first.latitude));
	return reply;
}

/* How many members the key has; 0 if this cannot be known, also for *down. */
static long long
ask_size(const HcGeoQuery *query, ErrorData **down)
{
	HcArguments args;
	const redisReply *reply;

	hc_arguments_begin(&args, "ZCARD");
	hc_arguments_add(&args, query->key.data, query->key.len);
	reply = ask_if_up(&args, down);

	/* An error is the search's to tell, if it gets it too. */
	if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
		return 0;
	return hc_reply_integer(reply);
}

/* The reply to a command; NULL: Redis is down, and something else may answer. */
static const redisReply *
ask_if_up(const HcArguments *args, ErrorData **down)
{
	if (!hc_fallback)
		return hc_session_ask(args);
	return hc_session_try(args, down);
}

/* GEOSEARCH for the area, or for a circle of so many metres. */
static void
make_command(const HcGeoQuery *query, double circle, HcArguments *args)
{
	const HcGeoArea *area = &query->area;

	hc_arguments_begin(args, "GEOSEARCH");
	hc_arguments_add(args, query->key.data, query->key.len);
	if (query->member.data != NULL)
	{
		hc_arguments_add_literal(args, "FROMMEMBER");
		hc_arguments_add(args, query->member.data, query->member.len);
	}
	else
	{
		hc_arguments_add_literal(args, "FROMLONLAT");
		hc_arguments_add_double(args, area->longitude);
		hc_arguments_add_double(args, area->latitude);
	}

	if (area->box && circle == 0)
	{
		hc_arguments_add_literal(args, "BYBOX");
		hc_arguments_add_double(args, area->width);
		hc_arguments_add_double(args, area->height);
	}
	else
	{
		hc_arguments_add_literal(args, "BYRADIUS");
		hc_arguments_add_double(args, circle > 0 ? circle / query->metres : area->radius);
	}
	hc_arguments_add_literal(args, query->unit);

	if (query->sort != HC_GEO_UNSORTED)
		hc_arguments_add_literal(args, query->sort == HC_GEO_NEAREST_FIRST ? "ASC" : "DESC");
	if (query->count > 0)
	{
		hc_arguments_add_literal(args, "COUNT");
		hc_arguments_add_integer(args, query->count);
		if (query->any)
			hc_arguments_add_literal(args, "ANY");
	}
	hc_arguments_add_literal(args, "WITHDIST");
	hc_arguments_add_literal(args, "WITHCOORD");
}
