/*
 * link.c
 *	  The socket to a Redis server, with hiredis at its end.
 *
 * hiredis resolves, reads, writes and parses, but never waits: hc_link_wait() is
 * the one place that sleeps on the socket, and it listens to the latch and to
 * the postmaster too, so that cancels, timeouts and shutdowns act at once.
 *
 * It does not sleep at once, though.  A Redis on the same machine answers in less
 * time than it takes to put a process to sleep and to wake it up again, which is
 * up to ten times as long where the processor sleeps as well.  So it looks again
 * and again for a moment first, and offers the processor to others in between: to
 * Redis, where there is none but that.  If the answer is not there soon, or
 * others keep the processor for long, it sleeps for a while of answers as ever:
 * Redis is far away then, or busy, or this machine is.
 *
 * hiredis believes any server.  So it is given a function of ours that refuses
 * answers which no Redis means.
 */
#include "postgres.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "redis/link.h"
#include "redis/reply.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* The postmaster, the latch, and last the socket. */
#define WAIT_EVENTS		3

/*
 * What has not come within so many microseconds is worth sleeping for, and so are
 * the next ones.
 */
#define QUICK_US		100
#define N_SLEEPS		16

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

/* hiredis's own functions, and ours, which differ in create_array() only. */
static redisReplyObjectFunctions *default_functions;
static redisReplyObjectFunctions reply_functions;

static void begin_connecting(HcLink *link, const HcUrl *url);
static void finish_connecting(HcLink *link, const HcUrl *url,
							  TimestampTz deadline);
static bool look(HcLink *link);
static bool is_quick(instr_time begun);
static void *create_array(const redisReadTask *task, HcReplyCount elements);
HC_NORETURN static void fail_unreachable(HcLink *link, const char *problem);

void
hc_link_open(HcLink *link, const HcUrl *url, TimestampTz deadline)
{
	link->opening = true;
	link->name = hc_url_display(url);
	begin_connecting(link, url);
	finish_connecting(link, url, deadline);
}

void
hc_link_close(HcLink *link)
{
	if (link->wait != NULL)
		FreeWaitEventSet(link->wait);
	redisFree(link->redis);
	if (link->has_fd)
		ReleaseExternalFD();
}

void
hc_link_set_functions(HcLink *link, redisReplyObjectFunctions *functions,
					  void *privdata)
{
	redisReader *reader = link->redis->reader;

	reader->fn = functions != NULL ? functions : &reply_functions;
	reader->privdata = functions != NULL ? privdata : link;
}

bool
hc_link_wait(HcLink *link, int events, TimestampTz deadline)
{
	long		timeout;
	WaitEvent	happened;

	/* first: an answer that comes in pieces, each of them soon, can be endless */
	timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
	if (timeout <= 0)
		return false;

	if (events == WL_SOCKET_READABLE)
	{
		if (link->sleeps > 0)
			link->sleeps--;
		else if (look(link))
			return true;
	}

	/* Kept: to make one takes as long as a good part of a round trip. */
	if (link->wait == NULL)
	{
		link->wait = hc_compat_create_wait(WAIT_EVENTS);
		AddWaitEventToSet(link->wait, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET,
						  NULL, NULL);
		AddWaitEventToSet(link->wait, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch,
						  NULL);
		AddWaitEventToSet(link->wait, events, link->redis->fd, NULL, NULL);
	}
	ModifyWaitEvent(link->wait, WAIT_EVENTS - 1, events, NULL);

	if (WaitEventSetWait(link->wait, timeout, &happened, 1, HC_WAIT_REDIS) > 0 &&
		happened.events == WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

void
hc_link_yield(HcLink *link)
{
	instr_time	begun;

	if (link->sleeps > 0)
		return;
	INSTR_TIME_SET_CURRENT(begun);
	sched_yield();
	if (!is_quick(begun))
		link->sleeps = N_SLEEPS;
}

void
hc_link_fail(HcLink *link, const char *problem)
{
	if (link->opening)
		fail_unreachable(link, problem);
	link->failed = true;
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("lost the connection to Redis server \"%s\": %s",
					link->name, problem)));
}

