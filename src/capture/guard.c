/*
 * guard.c
 *	  Watches DDL: what makes a mapping, breaks it, or changes what Redis should
 *	  hold without firing its trigger.
 *
 * An object access hook sees every way to the same end: plain DDL, functions,
 * ATTACH PARTITION, DROP ... CASCADE, a restored dump.  An event trigger would
 * not (the database's owner can disable it), and a utility hook would have to
 * know every command.  The hook runs in the middle of commands that do not
 * concern us at all, so each branch leaves as early as it can.
 *
 * What is wrong raises.  What is right but escapes the row trigger makes the
 * mapping owe a reconcile.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "capture/buffer.h"
#include "capture/check.h"
#include "capture/column.h"
#include "capture/companion.h"
#include "capture/guard.h"
#include "capture/ledger.h"
#include "capture/leftover.h"
#include "capture/naming.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

Oid			hc_guard_populating = InvalidOid;
Oid			hc_guard_unpopulated = InvalidOid;
Oid			hc_guard_purging = InvalidOid;
Oid			hc_guard_purged = InvalidOid;

static object_access_hook_type next_hook = NULL;

static void
owe(const HcTrigger *trigger, const char *reason)
{
	/* events that were missed are not made up for */
	if (!hc_catalog_is_event(trigger))
		hc_owed_mark(hc_catalog_root(trigger), reason);
}

/* Is a row without an entry a fault, which reconcile would repair? */
static bool
wants_population(const HcTrigger *trigger)
{
	return trigger->function == HC_FUNCTION_WRITE_THROUGH &&
		hc_catalog_option(trigger, HC_OPTION_TTL) == NULL;
}

/* The mapping goes, by DROP or by being replaced; what it wrote stays. */
static void
abandon(const HcTrigger *trigger)
{
	bool		purge = trigger->oid == hc_guard_purging;
	int64		id;

	if (trigger->function != HC_FUNCTION_WRITE_THROUGH ||
		trigger->oid == hc_guard_purged)
		return;
	id = hc_leftover_record(trigger, purge);
	if (purge && id != 0)
		return;
	ereport(WARNING,
			(errmsg("mapping \"%s\" of table \"%s\" leaves its entries in Redis",
					trigger->name, get_rel_name(trigger->relid)),
			 errdetail("Their key template is \"%s\".",
					   hc_catalog_option(trigger, HC_OPTION_KEY)),
			 id != 0
			 ? errhint("To see them: SELECT * FROM hybrid_cache.purge(%lld); to remove them, add dry_run => false.",
					   (long long) id)
			 : errhint("Remove them with Redis's own commands.")));
}

static bool
equal_or_null(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Do both definitions put a row's entry at the same place? */
static bool
same_place(const HcTrigger *a, const HcTrigger *b)
{
	return a->function == b->function &&
		strcmp(hc_catalog_kind(a), hc_catalog_kind(b)) == 0 &&
		equal_or_null(hc_catalog_option(a, HC_OPTION_KEY),
					  hc_catalog_option(b, HC_OPTION_KEY)) &&
		equal_or_null(hc_catalog_option(a, HC_OPTION_MEMBER),
					  hc_catalog_option(b, HC_OPTION_MEMBER)) &&
		equal_or_null(hc_catalog_option(a, HC_OPTION_FIELD),
					  hc_catalog_option(b, HC_OPTION_FIELD));
}

static bool
fires(char enabled)
{
	return enabled == TRIGGER_FIRES_ON_ORIGIN || enabled == TRIGGER_FIRES_ALWAYS;
}

/*
 * No sync worker can read the WAL of such a server.  It is no error: a dump can
 * be restored before the server is set up, and tables do not suffer.
 */
static void
warn_of_wal_level(const HcTrigger *trigger)
{
	if (!XLogIsNeeded())
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mapping \"%s\" of table \"%s\" does not reach Redis yet",
						trigger->name, get_rel_name(trigger->relid)),
				 errdetail("Changes are sent from the WAL, which needs wal_level = replica or higher."),
				 errhint("Set wal_level = replica and restart the server.")));
}

/* A row trigger without parent was created, or replaced what old tells. */
static void
mapping_created(const HcTrigger *trigger, const HcTrigger *old)
{
	hc_check_conflicts(trigger);
	hc_buffer_announce();
	hc_ledger_changed();
	warn_of_wal_level(trigger);
	if (old == NULL)
	{
		hc_owed_clear(trigger->oid);
		if ((wants_population(trigger) || trigger->relid == hc_guard_populating) &&
			hc_catalog_has_rows(trigger->relid))
			hc_owed_mark(trigger->oid, trigger->relid == hc_guard_unpopulated
						 ? HC_OWED_UNPOPULATED : HC_OWED_POPULATE);
	}
	else
	{
		if (!same_place(old, trigger))
			abandon(old);
		if (hc_catalog_is_event(trigger))
			hc_owed_clear(trigger->oid);
		if (!hc_catalog_same_definition(old, trigger))
			owe(trigger, "definition changed");
		if (!fires(old->enabled))
			owe(trigger, "was disabled");
	}
	hc_companion_row_created(trigger);
}

/* A row trigger was cloned to a partition: a new one, or one with a past. */
static void
clone_created(const HcTrigger *clone, const HcTrigger *old)
{
	const HcTrigger *mapping = hc_catalog_mapping(clone);
	ListCell   *lc;

	hc_companion_row_created(clone);
	if (old != NULL || !wants_population(clone) ||
		mapping->relid == hc_guard_unpopulated || !hc_catalog_has_rows(clone->relid))
		return;

	/* the mapping itself was created just now, with its clones */
	foreach(lc, hc_owed_reasons(mapping->oid))
	{
		if (strcmp(lfirst(lc), HC_OWED_POPULATE) == 0)
			return;
	}
	hc_owed_mark(mapping->oid, "partition attached");
}

