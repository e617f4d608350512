/*
 * reconcile.c
 *	  hybrid_cache.populate(), reconcile() and cancel(), and the rows of the view
 *	  hybrid_cache.progress.
 *
 * All the work is the keeper's.  populate() only owes it, in a table, since that
 * may take as long as it likes; reconcile() waits, so it asks through shared
 * memory, and nothing stays when the session goes away.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "capture/check.h"
#include "capture/ledger.h"
#include "capture/leftover.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "keeper/progress.h"
#include "keeper/request.h"
#include "keeper/schedule.h"
#include "miscadmin.h"
#include "redis/breaker.h"
#include "settings.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#define NO_REDIS_HINT \
	"See hybrid_cache.status. To have it done when Redis is back, use hybrid_cache.populate()."

/* So often a session looks whether there is any hope. */
#define LOOK_MS		1000

PG_FUNCTION_INFO_V1(hybrid_cache_populate);
PG_FUNCTION_INFO_V1(hybrid_cache_reconcile);
PG_FUNCTION_INFO_V1(hybrid_cache_cancel);
PG_FUNCTION_INFO_V1(hybrid_cache_progress_list);

/* What a session waits for. */
typedef struct Wait
{
	HcDatabase *db;
	HcRequest  *request;
	TimestampTz patience;		/* no Redis since then is too long; 0: there is */
} Wait;

/* The mapping that is named by the first two arguments of hybrid_cache.function(). */
static HcTrigger *
mapping_argument(FunctionCallInfo fcinfo, const char *function)
{
	Oid			relid;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of hybrid_cache.%s() must not be null",
						PG_ARGISNULL(0) ? "relation" : "name", function)));
	PreventCommandDuringRecovery(psprintf("hybrid_cache.%s()", function));
	relid = PG_GETARG_OID(0);
	hc_check_relation(relid);
	return hc_check_mapping(relid, NameStr(*PG_GETARG_NAME(1)), NULL);
}

/* Raises unless the keeper could make the mapping equal to its table. */
static void
check_mapping(const HcTrigger *trigger)
{
	ListCell   *lc;

	if (trigger->function != HC_FUNCTION_WRITE_THROUGH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mapping \"%s\" of kind %s has no entries",
						trigger->name, hc_catalog_kind(trigger)),
				 hc_catalog_is_event(trigger)
				 ? errdetail("It sends events when rows change, so there is nothing to compare.")
				 : errdetail("It removes keys that others write, so there is nothing to compare.")));
	if (trigger->enabled != TRIGGER_FIRES_ON_ORIGIN &&
		trigger->enabled != TRIGGER_FIRES_ALWAYS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mapping \"%s\" of table \"%s\" is disabled",
						trigger->name, get_rel_name(trigger->relid)),
				 errdetail("Changes of the table would not be captured meanwhile."),
				 errhint("Enable it with ALTER TABLE ... ENABLE TRIGGER.")));
	foreach(lc, hc_owed_reasons(trigger->oid))
	{
		if (strcmp(lfirst(lc), HC_OWED_FOREIGN) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the keys of mapping \"%s\" of table \"%s\" belong to another database",
							trigger->name, get_rel_name(trigger->relid)),
					 errhint("See hybrid_cache.take_over().")));
	}
}

/* A setting that is off, or NULL. */
static const char *
setting_off(void)
{
	return !hc_enabled ? "hybrid_cache.enabled" :
		!hc_repair ? "hybrid_cache.repair" : NULL;
}

/* populate(relation, name): owes it. */
Datum
hybrid_cache_populate(PG_FUNCTION_ARGS)
{
	HcTrigger  *trigger = mapping_argument(fcinfo, "populate");

	PreventCommandIfReadOnly("hybrid_cache.populate()");
	check_mapping(trigger);
	if (setting_off() != NULL)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mapping \"%s\" of table \"%s\" is not populated yet",
						trigger->name, get_rel_name(trigger->relid)),
				 errdetail("That is done when %s is on.", setting_off())));

	/* that is more than whatever else is owed, or was cancelled */
	hc_owed_clear(trigger->oid);
	hc_owed_mark(trigger->oid, HC_OWED_POPULATE);
	PG_RETURN_VOID();
}

/*
 * cancel(relation, name): ends the run, and what waits for one.  A run that goes
 * on is told at once, since it may be over when this transaction is.
 */
Datum
hybrid_cache_cancel(PG_FUNCTION_ARGS)
{
	HcTrigger  *trigger = mapping_argument(fcinfo, "cancel");
	HcDatabase *db = hc_shmem_mine();
	HcProgressRow row;
	bool		cancelled = false;

	if (db != NULL)
	{
		cancelled = hc_request_cancel(db, trigger->oid);
		if (hc_progress_read(db, &row) && row.mapping == trigger->oid)
		{
			hc_progress_cancel(db, row.number);
			PG_RETURN_BOOL(true);
		}
	}
	if (list_member_oid(hc_owed_work(), trigger->oid))
	{
		PreventCommandIfReadOnly("hybrid_cache.cancel()");
		cancelled |= hc_owed_cancel(trigger->oid);
	}
	PG_RETURN_BOOL(cancelled);
}

