/*
 * template.h
 *	  A key, member or field template: driver:{id}, with {{ and }} for braces.
 */
#ifndef HC_TEMPLATE_H
#define HC_TEMPLATE_H

#include "nodes/pg_list.h"

typedef struct HcTemplatePart
{
	char	   *text;			/* literal text or column name, NUL-terminated */
	bool		is_column;
} HcTemplatePart;

typedef struct HcTemplate
{
	int			n_parts;
	HcTemplatePart *parts;		/* no two literals in a row */
} HcTemplate;

/*
 * Parses source (in the server's encoding), allocating in the current context.
 * NULL on failure, with *problem a message for errmsg() style use and *hint a
 * sentence or NULL.  Raises nothing but out of memory.
 */
extern HcTemplate *hc_template_parse(const char *source, const char **problem,
									 const char **hint);

/*
 * Can no row of one template ever render what a row of the other renders?
 * Conservative: true only when literal text at the beginning or the end proves
 * it.
 */
extern bool hc_template_disjoint(const HcTemplate *a, const HcTemplate *b);

/* Are they the same but for the names of their columns? */
extern bool hc_template_same(const HcTemplate *a, const HcTemplate *b);

/* A glob for SCAN MATCH that every rendering matches; palloc'd. */
extern char *hc_template_glob(const HcTemplate *tmpl);

#endif							/* HC_TEMPLATE_H */
