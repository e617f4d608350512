/*
 * ledger.c
 *	  What has to be remembered about mappings: the tables hybrid_cache.owed
 *	  and hybrid_cache.leftover.
 *
 * They are written below SQL, as catalogs are: a user whose DDL or DML causes
 * an entry needs no privilege on them, and no search_path, trigger or row
 * security of anybody gets in between.  They may be missing: DROP EXTENSION
 * drops mappings in no certain order.
 *
 * Both tables stay small, so they are scanned, not looked up by an index.
 * Several transactions may owe the same at once: then it stands there more than
 * once, rather than that one waits for the other's commit.
 *
 * The keeper marks what it found when it began with a mapping, and in the end
 * forgets only that: what is owed again meanwhile is owed once more.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "capture/ledger.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "mapping/template.h"
#include "miscadmin.h"
#include "settings.h"
#include "shmem.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define Anum_owed_mapping		1
#define Anum_owed_reason		2
#define Anum_owed_since			3
#define Anum_owed_started		4
#define Natts_owed				4

#define Anum_leftover_id		1
#define Anum_leftover_relation	2
#define Anum_leftover_mapping	3
#define Anum_leftover_kind		4
#define Anum_leftover_key		5
#define Anum_leftover_member	6
#define Anum_leftover_prefix	7
#define Anum_leftover_types		8
#define Anum_leftover_arguments	9
#define Anum_leftover_dropped_at 10
#define Natts_leftover			10

/* The transaction has added something: the keeper is to know when it commits. */
static bool owing = false;

Oid
hc_ledger_oid(const char *name)
{
	Oid			namespace = get_namespace_oid("hybrid_cache", true);
	Oid			extension = get_extension_oid("hybrid_cache", true);
	Oid			relid;

	if (!OidIsValid(namespace) || !OidIsValid(extension))
		return InvalidOid;
	relid = get_relname_relid(name, namespace);

	/* somebody else's table of that name would have other columns */
	if (!OidIsValid(relid) ||
		getExtensionOfObject(RelationRelationId, relid) != extension)
		return InvalidOid;
	return relid;
}

static Relation
ledger_open(const char *name, LOCKMODE lockmode)
{
	Oid			relid = hc_ledger_oid(name);

	return OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;
}

/* Has the keeper begun to make up for it? */
static bool
is_taken(Relation owed, HeapTuple tuple)
{
	return !heap_attisnull(tuple, Anum_owed_started, RelationGetDescr(owed));
}

/* Is it in there, committed or by this transaction? */
static bool
owed_already(Relation owed, Oid mapping, const char *reason)
{
	bool		found = false;
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData key;

	ScanKeyInit(&key, Anum_owed_mapping, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(mapping));
	scan = systable_beginscan(owed, InvalidOid, false, SnapshotSelf, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_owed_reason,
										 RelationGetDescr(owed), &isnull);

		found = !isnull && !is_taken(owed, tuple) &&
			strcmp(TextDatumGetCString(datum), reason) == 0;
	}
	systable_endscan(scan);
	return found;
}

