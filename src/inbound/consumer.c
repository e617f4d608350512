/*
 * consumer.c
 *	  The process that reads Redis streams and calls handlers with their messages.
 *
 * One process per database serves all its consumers in turn, a batch each, over
 * one connection; when there is nothing in any stream, it waits for all of them
 * with one command.  It runs only while the sync worker is connected, so that of
 * several copies of a database the one reads that also writes.
 *
 * No transaction is open while Redis is awaited.
 */
#include "postgres.h"

#include "capture/ledger.h"
#include "compat.h"
#include "inbound/consumer.h"
#include "inbound/delivery.h"
#include "inbound/inlet.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "redis/reply.h"
#include "role.h"
#include "settings.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/fence.h"
#include "worker/recover.h"
#include "worker/sync.h"

/* How long it waits for messages before it looks around. */
#define LISTEN_MS			1000

/* How often its statistics are reported. */
#define REPORT_MS			1000

/* A consumer that waits for longer after errors tries another connection. */
#define RECONNECT_MS		1000

/* A stream turned out to be none: look again. */
#define BUSY_MS				100

/* With nothing to do it stays for so long, since more may come. */
#define LINGER_MS			5000

/* COMMIT PREPARED tells nobody that there are other consumers. */
#define LOAD_MS				10000

static HcDatabase *consumer_db = NULL;
static List *inlets = NIL;		/* HcInlet *, in the TopMemoryContext */
static TimestampTz load_at = 0;	/* when to see at the latest which there are */
static HcConnection *conn = NULL;
static char *conn_url = NULL;	/* hybrid_cache.redis_url that it is for */
static TimestampTz reconnect_at = 0;
static int	reconnect_ms = 0;
static char *problem = NULL;	/* the message that was logged last */

static void
leave(bool unfinished)
{
	hc_role_leave(consumer_db, HC_ROLE_CONSUMER, unfinished);
	proc_exit(0);
}

static void
disconnect(void)
{
	HcConnection *old = conn;

	conn = NULL;
	hc_connection_close(old);
}

void
hc_consumer_obey(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}

	/* the settings of a database are only read when a process starts */
	if (pg_atomic_read_u32(&consumer_db->posts[HC_ROLE_CONSUMER].recheck) != 0)
		leave(true);
	if (consumer_db->aside_until != 0 && hc_shmem_is_aside(MyDatabaseId))
		leave(true);
}

static bool
is_wanted(void)
{
	return pg_atomic_read_u32(&consumer_db->posts[HC_ROLE_CONSUMER].wanted) != 0;
}

/* Sleeps, but not if there is something new to do. */
static void
rest(long ms)
{
	if (is_wanted())
		return;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, HC_WAIT_WORKER);
	ResetLatch(MyLatch);
}

static HcInlet *
find_inlet(int64 id)
{
	ListCell   *lc;

	foreach(lc, inlets)
	{
		if (((HcInlet *) lfirst(lc))->row.id == id)
			return lfirst(lc);
	}
	return NULL;
}

/* Is it still the same, as far as this process is concerned? */
static bool
is_unchanged(const HcInlet *inlet, const HcConsumer *row)
{
	return strcmp(inlet->row.name, row->name) == 0 &&
		strcmp(inlet->row.stream, row->stream) == 0 &&
		strcmp(inlet->row.handler, row->handler) == 0 &&
		inlet->row.role == row->role && inlet->row.batch == row->batch &&
		inlet->row.max_attempts == row->max_attempts &&
		inlet->row.attempts == row->attempts &&
		(inlet->row.error == NULL) == (row->error == NULL) &&
		hc_message_compare(inlet->row.position, row->position) == 0;
}

/* Reads which consumers there are, in the current memory context. */
static void
load(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *kept = NIL;
	List	   *rows = NIL;
	ListCell   *lc;

	load_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOAD_MS);
	hc_roster_begin();
	if (OidIsValid(hc_ledger_oid("consumer")))
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		rows = hc_roster_read();
		MemoryContextSwitchTo(old);
	}
	hc_roster_end(context);

	foreach(lc, rows)
	{
		const HcConsumer *row = lfirst(lc);
		HcInlet    *inlet = find_inlet(row->id);
		MemoryContext old;

		if (!hc_roster_is_active(row))
			continue;
		old = MemoryContextSwitchTo(TopMemoryContext);
		if (inlet != NULL && is_unchanged(inlet, row))
			inlets = list_delete_ptr(inlets, inlet);
		else
			inlet = hc_inlet_create(row);
		inlet->asked = true;
		kept = lappend(kept, inlet);
		MemoryContextSwitchTo(old);
	}
	foreach(lc, inlets)
		hc_inlet_free(lfirst(lc));
	list_free(inlets);
	inlets = kept;
}

