/*
 * connection.c
 *	  One connection to a Redis server: non-blocking, interruptible, pipelined.
 *
 * hiredis resolves, reads, writes and parses, but never waits: wait_for() is
 * the one place that sleeps on the socket, and it listens to the latch and to
 * the postmaster too, so that cancels, timeouts and shutdowns act at once.
 */
#include "postgres.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "compat.h"
#include "miscadmin.h"
#include "redis/connection.h"
#include "redis/output.h"
#include "redis/reply.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* What is passed to hiredis at a time. */
#define SLICE	(64 * 1024)

/* Reads of 16 kB until others (signals, the deadline) get their turn. */
#define READS_PER_POLL	64

/*
 * The longest array that is believed.  A length that the server did not mean
 * would otherwise allocate gigabytes before the first element arrives.
 */
#define MAX_ELEMENTS	(64 * 1024 * 1024)

/*
 * The deepest array that is believed.  hiredis frees a reply by recursion, and
 * since 1.0 it has no limit of its own: a server that sends nothing but the
 * beginnings of arrays would overflow the stack.
 */
#define MAX_NESTING		64

struct HcConnection
{
	MemoryContext context;		/* of this struct and its buffers */
	redisContext *redis;		/* NULL before connecting */
	bool		has_fd;			/* ReleaseExternalFD() is due */
	char	   *name;			/* the address, without credentials */
	bool		opening;		/* hc_connection_open() has not returned */
	bool		failed;			/* never to be used again */
	bool		cannot_write;	/* only what has come can still be read */
	bool		too_deep;		/* create_array() refused by MAX_NESTING */
	uint64		owed;			/* replies to come */

	HcOutput	output;			/* what hiredis does not have yet */
	bool		in_slice;		/* hiredis still has a part of a slice */
};

/* Frees a reply with the memory context that it was promised to live in. */
typedef struct ReplyHolder
{
	MemoryContextCallback callback;
	redisReply *reply;
} ReplyHolder;

/* hiredis's own functions, and ours, which differ in create_array() only. */
static redisReplyObjectFunctions *default_functions;
static redisReplyObjectFunctions reply_functions;

static void begin_connecting(HcConnection *conn, const HcUrl *url);
static void finish_connecting(HcConnection *conn, const HcUrl *url,
							  TimestampTz deadline);
static void log_in(HcConnection *conn, const HcUrl *url, TimestampTz deadline);
static void check_auth(HcConnection *conn, const HcUrl *url,
					   const redisReply *reply);
static void append_literal(HcConnection *conn, const char *command);
static void flush(HcConnection *conn);
static bool parse(HcConnection *conn, redisReply **reply);
static bool wait_for(HcConnection *conn, int events, TimestampTz deadline);
static void free_reply(void *arg);
static void *create_array(const redisReadTask *task, HcReplyCount elements);
static void fail_unreachable(HcConnection *conn, const char *problem);
static void fail_lost(HcConnection *conn, const char *problem);
static void fail_hiredis(HcConnection *conn);
static void fail_timeout(HcConnection *conn);

HcConnection *
hc_connection_open(const HcUrl *url, int timeout_ms)
{
	TimestampTz deadline;
	MemoryContext context;
	HcConnection *conn;

	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	/* Until all is well the caller's context is to clean up after us. */
	context = AllocSetContextCreate(CurrentMemoryContext,
									"hybrid_cache connection",
									ALLOCSET_SMALL_SIZES);
	conn = MemoryContextAllocZero(context, sizeof(*conn));
	conn->context = context;
	conn->output.context = context;
	conn->opening = true;

	PG_TRY();
	{
		char	   *name = hc_url_display(url);

		conn->name = MemoryContextStrdup(context, name);
		begin_connecting(conn, url);
		finish_connecting(conn, url, deadline);
		log_in(conn, url, deadline);
	}
	PG_CATCH();
	{
		hc_connection_close(conn);
		PG_RE_THROW();
	}
	PG_END_TRY();

	conn->opening = false;
	MemoryContextSetParent(context, TopMemoryContext);
	return conn;
}

void
hc_connection_close(HcConnection *conn)
{
	if (conn == NULL)
		return;
	redisFree(conn->redis);
	if (conn->has_fd)
		ReleaseExternalFD();
	MemoryContextDelete(conn->context);
}