static void
owed_insert(Relation owed, Oid mapping, const char *reason)
{
	Datum		values[Natts_owed];
	bool		nulls[Natts_owed] = {0};
	HeapTuple	tuple;

	if (owed_already(owed, mapping, reason))
		return;
	values[Anum_owed_mapping - 1] = ObjectIdGetDatum(mapping);
	values[Anum_owed_reason - 1] = CStringGetTextDatum(reason);
	values[Anum_owed_since - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	nulls[Anum_owed_started - 1] = true;
	tuple = heap_form_tuple(RelationGetDescr(owed), values, nulls);
	CatalogTupleInsert(owed, tuple);
	heap_freetuple(tuple);
	owing = true;
}

void
hc_owed_mark(Oid mapping, const char *reason)
{
	Relation	owed = ledger_open("owed", RowExclusiveLock);

	if (owed == NULL)
		return;
	owed_insert(owed, mapping, reason);
	table_close(owed, NoLock);
}

void
hc_owed_all(const char *reason)
{
	Relation	owed = ledger_open("owed", RowExclusiveLock);
	ListCell   *lc;

	if (owed == NULL)
		return;
	foreach(lc, hc_catalog_database())
		owed_insert(owed, ((HcTrigger *) lfirst(lc))->oid, reason);
	table_close(owed, NoLock);
}

/* false if somebody else has just deleted it. */
static bool
owed_delete(Relation owed, HeapTuple tuple)
{
	TM_FailureData failure;

	return table_tuple_delete(owed, &tuple->t_self, GetCurrentCommandId(true),
							  SnapshotSelf, InvalidSnapshot, true, &failure,
							  false) == TM_Ok;
}

/* Nothing is owed any more; taken_only: of what the keeper has begun with. */
static void
owed_forget(Oid mapping, bool taken_only)
{
	Relation	owed = ledger_open("owed", RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData key;

	if (owed == NULL)
		return;
	ScanKeyInit(&key, Anum_owed_mapping, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(mapping));
	scan = systable_beginscan(owed, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		/* whoever deleted it before us wanted the same */
		if (!taken_only || is_taken(owed, tuple))
			(void) owed_delete(owed, tuple);
	}
	systable_endscan(scan);
	table_close(owed, NoLock);
}

void
hc_owed_clear(Oid mapping)
{
	owed_forget(mapping, false);
}

void
hc_owed_withdraw(Oid mapping, const char *reason)
{
	Relation	owed = ledger_open("owed", RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData key;

	if (owed == NULL)
		return;
	ScanKeyInit(&key, Anum_owed_mapping, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(mapping));
	scan = systable_beginscan(owed, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_owed_reason,
										 RelationGetDescr(owed), &isnull);

		if (!isnull && strcmp(TextDatumGetCString(datum), reason) == 0)
			(void) owed_delete(owed, tuple);
	}
	systable_endscan(scan);
	table_close(owed, NoLock);
}

void
hc_owed_settle(Oid mapping)
{
	owed_forget(mapping, true);
}

void
hc_owed_take(Oid mapping)
{
	Relation	owed = ledger_open("owed", RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData key;

	if (owed == NULL)
		return;
	ScanKeyInit(&key, Anum_owed_mapping, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(mapping));
	scan = systable_beginscan(owed, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_owed];
		bool		nulls[Natts_owed];

		if (is_taken(owed, tuple) || !owed_delete(owed, tuple))
			continue;
		heap_deform_tuple(tuple, RelationGetDescr(owed), values, nulls);
		values[Anum_owed_started - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
		nulls[Anum_owed_started - 1] = false;
		CatalogTupleInsert(owed, heap_form_tuple(RelationGetDescr(owed), values,
												 nulls));
	}
	systable_endscan(scan);
	table_close(owed, NoLock);
}

/*
 * Who has looked whether something is owed already holds a lock on the table to
 * the end of its transaction.  Nobody has to wait for us here.
 */
void
hc_owed_wait(void)
{
	Oid			relid = hc_ledger_oid("owed");
	LOCKTAG		tag;

	if (!OidIsValid(relid))
		return;
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	WaitForLockers(tag, ShareLock, false);
}

bool
hc_owed_is_taken(Oid mapping)
{
	Relation	owed = ledger_open("owed", AccessShareLock);
	bool		taken = false;
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData key;

	if (owed == NULL)
		return false;
	ScanKeyInit(&key, Anum_owed_mapping, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(mapping));
	scan = systable_beginscan(owed, InvalidOid, false, SnapshotSelf, 1, &key);
	while (!taken && HeapTupleIsValid(tuple = systable_getnext(scan)))
		taken = is_taken(owed, tuple);
	systable_endscan(scan);
	table_close(owed, AccessShareLock);
	return taken;
}

/* Can the keeper do something about it now? */
static bool
is_work(Oid mapping, const char *reason)
{
	HcTrigger  *trigger;

	if (strcmp(reason, HC_OWED_UNPOPULATED) == 0)
		return false;
	trigger = hc_catalog_trigger(mapping, NULL);
	return trigger == NULL ||
		trigger->enabled == TRIGGER_FIRES_ON_ORIGIN ||
		trigger->enabled == TRIGGER_FIRES_ALWAYS;
}

List *
hc_owed_work(void)
{
	Oid			relid = hc_ledger_oid("owed");
	Relation	owed;
	List	   *work = NIL;
	List	   *foreign = NIL;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, AccessShareLock))
		return NIL;
	owed = try_table_open(relid, NoLock);
	if (owed == NULL)
		return NIL;
	scan = systable_beginscan(owed, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Oid			mapping = DatumGetObjectId(heap_getattr(tuple, Anum_owed_mapping,
															RelationGetDescr(owed),
															&isnull));
		Datum		reason = heap_getattr(tuple, Anum_owed_reason,
										  RelationGetDescr(owed), &isnull);

		/* nothing that is captured would be written */
		if (strcmp(TextDatumGetCString(reason), HC_OWED_FOREIGN) == 0)
			foreign = lappend_oid(foreign, mapping);
		if (!list_member_oid(work, mapping) &&
			is_work(mapping, TextDatumGetCString(reason)))
			work = lappend_oid(work, mapping);
	}
	systable_endscan(scan);
	table_close(owed, AccessShareLock);
	return list_difference_oid(work, foreign);
}

List *
hc_owed_reasons(Oid mapping)
{
	Relation	owed = ledger_open("owed", AccessShareLock);
	List	   *reasons = NIL;
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData key;

	if (owed == NULL)
		return NIL;
	ScanKeyInit(&key, Anum_owed_mapping, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(mapping));
	scan = systable_beginscan(owed, InvalidOid, false, SnapshotSelf, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_owed_reason,
										 RelationGetDescr(owed), &isnull);
		char	   *reason = isnull ? pstrdup("") : TextDatumGetCString(datum);
		ListCell   *lc;

		foreach(lc, reasons)
		{
			if (strcmp(lfirst(lc), reason) == 0)
				break;
		}
		if (lc == NULL)
			reasons = lappend(reasons, reason);
	}
	systable_endscan(scan);
	table_close(owed, AccessShareLock);
	return reasons;
}

