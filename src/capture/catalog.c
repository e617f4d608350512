/*
 * catalog.c
 *	  Which triggers are mappings: pg_trigger as this extension sees it.
 *
 * There is no table of mappings to keep in step with the triggers: they are
 * read from pg_trigger each time.  The snapshot is the caller's choice, since
 * the object access hook runs before the command counter moves on.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "capture/catalog.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

static const struct
{
	const char *symbol;
	HcFunction	function;
}			functions[] =
{
	{"hybrid_cache_write_through", HC_FUNCTION_WRITE_THROUGH},
	{"hybrid_cache_invalidate", HC_FUNCTION_INVALIDATE},
	{"hybrid_cache_emit", HC_FUNCTION_EMIT}
};

/* Is the function one of our trigger functions? */
static bool
is_ours(Oid oid, HcFunction *function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));
	bool		found = false;
	bool		isnull;
	Datum		datum;
	char	   *symbol;
	size_t		i;

	if (!HeapTupleIsValid(tuple))
		return false;
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang != ClanguageId)
	{
		ReleaseSysCache(tuple);
		return false;
	}

	datum = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	symbol = isnull ? pstrdup("") : TextDatumGetCString(datum);
	for (i = 0; i < (int) lengthof(functions) && !found; i++)
	{
		if (strcmp(symbol, functions[i].symbol) == 0)
		{
			*function = functions[i].function;
			found = true;
		}
	}
	pfree(symbol);

	/* in whatever folder the library is, as long as it is this one */
	if (found)
	{
		datum = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_probin, &isnull);
		if (isnull)
			found = false;
		else
		{
			char	   *library = TextDatumGetCString(datum);
			char	   *slash = strrchr(library, '/');

			found = strcmp(slash != NULL ? slash + 1 : library, "hybrid_cache") == 0;
			pfree(library);
		}
	}
	ReleaseSysCache(tuple);
	return found;
}

/* NULL if the trigger is not ours. */
static HcTrigger *
from_tuple(HeapTuple tuple, TupleDesc desc)
{
	Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
	HcFunction	function;
	HcTrigger  *trigger;
	bool		isnull;
	Datum		datum;
	bytea	   *args;
	const char *p;
	int			i;

	if (!is_ours(form->tgfoid, &function))
		return NULL;

	trigger = palloc0(sizeof(HcTrigger));
	trigger->oid = form->oid;
	trigger->relid = form->tgrelid;
	trigger->parent = form->tgparentid;
	trigger->name = pstrdup(NameStr(form->tgname));
	trigger->function = function;
	trigger->function_oid = form->tgfoid;
	trigger->type = form->tgtype;
	trigger->enabled = form->tgenabled;
	trigger->internal = form->tgisinternal;
	trigger->constraint = OidIsValid(form->tgconstraint);
	trigger->has_columns = form->tgattr.dim1 > 0;
	(void) heap_getattr(tuple, Anum_pg_trigger_tgqual, desc, &isnull);
	trigger->has_when = !isnull;
	(void) heap_getattr(tuple, Anum_pg_trigger_tgoldtable, desc, &isnull);
	trigger->has_tables = !isnull;
	(void) heap_getattr(tuple, Anum_pg_trigger_tgnewtable, desc, &isnull);
	trigger->has_tables |= !isnull;
	trigger->tid = tuple->t_self;

	/* the arguments are NUL-terminated strings, one after the other */
	trigger->nargs = form->tgnargs;
	trigger->args = palloc0(sizeof(char *) * Max(form->tgnargs, 1));
	datum = heap_getattr(tuple, Anum_pg_trigger_tgargs, desc, &isnull);
	if (isnull)
		trigger->nargs = 0;
	else
	{
		args = DatumGetByteaPP(datum);
		p = VARDATA_ANY(args);
		for (i = 0; i < trigger->nargs; i++)
		{
			trigger->args[i] = pstrdup(p);
			p += strlen(p) + 1;
		}
	}
	return trigger;
}

