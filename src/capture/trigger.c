/*
 * trigger.c
 *	  The trigger functions: what a change of a row means for its entry.
 *
 * A row's AFTER triggers do not always see its versions in order: a user's
 * trigger that fires before ours may update the row again, and then ours sees
 * the newer change first.  So a version that this transaction has already
 * replaced is never captured as a value, every removal says which version it
 * ends, and the worker puts the two together (see HcVersion in op.h).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "broken.h"
#include "capture/buffer.h"
#include "capture/capture.h"
#include "capture/catalog.h"
#include "capture/entry.h"
#include "capture/ledger.h"
#include "commands/trigger.h"
#include "compat.h"
#include "fmgr.h"
#include "mapping/bytes.h"
#include "mapping/render.h"
#include "settings.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(hybrid_cache_write_through);
PG_FUNCTION_INFO_V1(hybrid_cache_invalidate);

/* What is kept from row to row of a query, in fn_extra. */
typedef struct TriggerState
{
	HcMapping  *mapping;
	HcRenderer *renderer;
	bool		owed;			/* capture is off, and that has been noted */
} TriggerState;

/* Has this transaction replaced or deleted the version of a row again? */
static bool
is_superseded(HeapTuple tuple)
{
	HeapTupleHeader header = tuple->t_data;

	if (hc_breaks(HC_BREAK_SUPERSEDED) ||
		(header->t_infomask & HEAP_XMAX_INVALID) ||
		HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask))
		return false;
	return TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(header));
}

/*
 * Was the version made by this transaction?  COPY FREEZE and CLUSTER hide that,
 * but then the table has got new storage.
 */
static bool
is_own(Relation rel, HeapTuple tuple)
{
	return hc_compat_new_storage(rel) ||
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
}

/*
 * Do both rows have the same bits in these columns?  A value that is stored out
 * of line and was not touched has the same pointer, so the first comparison
 * finds it without fetching it; the second fetches, if only the sizes agree.
 */
static bool
same_bits(TupleTableSlot *a, TupleTableSlot *b, const Bitmapset *attrs)
{
	int			attnum = -1;

	while ((attnum = bms_next_member(attrs, attnum)) >= 0)
	{
		Form_pg_attribute att = TupleDescAttr(a->tts_tupleDescriptor, attnum - 1);
		bool		null_a;
		bool		null_b;
		Datum		datum_a = slot_getattr(a, attnum, &null_a);
		Datum		datum_b = slot_getattr(b, attnum, &null_b);

		if (null_a != null_b)
			return false;
		if (!null_a &&
			!datumIsEqual(datum_a, datum_b, att->attbyval, att->attlen) &&
			!datum_image_eq(datum_a, datum_b, att->attbyval, att->attlen))
			return false;
	}
	return true;
}

static bool
same_entry(const HcOp *a, const HcOp *b)
{
	return hc_bytes_equal(a->key, b->key) && hc_bytes_equal(a->member, b->member);
}

/* Is the timer of the old row the same, and due at the same time? */
static bool
same_timer(TriggerState *state, TupleTableSlot *old, const HcOp *timer)
{
	HcOp		op;

	return hc_render_entry(state->renderer, old, 0, &op) == HC_RENDERED_ENTRY &&
		op.x == timer->x && same_entry(&op, timer);
}

/*
 * A version that was replaced since has a timer that the one before it, if any, did
 * not have: what was captured of its successors may rely on that.  See op.h.
 */
static void
capture_moved(TriggerState *state, Relation rel, TupleTableSlot *old,
			  TupleTableSlot *slot, ItemPointer tid)
{
	HcOp		op;

	if (state->mapping->options.kind != HC_KIND_TIMER ||
		hc_render_entry(state->renderer, slot, 0, &op) != HC_RENDERED_ENTRY ||
		(old != NULL && same_timer(state, old, &op)))
		return;
	op.version = hc_entry_version(rel, tid);
	op.arrived = true;
	hc_buffer_append(&op);
}

static void
capture_insert(TriggerState *state, TriggerData *data)
{
	HcVersion	version = hc_entry_version(data->tg_relation,
										   &data->tg_trigtuple->t_self);

	if (is_superseded(data->tg_trigtuple))
	{
		(void) hc_entry_arrive(state->renderer, data->tg_trigslot, version);
		capture_moved(state, data->tg_relation, NULL, data->tg_trigslot,
					  &data->tg_trigtuple->t_self);
	}
	else
		(void) hc_entry_set(state->renderer, data->tg_trigslot, version, false);
}

static void
capture_delete(TriggerState *state, TriggerData *data)
{
	hc_entry_remove(state->renderer, data->tg_trigslot,
					hc_entry_version(data->tg_relation,
									 &data->tg_trigtuple->t_self));
}

