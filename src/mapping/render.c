/*
 * render.c
 *	  From a row to its entry in Redis.
 *
 * Only expressions that need it run under pinned settings and as the table's
 * owner.  Two sets of buffers take turns, so that the old and the new row of an
 * update can be compared without copying.
 */
#include "postgres.h"

#include <math.h>

#include "mapping/field.h"
#include "mapping/pin.h"
#include "mapping/render.h"
#include "settings.h"
#include "utils/timestamp.h"

/* What GEOADD accepts: the square of Web Mercator (EPSG:3857). */
#define MAX_LONGITUDE	180.0
#define MAX_LATITUDE	85.05112878

/*
 * GEOADD puts a position at the eastern or northern edge into a cell that no
 * GEOSEARCH looks at.  This far before it, a centimetre, is the last cell.
 */
#define EDGE			1e-7

/* Milliseconds between 1970 and 2000.  In microseconds, a sum could overflow. */
#define UNIX_EPOCH_OFFSET_MS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000)

typedef struct Buffers
{
	StringInfoData key;
	StringInfoData member;
	StringInfoData value;
} Buffers;

/* How much of an entry is rendered. */
typedef enum Extent
{
	EXTENT_KEY,					/* of any row, whatever it has */
	EXTENT_PLACE,				/* the same with the member, as a removal */
	EXTENT_IDENTITY,			/* as a removal */
	EXTENT_ENTRY
} Extent;

struct HcRenderer
{
	const HcMapping *mapping;
	HcFieldContext fields;
	HcField    *key;			/* per column part of the template */
	HcField    *member;
	HcField    *columns;		/* json, hash */
	int			n_columns;
	HcField		filter;			/* the expression is NULL where there is none */
	HcField		value;
	HcField		x;
	HcField		y;
	HcField		expires_at;
	bool		pinned_key;		/* rendering the key must pin settings */
	Buffers		buffers[2];
	int			current;		/* of the two */
};

HcRenderer *
hc_render_create(const HcMapping *mapping, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	HcRenderer *renderer = palloc0(sizeof(HcRenderer));
	HcPin		pin;
	ListCell   *lc;
	int			i;

	renderer->mapping = mapping;
	hc_field_context(&renderer->fields);

	/* planning evaluates what is constant, which may be a user's function */
	if (mapping->pinned)
		hc_pin_begin(&pin, mapping->owner);
	renderer->key = hc_field_make_list(mapping->key_values);
	foreach(lc, mapping->key_values)
		renderer->pinned_key |= !((HcExpression *) lfirst(lc))->pure;
	renderer->member = hc_field_make_list(mapping->member_values);
	renderer->columns = hc_field_make_columns(mapping->columns,
											  mapping->options.kind == HC_KIND_JSON);
	renderer->n_columns = list_length(mapping->columns);
	renderer->filter = hc_field_make(mapping->filter);
	renderer->value = hc_field_make(mapping->value);
	renderer->x = hc_field_make(mapping->x);
	renderer->y = hc_field_make(mapping->y);
	renderer->expires_at = hc_field_make(mapping->expires_at);
	if (mapping->pinned)
		hc_pin_end(&pin);

	for (i = 0; i < 2; i++)
	{
		initStringInfo(&renderer->buffers[i].key);
		initStringInfo(&renderer->buffers[i].member);
		initStringInfo(&renderer->buffers[i].value);
	}
	MemoryContextSwitchTo(old);
	return renderer;
}

/* Evaluates score or coordinates; *isnull if there is none. */
static double
number(HcRenderer *renderer, const HcField *field, bool *isnull)
{
	Datum		value = hc_field_evaluate(&renderer->fields, field, isnull);

	return *isnull ? 0 : DatumGetFloat8(value);
}

/*
 * When the timer of a row is due, in ms: not before the row says.  What is due
 * never, or was so always, is no event.
 */
static HcRendered
render_time(HcRenderer *renderer, HcOp *op)
{
	bool		isnull;
	TimestampTz at = DatumGetTimestampTz(hc_field_evaluate(&renderer->fields,
														   &renderer->expires_at,
														   &isnull));

	if (isnull || TIMESTAMP_NOT_FINITE(at))
		return HC_RENDERED_NONE;
	op->x = (double) (at / 1000 + (at % 1000 > 0 ? 1 : 0) + UNIX_EPOCH_OFFSET_MS);
	return HC_RENDERED_ENTRY;
}

