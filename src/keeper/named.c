/*
 * named.c
 *	  Which entries of a dropped mapping do the rows of its table name?
 *
 * Only the columns of its templates are looked at: see purge.c.  A row has the
 * prefix that is set now, an entry the one that was set then, so neither counts.
 */
#include "postgres.h"

#include "access/table.h"
#include "capture/capture.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "encoding.h"
#include "keeper/keeper.h"
#include "keeper/named.h"
#include "mapping/bytes.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

typedef struct Naming
{
	const HcLeftover *leftover;
	const HcShape *shape;
	HcSuspects *entries;
	size_t		prefix;			/* bytes of what keys of rows begin with */
} Naming;

/* An entry that a row names. */
static void
take_row(const HcOp *op, void *arg)
{
	Naming	   *naming = arg;
	HcSuspect  *entry = hc_suspects_find(naming->entries, op, naming->prefix);

	if (entry != NULL)
		entry->named = true;
}

/* Does the table have all the columns of the template? */
static bool
has_columns(Oid relid, const HcTemplate *tmpl)
{
	int			i;

	for (i = 0; tmpl != NULL && i < tmpl->n_parts; i++)
	{
		if (tmpl->parts[i].is_column &&
			get_attnum(relid, tmpl->parts[i].text) <= InvalidAttrNumber)
			return false;
	}
	return true;
}

/*
 * The table of the dropped mapping and its partitions, as a list of Oid; NIL if
 * it is gone, or is not what it was.
 */
static List *
find_tables(const Naming *naming)
{
	Oid			relid = hc_leftover_table(naming->leftover);
	List	   *tables = NIL;
	ListCell   *lc;

	if (!OidIsValid(relid) || !has_columns(relid, naming->shape->key_template) ||
		!has_columns(relid, naming->shape->member_template))
		return NIL;
	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return get_rel_relkind(relid) == RELKIND_RELATION ? list_make1_oid(relid) : NIL;
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION)
			tables = lappend_oid(tables, lfirst_oid(lc));
	}
	return tables;
}

/* The entries that the rows of a table name. */
static void
read_table(Naming *naming, Relation rel, const HcOptions *options)
{
	HcCaptureRange range = {.end = InvalidBlockNumber,.identity = true,
	.put = take_row,.pause = hc_keeper_obey,.arg = naming};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache scan",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	HcMapping  *mapping = hc_mapping_compile(rel, naming->leftover->mapping, options);

	PushActiveSnapshot(snapshot);
	hc_capture_range(rel, hc_render_create(mapping, context), snapshot, &range);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

void
hc_named_mark(const HcLeftover *leftover, const HcShape *shape, HcSuspects *entries)
{
	Naming		naming = {.leftover = leftover,.shape = shape,.entries = entries};
	HcOptions	options = {0};
	ListCell   *lc;

	/* kinds that have nothing but key and member: nothing else is rendered */
	options.kind = leftover->member != NULL ? HC_KIND_SET : HC_KIND_INVALIDATE;
	options.values[HC_OPTION_KEY] = leftover->key;
	options.values[HC_OPTION_MEMBER] = leftover->member;
	naming.prefix = strlen(hc_encoding_string(hc_key_prefix));
	foreach(lc, find_tables(&naming))
	{
		Relation	rel = try_table_open(lfirst_oid(lc), AccessShareLock);

		if (rel == NULL)
			continue;
		read_table(&naming, rel, &options);
		table_close(rel, NoLock);
	}
}