static void
capture_update(TriggerState *state, TriggerData *data)
{
	const HcMapping *mapping = state->mapping;
	bool		own = is_own(data->tg_relation, data->tg_trigtuple);
	bool		timer = mapping->options.kind == HC_KIND_TIMER;
	bool		same_identity;
	bool		same_value;
	HcOp		old_op;
	HcOp		new_op;
	HcRendered	old_has;
	HcRendered	new_has;

	same_identity = same_bits(data->tg_trigslot, data->tg_newslot,
							  mapping->identity_attrs);
	same_value = same_bits(data->tg_trigslot, data->tg_newslot,
						   mapping->value_attrs);

	/*
	 * A change of nothing adds nothing, unless the old version is our own: a
	 * trigger that fired too early may have left it to us to capture.  A time
	 * to live starts again with every update.
	 */
	if (same_identity && same_value && !own && mapping->ttl == 0)
		return;

	old_has = hc_render_identity(state->renderer, data->tg_trigslot, &old_op);
	old_op.version = hc_entry_version(data->tg_relation,
									  &data->tg_trigtuple->t_self);
	if (is_superseded(data->tg_newtuple))
	{
		/*
		 * What followed has been captured, with the end of this new version.
		 * If that has the entry which was there before the transaction, its end
		 * is the end of it.
		 */
		new_has = hc_render_identity(state->renderer, data->tg_newslot, &new_op);
		if (!own && old_has == HC_RENDERED_ENTRY &&
			new_has == HC_RENDERED_ENTRY && same_entry(&old_op, &new_op))
			old_has = new_has = HC_RENDERED_NONE;
		if (old_has == HC_RENDERED_ENTRY)
			hc_buffer_append(&old_op);
		if (new_has == HC_RENDERED_ENTRY)
		{
			new_op.version = hc_entry_version(data->tg_relation,
											  &data->tg_newtuple->t_self);
			new_op.arrived = true;
			hc_buffer_append(&new_op);
		}
		capture_moved(state, data->tg_relation, data->tg_trigslot,
					  data->tg_newslot, &data->tg_newtuple->t_self);
		return;
	}

	new_has = hc_entry_render(state->renderer, data->tg_newslot, &new_op);
	if (new_has == HC_RENDERED_ENTRY)
		new_op.version = hc_entry_version(data->tg_relation,
										  &data->tg_newtuple->t_self);
	if (old_has == HC_RENDERED_ENTRY && new_has == HC_RENDERED_ENTRY &&
		same_entry(&old_op, &new_op))
	{
		if (timer)
		{
			new_op.kept = same_timer(state, data->tg_trigslot, &new_op);
			same_value = new_op.kept;
		}

		/* only columns outside the entry changed, and it stays what it was */
		if (same_value && !own && mapping->ttl == 0)
			return;
		new_op.replaces = data->tg_trigtuple->t_self;
		hc_buffer_append(&new_op);
		return;
	}
	if (old_has == HC_RENDERED_ENTRY)
		hc_buffer_append(&old_op);
	if (new_has == HC_RENDERED_ENTRY || new_has == HC_RENDERED_OVERSIZE)
		hc_buffer_append(&new_op);
}

/* An invalidation belongs to no version of the row: it always counts. */
static void
capture_invalidation(TriggerState *state, TriggerData *data)
{
	HcOp		old_op;
	HcOp		new_op;
	bool		update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	bool		old_has;

	if (update &&
		same_bits(data->tg_trigslot, data->tg_newslot, state->mapping->value_attrs))
		return;
	old_has = hc_render_identity(state->renderer, data->tg_trigslot,
								 &old_op) == HC_RENDERED_ENTRY;
	if (old_has)
		hc_buffer_append(&old_op);
	if (update &&
		hc_render_identity(state->renderer, data->tg_newslot,
						   &new_op) == HC_RENDERED_ENTRY &&
		!(old_has && same_entry(&old_op, &new_op)))
		hc_buffer_append(&new_op);
}

static TriggerState *
get_state(FunctionCallInfo fcinfo, HcFunction function)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	TriggerState *state = fcinfo->flinfo->fn_extra;

	if (state == NULL)
	{
		MemoryContext context = fcinfo->flinfo->fn_mcxt;

		state = MemoryContextAllocZero(context, sizeof(TriggerState));
		state->mapping = hc_mapping_get(data->tg_relation, data->tg_trigger,
										function, context);
		state->renderer = hc_render_create(state->mapping, context);
		fcinfo->flinfo->fn_extra = state;
	}
	return state;
}

/* The mapping misses a change: it has to be compared with its table. */
static void
note_owed(Oid trigger_oid)
{
	HcTrigger  *trigger = hc_catalog_trigger(trigger_oid, NULL);
	ListCell   *lc;

	if (trigger == NULL)
		return;
	foreach(lc, hc_catalog_relation(trigger->relid, NULL))
	{
		HcTrigger  *row = lfirst(lc);

		if (hc_catalog_is_row(row) && hc_catalog_same_definition(row, trigger))
			hc_owed_mark(hc_catalog_root(row), "capture was off");
	}
}

static Datum
capture(FunctionCallInfo fcinfo, HcFunction function)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	TriggerState *state;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager",
						hc_function_name(function))));
	if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event)
		? !TRIGGER_FIRED_BEFORE(data->tg_event)
		: !TRIGGER_FIRED_AFTER(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired AFTER a change, FOR EACH ROW, or BEFORE TRUNCATE",
						data->tg_trigger->tgname)));

	state = get_state(fcinfo, function);
	if (!hc_enabled)
	{
		if (!state->owed)
			note_owed(data->tg_trigger->tgoid);
		state->owed = true;
	}
	else if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		(void) hc_capture_rows(data->tg_relation, state->renderer, true);
	else if (function == HC_FUNCTION_INVALIDATE)
		capture_invalidation(state, data);
	else if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		capture_insert(state, data);
	else if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		capture_delete(state, data);
	else
		capture_update(state, data);
	return PointerGetDatum(NULL);
}

Datum
hybrid_cache_write_through(PG_FUNCTION_ARGS)
{
	return capture(fcinfo, HC_FUNCTION_WRITE_THROUGH);
}

Datum
hybrid_cache_invalidate(PG_FUNCTION_ARGS)
{
	return capture(fcinfo, HC_FUNCTION_INVALIDATE);
}
