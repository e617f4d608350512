/*
 * bridge.c
 *	  The bridge process of a database: messages of Redis become notifications.
 *
 * It runs while there are bridges.  What it is to do stands in a table
 * (inbound/bridged.h); it reads that when it is woken, and when the sync worker
 * has looked into it.  A change of the table is a change of what it is subscribed
 * to on the same connection, so that the other bridges lose nothing.
 *
 * It is a process of its own, since it waits for a connection where messages come
 * unasked, and for PostgreSQL's queue of notifications, which can be full.  While
 * that is so it does not read on: Redis keeps what it may, and then ends the
 * connection.
 *
 * Locking: of shared memory it writes the atomics of its counters.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "inbound/bridge.h"
#include "inbound/bridged.h"
#include "inbound/notifier.h"
#include "inbound/subscriber.h"
#include "inbound/traffic.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "role.h"
#include "settings.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/recover.h"
#include "worker/sync.h"

/* After a failure it tries again after this time, then twice as long, up to the most. */
#define RETRY_FIRST_MS	100
#define RETRY_MOST_MS	5000

/* How long it sleeps at most. */
#define REST_MS			60000

typedef struct Bridge
{
	HcDatabase *db;
	HcSubscriber *sub;			/* NULL: not connected */
	char	   *url;			/* that it is connected to */
	HcNotifier *notifier;
	MemoryContext list_context;
	List	   *bridges;		/* HcBridged * */
	int			retry_ms;		/* 0: nothing has failed since all was well */
	TimestampTz retry_at;
	char	   *told;			/* see hc_recover_is_news() */
} Bridge;

/* The counters of a bridge, or NULL. */
static HcTraffic *
traffic_of(const Bridge *bridge, const HcBridged *bridged)
{
	return hc_traffic_find(bridge->db->bridges, bridged->id, true);
}

/* Says which bridges are subscribed. */
static void
show(Bridge *bridge)
{
	ListCell   *lc;

	foreach(lc, bridge->bridges)
	{
		const HcBridged *bridged = lfirst(lc);
		HcTraffic  *traffic = traffic_of(bridge, bridged);

		if (traffic != NULL)
			hc_traffic_subscribed(traffic, bridge->sub != NULL &&
								  hc_subscriber_has(bridge->sub, bridged->subject));
	}
}

static void
disconnect(Bridge *bridge)
{
	HcSubscriber *sub = bridge->sub;

	bridge->sub = NULL;
	hc_subscriber_close(sub);
	show(bridge);
}

/* Ends this process; the launcher starts another if it is wanted. */
static void
leave(Bridge *bridge, bool unfinished)
{
	disconnect(bridge);
	hc_role_leave(bridge->db, HC_ROLE_BRIDGE, unfinished);
	proc_exit(0);
}

static void
obey(Bridge *bridge)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}

	/* the settings of a database are only read when a process starts */
	if (pg_atomic_read_u32(&bridge->db->posts[HC_ROLE_BRIDGE].recheck) != 0 ||
		(bridge->db->aside_until != 0 && hc_shmem_is_aside(MyDatabaseId)))
		leave(bridge, true);

	/* the sync worker has none then, and calls when it has */
	if (hc_redis_url == NULL || hc_redis_url[0] == '\0')
		leave(bridge, false);
	if (bridge->sub != NULL && strcmp(bridge->url, hc_redis_url) != 0)
		disconnect(bridge);
}

/* The patterns of all bridges: HcBytes *, each once. */
static List *
patterns(const Bridge *bridge)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, bridge->bridges)
	{
		HcBridged  *bridged = lfirst(lc);
		ListCell   *other;

		foreach(other, result)
		{
			if (hc_bytes_equal(*(HcBytes *) lfirst(other), bridged->subject))
				break;
		}
		if (other == NULL)
			result = lappend(result, &bridged->subject);
	}
	return result;
}

/* The counters of bridges that are gone are free for others. */
static void
forget_counters(Bridge *bridge)
{
	int			n = list_length(bridge->bridges);
	uint64	   *ids = palloc(Max(n, 1) * sizeof(uint64));
	int			i;

	for (i = 0; i < n; i++)
		ids[i] = ((HcBridged *) list_nth(bridge->bridges, i))->id;
	hc_traffic_keep(bridge->db->bridges, ids, n);
}

/* Reads the table; ends this process if it is empty, or gone. */
static void
load(Bridge *bridge)
{
	MemoryContext old = CurrentMemoryContext;
	List	   *bridges;
	bool		exists;

	pg_atomic_write_u32(&bridge->db->posts[HC_ROLE_BRIDGE].wanted, 0);
	pg_memory_barrier();

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	bridge->bridges = NIL;
	MemoryContextReset(bridge->list_context);
	MemoryContextSwitchTo(bridge->list_context);
	bridges = hc_bridged_list(&exists);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);

	bridge->bridges = bridges;
	forget_counters(bridge);
	if (bridges == NIL)
		leave(bridge, false);
	if (bridge->sub != NULL)
		hc_subscriber_want(bridge->sub, patterns(bridge));
}

static void
subscribe(Bridge *bridge)
{
	HcUrl		url;
	const char *problem;
	HcConnection *conn;
	MemoryContext old;

	if (bridge->url != NULL)
		pfree(bridge->url);
	bridge->url = MemoryContextStrdup(TopMemoryContext, hc_redis_url);
	if (!hc_url_parse(bridge->url, &url, &problem))
		elog(ERROR, "hybrid_cache.redis_url was not checked: %s", problem);
	conn = hc_connection_open(&url, hc_connect_timeout);
	old = MemoryContextSwitchTo(TopMemoryContext);
	bridge->sub = hc_subscriber_create(conn);
	MemoryContextSwitchTo(old);
	hc_subscriber_want(bridge->sub, patterns(bridge));
}