bool
hc_connection_usable(HcConnection *conn)
{
	ssize_t		n;
	char		byte;

	if (conn->failed || conn->cannot_write || conn->owed > 0 ||
		hc_connection_wants_write(conn) ||
		conn->redis->err != 0 ||
		conn->redis->reader->pos < conn->redis->reader->len)
		return false;

	/*
	 * Nobody owes us anything.  So what can be read is the end, or a farewell
	 * before it, which would be taken for the answer to the next command.
	 */
	do
		n = recv(conn->redis->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

const char *
hc_connection_name(HcConnection *conn)
{
	return conn->name;
}

pgsocket
hc_connection_socket(HcConnection *conn)
{
	return conn->redis->fd;
}

void
hc_connection_append(HcConnection *conn, int argc, const char *const *argv,
					 const size_t *argvlen)
{
	hc_output_append_command(&conn->output, argc, argv, argvlen);

	/* Only now: a command that ran out of memory is not to be waited for. */
	conn->owed++;
}

void
hc_connection_append_raw(HcConnection *conn, const char *buf, size_t len,
						 int n_replies)
{
	hc_output_append(&conn->output, buf, len);
	conn->owed += n_replies;
}

bool
hc_connection_wants_write(HcConnection *conn)
{
	return conn->in_slice || !hc_output_is_empty(&conn->output);
}

bool
hc_connection_poll(HcConnection *conn, redisReply **reply)
{
	redisContext *redis = conn->redis;

	if (conn->failed)
		fail_lost(conn, "an earlier error left it unusable");

	/* First what is here already: many replies come in one read. */
	if (parse(conn, reply))
		return true;

	flush(conn);
	for (int i = 0; i < READS_PER_POLL; i++)
	{
		size_t		before = redis->reader->len;

		if (redisBufferRead(redis) != REDIS_OK)
			fail_hiredis(conn);
		if (redis->reader->len == before)
		{
			if (conn->cannot_write)
				fail_lost(conn, "the server closed it");
			return false;
		}
		if (parse(conn, reply))
			return true;
	}
	return false;
}

redisReply *
hc_connection_reply(HcConnection *conn, TimestampTz deadline)
{
	ReplyHolder *holder = palloc(sizeof(*holder));

	while (!hc_connection_poll(conn, &holder->reply))
	{
		int			events = WL_SOCKET_READABLE;

		if (hc_connection_wants_write(conn))
			events |= WL_SOCKET_WRITEABLE;
		if (!wait_for(conn, events, deadline))
			fail_timeout(conn);
	}

	holder->callback.func = free_reply;
	holder->callback.arg = holder->reply;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &holder->callback);
	return holder->reply;
}

redisReply *
hc_connection_command(HcConnection *conn, TimestampTz deadline, int argc,
					  const char *const *argv, const size_t *argvlen)
{
	redisReply *reply;

	hc_connection_append(conn, argc, argv, argvlen);
	reply = hc_connection_reply(conn, deadline);
	hc_reply_check(reply, conn->name);
	return reply;
}

/*
 * A process that ends cannot wait as others do: an error would be fatal.  The
 * end of our side makes the server close when it has read everything; closing
 * at once could make it lose what it has not read yet.
 */
void
hc_connection_farewell(HcConnection *conn, const char *buf, size_t len, int ms)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	bool		sent = false;

	if (!conn->failed && !conn->cannot_write && !hc_connection_wants_write(conn))
		sent = send(conn->redis->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t) len &&
			shutdown(conn->redis->fd, SHUT_WR) == 0;
	conn->failed = true;
	while (sent)
	{
		struct pollfd wait = {.fd = conn->redis->fd,.events = POLLIN};
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		char		reply[4096];
		ssize_t		n;

		if (left <= 0)
			return;
		if (poll(&wait, 1, (int) left) <= 0)
			continue;
		n = recv(conn->redis->fd, reply, sizeof(reply), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK))
			return;
	}
}

