/*
 * field.h
 *	  An expression of a mapping that is ready to be evaluated, and what is
 *	  written with several of them: templates, JSON objects, pairs.
 *
 * Bare columns are read from the slot and encoded directly; only other
 * expressions are evaluated.
 */
#ifndef HC_FIELD_H
#define HC_FIELD_H

#include "executor/executor.h"
#include "mapping/expression.h"

typedef struct HcField
{
	const HcExpression *expression; /* NULL: there is none */
	ExprState  *state;			/* NULL: a bare column */
	char	   *name;			/* '"name":' in JSON, the bare name in pairs */
	int			name_len;
} HcField;

/* What fields are evaluated in. */
typedef struct HcFieldContext
{
	ExprContext *econtext;		/* ecxt_scantuple is the row */
	bool		convert;		/* the server's encoding is not UTF-8 */
	StringInfoData scratch;
} HcFieldContext;

/*
 * Makes the context, in the current memory context; fields live there as well.
 * Making a field plans its expression, which may run a user's function.
 */
extern void hc_field_context(HcFieldContext *context);
extern HcField hc_field_make(const HcExpression *expression);
extern HcField *hc_field_make_list(List *expressions);

/* The same for those that are written under their names. */
extern HcField *hc_field_make_columns(List *expressions, bool json);

static inline Datum
hc_field_evaluate(HcFieldContext *context, const HcField *field, bool *isnull)
{
	if (field->state == NULL)
		return slot_getattr(context->econtext->ecxt_scantuple,
							field->expression->attnum, isnull);
	return ExecEvalExpr(field->state, context->econtext, isnull);
}

/*
 * Redis gets UTF-8.  Converts what buf holds from start on; the server's
 * encoding guarantees that this works for text, and raises where it does not.
 */
extern void hc_field_to_utf8(const HcFieldContext *context, StringInfo buf,
							 int start);

/*
 * Writes prefix and the template filled in, in UTF-8, instead of what buf holds.
 * false if a column is NULL, or it would be too long.
 */
extern bool hc_field_template(HcFieldContext *context, StringInfo buf,
							  const char *prefix, const HcTemplate *tmpl,
							  const HcField *fields);

/*
 * Append a JSON object, or pairs as in HC_OP_HASH without those that are NULL, in
 * UTF-8.  false if buf gets longer than HC_VALUE_MAX.
 */
extern bool hc_field_json(HcFieldContext *context, StringInfo buf,
						  const HcField *columns, int n_columns);
extern bool hc_field_pairs(HcFieldContext *context, StringInfo buf,
						   const HcField *columns, int n_columns);

/* The value of one field as text; false if it is too long.  *isnull: no value. */
extern bool hc_field_text(HcFieldContext *context, StringInfo buf,
						  const HcField *field, bool *isnull);

#endif							/* HC_FIELD_H */
