/*
 * session.c
 *	  The backend's own connection to Redis, kept between calls.
 *
 * Connecting costs several round trips, a command one.  So the connection
 * stays open until the server it should lead to is another, or it broke.
 * Whether it broke is looked at before something is sent.  Afterwards nothing
 * is tried again: Redis may have executed the command.
 *
 * While the server is known to be down (redis/breaker.h), a session fails
 * before it tries, unless it is the one whose turn it is to try.
 */
#include "postgres.h"

#include "redis/breaker.h"
#include "redis/connection.h"
#include "redis/script.h"
#include "session/session.h"
#include "settings.h"
#include "shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* The connection, or NULL, and the value of hybrid_cache.redis_url it is for. */
static HcConnection *connection;
static char *connection_url;

/* Since this was set, it has been the same connection. */
static bool watching;

static const redisReply *run(const HcArguments *args, bool check);
static const redisReply *receive(const char *command, bool check);
static HcArguments *wrap_script(const HcScript *script, const HcArguments *args,
								int n_keys);
static void send_text(HcArguments *call, const HcScript *script);
static void fail_watch(void);
static HcConnection *get_connection(void);
static HcBreaker *find_breaker(void);
static bool ask_breaker(HcBreaker *breaker);
static void connect_guarded(const HcUrl *url, HcBreaker *breaker, bool probing);
static void report_failure(HcBreaker *breaker, bool probing, TimestampTz begun);
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

const redisReply *
hc_session_search(int argc, const char *const *argv, const size_t *argvlen, void *arg)
{
	HcArguments args;
	int			i;

	hc_arguments_begin(&args, argv[0]);
	for (i = 1; i < argc; i++)
		hc_arguments_add(&args, argv[i], argvlen[i]);
	return hc_session_command(&args);
}

void
hc_session_begin(void)
{
	(void) get_connection();
}

void
hc_session_append(const HcArguments *args)
{
	hc_connection_append(connection, args->n, args->data, args->len);
}

const redisReply *
hc_session_next(const char *command)
{
	return receive(command, true);
}

const redisReply *
hc_session_next_any(const char *command)
{
	return receive(command, false);
}

/* Is it the error reply of a server that has nothing to answer with (yet)? */
static bool
is_not_ready(const char *message)
{
	static const char *const words[] = {"LOADING ", "MASTERDOWN ", "CLUSTERDOWN "};
	size_t		i;

	for (i = 0; i < (int) lengthof(words); i++)
	{
		if (strncmp(message, words[i], strlen(words[i])) == 0)
			return true;
	}
	return false;
}

/*
 * Does the error say that there is no Redis that could answer now?  Something that
 * speaks another language is a mistake in the settings.
 */
static bool
is_down(const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_EXTERNAL_ROUTINE_EXCEPTION)
		return error->detail != NULL && is_not_ready(error->detail);
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION &&
		error->sqlerrcode != ERRCODE_PROTOCOL_VIOLATION;
}

const redisReply *
hc_session_try(const HcArguments *args, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	const redisReply *volatile reply = NULL;

	/*
	 * No subtransaction is needed to go on after the error: nothing but the
	 * network is touched in between, what is left of the connection is closed
	 * by its next user, and other errors are passed on.
	 */
	PG_TRY();
	{
		reply = run(args, false);
		if (reply->type == REDIS_REPLY_ERROR && is_not_ready(reply->str))
			hc_reply_check(reply, hc_session_server());
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		if (!is_down(*error))
			PG_RE_THROW();
		FlushErrorState();
		reply = NULL;
	}
	PG_END_TRY();
	return reply;
}

const redisReply *
hc_session_script(const char *name, const HcArguments *args, int n_keys)
{
	const HcScript *script = hc_script_get(name);
	HcArguments *call = wrap_script(script, args, n_keys);
	const redisReply *reply = hc_session_ask(call);

	if (hc_script_is_unknown(reply))
	{
		send_text(call, script);
		reply = hc_session_ask(call);
	}
	hc_reply_check(reply, hc_session_server());
	return reply;
}

const redisReply *
hc_session_try_script(const char *name, const HcArguments *args, int n_keys,
					  ErrorData **error)
{
	const HcScript *script = hc_script_get(name);
	HcArguments *call = wrap_script(script, args, n_keys);
	const redisReply *reply = hc_session_try(call, error);

	if (reply != NULL && hc_script_is_unknown(reply))
	{
		send_text(call, script);
		reply = hc_session_try(call, error);
	}
	return reply;
}

/* The command that runs a script which Redis has. */
static HcArguments *
wrap_script(const HcScript *script, const HcArguments *args, int n_keys)
{
	HcArguments *call = palloc(sizeof(*call));
	int			i;

	hc_arguments_begin(call, "EVALSHA");
	hc_arguments_add(call, script->sha1, strlen(script->sha1));
	hc_arguments_add_integer(call, n_keys);
	for (i = 0; i < args->n; i++)
		hc_arguments_add(call, args->data[i], args->len[i]);
	call->command = psprintf("EVALSHA of %s.lua", script->name);
	return call;
}

/* Makes it the command that brings the script along. */
static void
send_text(HcArguments *call, const HcScript *script)
{
	call->command = psprintf("EVAL of %s.lua", script->name);
	call->data[0] = "EVAL";
	call->len[0] = strlen("EVAL");
	call->data[1] = script->text;
	call->len[1] = script->len;
}

void
hc_session_watch(const char *key)
{
	bool		again = watching;
	HcArguments args;

	hc_arguments_begin(&args, "WATCH");
	hc_arguments_add_literal(&args, key);
	(void) hc_session_command(&args);

	/* a new connection has none of the watches before */
	if (again && !watching)
		fail_watch();
	watching = true;
}

