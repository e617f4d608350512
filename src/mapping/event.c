/*
 * event.c
 *	  From a change of a row to the event that says so.
 *
 * What an event says by default is the same for all kinds: op, table, lsn, data
 * and for an update old; as the fields of a stream's entry, or as one JSON object.
 * The position of the commit is not known yet: the op says where it goes.
 */
#include "postgres.h"

#include "mapping/event.h"
#include "mapping/field.h"
#include "mapping/pin.h"
#include "settings.h"
#include "utils/json.h"

struct HcEventRenderer
{
	const HcMapping *mapping;
	HcFieldContext fields;
	HcField    *key;			/* per column part of the template */
	HcField    *columns;
	int			n_columns;
	HcField		filter;			/* the expression is NULL where there is none */
	HcField		value;
	const char *table;
	TupleTableSlot *nothing;	/* is OLD or NEW where there is none */
	StringInfoData key_buffer;
	StringInfoData payload;
	StringInfoData part;		/* of the payload */
};

/* A change that is being rendered. */
typedef struct Change
{
	const char *operation;
	TupleTableSlot *row;		/* NEW, or OLD of DELETE */
	TupleTableSlot *before;		/* OLD of UPDATE, or NULL */
} Change;

HcEventRenderer *
hc_event_create(const HcMapping *mapping, Relation rel, const char *table,
				MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	HcEventRenderer *renderer = palloc0(sizeof(HcEventRenderer));
	bool		as_fields = mapping->options.kind == HC_KIND_STREAM && !mapping->whole_row;
	HcPin		pin;

	renderer->mapping = mapping;
	renderer->table = pstrdup(table);
	hc_field_context(&renderer->fields);

	/* planning evaluates what is constant, which may be a user's function */
	if (mapping->pinned)
		hc_pin_begin(&pin, mapping->owner);
	renderer->key = hc_field_make_list(mapping->key_values);
	renderer->columns = hc_field_make_columns(mapping->columns, !as_fields);
	renderer->n_columns = list_length(mapping->columns);
	renderer->filter = hc_field_make(mapping->filter);
	renderer->value = hc_field_make(mapping->value);
	if (mapping->pinned)
		hc_pin_end(&pin);

	/* of a descriptor of its own, so that nothing has to be released */
	renderer->nothing = MakeTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)),
										   &TTSOpsVirtual);
	(void) ExecStoreAllNullTuple(renderer->nothing);
	initStringInfo(&renderer->key_buffer);
	initStringInfo(&renderer->payload);
	initStringInfo(&renderer->part);
	MemoryContextSwitchTo(old);
	return renderer;
}

static HcOpKind
op_kind(const HcMapping *mapping)
{
	const char *push = mapping->options.values[HC_OPTION_PUSH];

	switch (mapping->options.kind)
	{
		case HC_KIND_STREAM:
			return HC_OP_XADD;
		case HC_KIND_PUBLISH:
			return HC_OP_PUBLISH;
		case HC_KIND_LIST:
			return push != NULL && strcmp(push, "left") == 0 ? HC_OP_LPUSH : HC_OP_RPUSH;
		default:
			elog(ERROR, "mapping of kind %s has no events",
				 hc_kind_name(mapping->options.kind));
	}
}

/* Appends a row as JSON. */
static bool
append_row(HcEventRenderer *renderer, StringInfo buf, TupleTableSlot *row)
{
	renderer->fields.econtext->ecxt_scantuple = row;
	return hc_field_json(&renderer->fields, buf, renderer->columns,
						 renderer->n_columns);
}

static void
append_field(HcEventRenderer *renderer, const char *name, const char *value,
			 int len)
{
	hc_op_hash_append(&renderer->payload, name, strlen(name));
	hc_op_hash_append(&renderer->payload, value, len);
}

/* A field with a row as JSON. */
static bool
append_row_field(HcEventRenderer *renderer, const char *name, TupleTableSlot *row)
{
	StringInfo	part = &renderer->part;

	resetStringInfo(part);
	if (!append_row(renderer, part, row) ||
		(Size) part->len > hc_value_room(&renderer->payload))
		return false;
	append_field(renderer, name, part->data, part->len);
	return true;
}

/* The fields of a stream's entry. */
static bool
render_default_fields(HcEventRenderer *renderer, const Change *change, HcOp *op)
{
	StringInfo	part = &renderer->part;

	append_field(renderer, "op", change->operation, strlen(change->operation));
	resetStringInfo(part);
	appendStringInfoString(part, renderer->table);
	hc_field_to_utf8(&renderer->fields, part, 0);
	append_field(renderer, "table", part->data, part->len);
	op->lsn_at = 2;
	append_field(renderer, "lsn", "", 0);
	return append_row_field(renderer, "data", change->row) &&
		(change->before == NULL ||
		 append_row_field(renderer, "old", change->before));
}

