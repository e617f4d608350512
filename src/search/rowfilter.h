/*
 * rowfilter.h
 *	  A condition over a row that the caller of a function gives as SQL.
 */
#ifndef HC_ROWFILTER_H
#define HC_ROWFILTER_H

#include "utils/rel.h"

/*
 * Raises unless the text is one boolean expression over a row of the table, in
 * the eyes of the current user: syntax errors, 42703 and its kin, 42804 (not
 * boolean), 42803 and its kin (aggregates).  What passes can be put in
 * parentheses, with a newline before the last, into WHERE.  Runs nothing of it.
 */
extern void hc_rowfilter_check(Relation rel, const char *filter);

#endif							/* HC_ROWFILTER_H */
