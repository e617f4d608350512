/*
 * readback.c
 *	  The columns of a row, read from what a template made of them.
 *
 * What is read is only used to find rows, which are rendered again: so it must
 * not miss a row, and may find others.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mapping/bytes.h"
#include "mapping/value.h"
#include "search/readback.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/*
 * Types whose input takes whatever the matcher lets pass, without settings, and
 * whose values have the operator pg_catalog.=.
 */
static bool
is_readable(Oid type)
{
	switch (hc_value_encoder(type))
	{
		case HC_ENCODER_BOOL:
		case HC_ENCODER_INT2:
		case HC_ENCODER_INT4:
		case HC_ENCODER_INT8:
		case HC_ENCODER_NUMERIC:
		case HC_ENCODER_UUID:
		case HC_ENCODER_TEXT:
			return true;
		default:
			return false;
	}
}

HcReadback *
hc_readback_create(Relation rel, const HcTemplate *tmpl, const HcMatcher *matcher)
{
	HcReadback *readback = palloc0(sizeof(HcReadback));
	int			i;

	readback->rel = rel;
	readback->matcher = matcher;
	readback->parts = palloc(sizeof(int) * tmpl->n_parts);
	readback->attnums = palloc(sizeof(AttrNumber) * tmpl->n_parts);
	readback->types = palloc(sizeof(Oid) * tmpl->n_parts);
	for (i = 0; i < tmpl->n_parts; i++)
	{
		AttrNumber	attnum;
		Oid			type;

		if (!tmpl->parts[i].is_column)
			continue;
		attnum = get_attnum(RelationGetRelid(rel), tmpl->parts[i].text);
		if (attnum <= 0)
			continue;
		type = getBaseType(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid);
		if (!is_readable(type))
			continue;

		/* varchar has no operators and no arrays that text has not */
		readback->parts[readback->n] = i;
		readback->attnums[readback->n] = attnum;
		readback->types[readback->n] = type == VARCHAROID ? TEXTOID : type;
		readback->n++;
	}
	return readback->n > 0 ? readback : NULL;
}

/* The text that stands for a column; NULL: see *result. */
static char *
read_text(const HcReadback *readback, int column, HcBytes bytes, HcRead *result)
{
	HcBytes		value;
	size_t		start;
	text	   *converted;

	if (!hc_match_locate(readback->matcher, bytes.data, bytes.len,
						 readback->parts[column], &start, &value.len))
	{
		*result = hc_match(readback->matcher, bytes.data, bytes.len) ?
			HC_READ_AMBIGUOUS : HC_READ_NONE;
		return NULL;
	}
	value.data = bytes.data + start;
	converted = hc_bytes_text(value);
	*result = converted != NULL ? HC_READ_VALUES : HC_READ_NONE;
	return converted != NULL ? text_to_cstring(converted) : NULL;
}

HcRead
hc_readback_values(const HcReadback *readback, HcBytes bytes, Datum *values)
{
	int			i;

	for (i = 0; i < readback->n; i++)
	{
		HcRead		result;
		char	   *value = read_text(readback, i, bytes, &result);
		Oid			input;
		Oid			param;

		if (value == NULL)
			return result;
		getTypeInputInfo(readback->types[i], &input, &param);
		values[i] = OidInputFunctionCall(input, value, param, -1);
	}
	return HC_READ_VALUES;
}

void
hc_readback_append_conditions(const HcReadback *readback, StringInfo query,
							  HcBytes bytes)
{
	TupleDesc	desc = RelationGetDescr(readback->rel);
	int			i;

	for (i = 0; i < readback->n; i++)
	{
		HcRead		result;
		char	   *value = read_text(readback, i, bytes, &result);

		if (value == NULL)
			continue;
		appendStringInfo(query, "%s%s.%s OPERATOR(pg_catalog.=) %s::%s",
						 query->len > 0 ? " AND " : "",
						 quote_identifier(RelationGetRelationName(readback->rel)),
						 quote_identifier(NameStr(TupleDescAttr(desc, readback->attnums[i] - 1)->attname)),
						 quote_literal_cstr(value),
						 format_type_be_qualified(readback->types[i]));
	}
}