/*
 * Has this transaction a lock on the relation for which the keeper would wait?
 * It is to keep none from here: while it waits for the keeper, others can queue
 * for the table, and the keeper behind them.
 */
static bool
locked_by_me(Oid relid, LOCKMODE lockmode)
{
	Relation	rel;
	bool		locked;

	/* if somebody else has locked it, the keeper may wait, not we */
	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	rel = try_relation_open(relid, NoLock);
	locked = rel != NULL && CheckRelationLockedByMe(rel, lockmode, true);
	if (rel != NULL)
		relation_close(rel, NoLock);
	UnlockRelationOid(relid, AccessShareLock);
	return locked;
}

/*
 * The keeper would wait for this transaction, and it for the keeper: nobody else
 * could see that.
 */
static void
refuse_locks(const HcTrigger *trigger)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(trigger->relid, NoLock, NULL))
	{
		if (locked_by_me(lfirst_oid(lc), AccessExclusiveLock))
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("cannot compare table \"%s\" in a transaction that has locked it",
							get_rel_name(lfirst_oid(lc))),
					 errdetail("The keeper, which compares, would wait for the end of the transaction."),
					 errhint("Commit the transaction first.")));
	}
	if (locked_by_me(hc_ledger_oid("owed"), RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot compare in a transaction that has changed mappings or mapped tables"),
				 errdetail("The keeper, which compares, would wait for the end of the transaction."),
				 errhint("Commit the transaction first.")));
}

/* Raises if nobody would do it. */
static void
look_for_worker(Wait *wait)
{
	TimestampTz now = GetCurrentTimestamp();
	HcBreakerState breaker;
	bool		down;

	if (pg_atomic_read_u32(&wait->db->connected) != 0)
	{
		wait->patience = 0;
		return;
	}
	if (wait->patience == 0)
		wait->patience = TimestampTzPlusMilliseconds(now, hc_command_timeout);
	down = hc_breaker_look(&wait->db->breaker, &breaker);
	if (!down && now < wait->patience)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("the sync worker of this database has no connection to Redis"),
			 errhint(NO_REDIS_HINT)));
}

static void
free_request(int code, Datum arg)
{
	hc_request_free((HcRequest *) DatumGetPointer(arg));
}

/* Waits until the request is dealt with, and copies it. */
static void
await(Wait *wait, HcRequest *result)
{
	PG_ENSURE_ERROR_CLEANUP(free_request, PointerGetDatum(wait->request));
	{
		for (;;)
		{
			hc_request_look(wait->request, result);
			if (result->state != HC_REQUEST_WAITING &&
				result->state != HC_REQUEST_RUNNING)
				break;
			look_for_worker(wait);

			/* a keeper may be about to leave, or have failed */
			if (result->state == HC_REQUEST_WAITING)
				hc_role_call(HC_ROLE_KEEPER);
			hc_request_wait(wait->db, wait->request, result->state, LOOK_MS);
			CHECK_FOR_INTERRUPTS();
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(free_request, PointerGetDatum(wait->request));
	hc_request_free(wait->request);
}

/* Raises unless it was done. */
static void
check_result(const HcTrigger *trigger, const HcRequest *result)
{
	const char *table = get_rel_name(trigger->relid);

	switch (result->state)
	{
		case HC_REQUEST_DONE:
			return;
		case HC_REQUEST_CANCELLED:
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("the comparison of mapping \"%s\" with table \"%s\" was cancelled",
							trigger->name, table),
					 errdetail("Somebody has called hybrid_cache.cancel().")));
			break;
		case HC_REQUEST_CHANGED:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("mapping \"%s\" of table \"%s\" was changed while it was compared",
							trigger->name, table),
					 errhint("Look at hybrid_cache.mapping, and try again.")));
			break;
		default:
			ereport(ERROR,
					(errcode(result->sqlerrcode),
					 errmsg("could not compare mapping \"%s\" with table \"%s\": %s",
							trigger->name, table, result->message),
					 result->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE
					 ? errhint("The keeper does not wait long for a table that somebody has locked.") :
					 ERRCODE_TO_CATEGORY(result->sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION
					 ? errhint(NO_REDIS_HINT) : 0));
			break;
	}
}

