/*
 * connection.c
 *	  One connection to a Redis server: non-blocking, interruptible, pipelined.
 *
 * The socket is link.c's; here is the conversation: the login, what is sent, and how
 * many replies are owed.
 */
#include "postgres.h"

#include <poll.h>
#include <sys/socket.h>

#include "redis/connection.h"
#include "redis/link.h"
#include "redis/output.h"
#include "redis/reply.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* What is passed to hiredis at a time. */
#define SLICE	(64 * 1024)

/* Reads of 16 kB until others (signals, the deadline) get their turn. */
#define READS_PER_POLL	64

struct HcConnection
{
	MemoryContext context;		/* of this struct and its buffers */
	HcLink		link;
	bool		cannot_write;	/* only what has come can still be read */
	bool		refused;		/* hc_connection_refuse() was called */
	bool		listening;		/* hc_connection_listen() was called */
	uint64		owed;			/* replies to come */
	uint64		received;		/* bytes */

	HcOutput	output;			/* what hiredis does not have yet */
	bool		in_slice;		/* hiredis still has a part of a slice */
};

/* Frees a reply with the memory context that it was promised to live in. */
typedef struct ReplyHolder
{
	MemoryContextCallback callback;
	redisReply *reply;
} ReplyHolder;

static void log_in(HcConnection *conn, const HcUrl *url, TimestampTz deadline);
static void check_auth(HcConnection *conn, const HcUrl *url,
					   const redisReply *reply);
static void append_literal(HcConnection *conn, const char *command);
static void flush(HcConnection *conn);
static bool parse(HcConnection *conn, redisReply **reply);
static redisReply *hold(ReplyHolder *holder);
static void free_reply(void *arg);

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

	PG_TRY();
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		hc_link_open(&conn->link, url, deadline);
		MemoryContextSwitchTo(old);
		log_in(conn, url, deadline);
	}
	PG_CATCH();
	{
		hc_connection_close(conn);
		PG_RE_THROW();
	}
	PG_END_TRY();

	conn->link.opening = false;
	MemoryContextSetParent(context, TopMemoryContext);
	return conn;
}

void
hc_connection_close(HcConnection *conn)
{
	if (conn == NULL)
		return;
	hc_link_close(&conn->link);
	MemoryContextDelete(conn->context);
}

