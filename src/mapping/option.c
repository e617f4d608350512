/*
 * option.c
 *	  The arguments of a mapping's trigger: the kind, then "option=value".
 *
 * One table says which option belongs to which kind, so that every kind's
 * rules stand in one place and every error about them reads the same.
 */
#include "postgres.h"

#include "catalog/pg_trigger.h"
#include "lib/stringinfo.h"
#include "mapping/mapping.h"
#include "utils/varlena.h"

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
	[HC_OPTION_IDENTITY] = "identity",
	[HC_OPTION_CHANNEL] = "channel",
	[HC_OPTION_MAXLEN] = "maxlen",
	[HC_OPTION_PUSH] = "push",
	[HC_OPTION_OPERATIONS] = "operations"
};

#define BIT(option)		((uint32) 1 << (option))

/* what reconcile looks at; any state that can be compared has them */
#define RECONCILED \
	(BIT(HC_OPTION_FILTER) | BIT(HC_OPTION_ORPHANS) | BIT(HC_OPTION_MISSING) | \
	 BIT(HC_OPTION_SINCE) | BIT(HC_OPTION_IDENTITY))
#define EXPIRING \
	(BIT(HC_OPTION_TTL) | BIT(HC_OPTION_EXPIRES_AT))

/* when there is an event, and what it says */
#define EMITTED \
	(BIT(HC_OPTION_FILTER) | BIT(HC_OPTION_OPERATIONS) | BIT(HC_OPTION_VALUE) | \
	 BIT(HC_OPTION_COLUMNS) | BIT(HC_OPTION_EXCLUDE))

static const char *const function_names[] = {
	[HC_FUNCTION_WRITE_THROUGH] = "write_through",
	[HC_FUNCTION_INVALIDATE] = "invalidate",
	[HC_FUNCTION_EMIT] = "emit"
};

static const struct
{
	const char *name;
	HcFunction	function;
	uint32		required;
	uint32		allowed;		/* besides the required ones */
}			kinds[] =
{
	[HC_KIND_STRING] =
	{
		"string", HC_FUNCTION_WRITE_THROUGH,
		BIT(HC_OPTION_KEY) | BIT(HC_OPTION_VALUE),
		RECONCILED | EXPIRING
	},
	[HC_KIND_JSON] =
	{
		"json", HC_FUNCTION_WRITE_THROUGH,
		BIT(HC_OPTION_KEY),
		BIT(HC_OPTION_COLUMNS) | BIT(HC_OPTION_EXCLUDE) | RECONCILED | EXPIRING
	},
	[HC_KIND_HASH] =
	{
		"hash", HC_FUNCTION_WRITE_THROUGH,
		BIT(HC_OPTION_KEY),
		BIT(HC_OPTION_COLUMNS) | BIT(HC_OPTION_EXCLUDE) | RECONCILED | EXPIRING
	},
	[HC_KIND_FIELD] =
	{
		"field", HC_FUNCTION_WRITE_THROUGH,
		BIT(HC_OPTION_KEY) | BIT(HC_OPTION_FIELD) | BIT(HC_OPTION_VALUE),
		RECONCILED
	},
	[HC_KIND_GEO] =
	{
		"geo", HC_FUNCTION_WRITE_THROUGH,
		BIT(HC_OPTION_KEY) | BIT(HC_OPTION_MEMBER) |
		BIT(HC_OPTION_LONGITUDE) | BIT(HC_OPTION_LATITUDE),
		RECONCILED
	},
	[HC_KIND_ZSET] =
	{
		"zset", HC_FUNCTION_WRITE_THROUGH,
		BIT(HC_OPTION_KEY) | BIT(HC_OPTION_MEMBER) | BIT(HC_OPTION_SCORE),
		RECONCILED
	},
	[HC_KIND_SET] =
	{
		"set", HC_FUNCTION_WRITE_THROUGH,
		BIT(HC_OPTION_KEY) | BIT(HC_OPTION_MEMBER),
		RECONCILED
	},
	[HC_KIND_TIMER] =
	{
		"timer", HC_FUNCTION_WRITE_THROUGH,
		BIT(HC_OPTION_KEY) | BIT(HC_OPTION_MEMBER) | BIT(HC_OPTION_EXPIRES_AT),
		RECONCILED
	},
	[HC_KIND_INVALIDATE] =
	{
		"invalidate", HC_FUNCTION_INVALIDATE,
		BIT(HC_OPTION_KEY), BIT(HC_OPTION_FILTER)
	},
	[HC_KIND_STREAM] =
	{
		"stream", HC_FUNCTION_EMIT,
		BIT(HC_OPTION_KEY), EMITTED | BIT(HC_OPTION_MAXLEN)
	},
	[HC_KIND_PUBLISH] =
	{
		"publish", HC_FUNCTION_EMIT,
		BIT(HC_OPTION_CHANNEL), EMITTED
	},
	[HC_KIND_LIST] =
	{
		"list", HC_FUNCTION_EMIT,
		BIT(HC_OPTION_KEY), EMITTED | BIT(HC_OPTION_PUSH)
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

HcFunction
hc_kind_function(const char *kind)
{
	size_t		i;

	for (i = 0; i < lengthof(kinds); i++)
	{
		if (strcmp(kinds[i].name, kind) == 0)
			return kinds[i].function;
	}
	return HC_FUNCTION_WRITE_THROUGH;
}

bool
hc_kind_is_event(HcKind kind)
{
	return kinds[kind].function == HC_FUNCTION_EMIT;
}

const char *
hc_function_name(HcFunction function)
{
	return function_names[function];
}

/* The kinds of a trigger function, for a hint; others: those of all others. */
static char *
kinds_of(HcFunction function, bool others)
{
	StringInfoData list;
	size_t		i;

	initStringInfo(&list);
	for (i = 0; i < lengthof(kinds); i++)
	{
		if ((kinds[i].function == function) != others)
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "",
							 kinds[i].name);
	}
	return list.data;
}

static HcKind
kind_by_name(HcFunction function, const char *name)
{
	size_t		kind;

	for (kind = 0; kind < lengthof(kinds); kind++)
	{
		if (strcmp(kinds[kind].name, name) == 0)
			break;
	}
	if (kind == lengthof(kinds))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown kind of mapping \"%s\"", name),
				 errhint("Kinds of %s() are %s; attach() also knows %s.",
						 function_names[function], kinds_of(function, false),
						 kinds_of(function, true))));
	if (kinds[kind].function != function)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is no kind of %s()", name, function_names[function]),
				 errhint("Use the trigger function %s().",
						 function_names[kinds[kind].function])));
	return (HcKind) kind;
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

