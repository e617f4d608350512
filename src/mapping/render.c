/*
 * render.c
 *	  From a row to its entry in Redis.
 *
 * Bare columns are read from the slot and encoded directly; only other
 * expressions are evaluated, and only those that need it run under pinned
 * settings and as the table's owner.  Two sets of buffers take turns, so that
 * the old and the new row of an update can be compared without copying.
 */
#include "postgres.h"

#include <math.h>

#include "executor/executor.h"
#include "mapping/expression.h"
#include "mapping/pin.h"
#include "mapping/render.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* What GEOADD accepts: the square of Web Mercator (EPSG:3857). */
#define MAX_LONGITUDE	180.0
#define MAX_LATITUDE	85.05112878

/*
 * GEOADD puts a position at the eastern or northern edge into a cell that no
 * GEOSEARCH looks at.  This far before it, a centimetre, is the last cell.
 */
#define EDGE			1e-7

/* microseconds between 1970 and 2000 */
#define UNIX_EPOCH_OFFSET \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

typedef struct Buffers
{
	StringInfoData key;
	StringInfoData member;
	StringInfoData value;
} Buffers;

/* An expression that is ready to be evaluated. */
typedef struct Field
{
	const HcExpression *expression;
	ExprState  *state;			/* NULL: a bare column */
	char	   *json_name;		/* '"name":', or the bare name for a hash */
	int			json_name_len;
} Field;

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
	ExprContext *econtext;
	Field	   *key;			/* per column part of the template */
	Field	   *member;
	Field	   *columns;		/* json, hash */
	int			n_columns;
	Field		filter;			/* the expression is NULL where there is none */
	Field		value;
	Field		x;
	Field		y;
	Field		expires_at;
	bool		pinned_key;		/* rendering the key must pin settings */
	bool		convert;		/* the server's encoding is not UTF-8 */
	Buffers		buffers[2];
	int			current;		/* of the two */
	StringInfoData scratch;
};

static Field
make_field(const HcExpression *expression)
{
	Field		field = {.expression = expression};

	if (expression != NULL && expression->attnum == 0)
		field.state = ExecInitExpr(expression_planner((Expr *) copyObject(expression->node)),
								   NULL);
	return field;
}

