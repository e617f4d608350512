/*
 * field.c
 *	  An expression of a mapping that is ready to be evaluated, and what is
 *	  written with several of them: templates, JSON objects, pairs.
 *
 * Entries (render.c) and events (event.c) are made of the same things.
 */
#include "postgres.h"

#include "mapping/field.h"
#include "mb/pg_wchar.h"
#include "optimizer/optimizer.h"
#include "utils/json.h"

void
hc_field_context(HcFieldContext *context)
{
	context->econtext = CreateStandaloneExprContext();
	context->convert = GetDatabaseEncoding() != PG_UTF8 &&
		GetDatabaseEncoding() != PG_SQL_ASCII;
	initStringInfo(&context->scratch);
}

HcField
hc_field_make(const HcExpression *expression)
{
	HcField		field = {.expression = expression};

	if (expression != NULL && expression->attnum == 0)
		field.state = ExecInitExpr(expression_planner((Expr *) copyObject(expression->node)),
								   NULL);
	return field;
}

HcField *
hc_field_make_list(List *expressions)
{
	HcField    *fields = palloc(sizeof(HcField) * Max(list_length(expressions), 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, expressions)
		fields[n++] = hc_field_make(lfirst(lc));
	return fields;
}

/* The fixed part of each, made once. */
HcField *
hc_field_make_columns(List *expressions, bool json)
{
	HcField    *fields = hc_field_make_list(expressions);
	int			i;

	for (i = 0; i < list_length(expressions); i++)
	{
		StringInfoData name;

		initStringInfo(&name);
		if (json)
		{
			escape_json(&name, fields[i].expression->name);
			appendStringInfoChar(&name, ':');
		}
		else
			appendStringInfoString(&name, fields[i].expression->name);
		fields[i].name = name.data;
		fields[i].name_len = name.len;
	}
	return fields;
}

void
hc_field_to_utf8(const HcFieldContext *context, StringInfo buf, int start)
{
	char	   *converted;

	if (!context->convert)
		return;
	converted = pg_server_to_any(buf->data + start, buf->len - start, PG_UTF8);
	if (converted != buf->data + start)
	{
		buf->len = start;
		appendStringInfoString(buf, converted);
	}
}

bool
hc_field_template(HcFieldContext *context, StringInfo buf, const char *prefix,
				  const HcTemplate *tmpl, const HcField *fields)
{
	int			i;

	resetStringInfo(buf);
	appendStringInfoString(buf, prefix);
	for (i = 0; i < tmpl->n_parts; i++)
	{
		if (tmpl->parts[i].is_column)
		{
			const HcField *field = fields++;
			bool		isnull;
			Datum		value = hc_field_evaluate(context, field, &isnull);

			if (isnull ||
				!hc_value_text(buf, field->expression->encoder, value))
				return false;
		}
		else
			appendStringInfoString(buf, tmpl->parts[i].text);
	}
	hc_field_to_utf8(context, buf, 0);
	return true;
}

bool
hc_field_json(HcFieldContext *context, StringInfo buf, const HcField *columns,
			  int n_columns)
{
	int			start = buf->len;
	int			i;

	appendStringInfoChar(buf, '{');
	for (i = 0; i < n_columns; i++)
	{
		const HcField *field = &columns[i];
		bool		isnull;
		Datum		value;

		if (i > 0)
			appendStringInfoChar(buf, ',');
		appendBinaryStringInfo(buf, field->name, field->name_len);
		value = hc_field_evaluate(context, field, &isnull);
		if (isnull)
			appendStringInfoString(buf, "null");
		else if (!hc_value_json(buf, field->expression->encoder, value))
			return false;
	}
	appendStringInfoChar(buf, '}');
	hc_field_to_utf8(context, buf, start);
	return buf->len <= HC_VALUE_MAX;
}

bool
hc_field_pairs(HcFieldContext *context, StringInfo buf, const HcField *columns,
			   int n_columns)
{
	StringInfo	scratch = &context->scratch;
	int			i;

	for (i = 0; i < n_columns; i++)
	{
		const HcField *field = &columns[i];
		bool		isnull;
		Datum		value = hc_field_evaluate(context, field, &isnull);

		if (isnull)
			continue;
		resetStringInfo(scratch);
		appendBinaryStringInfo(scratch, field->name, field->name_len);
		hc_field_to_utf8(context, scratch, 0);
		hc_op_hash_append(buf, scratch->data, scratch->len);
		resetStringInfo(scratch);
		if (!hc_value_text(scratch, field->expression->encoder, value))
			return false;
		hc_field_to_utf8(context, scratch, 0);
		if ((Size) scratch->len > hc_value_room(buf))
			return false;
		hc_op_hash_append(buf, scratch->data, scratch->len);
	}
	return buf->len <= HC_VALUE_MAX;
}

bool
hc_field_text(HcFieldContext *context, StringInfo buf, const HcField *field,
			  bool *isnull)
{
	Datum		value = hc_field_evaluate(context, field, isnull);

	if (*isnull)
		return true;
	resetStringInfo(buf);
	if (!hc_value_text(buf, field->expression->encoder, value))
		return false;
	hc_field_to_utf8(context, buf, 0);
	return buf->len <= HC_VALUE_MAX;
}
