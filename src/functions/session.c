/*
 * session.c
 *	  The backend's own connection to Redis, kept between calls.
 *
 * Connecting costs several round trips, a command one.  So the connection
 * stays open until the server it should lead to is another, or it broke.
 * Whether it broke is looked at before something is sent.  Afterwards nothing
 * is tried again: Redis may have executed the command.
 */
#include "postgres.h"

#include "functions/session.h"
#include "redis/connection.h"
#include "settings.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* The connection, or NULL, and the value of hybrid_cache.redis_url it is for. */
static HcConnection *connection;
static char *connection_url;

static const redisReply *run(const HcArguments *args, bool check);
static HcConnection *get_connection(void);
static void disconnect(void);
static void add_context(void *arg);

const redisReply *
hc_session_command(const HcArguments *args)
{
	return run(args, true);
}

const redisReply *
hc_session_ask(const HcArguments *args)
{
	return run(args, false);
}

const char *
hc_session_server(void)
{
	return connection ? hc_connection_name(connection) : "";
}

static const redisReply *
run(const HcArguments *args, bool check)
{
	ErrorContextCallback callback;
	HcConnection *conn;
	TimestampTz deadline;
	const redisReply *reply;

	callback.callback = add_context;
	callback.arg = unconstify(char *, args->command);
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	conn = get_connection();
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   hc_command_timeout);
	hc_connection_append(conn, args->n, args->data, args->len);
	reply = hc_connection_reply(conn, deadline);
	if (check)
		hc_reply_check(reply, hc_connection_name(conn));

	error_context_stack = callback.previous;
	return reply;
}

/* The connection to the current server, opened if need be. */
static HcConnection *
get_connection(void)
{
	HcUrl		url;
	const char *problem;

	if (hc_redis_url == NULL || hc_redis_url[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has no Redis server"),
				 errhint("Set hybrid_cache.redis_url in postgresql.conf, or for this database with ALTER DATABASE ... SET.")));

	if (connection != NULL &&
		strcmp(connection_url, hc_redis_url) == 0 &&
		hc_connection_usable(connection))
		return connection;

	disconnect();
	if (!hc_url_parse(hc_redis_url, &url, &problem))
		elog(ERROR, "hybrid_cache.redis_url was not checked: %s", problem);
	connection_url = MemoryContextStrdup(TopMemoryContext, hc_redis_url);
	connection = hc_connection_open(&url, hc_connect_timeout);
	return connection;
}

static void
disconnect(void)
{
	HcConnection *conn = connection;

	connection = NULL;
	hc_connection_close(conn);
	if (connection_url != NULL)
		pfree(connection_url);
	connection_url = NULL;
}

/* The command's name only: its arguments are the user's data. */
static void
add_context(void *arg)
{
	if (arg != NULL)
		errcontext("Redis command %s", (char *) arg);
}