static HcRendered
render_numbers(HcRenderer *renderer, HcOp *op)
{
	bool		isnull = false;

	if (renderer->mapping->options.kind == HC_KIND_TIMER)
		return render_time(renderer, op);
	if (renderer->x.expression == NULL)
		return HC_RENDERED_ENTRY;
	op->x = number(renderer, &renderer->x, &isnull);
	if (!isnull && renderer->y.expression != NULL)
		op->y = number(renderer, &renderer->y, &isnull);
	if (isnull)
		return renderer->y.expression != NULL ?
			HC_RENDERED_OUT_OF_RANGE : HC_RENDERED_NONE;
	if (isnan(op->x) || isnan(op->y))
		return HC_RENDERED_OUT_OF_RANGE;
	if (renderer->y.expression != NULL &&
		(fabs(op->x) > MAX_LONGITUDE || fabs(op->y) > MAX_LATITUDE))
		return HC_RENDERED_OUT_OF_RANGE;
	if (renderer->y.expression != NULL)
	{
		op->x = Min(op->x, MAX_LONGITUDE - EDGE);
		op->y = Min(op->y, MAX_LATITUDE - EDGE);
	}
	return HC_RENDERED_ENTRY;
}

/* The last ms that is over at that time. */
static int64
to_unix_ms(TimestampTz at)
{
	return at / 1000 - (at % 1000 < 0 ? 1 : 0) + UNIX_EPOCH_OFFSET_MS;
}

/* Sets the op's expiry; false if the entry's time is before 1970. */
static bool
render_expiry(HcRenderer *renderer, TimestampTz now, HcOp *op)
{
	const HcMapping *mapping = renderer->mapping;

	op->expires_at = 0;
	if (mapping->ttl != 0)
		op->expires_at = to_unix_ms(now) + mapping->ttl;
	else if (renderer->expires_at.expression != NULL)
	{
		bool		isnull;
		Datum		value = hc_field_evaluate(&renderer->fields, &renderer->expires_at, &isnull);

		if (isnull || TIMESTAMP_IS_NOEND(DatumGetTimestampTz(value)))
			return true;
		if (TIMESTAMP_IS_NOBEGIN(DatumGetTimestampTz(value)))
			return false;
		op->expires_at = to_unix_ms(DatumGetTimestampTz(value));
		return op->expires_at > 0;
	}
	return true;
}

/* What the entry holds.  op has its kind; numbers are done. */
static HcRendered
render_value(HcRenderer *renderer, TimestampTz now, HcOp *op, StringInfo buf)
{
	bool		fits = true;

	switch (renderer->mapping->options.kind)
	{
		case HC_KIND_STRING:
		case HC_KIND_FIELD:
			{
				bool		isnull;

				fits = hc_field_text(&renderer->fields, buf, &renderer->value,
									 &isnull);
				if (isnull)
					return HC_RENDERED_NONE;
				break;
			}
		case HC_KIND_JSON:
			resetStringInfo(buf);
			fits = hc_field_json(&renderer->fields, buf, renderer->columns,
								 renderer->n_columns);
			break;
		case HC_KIND_HASH:
			resetStringInfo(buf);
			fits = hc_field_pairs(&renderer->fields, buf, renderer->columns,
								  renderer->n_columns);
			break;
		default:
			return HC_RENDERED_ENTRY;
	}
	if (!fits)
	{
		op->kind = hc_op_removal_of(op->kind);
		return HC_RENDERED_OVERSIZE;
	}
	op->value.data = buf->data;
	op->value.len = buf->len;
	if (!render_expiry(renderer, now, op))
		return HC_RENDERED_NONE;
	return HC_RENDERED_ENTRY;
}

/* Is there a value?  What only the value's NULL decides about the entry. */
static bool
has_value(HcRenderer *renderer)
{
	bool		isnull = false;

	if (renderer->value.expression != NULL)
		(void) hc_field_evaluate(&renderer->fields, &renderer->value, &isnull);
	return !isnull;
}