/* Our triggers whose attribute has the value, by the index that begins with it. */
static List *
read_triggers(Oid index, AttrNumber attribute, Oid value, Snapshot snapshot)
{
	Relation	pg_trigger = table_open(TriggerRelationId, AccessShareLock);
	List	   *result = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, attribute, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(value));
	scan = systable_beginscan(pg_trigger, index, true, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		HcTrigger  *trigger = from_tuple(tuple, RelationGetDescr(pg_trigger));

		if (trigger != NULL)
			result = lappend(result, trigger);
	}
	systable_endscan(scan);
	table_close(pg_trigger, AccessShareLock);
	return result;
}

HcTrigger *
hc_catalog_trigger(Oid oid, Snapshot snapshot)
{
	List	   *found = read_triggers(TriggerOidIndexId, Anum_pg_trigger_oid, oid,
									  snapshot);

	return found == NIL ? NULL : linitial(found);
}

List *
hc_catalog_relation(Oid relid, Snapshot snapshot)
{
	return read_triggers(TriggerRelidNameIndexId, Anum_pg_trigger_tgrelid, relid,
						 snapshot);
}

List *
hc_catalog_database(void)
{
	Relation	pg_trigger = table_open(TriggerRelationId, AccessShareLock);
	List	   *result = NIL;
	SysScanDesc scan;
	HeapTuple	tuple;

	scan = systable_beginscan(pg_trigger, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
		HcTrigger  *trigger;

		if (form->tgisinternal || OidIsValid(form->tgparentid) ||
			!TRIGGER_FOR_ROW(form->tgtype))
			continue;
		trigger = from_tuple(tuple, RelationGetDescr(pg_trigger));
		if (trigger != NULL)
			result = lappend(result, trigger);
	}
	systable_endscan(scan);
	table_close(pg_trigger, AccessShareLock);
	return result;
}

List *
hc_catalog_dependents(Oid class_id, Oid object_id)
{
	Relation	pg_depend = table_open(DependRelationId, AccessShareLock);
	List	   *result = NIL;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			last = InvalidOid;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(class_id));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(object_id));
	scan = systable_beginscan(pg_depend, DependReferenceIndexId, true,
							  SnapshotSelf, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);
		HcTrigger  *dependent;

		if (form->classid != TriggerRelationId || form->objid == last)
			continue;
		last = form->objid;
		dependent = hc_catalog_trigger(form->objid, SnapshotSelf);
		if (dependent != NULL)
			result = lappend(result, dependent);
	}
	systable_endscan(scan);
	table_close(pg_depend, AccessShareLock);
	return result;
}

static bool
is_on(const HcTrigger *trigger)
{
	return trigger->enabled == TRIGGER_FIRES_ON_ORIGIN ||
		trigger->enabled == TRIGGER_FIRES_ALWAYS;
}

bool
hc_catalog_fires(const HcTrigger *trigger)
{
	ListCell   *lc;

	if (!is_on(trigger) ||
		get_rel_relkind(trigger->relid) != RELKIND_PARTITIONED_TABLE)
		return is_on(trigger);
	foreach(lc, find_all_inheritors(trigger->relid, NoLock, NULL))
	{
		ListCell   *cell;

		foreach(cell, hc_catalog_relation(lfirst_oid(lc), NULL))
		{
			const HcTrigger *clone = lfirst(cell);

			if (hc_catalog_is_row(clone) && !is_on(clone) &&
				hc_catalog_root(clone) == hc_catalog_root(trigger))
				return false;
		}
	}
	return true;
}

Oid
hc_catalog_root(const HcTrigger *trigger)
{
	Oid			root = trigger->oid;
	Oid			parent = trigger->parent;

	while (OidIsValid(parent))
	{
		HcTrigger  *above = hc_catalog_trigger(parent, SnapshotSelf);

		root = parent;
		parent = above != NULL ? above->parent : InvalidOid;
	}
	return root;
}

