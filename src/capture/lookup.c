/*
 * lookup.c
 *	  From an entry back to its row.
 *
 * Whether a row has the entry is decided by rendering it, which is exact.  To
 * have only few rows to render, a column of the key or member is read back where
 * that can be done in one way only, and looked up in an index of the table.
 *
 * The index is used directly, as the table is in scan.c: a query would apply row
 * security, and look with a snapshot that can be older than the lock.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "capture/entry.h"
#include "capture/lookup.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "mapping/bytes.h"
#include "mapping/value.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* What is looked for in one table. */
typedef struct Lookup
{
	Relation	rel;
	const HcShape *shape;
	HcBytes		key;
	const HcBytes *member;
	HcRenderer *renderer;
	BlockNumber most_blocks;
	HcLookupFound found;
	void	   *arg;
	bool		enough;			/* no more rows are wanted */
} Lookup;

/* Hands the row out if it has the entry. */
static void
consider(Lookup *lookup, TupleTableSlot *slot)
{
	HcOp		op;

	if (hc_render_identity(lookup->renderer, slot, &op) == HC_RENDERED_ENTRY &&
		hc_bytes_equal(op.key, lookup->key) &&
		(lookup->member == NULL || hc_bytes_equal(op.member, *lookup->member)) &&
		!lookup->found(lookup->renderer, lookup->rel, slot, lookup->arg))
		lookup->enough = true;
}

/*
 * The value of a column that is written as text; only for types whose input
 * does not depend on settings and cannot run a user's code.
 */
static bool
parse_value(Oid type, const char *data, size_t len, Datum *value)
{
	HcBytes		bytes = {data, len};
	char	   *string;
	text	   *converted;
	Oid			input;
	Oid			param;

	switch (hc_value_encoder(type))
	{
		case HC_ENCODER_BOOL:
		case HC_ENCODER_INT2:
		case HC_ENCODER_INT4:
		case HC_ENCODER_INT8:
		case HC_ENCODER_NUMERIC:
		case HC_ENCODER_UUID:
		case HC_ENCODER_DATE:
		case HC_ENCODER_TEXT:
			break;
		default:
			return false;
	}
	converted = hc_bytes_text(bytes);
	if (converted == NULL)
		return false;
	string = text_to_cstring(converted);
	getTypeInputInfo(getBaseType(type), &input, &param);
	*value = OidInputFunctionCall(input, string, param, -1);
	return true;
}

/* The index can be asked for rows with this value of its first column. */
static bool
make_key(Relation index, AttrNumber attnum, Datum value, ScanKey key)
{
	Form_pg_index form = index->rd_index;
	Oid			operator;
	Oid			function;

	if (index->rd_rel->relam != BTREE_AM_OID || form->indkey.values[0] != attnum ||
		!form->indisvalid || RelationGetIndexPredicate(index) != NIL ||
		index->rd_support[0] >= FirstNormalObjectId)
		return false;
	operator = get_opfamily_member(index->rd_opfamily[0], index->rd_opcintype[0],
								   index->rd_opcintype[0], BTEqualStrategyNumber);
	function = OidIsValid(operator) ? get_opcode(operator) : InvalidOid;
	if (!OidIsValid(function) || function >= FirstNormalObjectId)
		return false;
	ScanKeyEntryInitialize(key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[0], function, value);
	return true;
}

/* Opens an index that leads to the rows with the value; NULL if there is none. */
static Relation
open_index(Relation rel, AttrNumber attnum, Datum value, ScanKey key)
{
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (make_key(index, attnum, value, key))
			return index;
		index_close(index, NoLock);
	}
	return NULL;
}

/* The same for any column that a template shows. */
static Relation
find_index(Relation rel, const HcTemplate *tmpl, const HcMatcher *matcher,
		   HcBytes bytes, ScanKey key)
{
	int			i;

	for (i = 0; i < tmpl->n_parts; i++)
	{
		AttrNumber	attnum;
		size_t		start;
		size_t		n;
		Datum		value;
		Relation	index;

		if (!tmpl->parts[i].is_column ||
			!hc_match_locate(matcher, bytes.data, bytes.len, i, &start, &n))
			continue;
		attnum = get_attnum(RelationGetRelid(rel), tmpl->parts[i].text);
		if (attnum <= 0 ||
			!parse_value(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid,
						 bytes.data + start, n, &value))
			continue;
		index = open_index(rel, attnum, value, key);
		if (index != NULL)
			return index;
	}
	return NULL;
}

