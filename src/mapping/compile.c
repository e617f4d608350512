/*
 * compile.c
 *	  From a trigger's options to an HcMapping for one relation.
 */
#include "postgres.h"

#include <math.h>

#include "access/genam.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "mapping/expression.h"
#include "mapping/mapping.h"
#include "mapping/pin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

static HcTemplate *
compile_template(Relation rel, const HcOptions *options, HcOptionName option,
				 List **values)
{
	const char *source = options->values[option];
	const char *problem;
	const char *hint;
	HcTemplate *tmpl;
	int			i;

	if (source == NULL)
		return NULL;
	tmpl = hc_template_parse(source, &problem, &hint);
	if (tmpl == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid template in mapping option \"%s\": \"%s\"",
						hc_option_name(option), source),
				 errdetail("The template is wrong: %s.", problem),
				 hint != NULL ? errhint("%s", hint) : 0));

	for (i = 0; i < tmpl->n_parts; i++)
	{
		if (tmpl->parts[i].is_column)
			*values = lappend(*values,
							  hc_expression_column(rel, hc_option_name(option),
												   tmpl->parts[i].text, HC_AS_TEXT));
	}
	return tmpl;
}

/* What the filter, the value and the columns of a kind can read. */
static HcScope
scope_of(const HcOptions *options)
{
	return hc_kind_is_event(options->kind) ? HC_SCOPE_CHANGE : HC_SCOPE_ROW;
}

static HcExpression *
compile_expression(Relation rel, const HcOptions *options, HcOptionName option,
				   HcPurpose purpose)
{
	const char *source = options->values[option];

	if (source == NULL)
		return NULL;
	return hc_expression_parse(rel, hc_option_name(option), source,
							   scope_of(options), purpose);
}

/* An interval as milliseconds: a month is 30 days, a day is 24 hours. */
static int64
compile_ttl(const char *source)
{
	Interval   *interval;
	double		ms;

	interval = DatumGetIntervalP(DirectFunctionCall3(interval_in,
													 CStringGetDatum(source),
													 ObjectIdGetDatum(InvalidOid),
													 Int32GetDatum(-1)));
	ms = ((double) interval->month * DAYS_PER_MONTH + interval->day) *
		(SECS_PER_DAY * 1000.0) + interval->time / 1000;
	if (ms < 1 || ms > (double) SECS_PER_DAY * 1000 * DAYS_PER_YEAR * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for mapping option \"ttl\": \"%s\"", source),
				 errhint("It must be an interval between one millisecond and 1000 years.")));
	return (int64) ms;
}

/* The columns that exclude= names. */
static Bitmapset *
compile_exclude(Relation rel, const char *source)
{
	Bitmapset  *attrs = NULL;
	List	   *names;
	ListCell   *lc;

	if (source == NULL)
		return NULL;
	if (!SplitIdentifierString(pstrdup(source), ',', &names))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for mapping option \"exclude\": \"%s\"", source),
				 errhint("It is a list of column names, separated by commas.")));
	foreach(lc, names)
	{
		HcExpression *column = hc_expression_column(rel, "exclude", lfirst(lc),
													HC_AS_TEXT);

		attrs = hc_expression_attrs(column, attrs);
	}
	return attrs;
}

/* Has the kind a payload or document that is made of columns? */
static bool
has_columns(const HcOptions *options)
{
	return options->kind == HC_KIND_JSON || options->kind == HC_KIND_HASH ||
		(hc_kind_is_event(options->kind) && options->values[HC_OPTION_VALUE] == NULL);
}

/* The columns of a hash are fields, and so are those that a stream's entry names. */
static HcPurpose
columns_purpose(const HcOptions *options)
{
	return options->kind == HC_KIND_HASH ||
		(options->kind == HC_KIND_STREAM && options->values[HC_OPTION_COLUMNS] != NULL)
		? HC_AS_TEXT : HC_AS_JSON;
}

/* The fields of a document, hash or payload. */
static void
compile_columns(Relation rel, HcMapping *mapping)
{
	HcPurpose	purpose = columns_purpose(&mapping->options);
	const char *source = mapping->options.values[HC_OPTION_COLUMNS];
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *excluded;
	int			i;

	if (source != NULL)
	{
		mapping->columns = hc_expression_parse_list(rel, "columns", source,
													scope_of(&mapping->options),
													purpose);
		return;
	}
	mapping->whole_row = true;
	excluded = compile_exclude(rel, mapping->options.values[HC_OPTION_EXCLUDE]);
	mapping->named_attrs = bms_add_members(mapping->named_attrs, excluded);
	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || bms_is_member(att->attnum, excluded))
			continue;
		mapping->columns = lappend(mapping->columns,
								   hc_expression_column(rel, "columns",
														NameStr(att->attname), purpose));
	}
	if (mapping->columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mapping->options.values[HC_OPTION_EXCLUDE] != NULL
				 ? errmsg("mapping option \"exclude\" leaves no column")
				 : errmsg("table \"%s\" has no column",
						  RelationGetRelationName(rel))));
}

/* Notes what the expressions read, and whether they need pinned settings. */
static Bitmapset *
note(HcMapping *mapping, const HcExpression *expression, Bitmapset *attrs)
{
	if (expression == NULL)
		return attrs;
	if (!expression->pure)
		mapping->pinned = true;
	return hc_expression_attrs(expression, attrs);
}

static Bitmapset *
note_list(HcMapping *mapping, List *expressions, Bitmapset *attrs)
{
	ListCell   *lc;

	foreach(lc, expressions)
		attrs = note(mapping, lfirst(lc), attrs);
	return attrs;
}