/* reconcile(relation, name, full): has it compared, and waits for that. */
Datum
hybrid_cache_reconcile(PG_FUNCTION_ARGS)
{
	HcTrigger  *trigger = mapping_argument(fcinfo, "reconcile");
	bool		full = PG_ARGISNULL(2) || PG_GETARG_BOOL(2);
	Wait		wait = {0};
	HcRequest	result;
	TupleDesc	desc;
	Datum		values[7];
	bool		nulls[7] = {0};
	Interval   *duration;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	check_mapping(trigger);
	if (setting_off() != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s is off", setting_off()),
				 errdetail("The keeper, which compares, does nothing then.")));
	refuse_locks(trigger);

	wait.db = hc_shmem_mine();
	if (wait.db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has no sync worker"),
				 errhint("Look for the reason in the server log; it may have been created just now.")));
	look_for_worker(&wait);
	wait.request = hc_request_put(wait.db, trigger->oid, full,
								  hc_reconcile_rate);
	if (wait.request == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d sessions wait for comparisons already", HC_REQUESTS),
				 errhint("Try again later.")));
	await(&wait, &result);
	check_result(trigger, &result);

	values[0] = Int64GetDatum(result.counts.checked);
	values[1] = Int64GetDatum(result.counts.missing);
	values[2] = Int64GetDatum(result.counts.stale);
	values[3] = Int64GetDatum(result.counts.orphaned);
	values[4] = Int64GetDatum(result.counts.conflicting);
	values[5] = Int64GetDatum(result.counts.repaired);
	duration = palloc0(sizeof(Interval));
	duration->time = result.ended - result.started;
	values[6] = IntervalPGetDatum(duration);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}

#define N_COLUMNS	15

static Datum
interval_datum(double seconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = (TimeOffset) (seconds * USECS_PER_SEC);
	return IntervalPGetDatum(interval);
}

/* A row of the view; row->started is 0 for a run that waits. */
static void
put_row(ReturnSetInfo *rsinfo, const HcProgressRow *row)
{
	HcTrigger  *trigger = hc_catalog_trigger(row->mapping, NULL);
	Datum		values[N_COLUMNS] = {0};
	bool		nulls[N_COLUMNS] = {0};
	bool		waits = row->started == 0;
	double		seconds = (GetCurrentTimestamp() - row->phase_started) / (double) USECS_PER_SEC;
	double		rate = waits || seconds <= 0 ? 0 : row->rows_done / seconds;
	int			i;

	if (trigger == NULL)
		return;
	values[0] = ObjectIdGetDatum(trigger->relid);
	values[1] = DirectFunctionCall1(namein, CStringGetDatum(trigger->name));
	values[2] = CStringGetTextDatum(hc_run_kind_name(row->kind));
	values[3] = CStringGetTextDatum(row->reason);
	values[4] = CStringGetTextDatum(row->phase);
	for (i = 5; waits && i < N_COLUMNS; i++)
		nulls[i] = true;
	if (!waits)
	{
		values[5] = Int64GetDatum(row->rows_done);
		values[6] = Int64GetDatum(row->rows_estimated);
		nulls[6] = row->rows_estimated == 0;
		values[7] = Int64GetDatum((int64) rate);
		nulls[8] = row->rows_estimated == 0 || rate <= 0;
		if (!nulls[8])
			values[8] = interval_datum(row->rows_estimated > row->rows_done
									   ? (row->rows_estimated - row->rows_done) / rate : 0);
		values[9] = Int64GetDatum(row->counts.missing);
		values[10] = Int64GetDatum(row->counts.stale);
		values[11] = Int64GetDatum(row->counts.orphaned);
		values[12] = Int64GetDatum(row->counts.conflicting);
		values[13] = Int64GetDatum(row->counts.repaired);
		values[14] = TimestampTzGetDatum(row->started);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* A dropped mapping whose entries are removed, now or later. */
static void
put_purge(ReturnSetInfo *rsinfo, HcDatabase *db, const HcLeftover *leftover)
{
	bool		waits = db == NULL ||
	pg_atomic_read_u64(&db->keep.purging) != (uint64) leftover->id;
	Datum		values[N_COLUMNS] = {0};
	bool		nulls[N_COLUMNS];

	memset(nulls, true, sizeof(nulls));
	values[0] = ObjectIdGetDatum(hc_leftover_table(leftover));
	nulls[0] = !OidIsValid(DatumGetObjectId(values[0]));
	values[1] = DirectFunctionCall1(namein, CStringGetDatum(leftover->mapping));
	values[2] = CStringGetTextDatum("purge");
	values[3] = CStringGetTextDatum("dropped");
	values[4] = CStringGetTextDatum(waits ? "waiting" : "purging");
	nulls[1] = nulls[2] = nulls[3] = nulls[4] = false;
	if (!waits)
	{
		values[5] = values[13] = Int64GetDatum(pg_atomic_read_u64(&db->keep.purged));
		nulls[5] = nulls[13] = false;
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* The run that there is, and those to come; then what is purged. */
Datum
hybrid_cache_progress_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HcDatabase *db = hc_shmem_mine();
	HcProgressRow running = {0};
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	if (db != NULL && hc_progress_read(db, &running))
		put_row(rsinfo, &running);
	foreach(lc, hc_schedule_list(db))
	{
		const HcJob *job = lfirst(lc);
		HcProgressRow row = {0};

		if (job->mapping == running.mapping)
			continue;
		row.mapping = job->mapping;
		row.kind = job->kind;
		strlcpy(row.reason, job->reason, sizeof(row.reason));
		strlcpy(row.phase, "waiting", sizeof(row.phase));
		put_row(rsinfo, &row);
	}
	foreach(lc, hc_leftover_asked())
		put_purge(rsinfo, db, lfirst(lc));
	return (Datum) 0;
}
