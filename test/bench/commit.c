/*
 * commit.c
 *	  commit SESSIONS COMMITS TABLE: how long COMMIT takes.
 *
 * Each session updates a row of its own in TABLE (id, value), as often as
 * COMMITS says, without a pause.  Prints p50 and p99 in microseconds of the
 * UPDATE with its commit, over all sessions, and commits per second.  Settings
 * come from PGOPTIONS.
 */
#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Not measured: connections, caches and plans that are made only once. */
#define WARM_UP		20

typedef struct Session
{
	pthread_t	thread;
	int			id;
	double	   *took;			/* microseconds, per commit */
	long long	first_value;
} Session;

static int	n_sessions;
static int	n_commits;
static const char *table;
static pthread_barrier_t ready;

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
	fprintf(stderr, "commit: %s: %s\n", what, why);
	exit(1);
}

/* A commit that did not reach Redis is no measurement. */
static void
notice(void *arg, const char *message)
{
	(void) arg;
	fail("warning", message);
}

static void *
run(void *arg)
{
	Session    *session = arg;
	PGconn	   *conn = PQconnectdb("");
	char		text[128];
	char		id[16];
	char		value[32];
	const char *values[2] = {id, value};
	int			i;

	if (PQstatus(conn) != CONNECTION_OK)
		fail("connection", PQerrorMessage(conn));
	PQsetNoticeProcessor(conn, notice, NULL);
	snprintf(text, sizeof(text), "UPDATE %s SET value = $2 WHERE id = $1", table);
	PQclear(PQprepare(conn, "u", text, 0, NULL));
	snprintf(id, sizeof(id), "%d", session->id);

	for (i = -WARM_UP; i < n_commits; i++)
	{
		double		begun;
		PGresult   *result;

		if (i == 0)
			pthread_barrier_wait(&ready);
		snprintf(value, sizeof(value), "%lld", session->first_value + i);
		begun = now_us();
		result = PQexecPrepared(conn, "u", 2, values, NULL, NULL, 0);
		if (i >= 0)
			session->took[i] = now_us() - begun;
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			fail("update", PQerrorMessage(conn));
		PQclear(result);
	}
	PQfinish(conn);
	return NULL;
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
	Session    *sessions;
	double	   *took;
	double		begun;
	int			n;
	int			i;

	n_sessions = argc > 1 ? atoi(argv[1]) : 0;
	n_commits = argc > 2 ? atoi(argv[2]) : 0;
	table = argc > 3 ? argv[3] : NULL;
	if (n_sessions < 1 || n_commits < 1 || table == NULL)
		fail("usage", "commit SESSIONS COMMITS TABLE");
	n = n_sessions * n_commits;
	sessions = calloc(n_sessions, sizeof(Session));
	took = calloc(n, sizeof(double));
	if (sessions == NULL || took == NULL)
		fail("memory", "there is not enough");

	pthread_barrier_init(&ready, NULL, n_sessions + 1);
	for (i = 0; i < n_sessions; i++)
	{
		sessions[i].id = i + 1;
		sessions[i].took = took + i * n_commits;

		/* no value is written twice, also by the next run */
		sessions[i].first_value = (long long) time(NULL) * 1000000;
		if (pthread_create(&sessions[i].thread, NULL, run, &sessions[i]) != 0)
			fail("thread", "could not be started");
	}
	pthread_barrier_wait(&ready);
	begun = now_us();
	for (i = 0; i < n_sessions; i++)
		pthread_join(sessions[i].thread, NULL);
	begun = now_us() - begun;

	qsort(took, n, sizeof(double), compare_doubles);
	printf("%.0f %.0f %.0f\n", took[n / 2], took[(int) (n * 0.99)], n / (begun / 1e6));
	return 0;
}