/* Gives a message to all bridges of its pattern. */
static void
carry(Bridge *bridge, const HcPublished *published)
{
	ListCell   *lc;

	foreach(lc, bridge->bridges)
	{
		const HcBridged *bridged = lfirst(lc);

		if (!hc_bytes_equal(bridged->subject, published->pattern))
			continue;
		if (hc_notifier_is_full(bridge->notifier))
			hc_notifier_deliver(bridge->notifier);
		hc_notifier_add(bridge->notifier, bridged, traffic_of(bridge, bridged), published);
	}
}

/* All is well, again perhaps. */
static void
succeeded(Bridge *bridge)
{
	bridge->retry_ms = 0;
	if (bridge->told != NULL)
		ereport(LOG, (errmsg("%s works again", MyBgworkerEntry->bgw_name)));
	hc_recover_forget(&bridge->told);
}

/* Does what there is to do; false: nothing, until something happens. */
static bool
turn(Bridge *bridge)
{
	HcPublished published;

	if (pg_atomic_read_u32(&bridge->db->posts[HC_ROLE_BRIDGE].wanted) != 0)
		load(bridge);

	/* what could not be sent comes first */
	hc_notifier_deliver(bridge->notifier);
	if (bridge->sub == NULL)
		subscribe(bridge);
	while (hc_subscriber_next(bridge->sub, &published))
	{
		carry(bridge, &published);
		if (hc_notifier_is_full(bridge->notifier))
			break;
	}
	if (hc_subscriber_is_settled(bridge->sub))
		succeeded(bridge);
	if (hc_notifier_is_empty(bridge->notifier))
		return false;
	hc_notifier_deliver(bridge->notifier);
	return true;
}

/*
 * After an error.  One of the connection ends that; after another one, it is still
 * good, and what has come is kept.
 */
static void
failed(Bridge *bridge)
{
	ErrorData  *error = hc_recover_error();

	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		disconnect(bridge);
	if (hc_recover_is_news(&bridge->told, error))
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("%s fails: %s", MyBgworkerEntry->bgw_name, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0));
	FreeErrorData(error);

	/* it may have been in the middle of reading the table */
	pg_atomic_write_u32(&bridge->db->posts[HC_ROLE_BRIDGE].wanted, 1);
	bridge->retry_ms = Min(Max(RETRY_FIRST_MS, bridge->retry_ms * 2), RETRY_MOST_MS);
	bridge->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), bridge->retry_ms);
}

/* Sleeps until the time to try again, or until the latch is set. */
static void
rest(TimestampTz until)
{
	long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

	if (ms <= 0)
		return;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 HC_WAIT_WORKER);
	ResetLatch(MyLatch);
}

/* A turn, and then the wait for the next. */
static void
work(Bridge *bridge)
{
	PG_TRY();
	{
		bool		more = turn(bridge);

		show(bridge);
		if (!more)
		{
			pgstat_report_stat(false);
			hc_subscriber_wait(bridge->sub,
							   TimestampTzPlusMilliseconds(GetCurrentTimestamp(), REST_MS));
		}
	}
	PG_CATCH();
	{
		failed(bridge);
	}
	PG_END_TRY();
}

static void
set_up(Oid database)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	hc_shmem_connect(database);

	/* nothing of this database is to have a say in what its bridge does */
	SetConfigOption("search_path", "pg_catalog", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET,
					PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET,
					PGC_S_OVERRIDE);

	/* a message that Redis has sent is not sent again: there is nothing to keep */
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	pgstat_report_activity(STATE_RUNNING, "waiting for messages of Redis");
}

static void
bridge_exit(int code, Datum arg)
{
	hc_traffic_end((HcTraffic *) DatumGetPointer(arg));
}

void
hc_bridge_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	Bridge	   *bridge;
	MemoryContext turn_context;

	set_up(database);
	bridge = MemoryContextAllocZero(TopMemoryContext, sizeof(Bridge));
	bridge->db = hc_role_take(HC_ROLE_BRIDGE, database);
	if (bridge->db == NULL)
		proc_exit(0);
	before_shmem_exit(bridge_exit, PointerGetDatum(bridge->db->bridges));
	MemoryContextSwitchTo(TopMemoryContext);
	bridge->notifier = hc_notifier_create();
	bridge->list_context = AllocSetContextCreate(TopMemoryContext, "hybrid_cache bridges",
												 ALLOCSET_SMALL_SIZES);
	turn_context = AllocSetContextCreate(TopMemoryContext, "hybrid_cache turn",
										 ALLOCSET_DEFAULT_SIZES);
	pg_atomic_write_u32(&bridge->db->posts[HC_ROLE_BRIDGE].wanted, 1);

	for (;;)
	{
		obey(bridge);
		MemoryContextSwitchTo(turn_context);
		MemoryContextReset(turn_context);
		if (bridge->retry_ms > 0 && GetCurrentTimestamp() < bridge->retry_at)
			rest(bridge->retry_at);
		else
			work(bridge);
	}
}

/* The sync worker has looked for work: is there a bridge? */
static void
look(void)
{
	MemoryContext old = CurrentMemoryContext;
	bool		exists;
	bool		found;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	found = hc_bridged_list(&exists) != NIL;
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	if (found)
		hc_role_call(HC_ROLE_BRIDGE);
}

void
hc_bridge_init(void)
{
	hc_sync_add_watch(NULL, look);
}
