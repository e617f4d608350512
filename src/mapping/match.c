/*
 * match.c
 *	  Reading a template backwards: could a row have rendered this text?
 *
 * A glob is not enough to decide that a key may be removed: driver:{id} must
 * not match driver:7:seats.  So what stands for a column has to look like a
 * value of the column's type, for the types whose values look like nothing
 * else.
 *
 * The set of positions that can be reached is carried from part to part, which
 * is bounded by length times parts where backtracking would not be.
 */
#include "postgres.h"

#include "encoding.h"
#include "mapping/match.h"

/* Returns whether text[0..len) is a value of the type, as we write it. */
typedef bool (*HcTypeTest) (const char *text, size_t len);

typedef struct HcMatchPart
{
	const char *literal;		/* UTF-8; NULL: a column */
	size_t		len;
	HcTypeTest	test;			/* NULL: any text */
} HcMatchPart;

struct HcMatcher
{
	int			n_parts;
	HcMatchPart parts[FLEXIBLE_ARRAY_MEMBER];
};

/* A text longer than this is not searched for the place of a column. */
#define LOCATE_MAX_LEN	1024

/* No value that a test accepts is longer, but for numeric's. */
#define VALUE_MAX_LEN	1024

static size_t
digits(const char *text, size_t len)
{
	size_t		n = 0;

	while (n < len && text[n] >= '0' && text[n] <= '9')
		n++;
	return n;
}

/* Without sign: "0", or digits that do not begin with 0. */
static bool
is_unsigned(const char *text, size_t len)
{
	return len > 0 && digits(text, len) == len && (len == 1 || text[0] != '0');
}

static bool
is_integer_up_to(const char *text, size_t len, const char *largest)
{
	bool		negative = len > 0 && text[0] == '-';
	size_t		max_len = strlen(largest);
	char		limit[24];

	if (negative)
	{
		text++;
		len--;
	}
	if (!is_unsigned(text, len) || (negative && text[0] == '0') || len > max_len)
		return false;

	/* the smallest is one further from zero than the largest; no carry in them */
	strlcpy(limit, largest, sizeof(limit));
	if (negative)
		limit[max_len - 1]++;
	return len < max_len || memcmp(text, limit, len) <= 0;
}

static bool
is_smallint(const char *text, size_t len)
{
	return is_integer_up_to(text, len, "32767");
}

static bool
is_integer(const char *text, size_t len)
{
	return is_integer_up_to(text, len, "2147483647");
}

static bool
is_bigint(const char *text, size_t len)
{
	return is_integer_up_to(text, len, "9223372036854775807");
}

static bool
is_oid(const char *text, size_t len)
{
	return is_unsigned(text, len) &&
		(len < 10 || (len == 10 && memcmp(text, "4294967295", 10) <= 0));
}

static bool
is_one_of(const char *text, size_t len, const char *const *words)
{
	for (; *words != NULL; words++)
	{
		if (strlen(*words) == len && memcmp(text, *words, len) == 0)
			return true;
	}
	return false;
}

static bool
is_boolean(const char *text, size_t len)
{
	static const char *const words[] = {"true", "false", NULL};

	return is_one_of(text, len, words);
}

static bool
is_numeric(const char *text, size_t len)
{
	static const char *const words[] = {"NaN", "Infinity", "-Infinity", NULL};
	size_t		n;

	if (is_one_of(text, len, words))
		return true;
	if (len > 0 && text[0] == '-')
	{
		text++;
		len--;
	}
	n = digits(text, len);
	if (!is_unsigned(text, n))
		return false;
	return n == len ||
		(text[n] == '.' && n + 1 < len && digits(text + n + 1, len - n - 1) == len - n - 1);
}

static bool
is_uuid(const char *text, size_t len)
{
	size_t		i;

	if (len != 36)
		return false;
	for (i = 0; i < len; i++)
	{
		if (i == 8 || i == 13 || i == 18 || i == 23)
		{
			if (text[i] != '-')
				return false;
		}
		else if (!((text[i] >= '0' && text[i] <= '9') ||
				   (text[i] >= 'a' && text[i] <= 'f')))
			return false;
	}
	return true;
}

static bool
is_date(const char *text, size_t len)
{
	static const char *const words[] = {"infinity", "-infinity", NULL};
	size_t		n;

	if (is_one_of(text, len, words))
		return true;
	if (len > 3 && memcmp(text + len - 3, " BC", 3) == 0)
		len -= 3;
	n = digits(text, len);
	return n >= 4 && n <= 7 && len == n + 6 &&
		text[n] == '-' && digits(text + n + 1, 2) == 2 &&
		text[n + 3] == '-' && digits(text + n + 4, 2) == 2;
}

