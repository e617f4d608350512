/*
 * run.c
 *	  The last run of each mapping: the table hybrid_cache.run.
 *
 * It is written below SQL, as the ledger is (capture/ledger.c), by the keeper
 * alone.  It has a row per mapping, so it is scanned, not looked up by an index;
 * a new version of a row replaces the old one in the same page.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "capture/catalog.h"
#include "capture/ledger.h"
#include "catalog/indexing.h"
#include "keeper/run.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define Anum_run_mapping		1
#define Anum_run_kind			2
#define Anum_run_reason			3
#define Anum_run_phase			4
#define Anum_run_started		5
#define Anum_run_ended			6
#define Anum_run_full_started	7
#define Anum_run_checked		8
#define Anum_run_missing		9
#define Anum_run_stale			10
#define Anum_run_orphaned		11
#define Anum_run_conflicting	12
#define Anum_run_repaired		13
#define Anum_run_failed			14
#define Anum_run_mark			15
#define Anum_run_populate		16
#define Anum_run_definition		17
#define Anum_run_first_xid		18
#define Anum_run_relation		19
#define Anum_run_storage		20
#define Anum_run_position		21
#define Anum_run_blocks			22
#define Anum_run_since			23
#define Anum_run_young			24
#define Anum_run_pass			25
#define Natts_run				25

static const char *const kinds[] = {
	[HC_RUN_REPAIR] = "repair",
	[HC_RUN_RECONCILE] = "reconcile",
	[HC_RUN_INCREMENTAL] = "incremental"
};

static const char *const phases[] = {
	[HC_RUN_ROWS] = "rows",
	[HC_RUN_ORPHANS] = "orphans",
	[HC_RUN_OVER] = "over"
};

const char *
hc_run_kind_name(HcRunKind kind)
{
	return kinds[kind];
}

static Relation
open_runs(LOCKMODE lockmode)
{
	Oid			relid = hc_ledger_oid("run");

	return OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;
}

/* The row of a mapping, or the next one if mapping is InvalidOid. */
static SysScanDesc
begin_scan(Relation runs, Oid mapping, Snapshot snapshot)
{
	ScanKeyData key;

	ScanKeyInit(&key, Anum_run_mapping, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(mapping));
	return systable_beginscan(runs, InvalidOid, false, snapshot,
							  OidIsValid(mapping) ? 1 : 0, &key);
}

static int
number_of(const char *name, const char *const *names, int n)
{
	int			i;

	for (i = 0; i < n - 1; i++)
	{
		if (strcmp(name, names[i]) == 0)
			break;
	}
	return i;
}

static void
read_row(const Datum *values, const bool *nulls, HcRunState *state)
{
	HcRunCounts *counts = &state->counts;
	HcPass	   *pass = &state->pass;

	memset(state, 0, sizeof(*state));
	state->mapping = DatumGetObjectId(values[Anum_run_mapping - 1]);
	state->kind = number_of(TextDatumGetCString(values[Anum_run_kind - 1]), kinds,
							lengthof(kinds));
	state->reason = TextDatumGetCString(values[Anum_run_reason - 1]);
	state->phase = number_of(TextDatumGetCString(values[Anum_run_phase - 1]), phases,
							 lengthof(phases));
	state->started = DatumGetTimestampTz(values[Anum_run_started - 1]);
	if (!nulls[Anum_run_ended - 1])
		state->ended = DatumGetTimestampTz(values[Anum_run_ended - 1]);
	if (!nulls[Anum_run_full_started - 1])
		state->full_started = DatumGetTimestampTz(values[Anum_run_full_started - 1]);
	counts->checked = DatumGetInt64(values[Anum_run_checked - 1]);
	counts->missing = DatumGetInt64(values[Anum_run_missing - 1]);
	counts->stale = DatumGetInt64(values[Anum_run_stale - 1]);
	counts->orphaned = DatumGetInt64(values[Anum_run_orphaned - 1]);
	counts->conflicting = DatumGetInt64(values[Anum_run_conflicting - 1]);
	counts->repaired = DatumGetInt64(values[Anum_run_repaired - 1]);
	counts->failed = DatumGetInt64(values[Anum_run_failed - 1]);
	if (!nulls[Anum_run_mark - 1])
		state->mark = DatumGetTimestampTz(values[Anum_run_mark - 1]);
	state->populate = DatumGetBool(values[Anum_run_populate - 1]);
	state->definition = DatumGetInt64(values[Anum_run_definition - 1]);
	state->first_xid = DatumGetInt64(values[Anum_run_first_xid - 1]);
	pass->relid = DatumGetObjectId(values[Anum_run_relation - 1]);
	pass->storage = DatumGetObjectId(values[Anum_run_storage - 1]);
	pass->next = *(ItemPointer) DatumGetPointer(values[Anum_run_position - 1]);
	pass->n_blocks = (BlockNumber) DatumGetInt64(values[Anum_run_blocks - 1]);
	pass->since = (TransactionId) DatumGetInt64(values[Anum_run_since - 1]);
	pass->young = (TransactionId) DatumGetInt64(values[Anum_run_young - 1]);
	pass->number = DatumGetInt32(values[Anum_run_pass - 1]);
}

