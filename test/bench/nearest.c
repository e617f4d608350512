/*
 * nearest.c
 *	  nearest KEY RADIUS POSITIONS LONGITUDE LATITUDE SPREAD [NAME SQL]...:
 *	  how long it takes to find the nearest 10 within RADIUS kilometres.
 *
 * Around each of some random positions, at most SPREAD degrees of latitude from
 * the given one, they are searched in the geo index KEY with the plain command,
 * with the plain command in a circle of which it is known that it is just large
 * enough, and with each statement, whose parameters are longitude and latitude.
 * They take turns, for a tenth of the positions each time, so that whatever else
 * happens on the machine happens to all alike.  A NAME that
 * begins with "redis_geosearch" has to find in its first column what the plain
 * command finds.
 */
#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_NEAREST	10
#define MAX_WAYS	16
#define N_BLOCKS	10

/* Where is searched, and what the plain command found there. */
typedef struct Position
{
	char		longitude[32];
	char		latitude[32];
	redisReply *found;
} Position;

typedef struct Way
{
	const char *name;
	char		statement[16];	/* its name */
	int			compared;
	double	   *us;				/* microseconds, for each position */
} Way;

static redisContext *redis;
static PGconn *conn;
static const char *key;
static double asked;			/* the radius in kilometres */

static double
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "nearest: %s: %s\n", what, why);
	exit(1);
}

static void
connect_servers(void)
{
	const char *url = getenv("REDIS_URL");
	char		host[128];
	int			port;

	if (url == NULL || sscanf(url, "redis://%127[^:]:%d", host, &port) != 2)
		fail("REDIS_URL", "not redis://HOST:PORT");
	redis = redisConnect(host, port);
	if (redis == NULL || redis->err)
		fail("redis", redis ? redis->errstr : "out of memory");
	conn = PQconnectdb("");
	if (PQstatus(conn) != CONNECTION_OK)
		fail("connection", PQerrorMessage(conn));
}

static redisReply *
search(const Position *position, double radius, double *us)
{
	double		begun = now_us();
	redisReply *reply = redisCommand(redis,
									 "GEOSEARCH %s FROMLONLAT %s %s BYRADIUS %.6f km ASC COUNT %d WITHDIST WITHCOORD",
									 key, position->longitude, position->latitude,
									 radius, N_NEAREST);

	*us = now_us() - begun;
	if (reply == NULL || reply->type != REDIS_REPLY_ARRAY)
		fail("redis", reply ? reply->str : redis->errstr);
	return reply;
}

static void
compare(const Way *way, const PGresult *result, const redisReply *found)
{
	if (PQntuples(result) != (int) found->elements)
		fail(way->name, "finds more or fewer than the plain command");
	for (int i = 0; i < PQntuples(result); i++)
		if (strcmp(PQgetvalue(result, i, 0), found->element[i]->element[0]->str) != 0)
			fail(way->name, "finds others than the plain command");
}

static void
run_statement(const Way *way, const Position *position, double *us)
{
	const char *values[2] = {position->longitude, position->latitude};
	double		begun = now_us();
	PGresult   *result = PQexecPrepared(conn, way->statement, 2, values, NULL, NULL, 0);

	*us = now_us() - begun;
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail(way->name, PQerrorMessage(conn));
	if (way->compared)
		compare(way, result, position->found);
	PQclear(result);
}

/* One way searches around the positions of one block. */
static void
run_block(Way *way, int way_number, Position *positions, int n, int block)
{
	for (int i = n * block / N_BLOCKS; i < n * (block + 1) / N_BLOCKS; i++)
	{
		Position   *position = &positions[i];

		if (way_number == 0)
		{
			if (position->found != NULL)
				freeReplyObject(position->found);
			position->found = search(position, asked, &way->us[i]);
		}
		else if (way_number == 1)
		{
			const redisReply *found = position->found;
			double		radius = asked;

			if (found->elements == N_NEAREST)
				radius = atof(found->element[N_NEAREST - 1]->element[1]->str) + 0.0002;
			freeReplyObject(search(position, radius, &way->us[i]));
		}
		else
			run_statement(way, position, &way->us[i]);
	}
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
	Way			ways[MAX_WAYS] = {0};
	int			n_ways = 2;
	int			n;
	Position   *positions;

	if (argc < 7 || argc % 2 == 0 || argc > 7 + 2 * (MAX_WAYS - 2))
		fail("usage", "nearest KEY RADIUS POSITIONS LONGITUDE LATITUDE SPREAD [NAME SQL]...");
	key = argv[1];
	asked = atof(argv[2]);
	n = atoi(argv[3]);
	ways[0].name = "plain command, hiredis";
	ways[1].name = "the same in a circle that is just large enough";
	srandom(4);
	connect_servers();

	for (int i = 7; i < argc; i += 2)
	{
		Way		   *way = &ways[n_ways++];
		PGresult   *result;

		way->name = argv[i];
		way->compared = strncmp(way->name, "redis_geosearch", 15) == 0;
		snprintf(way->statement, sizeof(way->statement), "way%d", i);
		result = PQprepare(conn, way->statement, argv[i + 1], 0, NULL);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			fail(way->name, PQerrorMessage(conn));
		PQclear(result);
	}
	for (int i = 0; i < n_ways; i++)
		if ((ways[i].us = calloc(n, sizeof(double))) == NULL)
			fail("memory", "there is not enough");

	positions = calloc(n, sizeof(Position));
	if (positions == NULL)
		fail("memory", "there is not enough");
	for (int i = 0; i < n; i++)
	{
		double		x = random() / (double) RAND_MAX * 2 - 1;
		double		y = random() / (double) RAND_MAX * 2 - 1;
		double		latitude = atof(argv[5]);

		snprintf(positions[i].longitude, sizeof(positions[i].longitude), "%.6f",
				 atof(argv[4]) + x * atof(argv[6]) / cos(latitude * M_PI / 180));
		snprintf(positions[i].latitude, sizeof(positions[i].latitude), "%.6f",
				 latitude + y * atof(argv[6]));
	}

	/* the first block, for warming up, is overwritten by the same once more */
	for (int block = -1; block < N_BLOCKS; block++)
		for (int j = 0; j < n_ways; j++)
		{
			/* the plain command first, since others are compared with it */
			int			k = j == 0 ? 0 : 1 + (block + 1 + j) % (n_ways - 1);

			run_block(&ways[k], k, positions, n, block < 0 ? 0 : block);
		}

	for (int i = 0; i < n_ways; i++)
	{
		double	   *us = ways[i].us;

		qsort(us, n, sizeof(double), compare_doubles);
		printf("  %-46s p50 %8.0f us, p99 %8.0f us\n", ways[i].name, us[n / 2], us[(int) (n * 0.99)]);
	}
	return 0;
}
