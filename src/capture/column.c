/*
 * column.c
 *	  What DDL on a column means to the mappings of its table.
 *
 * PostgreSQL lets a column be renamed that an expression in a trigger's argument
 * names, since it sees a string there; it tells nobody that rows have been computed
 * anew.  Both are found out here, from what the column was before the command.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "capture/catalog.h"
#include "capture/column.h"
#include "capture/ledger.h"
#include "capture/naming.h"
#include "catalog/indexing.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "compat.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

static void owe_change(List *mappings, Oid relid, const char *column,
					   const char *what);
static bool read_attribute(Oid relid, AttrNumber attnum, Snapshot snapshot,
						   FormData_pg_attribute *attribute);
static void refuse_field(Oid relid, AttrNumber attnum, const char *name);

void
hc_column_added(Oid relid, AttrNumber attnum)
{
	List	   *mappings = hc_catalog_on(relid);
	FormData_pg_attribute new;
	ListCell   *lc;

	if (mappings == NIL || !read_attribute(relid, attnum, SnapshotSelf, &new))
		return;

	/* better here than when a row is written next */
	foreach(lc, mappings)
	{
		HcTrigger  *trigger = lfirst(lc);

		if (new.attgenerated == HC_GENERATED_VIRTUAL &&
			hc_catalog_whole_row(trigger))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot add virtual generated column \"%s\" to table \"%s\" because mapping \"%s\" writes whole rows",
							NameStr(new.attname), get_rel_name(relid), trigger->name),
					 errhint("Make it STORED, or let the mapping name its columns.")));
	}
	owe_change(mappings, relid, NameStr(new.attname), "added");
}

void
hc_column_altered(Oid relid, AttrNumber attnum)
{
	List	   *mappings = hc_catalog_on(relid);
	FormData_pg_attribute old;
	FormData_pg_attribute new;
	bool		renamed;
	ListCell   *lc;

	if (!read_attribute(relid, attnum, NULL, &old) ||
		!read_attribute(relid, attnum, SnapshotSelf, &new))
		return;

	renamed = strcmp(NameStr(old.attname), NameStr(new.attname)) != 0;
	if (renamed)
		refuse_field(relid, attnum, NameStr(old.attname));
	foreach(lc, mappings)
	{
		HcTrigger  *trigger = lfirst(lc);

		if (renamed && hc_naming_has_column(trigger, relid, attnum))
		{
			const HcTrigger *root = hc_catalog_mapping(trigger);

			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot rename column \"%s\" of table \"%s\" because mapping \"%s\" names it",
							NameStr(old.attname), get_rel_name(root->relid), root->name),
					 errhint("Detach the mapping, rename the column, and attach the mapping with the new name.")));
		}
	}
	if (mappings != NIL &&
		(renamed || old.atttypid != new.atttypid || old.atttypmod != new.atttypmod))
		owe_change(mappings, relid, NameStr(old.attname), "changed");
}

void
hc_column_computed(Oid relid, AttrNumber attnum)
{
	List	   *mappings = hc_catalog_on(relid);
	FormData_pg_attribute attribute;
	char	   *added;
	ListCell   *lc;

	if (mappings == NIL ||
		!read_attribute(relid, attnum, SnapshotSelf, &attribute) ||
		attribute.attgenerated != ATTRIBUTE_GENERATED_STORED || !hc_catalog_has_rows(relid))
		return;

	added = psprintf("column \"%s\" added", NameStr(attribute.attname));
	foreach(lc, mappings)
	{
		HcTrigger  *trigger = lfirst(lc);
		bool		known = false;
		ListCell   *reason;

		if (hc_catalog_is_event(trigger) ||
			(!hc_catalog_whole_row(trigger) &&
			 !hc_naming_has_column(trigger, relid, attnum)))
			continue;
		/* a new column has a default too */
		foreach(reason, hc_owed_reasons(hc_catalog_root(trigger)))
			known = known || strcmp(lfirst(reason), added) == 0;
		if (!known)
			hc_owed_mark(hc_catalog_root(trigger),
						 psprintf("column \"%s\" changed", NameStr(attribute.attname)));
	}
}

void
hc_column_dropped(Oid relid, AttrNumber attnum)
{
	List	   *mappings = hc_catalog_on(relid);

	if (mappings != NIL)
		owe_change(mappings, relid, get_attname(relid, attnum, false), "dropped");
}

/* What happened to a column matters to the mappings of whole rows. */
static void
owe_change(List *mappings, Oid relid, const char *column, const char *what)
{
	ListCell   *lc;

	foreach(lc, mappings)
	{
		HcTrigger  *trigger = lfirst(lc);

		if (!hc_catalog_is_event(trigger) && hc_catalog_whole_row(trigger) &&
			hc_catalog_has_rows(relid))
			hc_owed_mark(hc_catalog_root(trigger),
						 psprintf("column \"%s\" %s", column, what));
	}
}

/* The fixed part of a column's row as snapshot sees it; false if there is none. */
static bool
read_attribute(Oid relid, AttrNumber attnum, Snapshot snapshot,
			   FormData_pg_attribute *attribute)
{
	Relation	pg_attribute = table_open(AttributeRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&keys[0], Anum_pg_attribute_attrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_attribute_attnum, BTEqualStrategyNumber,
				F_INT2EQ, Int16GetDatum(attnum));
	scan = systable_beginscan(pg_attribute, AttributeRelidNumIndexId, true,
							  snapshot, 2, keys);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		memcpy(attribute, GETSTRUCT(tuple), ATTRIBUTE_FIXED_PART_SIZE);
	systable_endscan(scan);
	table_close(pg_attribute, AccessShareLock);
	return found;
}

/* The field of a composite type that an expression reads is named as well. */
static void
refuse_field(Oid relid, AttrNumber attnum, const char *name)
{
	ListCell   *lc;

	foreach(lc, hc_catalog_dependents(RelationRelationId, relid))
	{
		HcTrigger  *trigger = lfirst(lc);

		if (trigger->relid != relid && hc_naming_has_column(trigger, relid, attnum))
		{
			const HcTrigger *root = hc_catalog_mapping(trigger);

			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot rename field \"%s\" of type %s because mapping \"%s\" of table \"%s\" names it",
							name, format_type_be(get_rel_type_id(relid)),
							root->name, get_rel_name(root->relid)),
					 errhint("Detach the mapping, rename the field, and attach the mapping with the new name.")));
		}
	}
}
