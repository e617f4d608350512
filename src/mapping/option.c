/*
 * option.c
 *	  The arguments of a mapping's trigger: the kind, then "option=value".
 *
 * One table says which option belongs to which kind, so that every kind's
 * rules stand in one place and every error about them reads the same.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mapping/mapping.h"

static const char *const option_names[HC_NUM_OPTIONS] = {
	[HC_OPTION_KEY] = "key",
	[HC_OPTION_MEMBER] = "member",
	[HC_OPTION_FIELD] = "field",
	[HC_OPTION_VALUE] = "value",
	[HC_OPTION_COLUMNS] = "columns",
	[HC_OPTION_EXCLUDE] = "exclude",
	[HC_OPTION_SCORE] = "score",
	[HC_OPTION_LONGITUDE] = "longitude",
	[HC_OPTION_LATITUDE] = "latitude",
	[HC_OPTION_FILTER] = "filter",
	[HC_OPTION_TTL] = "ttl",
	[HC_OPTION_EXPIRES_AT] = "expires_at",
	[HC_OPTION_ORPHANS] = "orphans",
	[HC_OPTION_MISSING] = "missing",
	[HC_OPTION_SINCE] = "since",
	[HC_OPTION_IDENTITY] = "identity"
};

#define BIT(option)		((uint32) 1 << (option))

/* what reconcile looks at; any state that can be compared has them */
#define RECONCILED \
	(BIT(HC_OPTION_FILTER) | BIT(HC_OPTION_ORPHANS) | BIT(HC_OPTION_MISSING) | \
	 BIT(HC_OPTION_SINCE) | BIT(HC_OPTION_IDENTITY))
#define EXPIRING \
	(BIT(HC_OPTION_TTL) | BIT(HC_OPTION_EXPIRES_AT))

static const struct
{
	const char *name;
	uint32		required;
	uint32		allowed;		/* besides the required ones */
}			kinds[] =
{
	[HC_KIND_STRING] =
	{
		"string", BIT(HC_OPTION_KEY) | BIT(HC_OPTION_VALUE),
		RECONCILED | EXPIRING
	},
	[HC_KIND_JSON] =
	{
		"json", BIT(HC_OPTION_KEY),
		BIT(HC_OPTION_COLUMNS) | BIT(HC_OPTION_EXCLUDE) | RECONCILED | EXPIRING
	},
	[HC_KIND_HASH] =
	{
		"hash", BIT(HC_OPTION_KEY),
		BIT(HC_OPTION_COLUMNS) | BIT(HC_OPTION_EXCLUDE) | RECONCILED | EXPIRING
	},
	[HC_KIND_FIELD] =
	{
		"field",
		BIT(HC_OPTION_KEY) | BIT(HC_OPTION_FIELD) | BIT(HC_OPTION_VALUE),
		RECONCILED
	},
	[HC_KIND_GEO] =
	{
		"geo",
		BIT(HC_OPTION_KEY) | BIT(HC_OPTION_MEMBER) |
		BIT(HC_OPTION_LONGITUDE) | BIT(HC_OPTION_LATITUDE),
		RECONCILED
	},
	[HC_KIND_ZSET] =
	{
		"zset",
		BIT(HC_OPTION_KEY) | BIT(HC_OPTION_MEMBER) | BIT(HC_OPTION_SCORE),
		RECONCILED
	},
	[HC_KIND_SET] =
	{
		"set", BIT(HC_OPTION_KEY) | BIT(HC_OPTION_MEMBER),
		RECONCILED
	},
	[HC_KIND_INVALIDATE] =
	{
		"invalidate", BIT(HC_OPTION_KEY), BIT(HC_OPTION_FILTER)
	}
};

const char *
hc_kind_name(HcKind kind)
{
	return kinds[kind].name;
}

const char *
hc_option_name(HcOptionName option)
{
	return option_names[option];
}