/* The same as a JSON object. */
static bool
render_default_object(HcEventRenderer *renderer, const Change *change, HcOp *op)
{
	StringInfo	payload = &renderer->payload;

	appendStringInfo(payload, "{\"op\":\"%s\",\"table\":", change->operation);
	escape_json(payload, renderer->table);
	appendStringInfoString(payload, ",\"lsn\":\"");
	hc_field_to_utf8(&renderer->fields, payload, 0);
	op->lsn_at = payload->len;
	appendStringInfoString(payload, "\",\"data\":");
	if (!append_row(renderer, payload, change->row))
		return false;
	if (change->before != NULL)
	{
		appendStringInfoString(payload, ",\"old\":");
		if (!append_row(renderer, payload, change->before))
			return false;
	}
	appendStringInfoChar(payload, '}');
	return payload->len <= HC_VALUE_MAX;
}

/* The value= of a mapping; a stream's entry has it as its only field. */
static HcRendered
render_value(HcEventRenderer *renderer, bool as_field)
{
	StringInfo	part = as_field ? &renderer->part : &renderer->payload;
	bool		isnull;

	if (!hc_field_text(&renderer->fields, part, &renderer->value, &isnull))
		return HC_RENDERED_OVERSIZE;
	if (isnull)
		return HC_RENDERED_NONE;
	if (as_field)
		append_field(renderer, "value", part->data, part->len);
	return HC_RENDERED_ENTRY;
}

static HcRendered
render_payload(HcEventRenderer *renderer, const Change *change, HcOp *op)
{
	const HcMapping *mapping = renderer->mapping;
	StringInfo	payload = &renderer->payload;
	bool		as_fields = mapping->options.kind == HC_KIND_STREAM;
	bool		fits;

	resetStringInfo(payload);
	if (mapping->value != NULL)
		return render_value(renderer, as_fields);
	if (mapping->whole_row)
		fits = as_fields ? render_default_fields(renderer, change, op)
			: render_default_object(renderer, change, op);
	else if (as_fields)
		fits = hc_field_pairs(&renderer->fields, payload, renderer->columns,
							  renderer->n_columns);
	else
		fits = hc_field_json(&renderer->fields, payload, renderer->columns,
							 renderer->n_columns);
	if (!fits)
		return HC_RENDERED_OVERSIZE;

	/* all columns are NULL: a stream's entry must have a field */
	return payload->len > 0 ? HC_RENDERED_ENTRY : HC_RENDERED_NONE;
}

static HcRendered
render(HcEventRenderer *renderer, const Change *change, HcOp *op)
{
	const HcMapping *mapping = renderer->mapping;
	HcRendered	result;

	memset(op, 0, sizeof(*op));
	op->kind = op_kind(mapping);
	op->lsn_at = HC_OP_NO_LSN;
	op->maxlen = mapping->options.maxlen;

	if (renderer->filter.expression != NULL)
	{
		bool		isnull;
		Datum		pass = hc_field_evaluate(&renderer->fields, &renderer->filter,
											 &isnull);

		if (isnull || !DatumGetBool(pass))
			return HC_RENDERED_NONE;
	}

	/* a channel is no key, so it has no prefix */
	if (!hc_field_template(&renderer->fields, &renderer->key_buffer,
						   op->kind == HC_OP_PUBLISH ? "" : hc_key_prefix,
						   mapping->key, renderer->key))
		return HC_RENDERED_NONE;
	op->key.data = renderer->key_buffer.data;
	op->key.len = renderer->key_buffer.len;
	if (op->kind != HC_OP_PUBLISH && hc_op_is_own_key(op->key))
		return HC_RENDERED_OUT_OF_RANGE;
	result = render_payload(renderer, change, op);
	op->value.data = renderer->payload.data;
	op->value.len = renderer->payload.len;
	return result;
}

HcRendered
hc_event_render(HcEventRenderer *renderer, TupleTableSlot *old,
				TupleTableSlot *new, HcOp *op)
{
	ExprContext *econtext = renderer->fields.econtext;
	bool		pinned = renderer->mapping->pinned;
	MemoryContext context;
	Change		change;
	HcRendered	result;
	HcPin		pin;

	change.operation = old == NULL ? "insert" : new == NULL ? "delete" : "update";
	change.row = new != NULL ? new : old;
	change.before = new != NULL ? old : NULL;

	ResetExprContext(econtext);
	econtext->ecxt_scantuple = change.row;
	econtext->ecxt_innertuple = old != NULL ? old : renderer->nothing;
	econtext->ecxt_outertuple = new != NULL ? new : renderer->nothing;
	context = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	if (pinned)
		hc_pin_begin(&pin, renderer->mapping->owner);
	result = render(renderer, &change, op);
	if (pinned)
		hc_pin_end(&pin);
	MemoryContextSwitchTo(context);
	return result;
}