static HcTypeTest
type_test(const char *type)
{
	static const struct
	{
		const char *type;
		HcTypeTest	test;
	}			tests[] =
	{
		{"smallint", is_smallint},
		{"integer", is_integer},
		{"bigint", is_bigint},
		{"oid", is_oid},
		{"boolean", is_boolean},
		{"numeric", is_numeric},
		{"uuid", is_uuid},
		{"date", is_date}
	};
	size_t		i;

	for (i = 0; type != NULL && i < (int) lengthof(tests); i++)
	{
		if (strcmp(tests[i].type, type) == 0)
			return tests[i].test;
	}
	return NULL;
}

HcMatcher *
hc_match_compile(const HcTemplate *tmpl, HcTypeLookup lookup, void *arg)
{
	HcMatcher  *matcher = palloc0(offsetof(HcMatcher, parts) +
								  sizeof(HcMatchPart) * tmpl->n_parts);
	int			i;

	matcher->n_parts = tmpl->n_parts;
	for (i = 0; i < tmpl->n_parts; i++)
	{
		HcMatchPart *part = &matcher->parts[i];
		const char *text = tmpl->parts[i].text;

		if (tmpl->parts[i].is_column)
			part->test = type_test(lookup(text, arg));
		else
		{
			part->literal = hc_encoding_string(text);
			part->len = strlen(part->literal);
		}
	}
	return matcher;
}

HcBytes
hc_match_literal(const HcMatcher *matcher)
{
	HcBytes		bytes = {matcher->parts[0].literal, matcher->parts[0].len};

	Assert(matcher->n_parts == 1 && bytes.data != NULL);
	return bytes;
}

HcMatcher *
hc_match_copy(const HcMatcher *matcher)
{
	Size		size = offsetof(HcMatcher, parts) +
		sizeof(HcMatchPart) * matcher->n_parts;
	HcMatcher  *copy = palloc(size);
	int			i;

	memcpy(copy, matcher, size);
	for (i = 0; i < copy->n_parts; i++)
	{
		if (copy->parts[i].literal != NULL)
			copy->parts[i].literal = pnstrdup(copy->parts[i].literal,
											  copy->parts[i].len);
	}
	return copy;
}

/* From the positions in from[0..len] to those behind the part, in to[]. */
static void
advance(const HcMatchPart *part, const char *text, size_t len, const bool *from,
		bool *to)
{
	bool		any = false;
	size_t		i;

	memset(to, 0, len + 1);
	for (i = 0; i <= len; i++)
	{
		size_t		n;

		any |= from[i];
		if (part->literal != NULL)
		{
			if (from[i] && part->len <= len - i &&
				memcmp(text + i, part->literal, part->len) == 0)
				to[i + part->len] = true;
		}
		else if (part->test == NULL)
			to[i] = any;
		else if (from[i])
		{
			for (n = 1; n <= Min(len - i, VALUE_MAX_LEN); n++)
				to[i + n] |= part->test(text + i, n);
		}
	}
}

/*
 * The positions that the parts [first, last) reach from the beginning of the
 * text; palloc'd.
 */
static bool *
reach(const HcMatcher *matcher, int first, int last, const char *text, size_t len)
{
	bool	   *from = palloc0(len + 1);
	bool	   *to = palloc0(len + 1);
	int			i;

	from[0] = true;
	for (i = first; i < last; i++)
	{
		bool	   *swap = from;

		advance(&matcher->parts[i], text, len, from, to);
		from = to;
		to = swap;
	}
	pfree(to);
	return from;
}

bool
hc_match(const HcMatcher *matcher, const char *text, size_t len)
{
	bool	   *reached = reach(matcher, 0, matcher->n_parts, text, len);
	bool		result = reached[len];

	pfree(reached);
	return result;
}

bool
hc_match_locate(const HcMatcher *matcher, const char *text, size_t len, int part,
				size_t *start, size_t *n)
{
	HcTypeTest	test = matcher->parts[part].test;
	bool	   *begins;
	int			found = 0;
	size_t		i;
	size_t		k;

	if (len > LOCATE_MAX_LEN || matcher->parts[part].literal != NULL)
		return false;
	begins = reach(matcher, 0, part, text, len);
	for (i = len + 1; i-- > 0;)
	{
		bool	   *rest = reach(matcher, part + 1, matcher->n_parts,
								 text + i, len - i);
		bool		ends = rest[len - i];

		pfree(rest);
		for (k = 0; ends && k <= i; k++)
		{
			if (!begins[k] || (test != NULL && !test(text + k, i - k)))
				continue;
			*start = k;
			*n = i - k;
			found++;
		}
	}
	pfree(begins);
	return found == 1;
}

bool
hc_match_is_certain(const HcMatcher *matcher)
{
	int			i;

	for (i = 0; i < matcher->n_parts; i++)
	{
		if (matcher->parts[i].literal == NULL && matcher->parts[i].test == NULL)
			return false;
	}
	return true;
}