bool
hc_connection_usable(HcConnection *conn)
{
	ssize_t		n;
	char		byte;

	if (conn->link.failed || conn->cannot_write || conn->owed > 0 ||
		hc_connection_wants_write(conn) ||
		conn->link.redis->err != 0 ||
		conn->link.redis->reader->pos < conn->link.redis->reader->len)
		return false;

	/*
	 * Nobody owes us anything.  So what can be read is the end, or a farewell
	 * before it, which would be taken for the answer to the next command.
	 */
	do
		n = recv(conn->link.redis->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

const char *
hc_connection_name(HcConnection *conn)
{
	return conn->link.name;
}

pgsocket
hc_connection_socket(HcConnection *conn)
{
	return conn->link.redis->fd;
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
	redisContext *redis = conn->link.redis;

	if (conn->link.failed)
		hc_link_fail(&conn->link, "an earlier error left it unusable");

	/* First what is here already: many replies come in one read. */
	if (parse(conn, reply))
		return true;

	flush(conn);
	for (int i = 0; i < READS_PER_POLL; i++)
	{
		size_t		before = redis->reader->len;

		if (redisBufferRead(redis) != REDIS_OK)
			hc_link_fail_hiredis(&conn->link);
		if (redis->reader->len == before)
		{
			if (conn->cannot_write)
				hc_link_fail(&conn->link, "the server closed it");
			return false;
		}
		conn->received += redis->reader->len - before;
		if (parse(conn, reply))
			return true;
	}
	return false;
}

void
hc_connection_listen(HcConnection *conn)
{
	conn->listening = true;
}

redisReply *
hc_connection_next(HcConnection *conn)
{
	ReplyHolder *holder = palloc(sizeof(*holder));

	if (!hc_connection_poll(conn, &holder->reply))
	{
		pfree(holder);
		return NULL;
	}
	return hold(holder);
}

redisReply *
hc_connection_reply(HcConnection *conn, TimestampTz deadline)
{
	ReplyHolder *holder = palloc(sizeof(*holder));

	if (hc_connection_wants_write(conn) && !conn->link.failed)
	{
		flush(conn);
		hc_link_yield(&conn->link);
	}
	while (!hc_connection_poll(conn, &holder->reply))
	{
		if (!hc_connection_wait(conn, deadline))
			hc_connection_time_out(conn);
	}

	return hold(holder);
}

redisReply *
hc_connection_command(HcConnection *conn, TimestampTz deadline, int argc,
					  const char *const *argv, const size_t *argvlen)
{
	redisReply *reply;

	hc_connection_append(conn, argc, argv, argvlen);
	reply = hc_connection_reply(conn, deadline);
	hc_reply_check(reply, conn->link.name);
	return reply;
}

bool
hc_connection_wait(HcConnection *conn, TimestampTz deadline)
{
	int			events = WL_SOCKET_READABLE;

	if (hc_connection_wants_write(conn))
		events |= WL_SOCKET_WRITEABLE;
	return hc_link_wait(&conn->link, events, deadline);
}

uint64
hc_connection_received(HcConnection *conn)
{
	return conn->received;
}

void
hc_connection_set_functions(HcConnection *conn,
							redisReplyObjectFunctions *functions, void *privdata)
{
	Assert(conn->owed == 0);
	hc_link_set_functions(&conn->link, functions, privdata);
}

void
hc_connection_refuse(HcConnection *conn)
{
	conn->refused = true;
}

void
hc_connection_time_out(HcConnection *conn)
{
	hc_link_time_out(&conn->link);
}

void
hc_connection_distrust(HcConnection *conn)
{
	conn->link.failed = true;
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("could not understand Redis server \"%s\"", conn->link.name),
			 errhint("Check that this is the address of a Redis server.")));
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

	if (!conn->link.failed && !conn->cannot_write && !hc_connection_wants_write(conn))
		sent = send(conn->link.redis->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t) len &&
			shutdown(conn->link.redis->fd, SHUT_WR) == 0;
	conn->link.failed = true;
	while (sent)
	{
		struct pollfd wait = {.fd = conn->link.redis->fd,.events = POLLIN};
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		char		reply[4096];
		ssize_t		n;

		if (left <= 0)
			return;
		if (poll(&wait, 1, (int) left) <= 0)
			continue;
		n = recv(conn->link.redis->fd, reply, sizeof(reply), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK))
			return;
	}
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
		hc_reply_check(hc_connection_reply(conn, deadline), conn->link.name);
	if (ping)
	{
		reply = hc_connection_reply(conn, deadline);

		/* A user who may not PING is answered too. */
		if (reply->type != REDIS_REPLY_ERROR ||
			hc_reply_sqlstate(reply->str) != ERRCODE_INSUFFICIENT_PRIVILEGE)
			hc_reply_check(reply, conn->link.name);
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
			 errmsg("could not log in to Redis server \"%s\"", conn->link.name),
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

			if (redisAppendFormattedCommand(conn->link.redis, slice, len) != REDIS_OK)
				hc_link_fail_hiredis(&conn->link);
			conn->in_slice = true;
		}

		if (redisBufferWrite(conn->link.redis, &done) != REDIS_OK)
		{
			conn->link.redis->err = 0;
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

	if (redisGetReplyFromReader(conn->link.redis, &result) != REDIS_OK)
	{
		if (conn->refused)
			hc_connection_distrust(conn);
		hc_link_fail_hiredis(&conn->link);
	}
	if (result == NULL)
		return false;

	if (conn->owed == 0 && !conn->listening)
	{
		conn->link.redis->reader->fn->freeObject(result);
		conn->link.failed = true;
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("Redis server \"%s\" answered without being asked",
						conn->link.name)));
	}
	if (!conn->listening)
		conn->owed--;
	*reply = result;
	return true;
}

/* The reply is freed with the current memory context. */
static redisReply *
hold(ReplyHolder *holder)
{
	holder->callback.func = free_reply;
	holder->callback.arg = holder->reply;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &holder->callback);
	return holder->reply;
}

static void
free_reply(void *arg)
{
	freeReplyObject(arg);
}