/* The operations that have events, as bits of a trigger's type; all by default. */
static int16
parse_operations(const char *source)
{
	static const struct
	{
		const char *name;
		int16		type;
	}			operations[] =
	{
		{"insert", TRIGGER_TYPE_INSERT},
		{"update", TRIGGER_TYPE_UPDATE},
		{"delete", TRIGGER_TYPE_DELETE}
	};
	int16		result = 0;
	List	   *names;
	bool		valid;
	ListCell   *lc;

	if (source == NULL)
		return TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE;
	valid = SplitIdentifierString(pstrdup(source), ',', &names) && names != NIL;
	foreach(lc, names)
	{
		size_t		i;

		for (i = 0; i < lengthof(operations); i++)
		{
			if (strcmp(operations[i].name, lfirst(lc)) == 0)
				break;
		}
		if (i == lengthof(operations))
			valid = false;
		else
			result |= operations[i].type;
	}
	if (!valid)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for mapping option \"%s\": \"%s\"",
						"operations", source),
				 errhint("It is a list of insert, update and delete, separated by commas.")));
	return result;
}

/* About how many entries a stream may have; 0: any number. */
static int64
parse_maxlen(const char *source)
{
	char	   *end;
	long long	value;

	if (source == NULL)
		return 0;
	errno = 0;
	value = strtoll(source, &end, 10);
	if (errno != 0 || end == source || *end != '\0' || value < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for mapping option \"%s\": \"%s\"",
						"maxlen", source),
				 errhint("It is a whole number of stream entries, at least 1.")));
	return value;
}

/* The values point into args. */
void
hc_options_parse(HcFunction function, int nargs, char *const *args,
				 HcOptions *options)
{
	static const char *const orphans[] = {"delete", "report", "ignore", NULL};
	static const char *const missing[] = {"repair", "ignore", NULL};
	static const char *const push[] = {"right", "left", NULL};
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
					 errhint("The first argument of %s() is the kind, one of %s.",
							 function_names[function],
							 kinds_of(function, false))));
		options->kind = kind_by_name(function, args[first++]);
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
	check_exclusive(options, HC_OPTION_COLUMNS, HC_OPTION_VALUE);
	check_exclusive(options, HC_OPTION_VALUE, HC_OPTION_EXCLUDE);
	check_one_of(options, HC_OPTION_ORPHANS, orphans, "delete, report and ignore");
	check_one_of(options, HC_OPTION_MISSING, missing, "repair and ignore");
	check_one_of(options, HC_OPTION_PUSH, push, "right and left");
	options->operations = parse_operations(options->values[HC_OPTION_OPERATIONS]);
	options->maxlen = parse_maxlen(options->values[HC_OPTION_MAXLEN]);
}