void
hc_link_time_out(HcLink *link)
{
	link->failed = true;
	if (link->opening)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to Redis server \"%s\": timed out",
						link->name),
				 errhint("The time limit is hybrid_cache.connect_timeout.")));
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("lost the connection to Redis server \"%s\": timed out",
					link->name),
			 errhint("The time limit is hybrid_cache.command_timeout.")));
}

void
hc_link_fail_hiredis(HcLink *link)
{
	redisContext *redis = link->redis;

	link->failed = true;
	if (link->too_deep)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("could not understand Redis server \"%s\"", link->name),
				 errdetail("Its answer has more than %d arrays within each other.",
						   MAX_NESTING)));
	switch (redis->err)
	{
		case REDIS_ERR_PROTOCOL:
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("could not understand Redis server \"%s\"",
							link->name),
					 errdetail("%s.", hc_reply_clean(redis->errstr)),
					 errhint("Check that this is the address of a Redis server.")));
			break;
		case REDIS_ERR_OOM:
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("the answer of Redis server \"%s\" does not fit into memory",
							link->name)));
			break;
		case REDIS_ERR_EOF:
			hc_link_fail(link, "the server closed it");
			break;
		default:
			hc_link_fail(link, redis->errstr);
			break;
	}
}

/* Creates the socket; the system goes on connecting by itself. */
static void
begin_connecting(HcLink *link, const HcUrl *url)
{
	redisContext *redis;
	int			flags;

	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not connect to Redis server \"%s\"", link->name),
				 errdetail("There are too many open files in this process."),
				 errhint("Raise the server's max_files_per_process or the system's limit of open files.")));
	link->has_fd = true;

	/* Name resolution is the one thing here that blocks. */
	if (url->path != NULL)
		redis = redisConnectUnixNonBlock(url->path);
	else
		redis = redisConnectNonBlock(url->host, url->port);
	if (redis == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	link->redis = redis;
	if (redis->err != 0)
		fail_unreachable(link, redis->errstr);

	/* A program that this process starts is not to inherit the connection. */
	flags = fcntl(redis->fd, F_GETFD);
	if (flags < 0 || fcntl(redis->fd, F_SETFD, flags | FD_CLOEXEC) < 0)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not set up the connection to Redis server \"%s\": %m",
						link->name)));

	if (default_functions == NULL)
	{
		default_functions = redis->reader->fn;
		reply_functions = *default_functions;
		reply_functions.createArray = create_array;
	}
	hc_link_set_functions(link, NULL, NULL);
}

/* Waits until the socket is connected, and sets its options. */
static void
finish_connecting(HcLink *link, const HcUrl *url, TimestampTz deadline)
{
	int			error = 0;
	socklen_t	len = sizeof(error);

	if (!hc_link_wait(link, WL_SOCKET_CONNECTED, deadline))
		hc_link_time_out(link);
	if (getsockopt(link->redis->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error != 0)
		fail_unreachable(link, strerror(error));

	/* hiredis has set TCP_NODELAY. */
	if (url->path == NULL && redisEnableKeepAlive(link->redis) != REDIS_OK)
		fail_unreachable(link, link->redis->errstr);
}

/* Does anything come while it is not worth sleeping? */
static bool
look(HcLink *link)
{
	struct pollfd socket = {.fd = link->redis->fd,.events = POLLIN};
	instr_time	begun;
	bool		found;

	INSTR_TIME_SET_CURRENT(begun);
	for (;;)
	{
		if (InterruptPending)
			return false;		/* the latch is set, too */
		found = poll(&socket, 1, 0) > 0;
		if (found || !is_quick(begun))
			break;
		sched_yield();
	}
	if (!is_quick(begun))
		link->sleeps = N_SLEEPS;
	return found;
}

static bool
is_quick(instr_time begun)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, begun);
	return INSTR_TIME_GET_MICROSEC(now) < QUICK_US;
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
		((HcLink *) task->privdata)->too_deep = true;
	if (elements > MAX_ELEMENTS || depth > MAX_NESTING)
		return NULL;
	return default_functions->createArray(task, elements);
}

static void
fail_unreachable(HcLink *link, const char *problem)
{
	link->failed = true;
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("could not connect to Redis server \"%s\": %s",
					link->name, problem),
			 errhint("Check that it runs and that this machine can reach it.")));
}