static HcKind
kind_by_name(const char *name)
{
	int			kind;

	for (kind = 0; kind < HC_KIND_INVALIDATE; kind++)
	{
		if (strcmp(kinds[kind].name, name) == 0)
			return (HcKind) kind;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown kind of mapping \"%s\"", name),
			 errhint("Kinds are string, json, hash, field, geo, zset and set; attach() also knows invalidate.")));
}

/* The options of a kind, for a hint. */
static char *
options_of(HcKind kind)
{
	StringInfoData list;
	int			option;

	initStringInfo(&list);
	for (option = 0; option < HC_NUM_OPTIONS; option++)
	{
		if ((kinds[kind].required | kinds[kind].allowed) & BIT(option))
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "",
							 option_names[option]);
	}
	return list.data;
}

static void
parse_option(HcOptions *options, const char *arg)
{
	const char *equals = strchr(arg, '=');
	int			option;

	if (equals == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mapping option \"%s\" has no value", arg),
				 errhint("Options are written 'option=value'.")));

	for (option = 0; option < HC_NUM_OPTIONS; option++)
	{
		if (strlen(option_names[option]) == (size_t) (equals - arg) &&
			strncmp(option_names[option], arg, equals - arg) == 0)
			break;
	}
	if (option == HC_NUM_OPTIONS ||
		!((kinds[options->kind].required | kinds[options->kind].allowed) & BIT(option)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 option == HC_NUM_OPTIONS
				 ? errmsg("unknown mapping option \"%.*s\"",
						  (int) (equals - arg), arg)
				 : errmsg("mapping option \"%s\" does not belong to kind %s",
						  option_names[option], kinds[options->kind].name),
				 errhint("Options of kind %s are %s.",
						 kinds[options->kind].name, options_of(options->kind))));
	if (options->values[option] != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mapping option \"%s\" is given more than once",
						option_names[option])));
	options->values[option] = equals + 1;
}

static void
check_one_of(const HcOptions *options, HcOptionName option,
			 const char *const *allowed, const char *list)
{
	const char *value = options->values[option];

	if (value == NULL)
		return;
	for (; *allowed != NULL; allowed++)
	{
		if (strcmp(value, *allowed) == 0)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for mapping option \"%s\": \"%s\"",
					option_names[option], value),
			 errhint("Allowed are %s.", list)));
}

static void
check_exclusive(const HcOptions *options, HcOptionName a, HcOptionName b)
{
	if (options->values[a] != NULL && options->values[b] != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mapping options \"%s\" and \"%s\" cannot be used together",
						option_names[a], option_names[b])));
}

/* The values point into args. */
void
hc_options_parse(HcFunction function, int nargs, char *const *args,
				 HcOptions *options)
{
	static const char *const orphans[] = {"delete", "report", "ignore", NULL};
	static const char *const missing[] = {"repair", "ignore", NULL};
	int			first = 0;
	int			i;

	memset(options, 0, sizeof(*options));
	if (function == HC_FUNCTION_INVALIDATE)
		options->kind = HC_KIND_INVALIDATE;
	else
	{
		if (nargs == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a mapping needs a kind"),
					 errhint("The first argument of write_through() is the kind: string, json, hash, field, geo, zset or set.")));
		options->kind = kind_by_name(args[first++]);
	}
	for (i = first; i < nargs; i++)
		parse_option(options, args[i]);

	for (i = 0; i < HC_NUM_OPTIONS; i++)
	{
		if ((kinds[options->kind].required & BIT(i)) && options->values[i] == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a mapping of kind %s needs the option \"%s\"",
							kinds[options->kind].name, option_names[i])));
	}
	check_exclusive(options, HC_OPTION_TTL, HC_OPTION_EXPIRES_AT);
	check_exclusive(options, HC_OPTION_COLUMNS, HC_OPTION_EXCLUDE);
	check_one_of(options, HC_OPTION_ORPHANS, orphans, "delete, report and ignore");
	check_one_of(options, HC_OPTION_MISSING, missing, "repair and ignore");
}