bool
hc_run_load(Oid mapping, HcRunState *state)
{
	Relation	runs = open_runs(AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	if (runs == NULL)
		return false;
	scan = begin_scan(runs, mapping, NULL);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		Datum		values[Natts_run];
		bool		nulls[Natts_run];

		heap_deform_tuple(tuple, RelationGetDescr(runs), values, nulls);
		read_row(values, nulls, state);
	}
	systable_endscan(scan);
	table_close(runs, AccessShareLock);
	return found;
}

static HeapTuple
make_row(Relation runs, const HcRunState *state)
{
	const HcRunCounts *counts = &state->counts;
	const HcPass *pass = &state->pass;
	Datum		values[Natts_run];
	bool		nulls[Natts_run] = {0};

	values[Anum_run_mapping - 1] = ObjectIdGetDatum(state->mapping);
	values[Anum_run_kind - 1] = CStringGetTextDatum(kinds[state->kind]);
	values[Anum_run_reason - 1] = CStringGetTextDatum(state->reason);
	values[Anum_run_phase - 1] = CStringGetTextDatum(phases[state->phase]);
	values[Anum_run_started - 1] = TimestampTzGetDatum(state->started);
	values[Anum_run_ended - 1] = TimestampTzGetDatum(state->ended);
	nulls[Anum_run_ended - 1] = state->ended == 0;
	values[Anum_run_full_started - 1] = TimestampTzGetDatum(state->full_started);
	nulls[Anum_run_full_started - 1] = state->full_started == 0;
	values[Anum_run_checked - 1] = Int64GetDatum(counts->checked);
	values[Anum_run_missing - 1] = Int64GetDatum(counts->missing);
	values[Anum_run_stale - 1] = Int64GetDatum(counts->stale);
	values[Anum_run_orphaned - 1] = Int64GetDatum(counts->orphaned);
	values[Anum_run_conflicting - 1] = Int64GetDatum(counts->conflicting);
	values[Anum_run_repaired - 1] = Int64GetDatum(counts->repaired);
	values[Anum_run_failed - 1] = Int64GetDatum(counts->failed);
	values[Anum_run_mark - 1] = TimestampTzGetDatum(state->mark);
	nulls[Anum_run_mark - 1] = state->mark == 0;
	values[Anum_run_populate - 1] = BoolGetDatum(state->populate);
	values[Anum_run_definition - 1] = Int64GetDatum(state->definition);
	values[Anum_run_first_xid - 1] = Int64GetDatum(state->first_xid);
	values[Anum_run_relation - 1] = ObjectIdGetDatum(pass->relid);
	values[Anum_run_storage - 1] = ObjectIdGetDatum(pass->storage);
	values[Anum_run_position - 1] = PointerGetDatum(&pass->next);
	values[Anum_run_blocks - 1] = Int64GetDatum(pass->n_blocks);
	values[Anum_run_since - 1] = Int64GetDatum(pass->since);
	values[Anum_run_young - 1] = Int64GetDatum(pass->young);
	values[Anum_run_pass - 1] = Int32GetDatum(pass->number);
	return heap_form_tuple(RelationGetDescr(runs), values, nulls);
}

void
hc_run_save(const HcRunState *state)
{
	Relation	runs = open_runs(RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	old;
	HeapTuple	row;

	if (runs == NULL)
		return;
	row = make_row(runs, state);
	scan = begin_scan(runs, state->mapping, NULL);
	old = systable_getnext(scan);
	if (HeapTupleIsValid(old))
		CatalogTupleUpdate(runs, &old->t_self, row);
	else
		CatalogTupleInsert(runs, row);
	systable_endscan(scan);
	table_close(runs, NoLock);
}

void
hc_run_forget(Oid mapping)
{
	Relation	runs = open_runs(RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tuple;

	if (runs == NULL)
		return;
	scan = begin_scan(runs, InvalidOid, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Oid			other = DatumGetObjectId(heap_getattr(tuple, Anum_run_mapping,
														  RelationGetDescr(runs),
														  &isnull));

		if (other == mapping || hc_catalog_trigger(other, NULL) == NULL)
			CatalogTupleDelete(runs, &tuple->t_self);
	}
	systable_endscan(scan);
	table_close(runs, NoLock);
}

void
hc_run_give_up(Oid mapping)
{
	HcRunState	last;

	if (!hc_run_load(mapping, &last) || last.ended != 0)
		return;
	last.ended = GetCurrentTimestamp();
	hc_run_save(&last);
}