/*
 * Consumers of the database that this one was before pg_upgrade go on here, unless
 * that database is still alive.
 */
static void
adopt(void)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   hc_command_timeout);
	char		lease[HC_FENCE_TEXT_SIZE];
	const char *argv[2] = {"EXISTS", lease};
	size_t		argvlen[2] = {6, 0};
	uint64		system;
	Oid			database;
	bool		found;

	hc_roster_begin();
	found = OidIsValid(hc_ledger_oid("consumer")) &&
		hc_roster_former(&system, &database);
	hc_roster_end(context);
	if (!found)
		return;
	hc_fence_lease_key(system, database, lease);
	argvlen[1] = strlen(lease);
	if (hc_reply_integer(hc_connection_command(conn, deadline, 2, argv, argvlen)) != 0)
		return;
	hc_roster_begin();
	hc_roster_adopt(system, database);
	hc_roster_end(context);
}

/*
 * A failure outside of handlers.  Called with the error data set.  What is about the
 * connection is everybody's, anything else the consumer's.
 */
static void
recover(HcInlet *inlet)
{
	ErrorData  *error = hc_recover_error();
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	if (conn != NULL && !hc_connection_usable(conn))
		disconnect();
	if (inlet != NULL && conn != NULL && category != ERRCODE_CONNECTION_EXCEPTION)
	{
		hc_delivery_fail(inlet, error);

		/* the address may lead to another server by now */
		if (inlet->retry_ms > RECONNECT_MS)
			disconnect();
		FreeErrorData(error);
		return;
	}

	disconnect();
	reconnect_ms = hc_delivery_pause(reconnect_ms);
	reconnect_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), reconnect_ms);
	ereport(hc_recover_is_news(&problem, error) ? LOG : DEBUG1,
			(errcode(error->sqlerrcode),
			 errmsg("%s cannot read streams: %s", MyBgworkerEntry->bgw_name,
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
	FreeErrorData(error);
}

static void
reconnect(void)
{
	HcUrl		url;
	const char *wrong;
	ListCell   *lc;

	if (hc_redis_url == NULL || hc_redis_url[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("hybrid_cache.redis_url is empty")));
	if (conn_url != NULL)
		pfree(conn_url);
	conn_url = MemoryContextStrdup(TopMemoryContext, hc_redis_url);
	if (!hc_url_parse(conn_url, &url, &wrong))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("hybrid_cache.redis_url is invalid"),
				 errdetail_internal("%s", wrong)));
	conn = hc_connection_open(&url, hc_connect_timeout);
	foreach(lc, inlets)
		hc_inlet_reread(lfirst(lc));
	hc_recover_forget(&problem);
	reconnect_ms = 0;
	adopt();
}

/* The same; what goes wrong is dealt with. */
static bool
try_to_serve(HcInlet *inlet)
{
	volatile bool more = false;

	PG_TRY();
	{
		more = hc_delivery_serve(inlet, conn);
	}
	PG_CATCH();
	{
		recover(inlet);
	}
	PG_END_TRY();
	return more;
}

/* Serves each consumer once; true if there may be more to do. */
static bool
serve_all(MemoryContext context)
{
	bool		more = false;
	ListCell   *lc;

	foreach(lc, inlets)
	{
		HcInlet    *inlet = lfirst(lc);

		hc_consumer_obey();
		if (conn == NULL || pg_atomic_read_u32(&consumer_db->connected) == 0)
			return false;
		if (inlet->retry_at > GetCurrentTimestamp())
			continue;
		if (try_to_serve(inlet))
			more = true;
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
	}
	return more;
}

/*
 * Has what handlers have done counted, for autovacuum above all: about once a
 * second, also while messages never end.  It is forced, since PostgreSQL itself
 * puts it off until a later transaction, which may not come for long.
 */
static void
report_statistics(void)
{
	static TimestampTz reported_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(reported_at, now, REPORT_MS))
		return;
	pgstat_report_stat(true);
	reported_at = now;
}