const HcTrigger *
hc_catalog_mapping(const HcTrigger *trigger)
{
	const HcTrigger *mapping;

	if (!OidIsValid(trigger->parent))
		return trigger;
	mapping = hc_catalog_trigger(hc_catalog_root(trigger), SnapshotSelf);
	return mapping != NULL ? mapping : trigger;
}

bool
hc_catalog_is_row(const HcTrigger *trigger)
{
	return TRIGGER_FOR_ROW(trigger->type);
}

bool
hc_catalog_is_event(const HcTrigger *trigger)
{
	return trigger->function == HC_FUNCTION_EMIT;
}

bool
hc_catalog_is_truncate(const HcTrigger *trigger)
{
	return !TRIGGER_FOR_ROW(trigger->type) && TRIGGER_FOR_TRUNCATE(trigger->type);
}

bool
hc_catalog_same_definition(const HcTrigger *a, const HcTrigger *b)
{
	int			i;

	if (a->function != b->function || a->nargs != b->nargs)
		return false;
	for (i = 0; i < a->nargs; i++)
	{
		if (strcmp(a->args[i], b->args[i]) != 0)
			return false;
	}
	return true;
}

HcTrigger *
hc_catalog_companion(const List *triggers, const HcTrigger *row)
{
	ListCell   *lc;

	foreach(lc, triggers)
	{
		HcTrigger  *trigger = lfirst(lc);

		if (trigger->relid == row->relid && hc_catalog_is_truncate(trigger) &&
			hc_catalog_same_definition(trigger, row))
			return trigger;
	}
	return NULL;
}

const char *
hc_catalog_kind(const HcTrigger *trigger)
{
	if (trigger->function == HC_FUNCTION_INVALIDATE)
		return hc_kind_name(HC_KIND_INVALIDATE);
	return trigger->nargs > 0 ? trigger->args[0] : "";
}

const char *
hc_catalog_option(const HcTrigger *trigger, HcOptionName option)
{
	const char *name = hc_option_name(option);
	size_t		len = strlen(name);
	int			i;

	for (i = 0; i < trigger->nargs; i++)
	{
		if (strncmp(trigger->args[i], name, len) == 0 && trigger->args[i][len] == '=')
			return trigger->args[i] + len + 1;
	}
	return NULL;
}

bool
hc_catalog_whole_row(const HcTrigger *trigger)
{
	const char *kind = hc_catalog_kind(trigger);

	if (hc_catalog_is_event(trigger) &&
		hc_catalog_option(trigger, HC_OPTION_VALUE) != NULL)
		return false;
	return (hc_catalog_is_event(trigger) ||
			strcmp(kind, hc_kind_name(HC_KIND_JSON)) == 0 ||
			strcmp(kind, hc_kind_name(HC_KIND_HASH)) == 0) &&
		hc_catalog_option(trigger, HC_OPTION_COLUMNS) == NULL;
}

List *
hc_catalog_on(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	List	   *result = NIL;
	bool		has_triggers;
	ListCell   *lc;

	if (!HeapTupleIsValid(tuple))
		return NIL;
	has_triggers = ((Form_pg_class) GETSTRUCT(tuple))->relhastriggers;
	ReleaseSysCache(tuple);
	if (!has_triggers)
		return NIL;
	foreach(lc, hc_catalog_relation(relid, SnapshotSelf))
	{
		if (hc_catalog_is_row(lfirst(lc)))
			result = lappend(result, lfirst(lc));
	}
	return result;
}

bool
hc_catalog_has_rows(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	bool		result = false;

	if (rel == NULL)
		return false;
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		ListCell   *lc;

		foreach(lc, find_inheritance_children(relid, AccessShareLock))
			result = result || hc_catalog_has_rows(lfirst_oid(lc));
	}
	else if (RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
		result = RelationGetNumberOfBlocks(rel) > 0;
	relation_close(rel, NoLock);
	return result;
}