/* Adds "column": "type" for the columns of a template. */
static void
append_types(StringInfo json, Oid relid, const char *source)
{
	const char *problem;
	const char *hint;
	HcTemplate *template;
	int			i;

	if (source == NULL)
		return;
	template = hc_template_parse(source, &problem, &hint);
	for (i = 0; template != NULL && i < template->n_parts; i++)
	{
		AttrNumber	attnum;

		if (!template->parts[i].is_column)
			continue;
		attnum = get_attnum(relid, template->parts[i].text);
		if (attnum == InvalidAttrNumber)
			continue;
		if (json->len > 1)
			appendStringInfoString(json, ", ");
		escape_json(json, template->parts[i].text);
		appendStringInfoString(json, ": ");
		escape_json(json, format_type_be(getBaseType(get_atttype(relid, attnum))));
	}
}

int64
hc_leftover_record(const HcTrigger *trigger)
{
	Relation	leftover = ledger_open("leftover", RowExclusiveLock);
	Oid			sequence = hc_ledger_oid("leftover_id_seq");
	const char *key = hc_catalog_option(trigger, HC_OPTION_KEY);
	const char *member = hc_catalog_option(trigger, HC_OPTION_MEMBER);
	Datum		values[Natts_leftover];
	bool		nulls[Natts_leftover] = {0};
	Datum	   *arguments;
	StringInfoData types;
	HeapTuple	tuple;
	int64		id;
	int			i;

	if (leftover == NULL)
		return 0;
	if (!OidIsValid(sequence))
	{
		table_close(leftover, NoLock);
		return 0;
	}
	if (member == NULL)
		member = hc_catalog_option(trigger, HC_OPTION_FIELD);

	initStringInfo(&types);
	appendStringInfoChar(&types, '{');
	append_types(&types, trigger->relid, key);
	append_types(&types, trigger->relid, member);
	appendStringInfoChar(&types, '}');

	arguments = palloc(sizeof(Datum) * Max(trigger->nargs, 1));
	for (i = 0; i < trigger->nargs; i++)
		arguments[i] = CStringGetTextDatum(trigger->args[i]);

	id = nextval_internal(sequence, false);
	values[Anum_leftover_id - 1] = Int64GetDatum(id);
	values[Anum_leftover_relation - 1] =
		CStringGetTextDatum(quote_qualified_identifier(get_namespace_name(get_rel_namespace(trigger->relid)),
													   get_rel_name(trigger->relid)));
	values[Anum_leftover_mapping - 1] = DirectFunctionCall1(namein, CStringGetDatum(trigger->name));
	values[Anum_leftover_kind - 1] = CStringGetTextDatum(hc_catalog_kind(trigger));
	values[Anum_leftover_key - 1] = CStringGetTextDatum(key != NULL ? key : "");
	if (member != NULL)
		values[Anum_leftover_member - 1] = CStringGetTextDatum(member);
	else
		nulls[Anum_leftover_member - 1] = true;
	values[Anum_leftover_prefix - 1] = CStringGetTextDatum(hc_key_prefix);
	values[Anum_leftover_types - 1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(types.data));
	values[Anum_leftover_arguments - 1] =
		PointerGetDatum(construct_array(arguments, trigger->nargs, TEXTOID, -1,
										false, TYPALIGN_INT));
	values[Anum_leftover_dropped_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());

	tuple = heap_form_tuple(RelationGetDescr(leftover), values, nulls);
	CatalogTupleInsert(leftover, tuple);
	table_close(leftover, NoLock);
	return id;
}

