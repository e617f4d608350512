/*
 * expression.h
 *	  SQL expressions over a row: parsing and checking the ones that a mapping's
 *	  options contain.
 */
#ifndef HC_EXPRESSION_H
#define HC_EXPRESSION_H

#include "mapping/change.h"
#include "mapping/mapping.h"
#include "mapping/value.h"
#include "nodes/nodes.h"

/* What the value of an expression is used as. */
typedef enum HcPurpose
{
	HC_AS_TEXT,					/* any type, as by a cast to text */
	HC_AS_JSON,					/* any type, as by to_jsonb() */
	HC_AS_BOOLEAN,
	HC_AS_NUMBER,				/* float8 */
	HC_AS_TIME					/* timestamptz */
} HcPurpose;

struct HcExpression
{
	const char *name;			/* field name in json and hash, else NULL */
	AttrNumber	attnum;			/* a bare column is read directly; 0: node */
	Node	   *node;			/* checked, coerced, not planned; see
								 * hc_change_to_slots() */
	HcEncoder	encoder;		/* how the result is rendered */
	bool		pure;			/* depends on no setting, runs no user's code */
};

/*
 * The column as it stands.  Raises 42703 if there is none of that name.
 * option is the name of the option, for messages.
 */
extern HcExpression *hc_expression_column(Relation rel, const char *option,
										  const char *column, HcPurpose purpose);

/*
 * Parses the SQL of an option under the current search_path.  Raises syntax
 * errors, 42P17 for what could not be kept equal, 42804 for the type.
 */
extern HcExpression *hc_expression_parse(Relation rel, const char *option,
										 const char *source, HcScope scope,
										 HcPurpose purpose);

/* The same for a list of "expression [AS name]"; every element is named. */
extern List *hc_expression_parse_list(Relation rel, const char *option,
									  const char *source, HcScope scope,
									  HcPurpose purpose);

/*
 * Parses the SQL of an option (a list if list is true) under the current
 * search_path and writes it so that it means the same under
 * search_path = pg_catalog; palloc'd.
 */
extern char *hc_expression_qualify(Relation rel, const char *option,
								   const char *source, HcScope scope, bool list);

/* Adds the attribute numbers the expression reads, as they are (from 1). */
extern Bitmapset *hc_expression_attrs(const HcExpression *expression,
									  Bitmapset *attrs);

#endif							/* HC_EXPRESSION_H */
