/*
 * leftover.c
 *	  The table hybrid_cache.leftover: dropped mappings whose entries are still
 *	  in Redis, and which of them are being purged.
 *
 * It is written below SQL, like its neighbour hybrid_cache.owed (ledger.c), and
 * stays small, so it is scanned.  A row that changes is deleted and inserted
 * again, which tells who was first without an error.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "capture/buffer.h"
#include "capture/ledger.h"
#include "capture/leftover.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "settings.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

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
#define Anum_leftover_asked_at	11
#define Anum_leftover_asked_in	12
#define Anum_leftover_force		13
#define Anum_leftover_remaining	14
#define Natts_leftover			14

/* This database, as it stands in asked_in. */
static char *
here(void)
{
	return psprintf(UINT64_FORMAT " %u", GetSystemIdentifier(), MyDatabaseId);
}

/* The columns that say whether the entries are to be removed. */
static void
set_asked(Datum *values, bool *nulls, bool asked, bool force)
{
	nulls[Anum_leftover_asked_at - 1] = !asked;
	nulls[Anum_leftover_asked_in - 1] = !asked;
	values[Anum_leftover_force - 1] = BoolGetDatum(force);
	if (!asked)
		return;
	values[Anum_leftover_asked_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[Anum_leftover_asked_in - 1] = CStringGetTextDatum(here());

	/* until it is done the key template stays ours: worker/owner.h */
	hc_buffer_announce();
	hc_ledger_call();
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
hc_leftover_record(const HcTrigger *trigger, bool purge)
{
	Relation	leftover = hc_ledger_open("leftover", RowExclusiveLock);
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

	set_asked(values, nulls, purge, false);
	nulls[Anum_leftover_remaining - 1] = true;

	tuple = heap_form_tuple(RelationGetDescr(leftover), values, nulls);
	CatalogTupleInsert(leftover, tuple);
	table_close(leftover, NoLock);
	return id;
}

/* Lives in the current context. */
static HcLeftover *
read_tuple(Relation rel, HeapTuple tuple)
{
	HcLeftover *leftover = palloc0(sizeof(HcLeftover));
	Datum		values[Natts_leftover];
	bool		nulls[Natts_leftover];

	heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
	leftover->id = DatumGetInt64(values[Anum_leftover_id - 1]);
	leftover->relation = TextDatumGetCString(values[Anum_leftover_relation - 1]);
	leftover->mapping = pstrdup(NameStr(*DatumGetName(values[Anum_leftover_mapping - 1])));
	leftover->kind = TextDatumGetCString(values[Anum_leftover_kind - 1]);
	leftover->key = TextDatumGetCString(values[Anum_leftover_key - 1]);
	if (!nulls[Anum_leftover_member - 1])
		leftover->member = TextDatumGetCString(values[Anum_leftover_member - 1]);
	leftover->prefix = TextDatumGetCString(values[Anum_leftover_prefix - 1]);
	leftover->types = DatumGetJsonbPCopy(values[Anum_leftover_types - 1]);
	leftover->asked = !nulls[Anum_leftover_asked_in - 1] &&
		strcmp(TextDatumGetCString(values[Anum_leftover_asked_in - 1]), here()) == 0;
	leftover->force = DatumGetBool(values[Anum_leftover_force - 1]);
	leftover->tid = tuple->t_self;
	return leftover;
}

HcLeftover *
hc_leftover_get(int64 id)
{
	Relation	rel = hc_ledger_open("leftover", AccessShareLock);
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
		leftover = read_tuple(rel, tuple);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return leftover;
}

List *
hc_leftover_asked(void)
{
	Oid			relid = hc_ledger_oid("leftover");
	Relation	rel;
	List	   *asked = NIL;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, AccessShareLock))
		return NIL;
	rel = try_table_open(relid, NoLock);
	if (rel == NULL)
		return NIL;
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		HcLeftover *leftover;

		if (heap_attisnull(tuple, Anum_leftover_asked_at, RelationGetDescr(rel)))
			continue;
		leftover = read_tuple(rel, tuple);
		if (leftover->asked)
			asked = lappend(asked, leftover);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return asked;
}

