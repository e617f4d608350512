/*
 * orphans.c
 *	  hybrid_cache.orphans(): the entries of a mapping that no row has.
 *
 * Redis is searched by the session (keeper/search.h), some entries at a time, and
 * then the table is read to see which of them a row has.  Rows come and go
 * meanwhile, so what is left is looked for once more on both sides, when the sync
 * worker has applied what was committed before.
 *
 * The table is read with the latest snapshot: that of the transaction can be older
 * than what Redis has.
 */
#include "postgres.h"

#include "access/table.h"
#include "capture/capture.h"
#include "capture/check.h"
#include "capture/shape.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "fmgr.h"
#include "funcapi.h"
#include "keeper/search.h"
#include "keeper/suspects.h"
#include "manage/status.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "session/session.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/timer.h"

/* Entries that are compared with the table at a time: as much memory. */
#define MAX_BYTES		(32 * 1024 * 1024)

PG_FUNCTION_INFO_V1(hybrid_cache_orphans);

typedef struct Orphans
{
	const HcTrigger *trigger;
	HcOptions	options;
	HcShape		shape;
	HcSuspects *suspects;
	uint64		n_failed;		/* rows that cannot be rendered */
} Orphans;

/* An entry that a row has is no suspect any more. */
static void
clear(const HcOp *op, void *arg)
{
	Orphans    *orphans = arg;
	HcSuspect *suspect = hc_suspects_find(orphans->suspects, op, 0);

	if (suspect != NULL)
		hc_suspects_remove(orphans->suspects, suspect);
}

static void
pause_reading(void)
{
	CHECK_FOR_INTERRUPTS();
}

/* Those that a row has are no suspects any more. */
static void
read_table(Orphans *orphans, Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	MemoryContext context;
	MemoryContext old;
	Snapshot	snapshot;
	HcCaptureRange range = {.end = InvalidBlockNumber,.identity = true,
		.careful = true,.put = clear,.arg = orphans,.pause = pause_reading};

	if (!RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
	{
		table_close(rel, NoLock);
		return;
	}
	context = AllocSetContextCreate(CurrentMemoryContext, "hybrid_cache scan",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(snapshot);
	hc_capture_range(rel,
					 hc_render_create(hc_mapping_compile(rel, orphans->trigger->name,
														 &orphans->options),
									  context),
					 snapshot, &range);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	orphans->n_failed = Max(orphans->n_failed, range.n_failed);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	table_close(rel, NoLock);
}

/* Children that only inherit have no trigger, so they are not the mapping's. */
static void
read_tables(Orphans *orphans)
{
	Oid			relid = orphans->trigger->relid;
	List	   *relids = list_make1_oid(relid);
	ListCell   *lc;

	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		relids = find_all_inheritors(relid, AccessShareLock, NULL);
	foreach(lc, relids)
	{
		if (hc_suspects_number(orphans->suspects) > 0)
			read_table(orphans, lfirst_oid(lc));
	}
}

/* Is it still there? */
static bool
exists(const Orphans *orphans, const HcSuspect *suspect)
{
	HcArguments args;
	HcBytes		key = suspect->key;
	StringInfoData pending;
	const redisReply *reply;

	if (suspect->member.data == NULL)
		hc_arguments_begin(&args, "EXISTS");
	else if (strcmp(orphans->shape.type, "hash") == 0)
		hc_arguments_begin(&args, "HEXISTS");
	else if (strcmp(orphans->shape.type, "set") == 0)
		hc_arguments_begin(&args, "SISMEMBER");
	else
		hc_arguments_begin(&args, "ZSCORE");
	if (strcmp(orphans->shape.type, HC_TYPE_TIMER) == 0)
	{
		initStringInfo(&pending);
		hc_timer_key(&pending, key);
		key.data = pending.data;
		key.len = pending.len;
	}
	hc_arguments_add(&args, key.data, key.len);
	if (suspect->member.data != NULL)
		hc_arguments_add(&args, suspect->member.data, suspect->member.len);
	reply = hc_session_command(&args);
	return reply->type != REDIS_REPLY_NIL &&
		(reply->type != REDIS_REPLY_INTEGER || reply->integer != 0);
}

/* What was removed with its row is no suspect any more. */
static void
look_again(Orphans *orphans)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache replies",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HcSuspect *suspect;

	hc_suspects_begin(orphans->suspects);
	while ((suspect = hc_suspects_next(orphans->suspects)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
		if (!exists(orphans, suspect))
			hc_suspects_remove(orphans->suspects, suspect);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

static void
wait_for_worker(void)
{
	if (!hc_status_wait(TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													hc_command_timeout)))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("Redis does not have everything that was committed yet"),
				 errdetail("Entries of rows that were removed may be listed."),
				 errhint("See hybrid_cache.status, and try again.")));
}

static void
return_suspects(ReturnSetInfo *rsinfo, const Orphans *orphans)
{
	HcSuspect *suspect;

	hc_suspects_begin(orphans->suspects);
	while ((suspect = hc_suspects_next(orphans->suspects)) != NULL)
	{
		text	   *key = hc_bytes_text(suspect->key);
		text	   *member = suspect->member.data != NULL
			? hc_bytes_text(suspect->member) : NULL;
		Datum		values[2] = {PointerGetDatum(key), PointerGetDatum(member)};
		bool		nulls[2] = {false, member == NULL};

		/* what cannot be shown as text was not rendered here */
		if (key != NULL && (member != NULL || suspect->member.data == NULL))
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

/* orphans(relation, name) */
Datum
hybrid_cache_orphans(PG_FUNCTION_ARGS)
{
	Orphans		orphans = {0};
	const HcTrigger *trigger;
	HcSearch   *search;
	bool		more = true;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of hybrid_cache.orphans() must not be null",
						PG_ARGISNULL(0) ? "relation" : "name")));
	PreventCommandDuringRecovery("hybrid_cache.orphans()");
	hc_check_relation(PG_GETARG_OID(0));
	trigger = hc_check_mapping(PG_GETARG_OID(0), NameStr(*PG_GETARG_NAME(1)), NULL);
	InitMaterializedSRF(fcinfo, 0);
	if (trigger->function != HC_FUNCTION_WRITE_THROUGH ||
		!hc_shape_of_trigger(&orphans.shape, trigger))
		return (Datum) 0;

	orphans.trigger = trigger;
	hc_options_parse(trigger->function, trigger->nargs, trigger->args,
					 &orphans.options);
	orphans.suspects = hc_suspects_create(0);
	search = hc_search_create(&orphans.shape, hc_shape_others(trigger->oid), hc_session_search,
							  NULL);
	while (more)
	{
		hc_suspects_clear(orphans.suspects);
		while (more && hc_suspects_bytes(orphans.suspects) < MAX_BYTES)
		{
			CHECK_FOR_INTERRUPTS();
			more = hc_search_step(search, hc_suspects_add, orphans.suspects);
		}
		read_tables(&orphans);
		if (hc_suspects_number(orphans.suspects) > 0)
		{
			wait_for_worker();
			look_again(&orphans);
			read_tables(&orphans);
		}
		return_suspects((ReturnSetInfo *) fcinfo->resultinfo, &orphans);
	}
	if (orphans.n_failed > 0)
		ereport(WARNING,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("the expressions of mapping \"%s\" raise errors for some rows of table \"%s\"",
						trigger->name, get_rel_name(trigger->relid)),
				 errdetail("Entries of these rows are listed, too.")));
	return (Datum) 0;
}