static Field *
make_fields(List *expressions)
{
	Field	   *fields = palloc(sizeof(Field) * Max(list_length(expressions), 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, expressions)
		fields[n++] = make_field(lfirst(lc));
	return fields;
}

/* The fixed part of each field of a document, made once. */
static void
name_columns(HcRenderer *renderer, bool json)
{
	int			i;

	for (i = 0; i < renderer->n_columns; i++)
	{
		Field	   *field = &renderer->columns[i];
		StringInfoData name;

		initStringInfo(&name);
		if (json)
		{
			escape_json(&name, field->expression->name);
			appendStringInfoChar(&name, ':');
		}
		else
			appendStringInfoString(&name, field->expression->name);
		field->json_name = name.data;
		field->json_name_len = name.len;
	}
}

HcRenderer *
hc_render_create(const HcMapping *mapping, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	HcRenderer *renderer = palloc0(sizeof(HcRenderer));
	HcPin		pin;
	ListCell   *lc;
	int			i;

	renderer->mapping = mapping;
	renderer->econtext = CreateStandaloneExprContext();
	renderer->convert = GetDatabaseEncoding() != PG_UTF8 &&
		GetDatabaseEncoding() != PG_SQL_ASCII;

	/* planning evaluates what is constant, which may be a user's function */
	if (mapping->pinned)
		hc_pin_begin(&pin, mapping->owner);
	renderer->key = make_fields(mapping->key_values);
	foreach(lc, mapping->key_values)
		renderer->pinned_key |= !((HcExpression *) lfirst(lc))->pure;
	renderer->member = make_fields(mapping->member_values);
	renderer->columns = make_fields(mapping->columns);
	renderer->n_columns = list_length(mapping->columns);
	renderer->filter = make_field(mapping->filter);
	renderer->value = make_field(mapping->value);
	renderer->x = make_field(mapping->x);
	renderer->y = make_field(mapping->y);
	renderer->expires_at = make_field(mapping->expires_at);
	if (mapping->pinned)
		hc_pin_end(&pin);

	name_columns(renderer, mapping->options.kind == HC_KIND_JSON);
	for (i = 0; i < 2; i++)
	{
		initStringInfo(&renderer->buffers[i].key);
		initStringInfo(&renderer->buffers[i].member);
		initStringInfo(&renderer->buffers[i].value);
	}
	initStringInfo(&renderer->scratch);
	MemoryContextSwitchTo(old);
	return renderer;
}

static Datum
evaluate(HcRenderer *renderer, const Field *field, bool *isnull)
{
	if (field->state == NULL)
		return slot_getattr(renderer->econtext->ecxt_scantuple,
							field->expression->attnum, isnull);
	return ExecEvalExpr(field->state, renderer->econtext, isnull);
}

/*
 * Redis gets UTF-8.  Converts what buf holds from start on; the server's
 * encoding guarantees that this works for text, and raises where it does not.
 */
static void
to_utf8(HcRenderer *renderer, StringInfo buf, int start)
{
	char	   *converted;

	if (!renderer->convert)
		return;
	converted = pg_server_to_any(buf->data + start, buf->len - start, PG_UTF8);
	if (converted != buf->data + start)
	{
		buf->len = start;
		appendStringInfoString(buf, converted);
	}
}

/* key_prefix and the template filled in; false if a column is NULL. */
static bool
render_template(HcRenderer *renderer, StringInfo buf, const char *prefix,
				const HcTemplate *tmpl, const Field *fields, HcRendered *problem)
{
	int			i;

	resetStringInfo(buf);
	appendStringInfoString(buf, prefix);
	for (i = 0; i < tmpl->n_parts; i++)
	{
		if (tmpl->parts[i].is_column)
		{
			const Field *field = fields++;
			bool		isnull;
			Datum		value = evaluate(renderer, field, &isnull);

			if (isnull)
			{
				*problem = HC_RENDERED_NONE;
				return false;
			}
			if (!hc_value_text(buf, field->expression->encoder, value))
			{
				*problem = HC_RENDERED_NONE;
				return false;
			}
		}
		else
			appendStringInfoString(buf, tmpl->parts[i].text);
	}
	to_utf8(renderer, buf, 0);
	return true;
}

/* The row as a JSON object; false if it gets too long. */
static bool
render_json(HcRenderer *renderer, StringInfo buf)
{
	int			i;

	resetStringInfo(buf);
	appendStringInfoChar(buf, '{');
	for (i = 0; i < renderer->n_columns; i++)
	{
		const Field *field = &renderer->columns[i];
		bool		isnull;
		Datum		value;

		if (i > 0)
			appendStringInfoChar(buf, ',');
		appendBinaryStringInfo(buf, field->json_name, field->json_name_len);
		value = evaluate(renderer, field, &isnull);
		if (isnull)
			appendStringInfoString(buf, "null");
		else if (!hc_value_json(buf, field->expression->encoder, value))
			return false;
	}
	appendStringInfoChar(buf, '}');
	to_utf8(renderer, buf, 0);
	return true;
}

/* The row as the pairs of HC_OP_HASH; false if it gets too long. */
static bool
render_hash(HcRenderer *renderer, StringInfo buf)
{
	StringInfo	scratch = &renderer->scratch;
	int			i;

	resetStringInfo(buf);
	for (i = 0; i < renderer->n_columns; i++)
	{
		const Field *field = &renderer->columns[i];
		bool		isnull;
		Datum		value = evaluate(renderer, field, &isnull);

		if (isnull)
			continue;
		resetStringInfo(scratch);
		appendBinaryStringInfo(scratch, field->json_name, field->json_name_len);
		to_utf8(renderer, scratch, 0);
		hc_op_hash_append(buf, scratch->data, scratch->len);
		resetStringInfo(scratch);
		if (!hc_value_text(scratch, field->expression->encoder, value))
			return false;
		to_utf8(renderer, scratch, 0);
		if ((Size) scratch->len > hc_value_room(buf))
			return false;
		hc_op_hash_append(buf, scratch->data, scratch->len);
	}
	return true;
}

/* Evaluates score or coordinates; *isnull if there is none. */
static double
number(HcRenderer *renderer, const Field *field, bool *isnull)
{
	Datum		value = evaluate(renderer, field, isnull);

	return *isnull ? 0 : DatumGetFloat8(value);
}

static HcRendered
render_numbers(HcRenderer *renderer, HcOp *op)
{
	bool		isnull = false;

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

/* Sets the op's expiry; false if the entry's time is before 1970. */
static bool
render_expiry(HcRenderer *renderer, TimestampTz now, HcOp *op)
{
	const HcMapping *mapping = renderer->mapping;

	op->expires_at = 0;
	if (mapping->ttl != 0)
		op->expires_at = (now + UNIX_EPOCH_OFFSET) / 1000 + mapping->ttl;
	else if (renderer->expires_at.expression != NULL)
	{
		bool		isnull;
		Datum		value = evaluate(renderer, &renderer->expires_at, &isnull);

		if (isnull || TIMESTAMP_IS_NOEND(DatumGetTimestampTz(value)))
			return true;
		if (TIMESTAMP_IS_NOBEGIN(DatumGetTimestampTz(value)))
			return false;
		op->expires_at = (DatumGetTimestampTz(value) + UNIX_EPOCH_OFFSET) / 1000;
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
				Datum		value = evaluate(renderer, &renderer->value, &isnull);

				if (isnull)
					return HC_RENDERED_NONE;
				resetStringInfo(buf);
				fits = hc_value_text(buf, renderer->value.expression->encoder, value);
				if (fits)
					to_utf8(renderer, buf, 0);
				break;
			}
		case HC_KIND_JSON:
			fits = render_json(renderer, buf);
			break;
		case HC_KIND_HASH:
			fits = render_hash(renderer, buf);
			break;
		default:
			return HC_RENDERED_ENTRY;
	}
	if (!fits || buf->len > HC_VALUE_MAX)
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
		(void) evaluate(renderer, &renderer->value, &isnull);
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
		case HC_KIND_INVALIDATE:
			return HC_OP_UNLINK;
	}
	pg_unreachable();
}

/* Key and member, or the key alone. */
static HcRendered
render_place(HcRenderer *renderer, Buffers *buffers, Extent extent, HcOp *op)
{
	const HcMapping *mapping = renderer->mapping;
	HcRendered	result = HC_RENDERED_ENTRY;

	if (!render_template(renderer, &buffers->key, hc_key_prefix,
						 mapping->key, renderer->key, &result))
		return result;
	op->key.data = buffers->key.data;
	op->key.len = buffers->key.len;
	if (extent != EXTENT_KEY && mapping->member != NULL)
	{
		if (!render_template(renderer, &buffers->member, "",
							 mapping->member, renderer->member, &result))
			return result;
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
		Datum		pass = evaluate(renderer, &renderer->filter, &isnull);

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
	ExprContext *econtext = renderer->econtext;
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
