/*
 * readback.h
 *	  The columns of a row, read from what a template made of them.
 */
#ifndef HC_READBACK_H
#define HC_READBACK_H

#include "mapping/match.h"
#include "mapping/op.h"
#include "utils/rel.h"

/* What can be read back of a template: one or more columns. */
typedef struct HcReadback
{
	Relation	rel;
	const HcMatcher *matcher;
	int			n;
	int		   *parts;			/* of the template */
	AttrNumber *attnums;
	Oid		   *types;			/* base types */
} HcReadback;

/*
 * In the current memory context; NULL if no column can be read back, since there
 * is none, or none has a type with one way to write each value.
 */
extern HcReadback *hc_readback_create(Relation rel, const HcTemplate *tmpl,
									  const HcMatcher *matcher);

/*
 * Reads the columns, in the order of readback->attnums; palloc'd.  HC_READ_NONE: no
 * row renders this.  HC_READ_AMBIGUOUS: rows with other values may, too.
 */
typedef enum HcRead
{
	HC_READ_VALUES,
	HC_READ_NONE,
	HC_READ_AMBIGUOUS
} HcRead;

extern HcRead hc_readback_values(const HcReadback *readback, HcBytes bytes,
								 Datum *values);

/*
 * Appends conditions that every row satisfies that renders this, as SQL, after
 * what is there; nothing where it cannot be read back.
 */
extern void hc_readback_append_conditions(const HcReadback *readback,
										  StringInfo query, HcBytes bytes);

#endif							/* HC_READBACK_H */
