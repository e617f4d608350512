/*
 * replica.c
 *	  hybrid_cache.wait_replicas: how far the replicas of Redis are.
 *
 * WAIT says how many replicas have what this connection has written.  While it
 * waits Redis reads nothing more from the connection, so it is sent only when
 * somebody wants to know, for a short time, and for a shorter one after an
 * answer that was not enough: a replica that is away must not slow down those
 * who do not ask for it.
 *
 * What Redis makes of it never stops the worker.  Who waits for replicas warns
 * when they do not come.
 */
#include "postgres.h"

#include "capture/synchronous.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "redis/reply.h"
#include "settings.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "worker/replica.h"

/* How long Redis may wait for its replicas, in general and when they lag. */
#define PATIENCE_MS			50
#define LAGGING_MS			5

/* The last answer was not enough. */
static bool lagging = false;

/* Asks Redis; false also when it does not want to tell. */
static bool
have_all(HcConnection *conn)
{
	static bool refused = false;
	int			patience = lagging ? LAGGING_MS : PATIENCE_MS;
	char		count[16];
	char		limit[16];
	const char *argv[3] = {"WAIT", count, limit};
	size_t		argvlen[3] = {4};
	const redisReply *reply;

	argvlen[1] = snprintf(count, sizeof(count), "%d", hc_wait_replicas);
	argvlen[2] = snprintf(limit, sizeof(limit), "%d", patience);
	hc_connection_append(conn, 3, argv, argvlen);
	reply = hc_connection_reply(conn,
								TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															hc_command_timeout + patience));

	/* waiting for the reply may have eaten a wake-up */
	SetLatch(MyLatch);

	if (reply->type == REDIS_REPLY_ERROR)
	{
		if (!refused)
			ereport(LOG,
					(errcode(hc_reply_sqlstate(reply->str)),
					 errmsg("%s cannot ask Redis server \"%s\" for its replicas",
							MyBgworkerEntry->bgw_name, hc_connection_name(conn)),
					 errdetail_internal("%s", hc_reply_clean(reply->str)),
					 errhint("Set hybrid_cache.wait_replicas to 0, or let the server answer WAIT.")));
		refused = true;
		return false;
	}
	refused = false;
	return hc_reply_integer(reply) >= hc_wait_replicas;
}

bool
hc_replica_ask(HcDatabase *db, HcConnection *conn)
{
	XLogRecPtr	applied = pg_atomic_read_u64(&db->applied);
	XLogRecPtr	replicated = pg_atomic_read_u64(&db->replicated);

	if (hc_wait_replicas == 0 || applied <= replicated ||
		hc_synchronous_count(MyDatabaseId, replicated) == 0)
		return false;
	lagging = !have_all(conn);
	if (lagging)
		return true;
	pg_atomic_write_u64(&db->replicated, applied);
	hc_synchronous_wake(applied);
	return false;
}

void
hc_replica_publish(HcDatabase *db, XLogRecPtr lsn)
{
	pg_atomic_write_u64(&db->applied, lsn);

	/* also for a session that does not know yet that the setting has changed */
	if (hc_wait_replicas == 0)
		pg_atomic_write_u64(&db->replicated, lsn);
	ConditionVariableBroadcast(&db->applied_cv);
	hc_synchronous_wake(lsn);
}