/* Waits until there is something in a stream, or something else to do. */
static void
listen_to_streams(void)
{
	List	   *ready = NIL;
	TimestampTz now = GetCurrentTimestamp();
	long		ms = LISTEN_MS;
	TimestampTz deadline;
	redisReply *reply;
	ListCell   *lc;

	foreach(lc, inlets)
	{
		HcInlet    *inlet = lfirst(lc);

		if (inlet->retry_at <= now)
			ready = lappend(ready, inlet);
		else
			ms = Min(ms, TimestampDifferenceMilliseconds(now, inlet->retry_at) + 1);
	}
	pgstat_report_activity(STATE_IDLE, NULL);
	report_statistics();
	if (ready == NIL)
	{
		rest(ms);
		return;
	}

	hc_inlet_listen(ready, conn, ms);
	deadline = TimestampTzPlusMilliseconds(now, ms + hc_command_timeout);
	while (!hc_connection_poll(conn, &reply))
	{
		if (is_wanted() || ConfigReloadPending)
		{
			/* Redis has no cancel */
			disconnect();
			return;
		}
		if (!hc_connection_wait(conn, deadline))
			hc_connection_time_out(conn);
		hc_consumer_obey();
		if (conn == NULL)
			return;
	}
	if (reply->type == REDIS_REPLY_ERROR)
	{
		/* a stream that is none any more: who reads it will say so */
		freeReplyObject(reply);
		rest(BUSY_MS);
		return;
	}
	freeReplyObject(reply);
}

static void
turn(MemoryContext context)
{
	PG_TRY();
	{
		if (conn != NULL && strcmp(hc_redis_url ? hc_redis_url : "", conn_url) != 0)
			disconnect();
		if (pg_atomic_exchange_u32(&consumer_db->posts[HC_ROLE_CONSUMER].wanted, 0) != 0 ||
			GetCurrentTimestamp() >= load_at)
			load();
		if (inlets != NIL && pg_atomic_read_u32(&consumer_db->connected) == 0)
			rest(LISTEN_MS);
		else if (inlets != NIL && conn == NULL && GetCurrentTimestamp() < reconnect_at)
			rest(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), reconnect_at) + 1);
		else
		{
			if (conn == NULL && GetCurrentTimestamp() >= reconnect_at)
			{
				reconnect();
				load();
			}
			if (inlets == NIL)
				rest(LISTEN_MS);
			else if (serve_all(context))
				report_statistics();
			else if (conn != NULL)
				listen_to_streams();
		}
	}
	PG_CATCH();
	{
		recover(NULL);
	}
	PG_END_TRY();
}

void
hc_consumer_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	MemoryContext turn_context;
	TimestampTz leave_at = 0;	/* if there is no consumer until then; 0: there is */

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	hc_shmem_connect(database);

	/* handlers have the search_path and the limits of the database */
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET,
					PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET,
					PGC_S_OVERRIDE);

	consumer_db = hc_role_take(HC_ROLE_CONSUMER, database);
	if (consumer_db == NULL)
		proc_exit(0);
	turn_context = AllocSetContextCreate(TopMemoryContext, "hybrid_cache turn",
										 ALLOCSET_DEFAULT_SIZES);
	pg_atomic_write_u32(&consumer_db->posts[HC_ROLE_CONSUMER].wanted, 1);

	for (;;)
	{
		hc_consumer_obey();
		MemoryContextSwitchTo(turn_context);
		MemoryContextReset(turn_context);
		turn(turn_context);
		if (inlets != NIL)
			leave_at = 0;
		else if (leave_at == 0)
			leave_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LINGER_MS);
		else if (GetCurrentTimestamp() >= leave_at && !is_wanted())
			leave(false);
	}
}

/* Has a process started if there is a consumer for it. */
static void
look(void)
{
	MemoryContext context = CurrentMemoryContext;
	bool		found;

	if (hc_role_is_taken(HC_ROLE_CONSUMER))
		return;
	hc_roster_begin();
	found = OidIsValid(hc_ledger_oid("consumer")) && hc_roster_has_work();
	hc_roster_end(context);
	if (found)
		hc_role_call(HC_ROLE_CONSUMER);
}

void
hc_consumer_init(void)
{
	hc_sync_add_watch(NULL, look);
}