Oid
hc_leftover_table(const HcLeftover *leftover)
{
	RangeVar   *name =
		makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(leftover->relation)));
	Oid			namespace = name->schemaname != NULL
		? get_namespace_oid(name->schemaname, true) : InvalidOid;

	/* whoever looks need not have the right to use the schema */
	return OidIsValid(namespace) ? get_relname_relid(name->relname, namespace) : InvalidOid;
}

void
hc_leftover_warn(Oid relid)
{
	int			n = relid == hc_ledger_oid("leftover") ? list_length(hc_leftover_asked()) : 0;

	if (n > 0)
		ereport(WARNING,
				(errmsg_plural("the entries of %d dropped mapping stay in Redis",
							   "the entries of %d dropped mappings stay in Redis",
							   n, n),
				 errdetail("They were being removed, which takes the extension."),
				 errhint("Before you drop it, wait until the view hybrid_cache.progress is empty.")));
}

/* A column of the templates had this type, as format_type() wrote it; or NULL. */
static const char *
type_of(const char *column, void *arg)
{
	const HcLeftover *leftover = arg;
	JsonbValue	buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(&leftover->types->root, column,
													 strlen(column), &buffer);

	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

bool
hc_leftover_shape(HcLeftover *leftover, HcShape *shape)
{
	HcClaim		claim;

	if (!hc_check_claim(&claim, leftover->kind, leftover->key, leftover->member))
		return false;
	hc_shape_make(shape, &claim, leftover->prefix, type_of, leftover);
	return true;
}

HcTrigger *
hc_leftover_heir(const HcLeftover *leftover)
{
	HcClaim		claim;
	ListCell   *lc;

	if (strcmp(leftover->prefix, hc_key_prefix) != 0 ||
		!hc_check_claim(&claim, leftover->kind, leftover->key, leftover->member))
		return NULL;
	foreach(lc, hc_catalog_database())
	{
		HcClaim		other;

		if (hc_check_trigger_claim(&other, lfirst(lc)) && other.type != NULL &&
			!other.event &&
			hc_check_overlap(&claim, &other))
			return lfirst(lc);
	}
	return NULL;
}

/* Deletes a version of a row; false if somebody else has just done it. */
static bool
delete_version(Relation rel, const HcLeftover *leftover)
{
	ItemPointerData tid = leftover->tid;
	TM_FailureData failure;

	return table_tuple_delete(rel, &tid, GetCurrentCommandId(true), SnapshotSelf,
							  InvalidSnapshot, true, &failure, false) == TM_Ok;
}

/* Writes the row anew; remaining < 0: it is not known. */
static bool
rewrite(HcLeftover *leftover, bool asked, bool force, int64 remaining)
{
	Relation	rel = hc_ledger_open("leftover", RowExclusiveLock);
	HeapTupleData tuple;
	Buffer		buffer;
	HeapTuple	copy;
	bool		result = false;

	if (rel == NULL)
		return false;
	tuple.t_self = leftover->tid;
	if (heap_fetch(rel, SnapshotSelf, &tuple, &buffer, false))
	{
		Datum		values[Natts_leftover];
		bool		nulls[Natts_leftover];

		heap_deform_tuple(&tuple, RelationGetDescr(rel), values, nulls);
		set_asked(values, nulls, asked, force);
		nulls[Anum_leftover_remaining - 1] = remaining < 0;
		values[Anum_leftover_remaining - 1] = Int64GetDatum(remaining);
		copy = heap_form_tuple(RelationGetDescr(rel), values, nulls);
		ReleaseBuffer(buffer);

		result = delete_version(rel, leftover);
		if (result)
			CatalogTupleInsert(rel, copy);
	}
	table_close(rel, NoLock);
	return result;
}

bool
hc_leftover_ask(HcLeftover *leftover, bool force)
{
	return rewrite(leftover, true, force, -1);
}

bool
hc_leftover_give_up(HcLeftover *leftover, int64 remaining)
{
	hc_buffer_announce();
	return rewrite(leftover, false, false, remaining);
}

bool
hc_leftover_delete(const HcLeftover *leftover)
{
	Relation	rel = hc_ledger_open("leftover", RowExclusiveLock);
	bool		result;

	if (rel == NULL)
		return false;
	hc_buffer_announce();
	result = delete_version(rel, leftover);
	table_close(rel, NoLock);
	return result;
}
