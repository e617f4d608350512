/*
 * ledger.c
 *	  What has to be remembered about mappings: the table hybrid_cache.owed.
 *	  For its neighbour hybrid_cache.leftover see leftover.c.
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
#include "commands/trigger.h"
#include "miscadmin.h"
#include "settings.h"
#include "shmem.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define Anum_owed_mapping		1
#define Anum_owed_reason		2
#define Anum_owed_since			3
#define Anum_owed_started		4
#define Natts_owed				4

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

Relation
hc_ledger_open(const char *name, LOCKMODE lockmode)
{
	Oid			relid = hc_ledger_oid(name);

	return OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;
}

void
hc_ledger_changed(void)
{
	Oid			relid = hc_ledger_oid("owed");

	if (OidIsValid(relid))
		CacheInvalidateRelcacheByRelid(relid);
}

/* The rows of a mapping. */
static SysScanDesc
begin_scan(Relation owed, Oid mapping, Snapshot snapshot)
{
	ScanKeyData key;

	ScanKeyInit(&key, Anum_owed_mapping, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(mapping));
	return systable_beginscan(owed, InvalidOid, false, snapshot, 1, &key);
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

	scan = begin_scan(owed, mapping, SnapshotSelf);
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
	CacheInvalidateRelcache(owed);
	hc_ledger_call();
}

void
hc_owed_mark(Oid mapping, const char *reason)
{
	Relation	owed = hc_ledger_open("owed", RowExclusiveLock);

	if (owed == NULL)
		return;
	owed_insert(owed, mapping, reason);
	table_close(owed, NoLock);
}

void
hc_owed_all(const char *reason)
{
	Relation	owed = hc_ledger_open("owed", RowExclusiveLock);
	ListCell   *lc;

	if (owed == NULL)
		return;
	foreach(lc, hc_catalog_database())
	{
		const HcTrigger *trigger = lfirst(lc);

		if (!hc_catalog_is_event(trigger))
			owed_insert(owed, trigger->oid, reason);
	}
	table_close(owed, NoLock);
}

/* false if somebody else has just deleted it. */
static bool
owed_delete(Relation owed, HeapTuple tuple)
{
	TM_FailureData failure;

	CacheInvalidateRelcache(owed);
	return table_tuple_delete(owed, &tuple->t_self, GetCurrentCommandId(true),
							  SnapshotSelf, InvalidSnapshot, true, &failure,
							  false) == TM_Ok;
}

/* Nothing is owed any more; taken_only: of what the keeper has begun with. */
static void
owed_forget(Oid mapping, bool taken_only)
{
	Relation	owed = hc_ledger_open("owed", RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tuple;

	if (owed == NULL)
		return;
	scan = begin_scan(owed, mapping, NULL);
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
	Relation	owed = hc_ledger_open("owed", RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tuple;

	if (owed == NULL)
		return;
	scan = begin_scan(owed, mapping, NULL);
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

bool
hc_owed_take(Oid mapping)
{
	Relation	owed = hc_ledger_open("owed", RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		taken = false;

	if (owed == NULL)
		return false;
	scan = begin_scan(owed, mapping, NULL);
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
		taken = true;
	}
	systable_endscan(scan);
	table_close(owed, NoLock);
	return taken;
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
	Relation	owed = hc_ledger_open("owed", AccessShareLock);
	bool		taken = false;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (owed == NULL)
		return false;
	scan = begin_scan(owed, mapping, SnapshotSelf);
	while (!taken && HeapTupleIsValid(tuple = systable_getnext(scan)))
		taken = is_taken(owed, tuple);
	systable_endscan(scan);
	table_close(owed, AccessShareLock);
	return taken;
}

/* Is it owed, and yet nobody wants it? */
static bool
is_declined(const char *reason)
{
	return strcmp(reason, HC_OWED_UNPOPULATED) == 0 ||
		strncmp(reason, HC_OWED_CANCELLED, strlen(HC_OWED_CANCELLED)) == 0;
}

bool
hc_owed_is_declined(Oid mapping)
{
	ListCell   *lc;

	foreach(lc, hc_owed_reasons(mapping))
	{
		if (is_declined(lfirst(lc)))
			return true;
	}
	return false;
}

/* The keeper may be just about to take or to settle the same. */
bool
hc_owed_cancel(Oid mapping)
{
	Relation	owed = hc_ledger_open("owed", RowExclusiveLock);
	bool		cancelled = false;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (owed == NULL)
		return false;
	scan = begin_scan(owed, mapping, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_owed];
		bool		nulls[Natts_owed];
		char	   *reason;

		heap_deform_tuple(tuple, RelationGetDescr(owed), values, nulls);
		reason = TextDatumGetCString(values[Anum_owed_reason - 1]);
		if (strcmp(reason, HC_OWED_FOREIGN) == 0 ||
			(is_declined(reason) && nulls[Anum_owed_started - 1]) ||
			!owed_delete(owed, tuple))
			continue;
		if (!is_declined(reason))
			values[Anum_owed_reason - 1] =
				CStringGetTextDatum(psprintf("%s%s", HC_OWED_CANCELLED, reason));
		nulls[Anum_owed_started - 1] = true;
		CatalogTupleInsert(owed, heap_form_tuple(RelationGetDescr(owed), values,
												 nulls));
		cancelled = true;
	}
	systable_endscan(scan);
	table_close(owed, NoLock);
	return cancelled;
}

/* Can the keeper do something about it now? */
static bool
is_work(Oid mapping, const char *reason)
{
	HcTrigger  *trigger;

	if (is_declined(reason))
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
	Relation	owed = hc_ledger_open("owed", AccessShareLock);
	List	   *reasons = NIL;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (owed == NULL)
		return NIL;
	scan = begin_scan(owed, mapping, SnapshotSelf);
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

void
hc_ledger_call(void)
{
	if (hc_repair)
		hc_role_call_at_commit(HC_ROLE_KEEPER);
}
