/*
 * catalog.h
 *	  Which triggers are mappings: pg_trigger as this extension sees it.
 */
#ifndef HC_CATALOG_H
#define HC_CATALOG_H

#include "mapping/mapping.h"
#include "storage/itemptr.h"
#include "utils/snapshot.h"

/*
 * A trigger that calls a trigger function of this extension.  A mapping is a
 * row trigger without a parent (its root); its clones on partitions and its
 * TRUNCATE triggers only help it.  Mappings of events have no TRUNCATE trigger.
 */
typedef struct HcTrigger
{
	Oid			oid;
	Oid			relid;
	Oid			parent;			/* the trigger it is a clone of, or InvalidOid */
	char	   *name;
	HcFunction	function;
	Oid			function_oid;
	int16		type;			/* TRIGGER_TYPE_* */
	char		enabled;		/* TRIGGER_FIRES_* or TRIGGER_DISABLED */
	bool		internal;		/* the TRUNCATE trigger of a partition */
	bool		constraint;		/* made by CREATE CONSTRAINT TRIGGER */
	bool		has_when;
	bool		has_columns;	/* UPDATE OF column ... */
	bool		has_tables;		/* transition tables */
	int			nargs;
	char	  **args;
	ItemPointerData tid;		/* of this version of the row */
} HcTrigger;

/*
 * The trigger as snapshot sees it; NULL if there is none or it is not ours.
 * A NULL snapshot is the usual one for catalogs: what was there before the
 * current command.  &SnapshotSelfData also shows what this command has done.
 */
extern HcTrigger *hc_catalog_trigger(Oid oid, Snapshot snapshot);

/* The triggers of ours on one table, in order of their names. */
extern List *hc_catalog_relation(Oid relid, Snapshot snapshot);

/* The row triggers among them, also since this command; quick if there are none. */
extern List *hc_catalog_on(Oid relid);

/* May the table, or a partition below it, have rows?  Empty files say no. */
extern bool hc_catalog_has_rows(Oid relid);

/* All mappings of the database: row triggers without a parent. */
extern List *hc_catalog_database(void);

/*
 * The triggers of ours that depend on an object, also since this command.
 */
extern List *hc_catalog_dependents(Oid class_id, Oid object_id);

/* Does it fire in ordinary sessions, on its table and on all partitions of that? */
extern bool hc_catalog_fires(const HcTrigger *trigger);

/* The mapping that this row trigger is or is a clone of: the topmost parent. */
extern Oid	hc_catalog_root(const HcTrigger *trigger);

/* The same as a trigger; itself if its parent cannot be found. */
extern const HcTrigger *hc_catalog_mapping(const HcTrigger *trigger);

extern bool hc_catalog_is_row(const HcTrigger *trigger);
extern bool hc_catalog_is_truncate(const HcTrigger *trigger);

/* Has the mapping events, and no entries that could be compared with the table? */
extern bool hc_catalog_is_event(const HcTrigger *trigger);

/* Do they call the same function with the same arguments? */
extern bool hc_catalog_same_definition(const HcTrigger *a, const HcTrigger *b);

/* The TRUNCATE trigger among triggers that belongs to the row trigger, or NULL. */
extern HcTrigger *hc_catalog_companion(const List *triggers, const HcTrigger *row);

/*
 * The kind, and an option's value or NULL, without checking anything: also for
 * triggers that were made while the extension was not loaded.
 */
extern const char *hc_catalog_kind(const HcTrigger *trigger);
extern const char *hc_catalog_option(const HcTrigger *trigger, HcOptionName option);

/* Is it a row's whole content that goes to Redis, whatever columns there are? */
extern bool hc_catalog_whole_row(const HcTrigger *trigger);

#endif							/* HC_CATALOG_H */
