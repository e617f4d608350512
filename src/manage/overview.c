/*
 * overview.c
 *	  The rows of the view hybrid_cache.mapping.
 */
#include "postgres.h"

#include "capture/catalog.h"
#include "capture/ledger.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#define NATTS	6

PG_FUNCTION_INFO_V1(hybrid_cache_mapping_list);

/* The trigger's arguments but the kind, as {"option": "value"}. */
static Datum
options_json(const HcTrigger *trigger)
{
	StringInfoData json;
	int			i;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (i = trigger->function == HC_FUNCTION_INVALIDATE ? 0 : 1; i < trigger->nargs; i++)
	{
		const char *equals = strchr(trigger->args[i], '=');

		if (equals == NULL)
			continue;
		if (json.len > 1)
			appendStringInfoString(&json, ", ");
		escape_json(&json, pnstrdup(trigger->args[i], equals - trigger->args[i]));
		appendStringInfoString(&json, ": ");
		escape_json(&json, equals + 1);
	}
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

static const char *
fires_text(char enabled)
{
	switch (enabled)
	{
		case TRIGGER_FIRES_ALWAYS:
			return "always";
		case TRIGGER_FIRES_ON_REPLICA:
			return "replica";
		case TRIGGER_DISABLED:
			return "disabled";
		default:
			return "origin";
	}
}

static void
append_state(StringInfo state, const char *text)
{
	if (state->len > 0)
		appendStringInfoString(state, ", ");
	appendStringInfoString(state, text);
}

/* Partitions can disable their clones of the trigger one by one. */
static void
append_disabled_partitions(StringInfo state, const HcTrigger *trigger)
{
	ListCell   *lc;

	if (get_rel_relkind(trigger->relid) != RELKIND_PARTITIONED_TABLE)
		return;
	foreach(lc, find_all_inheritors(trigger->relid, NoLock, NULL))
	{
		ListCell   *cell;

		foreach(cell, hc_catalog_relation(lfirst_oid(lc), NULL))
		{
			HcTrigger  *clone = lfirst(cell);

			if (hc_catalog_is_row(clone) && OidIsValid(clone->parent) &&
				clone->enabled == TRIGGER_DISABLED &&
				hc_catalog_root(clone) == trigger->oid)
				append_state(state, psprintf("disabled on partition \"%s\"",
											 get_rel_name(clone->relid)));
		}
	}
}

/* What keeps the mapping from being equal to its table; "ok" if nothing does. */
static char *
state_text(const HcTrigger *trigger)
{
	List	   *reasons = hc_owed_reasons(trigger->oid);
	List	   *others = NIL;
	HcTrigger  *companion;
	StringInfoData state;
	ListCell   *lc;

	initStringInfo(&state);
	if (trigger->enabled == TRIGGER_DISABLED)
		append_state(&state, "disabled");
	else
		append_disabled_partitions(&state, trigger);
	companion = hc_catalog_companion(hc_catalog_relation(trigger->relid, NULL), trigger);
	if (companion == NULL && !hc_catalog_is_event(trigger))
		append_state(&state, "no TRUNCATE trigger");
	else if (companion != NULL && companion->enabled == TRIGGER_DISABLED &&
			 trigger->enabled != TRIGGER_DISABLED)
		append_state(&state, "TRUNCATE trigger disabled");
	foreach(lc, reasons)
	{
		const char *reason = lfirst(lc);

		/* this one tells why no reconcile would help */
		if (strcmp(reason, HC_OWED_FOREIGN) == 0)
			append_state(&state, reason);
		else
			others = lappend(others, lfirst(lc));
	}
	if (others != NIL)
		append_state(&state, "owes reconcile: ");
	foreach(lc, others)
		appendStringInfo(&state, "%s%s", lc == list_head(others) ? "" : "; ",
						 (char *) lfirst(lc));
	if (hc_owed_is_taken(trigger->oid))
		appendStringInfoString(&state, " (in progress)");
	if (state.len == 0)
		append_state(&state, "ok");
	return state.data;
}

Datum
hybrid_cache_mapping_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, hc_catalog_database())
	{
		HcTrigger  *trigger = lfirst(lc);
		Datum		values[NATTS];
		bool		nulls[NATTS] = {0};

		values[0] = ObjectIdGetDatum(trigger->relid);
		values[1] = DirectFunctionCall1(namein, CStringGetDatum(trigger->name));
		values[2] = CStringGetTextDatum(hc_catalog_kind(trigger));
		values[3] = options_json(trigger);
		values[4] = CStringGetTextDatum(fires_text(trigger->enabled));
		values[5] = CStringGetTextDatum(state_text(trigger));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
