/*
 * latency.c
 *	  latency RATE SECONDS: commits at a fixed rate and measures how long after
 *	  the end of each commit a client of Redis sees it.
 *
 * The table latency (id, value) must be mapped to the strings latency:{id}.
 * Some threads share the rate; each has a row, a connection to PostgreSQL and
 * one to Redis.  A thread updates its row, notes when COMMIT has returned, and
 * then asks Redis every 100 microseconds until the new value is there.  A commit
 * that is late does not move the schedule of the next.
 */
#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_THREADS	32
#define POLL_US		100
#define GIVE_UP_US	10000000

typedef struct Writer
{
	pthread_t	thread;
	int			id;
	int			n_commits;
	double	   *commit;			/* microseconds, per commit */
	double	   *visible;		/* microseconds after the commit */
} Writer;

static int	rate;
static int	seconds;
static double start;

static double
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

static void
sleep_us(double us)
{
	struct timespec ts;

	if (us <= 0)
		return;
	ts.tv_sec = (time_t) (us / 1e6);
	ts.tv_nsec = (long) ((us - ts.tv_sec * 1e6) * 1e3);
	nanosleep(&ts, NULL);
}

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "latency: %s: %s\n", what, why);
	exit(1);
}

static redisContext *
connect_redis(void)
{
	const char *url = getenv("REDIS_URL");
	char		host[128];
	int			port;
	redisContext *redis;

	if (url == NULL || sscanf(url, "redis://%127[^:]:%d", host, &port) != 2)
		fail("REDIS_URL", "not redis://HOST:PORT");
	redis = redisConnect(host, port);
	if (redis == NULL || redis->err)
		fail("redis", redis ? redis->errstr : "out of memory");
	return redis;
}

/* The value at the writer's key, -1 if there is none. */
static long long
visible_value(redisContext *redis, int id)
{
	redisReply *reply = redisCommand(redis, "GET latency:%d", id);
	long long	value = -1;

	if (reply == NULL)
		fail("redis", redis->errstr);
	if (reply->type == REDIS_REPLY_STRING)
		value = atoll(reply->str);
	freeReplyObject(reply);
	return value;
}

static void *
write_and_watch(void *arg)
{
	Writer	   *writer = arg;
	PGconn	   *conn = PQconnectdb("");
	redisContext *redis = connect_redis();
	double		interval = 1e6 * N_THREADS / rate;
	char		update[128];
	int			i;

	if (PQstatus(conn) != CONNECTION_OK)
		fail("connection", PQerrorMessage(conn));

	for (i = 0; i < writer->n_commits; i++)
	{
		double		begun;
		double		committed;
		PGresult   *result;

		sleep_us(start + (i + (double) writer->id / N_THREADS) * interval - now_us());
		snprintf(update, sizeof(update),
				 "UPDATE latency SET value = %d WHERE id = %d", i + 1, writer->id);
		begun = now_us();
		result = PQexec(conn, update);
		committed = now_us();
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			fail("update", PQerrorMessage(conn));
		PQclear(result);
		while (visible_value(redis, writer->id) < i + 1)
		{
			if (now_us() - committed > GIVE_UP_US)
				fail("redis", "the value does not come");
			sleep_us(POLL_US);
		}
		writer->commit[i] = committed - begun;
		writer->visible[i] = now_us() - committed;
	}
	PQfinish(conn);
	redisFree(redis);
	return NULL;
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static void
print_percentiles(const char *what, double *values, int n)
{
	qsort(values, n, sizeof(double), compare_doubles);
	printf("  %s: p50 %.2f ms, p99 %.2f ms, max %.2f ms\n", what,
		   values[n / 2] / 1e3, values[(int) (n * 0.99)] / 1e3, values[n - 1] / 1e3);
}

int
main(int argc, char **argv)
{
	Writer		writers[N_THREADS];
	double	   *commit;
	double	   *visible;
	int			per_writer;
	int			n;
	int			i;

	rate = argc > 1 ? atoi(argv[1]) : 0;
	seconds = argc > 2 ? atoi(argv[2]) : 0;
	per_writer = (int) ((long long) rate * seconds / N_THREADS);
	if (per_writer < 1)
		fail("usage", "latency RATE SECONDS, at least 32 commits");
	n = per_writer * N_THREADS;
	commit = calloc(n, sizeof(double));
	visible = calloc(n, sizeof(double));
	if (commit == NULL || visible == NULL)
		fail("memory", "there is not enough");

	/* time for all threads to connect */
	start = now_us() + 500000;
	for (i = 0; i < N_THREADS; i++)
	{
		writers[i].id = i + 1;
		writers[i].n_commits = per_writer;
		writers[i].commit = commit + i * per_writer;
		writers[i].visible = visible + i * per_writer;
		if (pthread_create(&writers[i].thread, NULL, write_and_watch, &writers[i]) != 0)
			fail("thread", "could not be started");
	}
	for (i = 0; i < N_THREADS; i++)
		pthread_join(writers[i].thread, NULL);

	printf("%d commits at %d per second asked, %.0f per second done\n", n, rate,
		   n / ((now_us() - start) / 1e6));
	print_percentiles("the commit itself", commit, n);
	print_percentiles("visible in Redis after it", visible, n);
	return 0;
}
