/*
 * template.c
 *	  Parsing and comparing templates such as driver:{id}.
 *
 * A template names columns only, not expressions: so it reads back, and two
 * templates can be compared.  Braces double to stand for themselves, as in
 * PostgreSQL's own doubling of quotes.  Fuzzed; links without a server.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mapping/template.h"

static void
add_part(HcTemplate *tmpl, StringInfo text, bool is_column)
{
	HcTemplatePart *part;

	if (tmpl->n_parts == 0)
		tmpl->parts = palloc(sizeof(HcTemplatePart));
	else
		tmpl->parts = repalloc(tmpl->parts,
							   (tmpl->n_parts + 1) * sizeof(HcTemplatePart));
	part = &tmpl->parts[tmpl->n_parts++];
	part->text = pnstrdup(text->data, text->len);
	part->is_column = is_column;
	resetStringInfo(text);
}

HcTemplate *
hc_template_parse(const char *source, const char **problem, const char **hint)
{
	HcTemplate *tmpl = palloc0(sizeof(HcTemplate));
	StringInfoData text;
	const char *p = source;

	*problem = NULL;
	*hint = NULL;
	initStringInfo(&text);

	while (*p != '\0')
	{
		if ((p[0] == '{' && p[1] == '{') || (p[0] == '}' && p[1] == '}'))
		{
			appendStringInfoChar(&text, *p);
			p += 2;
		}
		else if (*p == '}')
		{
			*problem = "unmatched \"}\"";
			*hint = "To write a brace itself, double it: \"}}\".";
			return NULL;
		}
		else if (*p == '{')
		{
			size_t		len = strcspn(p + 1, "{}");

			if (p[1 + len] == '{')
			{
				*problem = "\"{\" inside a column name";
				*hint = "To write a brace itself, double it: a Redis Cluster hash tag around a column is \"{{event:{id}}}\".";
				return NULL;
			}
			if (p[1 + len] == '\0')
			{
				*problem = "\"{\" without \"}\"";
				*hint = "A column is written \"{column}\"; to write a brace itself, double it: \"{{\".";
				return NULL;
			}
			if (len == 0)
			{
				*problem = "\"{}\" names no column";
				*hint = "A column is written \"{column}\"; to write a brace itself, double it: \"{{\".";
				return NULL;
			}
			if (text.len > 0)
				add_part(tmpl, &text, false);
			appendBinaryStringInfo(&text, p + 1, (int) len);
			add_part(tmpl, &text, true);
			p += len + 2;
		}
		else
			appendStringInfoChar(&text, *p++);
	}
	if (text.len > 0)
		add_part(tmpl, &text, false);
	pfree(text.data);

	if (tmpl->n_parts == 0)
	{
		*problem = "it is empty";
		return NULL;
	}
	return tmpl;
}

/* The literal text a template begins (or ends) with; "" if a column is there. */
static const char *
literal_end(const HcTemplate *tmpl, bool front)
{
	const HcTemplatePart *part = &tmpl->parts[front ? 0 : tmpl->n_parts - 1];

	return part->is_column ? "" : part->text;
}

bool
hc_template_disjoint(const HcTemplate *a, const HcTemplate *b)
{
	const char *front_a = literal_end(a, true);
	const char *front_b = literal_end(b, true);
	const char *back_a = literal_end(a, false);
	const char *back_b = literal_end(b, false);
	size_t		len_a = strlen(back_a);
	size_t		len_b = strlen(back_b);
	size_t		len;

	/* without columns a template is one string, and must equal the other's */
	if (a->n_parts == 1 && b->n_parts == 1 &&
		!a->parts[0].is_column && !b->parts[0].is_column)
		return strcmp(front_a, front_b) != 0;

	if (strncmp(front_a, front_b, Min(strlen(front_a), strlen(front_b))) != 0)
		return true;
	len = Min(len_a, len_b);
	return memcmp(back_a + len_a - len, back_b + len_b - len, len) != 0;
}

bool
hc_template_same(const HcTemplate *a, const HcTemplate *b)
{
	int			i;

	if (a->n_parts != b->n_parts)
		return false;
	for (i = 0; i < a->n_parts; i++)
	{
		const HcTemplatePart *pa = &a->parts[i];
		const HcTemplatePart *pb = &b->parts[i];

		if (pa->is_column != pb->is_column ||
			(!pa->is_column && strcmp(pa->text, pb->text) != 0))
			return false;
	}
	return true;
}

char *
hc_template_glob(const HcTemplate *tmpl)
{
	StringInfoData glob;
	int			i;

	initStringInfo(&glob);
	for (i = 0; i < tmpl->n_parts; i++)
	{
		const char *p;

		if (tmpl->parts[i].is_column)
		{
			appendStringInfoChar(&glob, '*');
			continue;
		}
		for (p = tmpl->parts[i].text; *p != '\0'; p++)
		{
			if (strchr("*?[]\\^-", *p) != NULL)
				appendStringInfoChar(&glob, '\\');
			appendStringInfoChar(&glob, *p);
		}
	}
	return glob.data;
}
