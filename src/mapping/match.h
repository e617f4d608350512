/*
 * match.h
 *	  Reading a template backwards: could a row have rendered this text?
 */
#ifndef HC_MATCH_H
#define HC_MATCH_H

#include "mapping/op.h"
#include "mapping/template.h"

typedef struct HcMatcher HcMatcher;

/* The name of a column's type, as format_type_be() gives it; NULL: unknown. */
typedef const char *(*HcTypeLookup) (const char *column, void *arg);

/*
 * Allocates in the current context; uses tmpl's text.  Literals are taken to be
 * in the server's encoding and compared as UTF-8, as Redis holds them.
 */
extern HcMatcher *hc_match_compile(const HcTemplate *tmpl, HcTypeLookup lookup,
								   void *arg);

/* What a template without columns matches: its bytes, as Redis has them. */
extern HcBytes hc_match_literal(const HcMatcher *matcher);

/* A copy in the current context that needs nothing of the original. */
extern HcMatcher *hc_match_copy(const HcMatcher *matcher);

/*
 * Whole text, not a part of it.  Where a column's type has one way to write
 * each value (integers, uuid, date, boolean, numeric), what stands for the
 * column must be such a value; other types match anything.
 */
extern bool hc_match(const HcMatcher *matcher, const char *text, size_t len);

/*
 * Where the column at this part of the template stands in the text.  false if
 * the text does not match, if it does in more than one way, or is very long.
 */
extern bool hc_match_locate(const HcMatcher *matcher, const char *text,
							size_t len, int part, size_t *start, size_t *n);

/* Does each column have such a type? */
extern bool hc_match_is_certain(const HcMatcher *matcher);

#endif							/* HC_MATCH_H */