/* Creates the socket; the system goes on connecting by itself. */
static void
begin_connecting(HcConnection *conn, const HcUrl *url)
{
	redisContext *redis;
	int			flags;

	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not connect to Redis server \"%s\"", conn->name),
				 errdetail("There are too many open files in this process."),
				 errhint("Raise the server's max_files_per_process or the system's limit of open files.")));
	conn->has_fd = true;

	/* Name resolution is the one thing here that blocks. */
	if (url->path != NULL)
		redis = redisConnectUnixNonBlock(url->path);
	else
		redis = redisConnectNonBlock(url->host, url->port);
	if (redis == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	conn->redis = redis;
	if (redis->err != 0)
		fail_unreachable(conn, redis->errstr);

	/* A program that this process starts is not to inherit the connection. */
	flags = fcntl(redis->fd, F_GETFD);
	if (flags < 0 || fcntl(redis->fd, F_SETFD, flags | FD_CLOEXEC) < 0)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not set up the connection to Redis server \"%s\": %m",
						conn->name)));

	if (default_functions == NULL)
	{
		default_functions = redis->reader->fn;
		reply_functions = *default_functions;
		reply_functions.createArray = create_array;
	}
	redis->reader->fn = &reply_functions;
	redis->reader->privdata = conn;
}

/* Waits until the socket is connected, and sets its options. */
static void
finish_connecting(HcConnection *conn, const HcUrl *url, TimestampTz deadline)
{
	int			error = 0;
	socklen_t	len = sizeof(error);

	if (!wait_for(conn, WL_SOCKET_CONNECTED, deadline))
		fail_timeout(conn);
	if (getsockopt(conn->redis->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error != 0)
		fail_unreachable(conn, strerror(error));

	/* hiredis has set TCP_NODELAY. */
	if (url->path == NULL && redisEnableKeepAlive(conn->redis) != REDIS_OK)
		fail_unreachable(conn, conn->redis->errstr);
}

/* AUTH and SELECT as the URL says, or a PING to see that somebody answers. */
static void
log_in(HcConnection *conn, const HcUrl *url, TimestampTz deadline)
{
	const redisReply *reply;
	bool		auth = url->password != NULL;
	bool		select = url->db != 0;
	bool		ping = !auth && !select;

	if (auth)
	{
		const char *argv[3] = {"AUTH", url->user, url->password};
		size_t		argvlen[3] = {4, 0, strlen(url->password)};

		if (url->user != NULL)
		{
			argvlen[1] = strlen(url->user);
			hc_connection_append(conn, 3, argv, argvlen);
		}
		else
		{
			argv[1] = argv[2];
			argvlen[1] = argvlen[2];
			hc_connection_append(conn, 2, argv, argvlen);
		}
	}
	if (select)
	{
		char		db[16];
		const char *argv[2] = {"SELECT", db};
		size_t		argvlen[2] = {6, 0};

		argvlen[1] = snprintf(db, sizeof(db), "%d", url->db);
		hc_connection_append(conn, 2, argv, argvlen);
	}
	if (ping)
		append_literal(conn, "PING");

	if (auth)
		check_auth(conn, url, hc_connection_reply(conn, deadline));
	if (select)
		hc_reply_check(hc_connection_reply(conn, deadline), conn->name);
	if (ping)
	{
		reply = hc_connection_reply(conn, deadline);

		/* A user who may not PING is answered too. */
		if (reply->type != REDIS_REPLY_ERROR ||
			hc_reply_sqlstate(reply->str) != ERRCODE_INSUFFICIENT_PRIVILEGE)
			hc_reply_check(reply, conn->name);
	}
}

/*
 * As hc_reply_check(), for the one command that carries the password.  Redis
 * quotes the arguments of a command that it does not know or that has too many
 * of them, so nothing after the first quotation mark is repeated, and nothing
 * at all of a text that contains a secret in the open.
 */
static void
check_auth(HcConnection *conn, const HcUrl *url, const redisReply *reply)
{
	char	   *words;
	const char *hint;
	int			sqlstate;

	if (reply->type != REDIS_REPLY_ERROR)
		return;

	words = hc_reply_clean(reply->str);
	words[strcspn(words, "'`\"")] = '\0';
	if ((url->password[0] != '\0' && strstr(words, url->password) != NULL) ||
		(url->user != NULL && strstr(words, url->user) != NULL))
		words[strcspn(words, " ")] = '\0';
	hint = hc_reply_hint(reply->str);
	sqlstate = hc_reply_sqlstate(reply->str);

	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("could not log in to Redis server \"%s\"", conn->name),
			 errdetail_internal("%s", words),
			 hint ? errhint("%s", hint) : 0));
}

/* A command without arguments. */
static void
append_literal(HcConnection *conn, const char *command)
{
	size_t		len = strlen(command);

	hc_connection_append(conn, 1, &command, &len);
}

/*
 * Sends what the socket takes.  A failure is not raised but remembered: a
 * server that turns us away says why before it closes, and that is to be read.
 */