static HcOpKind
op_kind(HcKind kind)
{
	switch (kind)
	{
		case HC_KIND_STRING:
		case HC_KIND_JSON:
			return HC_OP_SET;
		case HC_KIND_HASH:
			return HC_OP_HASH;
		case HC_KIND_FIELD:
			return HC_OP_HSET;
		case HC_KIND_GEO:
			return HC_OP_GEOADD;
		case HC_KIND_ZSET:
			return HC_OP_ZADD;
		case HC_KIND_SET:
			return HC_OP_SADD;
		case HC_KIND_TIMER:
			return HC_OP_TIMER;
		case HC_KIND_INVALIDATE:
			return HC_OP_UNLINK;
		case HC_KIND_STREAM:
		case HC_KIND_PUBLISH:
		case HC_KIND_LIST:
			break;
	}
	elog(ERROR, "mapping of kind %s has no entries", hc_kind_name(kind));
}

/* Key and member, or the key alone. */
static HcRendered
render_place(HcRenderer *renderer, Buffers *buffers, Extent extent, HcOp *op)
{
	const HcMapping *mapping = renderer->mapping;

	if (!hc_field_template(&renderer->fields, &buffers->key, hc_key_prefix,
						   mapping->key, renderer->key))
		return HC_RENDERED_NONE;
	op->key.data = buffers->key.data;
	op->key.len = buffers->key.len;
	if (hc_op_is_own_key(op->key))
		return HC_RENDERED_OUT_OF_RANGE;
	if (extent != EXTENT_KEY && mapping->member != NULL)
	{
		if (!hc_field_template(&renderer->fields, &buffers->member, "",
							   mapping->member, renderer->member))
			return HC_RENDERED_NONE;
		op->member.data = buffers->member.data;
		op->member.len = buffers->member.len;
	}
	return HC_RENDERED_ENTRY;
}

/* All renderings; an entry's identity is its removal. */
static HcRendered
render(HcRenderer *renderer, TimestampTz now, Extent extent, HcOp *op)
{
	Buffers    *buffers = &renderer->buffers[renderer->current];
	bool		whole = extent == EXTENT_ENTRY || extent == EXTENT_IDENTITY;
	HcRendered	result;

	memset(op, 0, sizeof(*op));
	op->kind = op_kind(renderer->mapping->options.kind);

	if (whole && renderer->filter.expression != NULL)
	{
		bool		isnull;
		Datum		pass = hc_field_evaluate(&renderer->fields, &renderer->filter, &isnull);

		if (isnull || !DatumGetBool(pass))
			return HC_RENDERED_NONE;
	}
	result = render_place(renderer, buffers, extent, op);
	if (result == HC_RENDERED_ENTRY && whole)
		result = render_numbers(renderer, op);
	if (result != HC_RENDERED_ENTRY || extent == EXTENT_KEY)
		return result;
	if (extent == EXTENT_ENTRY)
		return render_value(renderer, now, op, &buffers->value);
	if (extent == EXTENT_IDENTITY && !has_value(renderer))
		return HC_RENDERED_NONE;
	op->kind = hc_op_removal_of(op->kind);
	return HC_RENDERED_ENTRY;
}

static HcRendered
render_slot(HcRenderer *renderer, TupleTableSlot *slot, TimestampTz now,
			Extent extent, HcOp *op)
{
	bool		pinned = extent == EXTENT_KEY
		? renderer->pinned_key : renderer->mapping->pinned;
	ExprContext *econtext = renderer->fields.econtext;
	MemoryContext old;
	HcRendered	result;
	HcPin		pin;

	ResetExprContext(econtext);
	econtext->ecxt_scantuple = slot;
	renderer->current ^= 1;
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	if (pinned)
		hc_pin_begin(&pin, renderer->mapping->owner);
	result = render(renderer, now, extent, op);
	if (pinned)
		hc_pin_end(&pin);
	MemoryContextSwitchTo(old);
	return result;
}

HcKind
hc_render_kind(const HcRenderer *renderer)
{
	return renderer->mapping->options.kind;
}

HcRendered
hc_render_entry(HcRenderer *renderer, TupleTableSlot *slot, TimestampTz now,
				HcOp *op)
{
	return render_slot(renderer, slot, now, EXTENT_ENTRY, op);
}

HcRendered
hc_render_identity(HcRenderer *renderer, TupleTableSlot *slot, HcOp *op)
{
	return render_slot(renderer, slot, 0, EXTENT_IDENTITY, op);
}

HcRendered
hc_render_place(HcRenderer *renderer, TupleTableSlot *slot, HcOp *op)
{
	return render_slot(renderer, slot, 0, EXTENT_PLACE, op);
}

HcRendered
hc_render_key(HcRenderer *renderer, TupleTableSlot *slot, HcOp *op)
{
	return render_slot(renderer, slot, 0, EXTENT_KEY, op);
}
