/*
 * match.h
 *	  Reading a template backwards: could a row have rendered this text?
 */
#ifndef HC_MATCH_H
#define HC_MATCH_H

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

/*
 * Whole text, not a part of it.  Where a column's type has one way to write
 * each value (integers, uuid, date, boolean, numeric), what stands for the
 * column must be such a value; other types match anything.
 */
extern bool hc_match(const HcMatcher *matcher, const char *text, size_t len);

#endif							/* HC_MATCH_H */
