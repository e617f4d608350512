/*
 * commands.c
 *	  commands SOCKET KEY CALLS: how long a call of redis_get() takes, in the
 *	  session that makes it, against GET by hiredis through the same unix socket.
 *
 * They take turns, for a fiftieth of the calls each time, so that whatever else
 * happens on the machine happens to both alike.  The function measure() of the
 * database makes calls and returns how many microseconds each took.  Prints the
 * percentiles of both, and the median of the ratios of the turns' p50.
 */
#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_TURNS		50

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
	fprintf(stderr, "commands: %s: %s\n", what, why);
	exit(1);
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static double
median(double *values, int n)
{
	qsort(values, n, sizeof(double), compare_doubles);
	return values[n / 2];
}

static void
run_hiredis(redisContext *redis, const char *key, double *us, int n)
{
	const char *argv[2] = {"GET", key};
	size_t		argvlen[2] = {3, strlen(key)};

	for (int i = 0; i < n; i++)
	{
		double		begun = now_us();
		redisReply *reply = redisCommandArgv(redis, 2, argv, argvlen);

		us[i] = now_us() - begun;
		if (reply == NULL || reply->type != REDIS_REPLY_STRING)
			fail("redis", reply ? "there is no such key" : redis->errstr);
		freeReplyObject(reply);
	}
}

static void
run_sql(PGconn *conn, const char *key, double *us, int n)
{
	char		number[16];
	const char *values[2] = {key, number};
	PGresult   *result;

	snprintf(number, sizeof(number), "%d", n);
	result = PQexecParams(conn, "SELECT * FROM measure($1, $2)", 2, NULL, values,
						  NULL, NULL, 0);
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != n)
		fail("measure()", PQerrorMessage(conn));
	for (int i = 0; i < n; i++)
		us[i] = atof(PQgetvalue(result, i, 0));
	PQclear(result);
}

int
main(int argc, char **argv)
{
	redisContext *redis;
	PGconn	   *conn;
	double	   *us[2];
	double		ratios[N_TURNS];
	int			n;

	if (argc != 4 || (n = atoi(argv[3]) / N_TURNS) < 1)
		fail("usage", "commands SOCKET KEY CALLS, at least 50 calls");
	redis = redisConnectUnix(argv[1]);
	if (redis == NULL || redis->err)
		fail("redis", redis ? redis->errstr : "out of memory");
	conn = PQconnectdb("");
	if (PQstatus(conn) != CONNECTION_OK)
		fail("connection", PQerrorMessage(conn));
	for (int i = 0; i < 2; i++)
		if ((us[i] = calloc(n * N_TURNS, sizeof(double))) == NULL)
			fail("memory", "there is not enough");

	/* the first turn, for warming up, is overwritten by the same once more */
	for (int turn = -1; turn < N_TURNS; turn++)
	{
		int			at = (turn < 0 ? 0 : turn) * n;

		run_hiredis(redis, argv[2], us[0] + at, n);
		run_sql(conn, argv[2], us[1] + at, n);
	}
	for (int turn = 0; turn < N_TURNS; turn++)
		ratios[turn] = median(us[1] + turn * n, n) / median(us[0] + turn * n, n);

	for (int i = 0; i < 2; i++)
	{
		double		p50 = median(us[i], n * N_TURNS);

		printf("  %-28s p50 %6.1f us, p99 %7.1f us\n",
			   i == 0 ? "GET by hiredis" : "redis_get() in PL/pgSQL", p50,
			   us[i][(int) (n * N_TURNS * 0.99)]);
	}
	printf("  ratio of the p50: %.2f\n", median(ratios, N_TURNS));
	return 0;
}