static void
append_word(const char *word)
{
	size_t		len = strlen(word);

	hc_connection_append(connection, 1, &word, &len);
}

const redisReply *
hc_session_execute(const List *commands)
{
	int			n = list_length(commands);
	const redisReply *executed = NULL;
	const redisReply *refusal = NULL;
	TimestampTz deadline;
	ListCell   *lc;
	int			i;

	if (!watching || connection == NULL || !hc_connection_usable(connection))
		fail_watch();
	watching = false;

	/* all at once: nothing can leave the connection in the middle of it */
	append_word("MULTI");
	foreach(lc, commands)
	{
		const HcArguments *args = lfirst(lc);

		hc_connection_append(connection, args->n, args->data, args->len);
	}
	append_word("EXEC");
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   hc_command_timeout);
	for (i = 0; i < n + 2; i++)
	{
		executed = hc_connection_reply(connection, deadline);
		if (refusal == NULL && executed->type == REDIS_REPLY_ERROR)
			refusal = executed;
	}
	if (refusal != NULL)
		hc_reply_check(refusal, hc_connection_name(connection));
	if (executed->type == REDIS_REPLY_NIL)
		return NULL;
	(void) hc_reply_array(executed, n);
	for (i = 0; i < n; i++)
		hc_reply_check(executed->element[i], hc_connection_name(connection));
	return executed;
}

static void
fail_watch(void)
{
	watching = false;
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("lost the connection to Redis in the middle of a transaction"),
			 errdetail("Nothing was changed.")));
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

	callback.callback = add_context;
	callback.arg = unconstify(char *, args->command);
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	hc_session_begin();
	hc_session_append(args);
	error_context_stack = callback.previous;

	return receive(args->command, check);
}

/* The next reply of the connection, to a command of this name. */
static const redisReply *
receive(const char *command, bool check)
{
	ErrorContextCallback callback;
	TimestampTz deadline;
	const redisReply *reply;

	callback.callback = add_context;
	callback.arg = unconstify(char *, command);
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   hc_command_timeout);
	reply = hc_connection_reply(connection, deadline);
	if (check)
		hc_reply_check(reply, hc_connection_name(connection));

	error_context_stack = callback.previous;
	return reply;
}

/* The connection to the current server, opened if need be. */
static HcConnection *
get_connection(void)
{
	HcUrl		url;
	HcBreaker  *breaker;
	bool		probing;
	const char *problem;

	if (hc_redis_url == NULL || hc_redis_url[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has no Redis server"),
				 errhint("Set hybrid_cache.redis_url in postgresql.conf, or for this database with ALTER DATABASE ... SET.")));

	/*
	 * A connection that is open proves nothing when the other machine is gone,
	 * so the breaker comes first, and a probe connects anew.
	 */
	breaker = find_breaker();
	probing = breaker != NULL && ask_breaker(breaker);
	if (connection != NULL && !probing &&
		strcmp(connection_url, hc_redis_url) == 0 &&
		hc_connection_usable(connection))
		return connection;

	disconnect();
	if (!hc_url_parse(hc_redis_url, &url, &problem))
		elog(ERROR, "hybrid_cache.redis_url was not checked: %s", problem);
	connection_url = MemoryContextStrdup(TopMemoryContext, hc_redis_url);
	if (breaker != NULL)
		connect_guarded(&url, breaker, probing);
	else
		connection = hc_connection_open(&url, hc_connect_timeout);
	return connection;
}

/* The breaker of the current server, or NULL if it is not that of the worker. */
static HcBreaker *
find_breaker(void)
{
	HcDatabase *db = hc_shmem_mine();

	if (db == NULL || !hc_breaker_concerns(&db->breaker, hc_redis_url))
		return NULL;
	return &db->breaker;
}

/* Raises if the server is known to be down; true: this session is to try. */
static bool
ask_breaker(HcBreaker *breaker)
{
	HcBreakerState state;
	HcBreakerAnswer answer = hc_breaker_ask(breaker, hc_connect_timeout, &state);

	if (answer == HC_BREAKER_OPEN)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("Redis is known to be down"),
				 errdetail("Since %s: %s.", timestamptz_to_str(state.since),
						   state.reason),
				 errhint("It is tried again every few seconds, by one session at a time.")));
	return answer == HC_BREAKER_PROBE;
}

/* Opens the connection and tells the others how that went. */
static void
connect_guarded(const HcUrl *url, HcBreaker *breaker, bool probing)
{
	TimestampTz begun = GetCurrentTimestamp();
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		connection = hc_connection_open(url, hc_connect_timeout);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		report_failure(breaker, probing, begun);
		PG_RE_THROW();
	}
	PG_END_TRY();
	hc_breaker_answered(breaker);
}

/* Called with the error data set.  What it says decides what it means. */
static void
report_failure(HcBreaker *breaker, bool probing, TimestampTz begun)
{
	int			sqlstate = geterrcode();
	ErrorData  *error;

	if (sqlstate == ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION)
	{
		error = CopyErrorData();
		hc_breaker_failed(breaker, error->message,
						  TimestampDifferenceExceeds(begun, GetCurrentTimestamp(),
													 hc_connect_timeout),
						  probing);
		FreeErrorData(error);
	}
	else if (sqlstate == ERRCODE_QUERY_CANCELED ||
			 sqlstate == ERRCODE_PROTOCOL_VIOLATION ||
			 ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_INSUFFICIENT_RESOURCES)
	{
		/* about this session, or about something that is no Redis */
		if (probing)
			hc_breaker_give_back(breaker);
	}
	else
		hc_breaker_answered(breaker);
}

static void
disconnect(void)
{
	HcConnection *conn = connection;

	connection = NULL;
	watching = false;
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