static void
flush(HcConnection *conn)
{
	while (hc_connection_wants_write(conn))
	{
		int			done = 0;

		if (!conn->in_slice)
		{
			size_t		len;
			const char *slice = hc_output_take(&conn->output, SLICE, &len);

			if (redisAppendFormattedCommand(conn->redis, slice, len) != REDIS_OK)
				fail_hiredis(conn);
			conn->in_slice = true;
		}

		if (redisBufferWrite(conn->redis, &done) != REDIS_OK)
		{
			conn->redis->err = 0;
			conn->cannot_write = true;
			conn->in_slice = false;
			hc_output_clear(&conn->output);
		}
		else if (done)
			conn->in_slice = false;
		else
			return;
	}

	hc_output_clear(&conn->output);
}

/* Takes a reply out of what was read, if one is complete. */
static bool
parse(HcConnection *conn, redisReply **reply)
{
	void	   *result = NULL;

	if (redisGetReplyFromReader(conn->redis, &result) != REDIS_OK)
		fail_hiredis(conn);
	if (result == NULL)
		return false;

	if (conn->owed == 0)
	{
		freeReplyObject(result);
		conn->failed = true;
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("Redis server \"%s\" answered without being asked",
						conn->name)));
	}
	conn->owed--;
	*reply = result;
	return true;
}

/*
 * Waits for an event on the socket.  false: the deadline has passed.  Raises
 * what CHECK_FOR_INTERRUPTS() raises.
 */
static bool
wait_for(HcConnection *conn, int events, TimestampTz deadline)
{
	long		timeout;
	int			happened;

	timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
	if (timeout <= 0)
		return false;

	happened = WaitLatchOrSocket(MyLatch,
								 WL_LATCH_SET | WL_TIMEOUT |
								 WL_EXIT_ON_PM_DEATH | events,
								 conn->redis->fd, timeout, HC_WAIT_REDIS);
	if (happened & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

static void
free_reply(void *arg)
{
	freeReplyObject(arg);
}

/*
 * As hiredis's own, but refuses absurd lengths and depths (hiredis reports no
 * memory).
 */
static void *
create_array(const redisReadTask *task, HcReplyCount elements)
{
	const redisReadTask *parent;
	int			depth = 1;

	for (parent = task->parent; parent != NULL; parent = parent->parent)
		depth++;
	if (depth > MAX_NESTING)
		((HcConnection *) task->privdata)->too_deep = true;
	if (elements > MAX_ELEMENTS || depth > MAX_NESTING)
		return NULL;
	return default_functions->createArray(task, elements);
}

static void
fail_unreachable(HcConnection *conn, const char *problem)
{
	conn->failed = true;
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("could not connect to Redis server \"%s\": %s",
					conn->name, problem),
			 errhint("Check that it runs and that this machine can reach it.")));
}

static void
fail_lost(HcConnection *conn, const char *problem)
{
	if (conn->opening)
		fail_unreachable(conn, problem);
	conn->failed = true;
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("lost the connection to Redis server \"%s\": %s",
					conn->name, problem)));
}

/* Raises what hiredis reports. */
static void
fail_hiredis(HcConnection *conn)
{
	redisContext *redis = conn->redis;

	conn->failed = true;
	if (conn->too_deep)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("could not understand Redis server \"%s\"", conn->name),
				 errdetail("Its answer has more than %d arrays within each other.",
						   MAX_NESTING)));
	switch (redis->err)
	{
		case REDIS_ERR_PROTOCOL:
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("could not understand Redis server \"%s\"",
							conn->name),
					 errdetail("%s.", hc_reply_clean(redis->errstr)),
					 errhint("Check that this is the address of a Redis server.")));
			break;
		case REDIS_ERR_OOM:
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("the answer of Redis server \"%s\" does not fit into memory",
							conn->name)));
			break;
		case REDIS_ERR_EOF:
			fail_lost(conn, "the server closed it");
			break;
		default:
			fail_lost(conn, redis->errstr);
			break;
	}
}

static void
fail_timeout(HcConnection *conn)
{
	conn->failed = true;
	if (conn->opening)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to Redis server \"%s\": timed out",
						conn->name),
				 errhint("The time limit is hybrid_cache.connect_timeout.")));
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("lost the connection to Redis server \"%s\": timed out",
					conn->name),
			 errhint("The time limit is hybrid_cache.command_timeout.")));
}