HcLeftover *
hc_leftover_get(int64 id)
{
	Relation	rel = ledger_open("leftover", AccessShareLock);
	HcLeftover *leftover = NULL;
	SysScanDesc scan;
	HeapTuple	tuple;
	ScanKeyData key;

	if (rel == NULL)
		return NULL;
	ScanKeyInit(&key, Anum_leftover_id, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(id));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Datum		values[Natts_leftover];
		bool		nulls[Natts_leftover];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		leftover = palloc0(sizeof(HcLeftover));
		leftover->id = id;
		leftover->kind = TextDatumGetCString(values[Anum_leftover_kind - 1]);
		leftover->key = TextDatumGetCString(values[Anum_leftover_key - 1]);
		if (!nulls[Anum_leftover_member - 1])
			leftover->member = TextDatumGetCString(values[Anum_leftover_member - 1]);
		leftover->prefix = TextDatumGetCString(values[Anum_leftover_prefix - 1]);
		leftover->types = DatumGetJsonbPCopy(values[Anum_leftover_types - 1]);
		leftover->tid = tuple->t_self;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return leftover;
}

const char *
hc_leftover_type(const HcLeftover *leftover, const char *column)
{
	JsonbValue	buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(&leftover->types->root, column,
													 strlen(column), &buffer);

	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

bool
hc_leftover_delete(const HcLeftover *leftover)
{
	Relation	rel = ledger_open("leftover", RowExclusiveLock);
	ItemPointerData tid = leftover->tid;
	TM_FailureData failure;
	TM_Result	result;

	if (rel == NULL)
		return false;
	result = table_tuple_delete(rel, &tid, GetCurrentCommandId(true),
								SnapshotSelf, InvalidSnapshot, true, &failure,
								false);
	table_close(rel, NoLock);
	return result == TM_Ok;
}

static void
end_of_transaction(XactEvent event, void *arg)
{
	if (!owing)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			owing = false;
			if (hc_repair)
				hc_shmem_owe();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			owing = false;
			break;
		default:
			break;
	}
}

void
hc_ledger_init(void)
{
	RegisterXactCallback(end_of_transaction, NULL);
}