static void
compute_attrs(Relation rel, HcMapping *mapping)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *named = NULL;
	Bitmapset  *columns;
	int			i;

	mapping->identity_attrs = note_list(mapping, mapping->key_values, NULL);
	mapping->identity_attrs = note_list(mapping, mapping->member_values,
										mapping->identity_attrs);
	mapping->identity_attrs = note(mapping, mapping->filter,
								   mapping->identity_attrs);

	named = note(mapping, mapping->value, named);
	named = note(mapping, mapping->x, named);
	named = note(mapping, mapping->y, named);
	named = note(mapping, mapping->expires_at, named);
	columns = note_list(mapping, mapping->columns, NULL);
	mapping->value_attrs = bms_union(named, columns);
	if (!mapping->whole_row)
		named = bms_add_members(named, columns);
	mapping->named_attrs = bms_add_members(mapping->named_attrs, named);
	mapping->named_attrs = bms_add_members(mapping->named_attrs,
										   mapping->identity_attrs);

	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attgenerated == HC_GENERATED_VIRTUAL &&
			(bms_is_member(att->attnum, mapping->value_attrs) ||
			 bms_is_member(att->attnum, mapping->identity_attrs)))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("mapping \"%s\" uses the virtual generated column \"%s\"",
							mapping->name, NameStr(att->attname)),
					 errhint("Make it STORED, exclude it, or use its expression.")));

		/* any change of a row invalidates what was computed from it */
		if (mapping->options.kind == HC_KIND_INVALIDATE && !att->attisdropped)
			mapping->value_attrs = bms_add_member(mapping->value_attrs, att->attnum);
	}
}

/* A column that says when a row was changed. */
static void
compile_since(Relation rel, HcMapping *mapping, const char *column)
{
	HcExpression *expression = hc_expression_column(rel, "since", column, HC_AS_TEXT);
	Oid			type = TupleDescAttr(RelationGetDescr(rel),
									 expression->attnum - 1)->atttypid;

	switch (getBaseType(type))
	{
		case TIMESTAMPTZOID:
		case TIMESTAMPOID:
		case DATEOID:
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" cannot be used as option \"%s\", since it is of type %s",
							column, "since", format_type_be(type)),
					 errhint("It must be a timestamp or a date.")));
	}
	mapping->since = expression->attnum;
	mapping->named_attrs = hc_expression_attrs(expression, mapping->named_attrs);
}

HcMapping *
hc_mapping_compile(Relation rel, const char *name, const HcOptions *options)
{
	HcMapping  *mapping = palloc0(sizeof(HcMapping));
	const char *since = options->values[HC_OPTION_SINCE];
	HcPin		pin;
	int			i;

	mapping->relid = RelationGetRelid(rel);
	mapping->owner = rel->rd_rel->relowner;
	mapping->name = pstrdup(name);
	mapping->options = *options;
	for (i = 0; i < HC_NUM_OPTIONS; i++)
	{
		if (options->values[i] != NULL)
			mapping->options.values[i] = pstrdup(options->values[i]);
	}

	/*
	 * What a name or a constant means must not depend on who changes a row,
	 * and who changes it need not see the schemas of the owner's functions.
	 */
	hc_pin_begin(&pin, mapping->owner);
	mapping->key = compile_template(rel, options,
									options->kind == HC_KIND_PUBLISH ?
									HC_OPTION_CHANNEL : HC_OPTION_KEY,
									&mapping->key_values);
	mapping->member = compile_template(rel, options,
									   options->kind == HC_KIND_FIELD ?
									   HC_OPTION_FIELD : HC_OPTION_MEMBER,
									   &mapping->member_values);
	mapping->filter = compile_expression(rel, options, HC_OPTION_FILTER, HC_AS_BOOLEAN);
	mapping->value = compile_expression(rel, options, HC_OPTION_VALUE, HC_AS_TEXT);
	if (options->kind == HC_KIND_GEO)
	{
		mapping->x = compile_expression(rel, options, HC_OPTION_LONGITUDE, HC_AS_NUMBER);
		mapping->y = compile_expression(rel, options, HC_OPTION_LATITUDE, HC_AS_NUMBER);
	}
	else
		mapping->x = compile_expression(rel, options, HC_OPTION_SCORE, HC_AS_NUMBER);
	mapping->expires_at = compile_expression(rel, options, HC_OPTION_EXPIRES_AT, HC_AS_TIME);
	if (options->values[HC_OPTION_TTL] != NULL)
		mapping->ttl = compile_ttl(options->values[HC_OPTION_TTL]);
	if (has_columns(options))
		compile_columns(rel, mapping);
	if (since != NULL)
		compile_since(rel, mapping, since);
	hc_pin_end(&pin);

	compute_attrs(rel, mapping);
	return mapping;
}

Oid
hc_mapping_identity(Relation rel, const HcOptions *options)
{
	const char *name = options->values[HC_OPTION_IDENTITY];
	ListCell   *lc;

	if (name == NULL)
		return InvalidOid;
	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index;
		bool		found;
		bool		usable;
		int			i;

		index = index_open(lfirst_oid(lc), AccessShareLock);
		found = strcmp(RelationGetRelationName(index), name) == 0;
		usable = index->rd_index->indisunique && index->rd_index->indisvalid &&
			index->rd_index->indimmediate &&
			RelationGetIndexPredicate(index) == NIL;
		for (i = 0; usable && i < index->rd_index->indnkeyatts; i++)
		{
			AttrNumber	attnum = index->rd_index->indkey.values[i];

			usable = attnum > 0 &&
				TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attnotnull;
		}
		index_close(index, NoLock);
		if (found && usable)
			return lfirst_oid(lc);
		if (found)
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("mapping option \"identity\" names no usable index: \"%s\"", name),
			 errhint("It must be a unique index of table \"%s\" over columns that are NOT NULL, without a condition.",
					 RelationGetRelationName(rel))));
}
