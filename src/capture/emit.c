/*
 * emit.c
 *	  The trigger function for events: one for each change of a row.
 *
 * An event is no state: nobody compares it with the table, and what was captured
 * stays unless the (sub)transaction is rolled back.  So nothing is asked of the
 * row's versions here, and the trigger need not see every change.
 *
 * Events of one transaction have the order in which their triggers fire.  A user's
 * AFTER trigger that fires before ours, by its name, and changes the row again,
 * has that change's event before the one of the first change.
 */
#include "postgres.h"

#include "capture/buffer.h"
#include "capture/catalog.h"
#include "capture/entry.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "mapping/event.h"
#include "settings.h"
#include "shmem.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(hybrid_cache_emit);

/* What is kept from row to row of a query, in fn_extra. */
typedef struct EmitState
{
	HcMapping  *mapping;
	HcEventRenderer *renderer;
} EmitState;

/* What events call the table: the one that has the mapping, not its partition. */
static char *
table_name(const TriggerData *data)
{
	Oid			relid = RelationGetRelid(data->tg_relation);
	const HcTrigger *trigger = NULL;

	if (data->tg_trigger->tgisclone)
		trigger = hc_catalog_trigger(data->tg_trigger->tgoid, NULL);
	if (trigger != NULL)
		relid = hc_catalog_mapping(trigger)->relid;
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static EmitState *
get_state(FunctionCallInfo fcinfo)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	EmitState  *state = fcinfo->flinfo->fn_extra;

	if (state == NULL)
	{
		MemoryContext context = fcinfo->flinfo->fn_mcxt;

		state = MemoryContextAllocZero(context, sizeof(EmitState));
		state->mapping = hc_mapping_get(data->tg_relation, data->tg_trigger,
										HC_FUNCTION_EMIT, context);
		state->renderer = hc_event_create(state->mapping, data->tg_relation,
										  table_name(data), context);
		fcinfo->flinfo->fn_extra = state;
	}
	return state;
}

static int16
operation(const TriggerData *data)
{
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		return TRIGGER_TYPE_INSERT;
	if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		return TRIGGER_TYPE_DELETE;
	return TRIGGER_TYPE_UPDATE;
}

Datum
hybrid_cache_emit(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	EmitState  *state;
	HcOp		op;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager",
						hc_function_name(HC_FUNCTION_EMIT))));
	if (!TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired AFTER a change, FOR EACH ROW",
						data->tg_trigger->tgname)));

	if (!hc_enabled)
		return PointerGetDatum(NULL);
	state = get_state(fcinfo);
	if ((state->mapping->options.operations & operation(data)) == 0)
		return PointerGetDatum(NULL);
	switch (hc_event_render(state->renderer,
							TRIGGER_FIRED_BY_INSERT(data->tg_event)
							? NULL : data->tg_trigslot,
							TRIGGER_FIRED_BY_INSERT(data->tg_event)
							? data->tg_trigslot
							: TRIGGER_FIRED_BY_DELETE(data->tg_event)
							? NULL : data->tg_newslot,
							&op))
	{
		case HC_RENDERED_ENTRY:
			op.version = hc_entry_version(data->tg_relation,
										  &data->tg_trigtuple->t_self);
			hc_buffer_append(&op);
			break;
		case HC_RENDERED_OVERSIZE:
			hc_entry_warn_oversize(&op);
			break;
		case HC_RENDERED_OUT_OF_RANGE:
			hc_shmem_count(HC_COUNT_OUT_OF_RANGE, 1);
			break;
		case HC_RENDERED_NONE:
			break;
	}
	return PointerGetDatum(NULL);
}