static void
trigger_created(Oid oid, bool is_internal)
{
	HcTrigger  *trigger;
	HcTrigger  *old;

	/* foreign keys, and our own TRUNCATE triggers of partitions */
	if (is_internal)
		return;
	trigger = hc_catalog_trigger(oid, SnapshotSelf);
	old = hc_catalog_trigger(oid, NULL);
	if (trigger != NULL && old != NULL && ItemPointerEquals(&trigger->tid, &old->tid))
		old = NULL;				/* not old: the counter has moved on already */

	if (trigger == NULL)
	{
		/* CREATE OR REPLACE with another function */
		if (old != NULL && hc_catalog_is_row(old) && !OidIsValid(old->parent))
		{
			hc_owed_clear(oid);
			hc_buffer_announce();
			abandon(old);
		}
		return;
	}

	if (!OidIsValid(trigger->parent))
		hc_check_relation(trigger->relid);
	else if (get_rel_relkind(trigger->relid) == RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("partition \"%s\" is a foreign table, which mapping \"%s\" cannot follow",
						get_rel_name(trigger->relid), trigger->name),
				 errhint("Map the other partitions one by one.")));
	hc_check_shape(trigger);
	hc_check_definition(trigger);
	hc_naming_refuse_temporary(trigger);

	if (hc_catalog_is_truncate(trigger))
		hc_companion_truncate_created(trigger);
	else if (OidIsValid(trigger->parent))
		clone_created(trigger, old);
	else
		mapping_created(trigger, old);
}

static void
trigger_altered(Oid oid)
{
	HcTrigger  *trigger = hc_catalog_trigger(oid, SnapshotSelf);
	HcTrigger  *old;

	if (trigger == NULL || trigger->internal)
		return;
	old = hc_catalog_trigger(oid, NULL);
	if (old == NULL || old->enabled == trigger->enabled)
		return;

	/* sessions that read know of the mapping, not of its partitions */
	hc_ledger_changed();
	if (hc_catalog_is_truncate(trigger))
		hc_companion_truncate_altered(trigger);
	else if (!fires(old->enabled) && fires(trigger->enabled))
		owe(trigger, "was disabled");
}

static void
trigger_dropped(Oid oid, int flags)
{
	HcTrigger  *trigger = hc_catalog_trigger(oid, NULL);

	if (trigger == NULL || !hc_catalog_is_row(trigger))
		return;
	if (!OidIsValid(trigger->parent))
	{
		hc_owed_clear(oid);
		hc_buffer_announce();
		abandon(trigger);
	}
	else if (hc_catalog_has_rows(trigger->relid))
	{
		/* when the mapping itself is being dropped, this is cleared later */
		owe(trigger, (flags & PERFORM_DELETION_INTERNAL) != 0
			? "partition detached" : "partition dropped");
	}
}

/* TRUNCATE is about to happen; the relation need not be locked yet. */
static void
table_truncated(Oid relid)
{
	List	   *mappings = hc_catalog_on(relid);
	List	   *triggers;
	ListCell   *lc;

	/* its partitions are asked about one by one */
	if (mappings == NIL || get_rel_relkind(relid) != RELKIND_RELATION)
		return;
	triggers = hc_catalog_relation(relid, SnapshotSelf);
	foreach(lc, mappings)
	{
		HcTrigger  *row = lfirst(lc);
		HcTrigger  *truncate = hc_catalog_companion(triggers, row);

		if (row->enabled != TRIGGER_DISABLED &&
			(truncate == NULL || truncate->enabled == TRIGGER_DISABLED))
			owe(row, "truncated without its TRUNCATE trigger");
	}
}

static void
guard(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (next_hook != NULL)
		next_hook(access, class_id, object_id, sub_id, arg);

	if (class_id == TriggerRelationId)
	{
		if (access == OAT_POST_CREATE)
			trigger_created(object_id, ((ObjectAccessPostCreate *) arg)->is_internal);
		else if (access == OAT_POST_ALTER)
			trigger_altered(object_id);
		else if (access == OAT_DROP)
			trigger_dropped(object_id, ((ObjectAccessDrop *) arg)->dropflags);
	}
	else if (class_id == RelationRelationId)
	{
		if (access == OAT_TRUNCATE)
			table_truncated(object_id);
		else if (sub_id > 0 && access == OAT_POST_CREATE)
			hc_column_added(object_id, (AttrNumber) sub_id);
		else if (sub_id > 0 && access == OAT_POST_ALTER)
			hc_column_altered(object_id, (AttrNumber) sub_id);
		else if (sub_id > 0 && access == OAT_DROP)
			hc_column_dropped(object_id, (AttrNumber) sub_id);
		else if (access == OAT_DROP)
			hc_leftover_warn(object_id);
		else if (sub_id == 0 && access == OAT_POST_ALTER)
			hc_naming_altered(class_id, object_id);
	}
	else if (class_id == AttrDefaultRelationId)
	{
		/* the hook gets the column, not the default */
		if (access == OAT_POST_CREATE && sub_id > 0)
			hc_column_computed(object_id, (AttrNumber) sub_id);
	}
	else if (access == OAT_POST_ALTER || access == OAT_POST_CREATE)
		hc_naming_altered(class_id, object_id);
}

void
hc_guard_init(void)
{
	next_hook = object_access_hook;
	object_access_hook = guard;
}