static void
search_index(Lookup *lookup, Relation index, ScanKey key, Snapshot snapshot,
			 TupleTableSlot *slot)
{
	IndexScanDesc scan = hc_compat_index_beginscan(lookup->rel, index, snapshot, 1);

	index_rescan(scan, key, 1, NULL, 0);
	while (!lookup->enough && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		consider(lookup, slot);
	}
	index_endscan(scan);
	index_close(index, NoLock);
}

static void
search_table(Lookup *lookup, Snapshot snapshot, TupleTableSlot *slot)
{
	TableScanDesc scan = table_beginscan(lookup->rel, snapshot, 0, NULL);

	while (!lookup->enough &&
		   table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		consider(lookup, slot);
	}
	table_endscan(scan);
}

/* false if the table is too large to be read. */
static bool
search(Lookup *lookup)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(lookup->rel, NULL);
	const HcShape *shape = lookup->shape;
	bool		done = true;
	ScanKeyData key;
	Relation	index;

	index = find_index(lookup->rel, shape->key_template, shape->key,
					   lookup->key, &key);
	if (index == NULL && lookup->member != NULL)
		index = find_index(lookup->rel, shape->member_template, shape->member,
						   *lookup->member, &key);
	if (index != NULL)
		search_index(lookup, index, &key, snapshot, slot);
	else if (lookup->most_blocks == InvalidBlockNumber ||
			 RelationGetNumberOfBlocks(lookup->rel) <= lookup->most_blocks)
		search_table(lookup, snapshot, slot);
	else
		done = false;
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	return done;
}

bool
hc_lookup_rows(const HcCandidate *candidate, HcBytes key, const HcBytes *member,
			   BlockNumber most_blocks, HcLookupFound found, void *arg)
{
	const HcTrigger *mapping = candidate->mapping;
	List	   *relids = list_make1_oid(mapping->relid);
	bool		done = true;
	HcOptions	options;
	Lookup		lookup = {0};
	ListCell   *lc;

	/* no row has what is only unlinked */
	if (mapping->function == HC_FUNCTION_INVALIDATE)
		return true;
	hc_options_parse(mapping->function, mapping->nargs, mapping->args, &options);
	if (get_rel_relkind(mapping->relid) == RELKIND_PARTITIONED_TABLE)
		relids = find_all_inheritors(mapping->relid, NoLock, NULL);

	lookup.shape = &candidate->shape;
	lookup.key = key;
	lookup.member = member;
	lookup.most_blocks = most_blocks;
	lookup.found = found;
	lookup.arg = arg;
	foreach(lc, relids)
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
													  "hybrid_cache lookup",
													  ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);

		lookup.rel = table_open(lfirst_oid(lc), AccessShareLock);
		if (!lookup.enough && RELKIND_HAS_STORAGE(lookup.rel->rd_rel->relkind))
		{
			lookup.renderer = hc_render_create(hc_mapping_compile(lookup.rel,
																  mapping->name,
																  &options),
											   context);
			done &= search(&lookup);
		}
		table_close(lookup.rel, NoLock);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
	}
	return done;
}

static bool
capture(HcRenderer *renderer, Relation rel, TupleTableSlot *slot, void *arg)
{
	bool	   *captured = arg;

	*captured |= hc_entry_set(renderer, slot, hc_entry_version(rel, &slot->tts_tid),
							  true);
	return true;
}

bool
hc_lookup_capture(const HcCandidate *candidate, HcBytes key, const HcBytes *member)
{
	bool		captured = false;

	(void) hc_lookup_rows(candidate, key, member, InvalidBlockNumber, capture,
						  &captured);
	return captured;
}
