/*
 * attach.c
 *	  hybrid_cache.attach() and detach(): mappings made and removed in one call.
 *
 * attach() writes plain CREATE TRIGGER commands and runs them as the caller: so
 * everything that is checked about hand-written triggers is checked here too,
 * event triggers and logs see what happens, and there is one way to make a
 * mapping, not two.
 */
#include "postgres.h"

#include "access/table.h"
#include "capture/capture.h"
#include "capture/catalog.h"
#include "capture/check.h"
#include "capture/guard.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mapping/expression.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* The SQL function's parameters; those of options come in HcOptionName's order. */
enum
{
	ARG_RELATION,
	ARG_KIND,
	ARG_OPTIONS,
	ARG_NAME = ARG_OPTIONS + HC_NUM_OPTIONS,
	ARG_POPULATE,
	ARG_REPLACE,
	ARG_ALWAYS
};

PG_FUNCTION_INFO_V1(hybrid_cache_attach);
PG_FUNCTION_INFO_V1(hybrid_cache_detach);

static void
execute(const char *command)
{
	int			result = SPI_execute(command, false, 0);

	if (result != SPI_OK_UTILITY)
		elog(ERROR, "SPI_execute returned %d for \"%s\"", result, command);
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/*
 * An interval so that it reads back the same under every IntervalStyle.
 * Nothing between the two assignments raises but out of memory, after which
 * IntervalStyle is set anew only by the end of the session: so it is caught.
 */
static char *
interval_text(Datum interval)
{
	int			style = IntervalStyle;
	char	   *text;

	PG_TRY();
	{
		IntervalStyle = INTSTYLE_POSTGRES;
		text = DatumGetCString(DirectFunctionCall1(interval_out, interval));
	}
	PG_FINALLY();
	{
		IntervalStyle = style;
	}
	PG_END_TRY();
	return text;
}

/* The values of the options as the caller gave them. */
static void
read_options(FunctionCallInfo fcinfo, const char **values)
{
	int			i;

	for (i = 0; i < HC_NUM_OPTIONS; i++)
	{
		if (PG_ARGISNULL(ARG_OPTIONS + i))
			values[i] = NULL;
		else if (i == HC_OPTION_TTL)
			values[i] = interval_text(PG_GETARG_DATUM(ARG_OPTIONS + i));
		else
			values[i] = text_to_cstring(PG_GETARG_TEXT_PP(ARG_OPTIONS + i));
	}
}

/*
 * Expressions are stored so that they mean the same whatever search_path the
 * sessions have in which the trigger fires.
 */
static void
qualify_options(Relation rel, const char **values)
{
	static const HcOptionName expressions[] = {
		HC_OPTION_VALUE, HC_OPTION_COLUMNS, HC_OPTION_SCORE, HC_OPTION_LONGITUDE,
		HC_OPTION_LATITUDE, HC_OPTION_FILTER, HC_OPTION_EXPIRES_AT
	};
	size_t		i;

	for (i = 0; i < (int) lengthof(expressions); i++)
	{
		HcOptionName option = expressions[i];

		if (values[option] != NULL)
			values[option] = hc_expression_qualify(rel, hc_option_name(option),
												   values[option],
												   option == HC_OPTION_COLUMNS);
	}
}

/* The arguments of the trigger function; returns how many. */
static int
make_args(HcFunction function, const char *kind, const char *const *values,
		  char **args)
{
	int			nargs = 0;
	int			i;

	if (function == HC_FUNCTION_WRITE_THROUGH)
		args[nargs++] = pstrdup(kind);
	for (i = 0; i < HC_NUM_OPTIONS; i++)
	{
		if (values[i] != NULL)
			args[nargs++] = psprintf("%s=%s", hc_option_name(i), values[i]);
	}
	return nargs;
}

/* A name made of two that no trigger of the table has, numbered if need be. */
static char *
free_name(Oid relid, const char *first, const char *second)
{
	char	   *name = makeObjectName(first, NULL, second);
	int			i;

	for (i = 1; OidIsValid(get_trigger_oid(relid, name, true)); i++)
		name = makeObjectName(first, NULL, psprintf("%s%d", second, i));
	return name;
}

/* Runs one or two commands while the guard knows what is done besides. */
static void
execute_guarded(Oid *guard, Oid value, const char *first, const char *second)
{
	PG_TRY();
	{
		*guard = value;
		if (first != NULL)
			execute(first);
		execute(second);
	}
	PG_FINALLY();
	{
		*guard = InvalidOid;
	}
	PG_END_TRY();
}

/* SPI is connected.  guard: how the guard is to be told of the relation. */
static void
create_triggers(Oid relid, const char *name, HcFunction function, int nargs,
				char **args, bool always, Oid *guard)
{
	const char *table = qualified_name(relid);
	const char *companion = free_name(relid, name, "truncate");
	StringInfoData call;
	int			i;

	initStringInfo(&call);
	appendStringInfo(&call, "EXECUTE FUNCTION hybrid_cache.%s(",
					 function == HC_FUNCTION_INVALIDATE ? "invalidate" : "write_through");
	for (i = 0; i < nargs; i++)
		appendStringInfo(&call, "%s%s", i > 0 ? ", " : "",
						 quote_literal_cstr(args[i]));
	appendStringInfoChar(&call, ')');

	execute_guarded(guard, relid,
					psprintf("CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW %s",
							 quote_identifier(name), table, call.data),
					psprintf("CREATE TRIGGER %s BEFORE TRUNCATE ON %s FOR EACH STATEMENT %s",
							 quote_identifier(companion), table, call.data));
	if (always)
		execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s, ENABLE ALWAYS TRIGGER %s",
						 table, quote_identifier(name), quote_identifier(companion)));
}

/* The mapping of that name; raises 42704 if there is none. */
static HcTrigger *
find_mapping(Oid relid, const char *name)
{
	Oid			oid = get_trigger_oid(relid, name, true);
	HcTrigger  *trigger = OidIsValid(oid) ? hc_catalog_trigger(oid, NULL) : NULL;

	if (trigger == NULL || !hc_catalog_is_row(trigger))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("mapping \"%s\" of table \"%s\" does not exist",
						name, get_rel_name(relid)),
				 errhint("The view hybrid_cache.mapping lists the mappings.")));
	if (OidIsValid(trigger->parent))
	{
		const HcTrigger *root = hc_catalog_mapping(trigger);

		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mapping \"%s\" belongs to partitioned table \"%s\"",
						root->name, get_rel_name(root->relid)),
				 errhint("Detach it there, or detach the partition from its table.")));
	}
	return trigger;
}

/* Keeps writers out of the table and its partitions. */
static void
lock_table(Oid relid, LOCKMODE lockmode)
{
	LockRelationOid(relid, lockmode);
	(void) find_all_inheritors(relid, lockmode, NULL);
}

/* SPI is connected; the caller owns the table. */
static void
drop_mapping(const HcTrigger *trigger, bool purge)
{
	const char *table = qualified_name(trigger->relid);
	HcTrigger  *companion;

	/* with capture off the entries stay, and that must be known */
	purge = purge && hc_enabled;
	if (purge && trigger->function == HC_FUNCTION_WRITE_THROUGH)
	{
		Relation	rel = table_open(trigger->relid, NoLock);
		HcOptions	options;

		hc_options_parse(trigger->function, trigger->nargs, trigger->args, &options);
		(void) hc_capture_table(rel, trigger->name, &options, true);
		table_close(rel, NoLock);
	}

	companion = hc_catalog_companion(hc_catalog_relation(trigger->relid, NULL), trigger);
	execute_guarded(&hc_guard_purging, purge ? trigger->oid : InvalidOid,
					companion != NULL && !companion->internal
					? psprintf("DROP TRIGGER %s ON %s",
							   quote_identifier(companion->name), table) : NULL,
					psprintf("DROP TRIGGER %s ON %s",
							 quote_identifier(trigger->name), table));
}

/*
 * attach(relation, kind, ...options, name, populate, replace, always): makes a
 * mapping and has it populated.  Returns its name.
 */
Datum
hybrid_cache_attach(PG_FUNCTION_ARGS)
{
	const char *values[HC_NUM_OPTIONS];
	char	   *args[HC_NUM_OPTIONS + 1];
	int			nargs;
	HcFunction	function;
	HcOptions	options;
	Oid			relid;
	char	   *kind;
	char	   *table;
	char	   *name;
	bool		replace = !PG_ARGISNULL(ARG_REPLACE) && PG_GETARG_BOOL(ARG_REPLACE);
	bool		always = !PG_ARGISNULL(ARG_ALWAYS) && PG_GETARG_BOOL(ARG_ALWAYS);
	bool		populate;
	Oid			unguarded = InvalidOid;
	Oid		   *guard = &unguarded;
	Relation	rel;
	Name		result;

	if (PG_ARGISNULL(ARG_RELATION) || PG_ARGISNULL(ARG_KIND))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of hybrid_cache.attach() must not be null",
						PG_ARGISNULL(ARG_RELATION) ? "relation" : "kind")));
	relid = PG_GETARG_OID(ARG_RELATION);
	kind = text_to_cstring(PG_GETARG_TEXT_PP(ARG_KIND));
	function = strcmp(kind, hc_kind_name(HC_KIND_INVALIDATE)) == 0
		? HC_FUNCTION_INVALIDATE : HC_FUNCTION_WRITE_THROUGH;

	/* everything that can be found wrong without a lock */
	hc_check_relation(relid);
	read_options(fcinfo, values);
	nargs = make_args(function, kind, values, args);
	hc_options_parse(function, nargs, args, &options);

	populate = PG_ARGISNULL(ARG_POPULATE)
		? function == HC_FUNCTION_WRITE_THROUGH && values[HC_OPTION_TTL] == NULL
		: PG_GETARG_BOOL(ARG_POPULATE);
	if (populate && function == HC_FUNCTION_INVALIDATE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a mapping of kind %s has nothing to populate", kind)));

	/* no writer from here on: what is captured below is exact */
	lock_table(relid, replace ? AccessExclusiveLock : ShareRowExclusiveLock);
	rel = table_open(relid, NoLock);
	qualify_options(rel, values);
	table_close(rel, NoLock);
	nargs = make_args(function, kind, values, args);
	hc_options_parse(function, nargs, args, &options);

	table = get_rel_name(relid);
	if (!PG_ARGISNULL(ARG_NAME))
	{
		name = pstrdup(NameStr(*PG_GETARG_NAME(ARG_NAME)));
		if (name[0] == '\0')
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("name of a mapping must not be empty"),
					 errhint("Leave it out for a name made of the table's and the kind's.")));
	}
	else if (replace)
		name = makeObjectName(table, NULL, kind);
	else
		name = free_name(relid, table, kind);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (OidIsValid(get_trigger_oid(relid, name, true)))
	{
		HcTrigger  *old = hc_catalog_trigger(get_trigger_oid(relid, name, true), NULL);

		if (!replace || old == NULL || !hc_catalog_is_row(old))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("trigger \"%s\" for relation \"%s\" already exists",
							name, table),
					 old != NULL && hc_catalog_is_row(old)
					 ? errhint("Add replace => true to replace the mapping.") : 0));
		drop_mapping(find_mapping(relid, name), true);
	}

	/* with capture off nothing is populated, and that must be known */
	if (populate && hc_enabled)
		guard = &hc_guard_populating;
	else if (!populate && !PG_ARGISNULL(ARG_POPULATE))
		guard = &hc_guard_unpopulated;
	populate = populate && hc_enabled;
	create_triggers(relid, name, function, nargs, args, always, guard);
	SPI_finish();

	if (populate)
	{
		rel = table_open(relid, NoLock);
		(void) hc_capture_table(rel, name, &options, false);
		table_close(rel, NoLock);
	}

	result = palloc(NAMEDATALEN);
	namestrcpy(result, name);
	PG_RETURN_NAME(result);
}

/* detach(relation, name, purge) */
Datum
hybrid_cache_detach(PG_FUNCTION_ARGS)
{
	Oid			relid;
	const char *name;
	bool		purge = PG_ARGISNULL(2) || PG_GETARG_BOOL(2);

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of hybrid_cache.detach() must not be null",
						PG_ARGISNULL(0) ? "relation" : "name")));
	relid = PG_GETARG_OID(0);
	name = NameStr(*PG_GETARG_NAME(1));

	hc_check_relation(relid);
	lock_table(relid, AccessExclusiveLock);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	drop_mapping(find_mapping(relid, name), purge);
	SPI_finish();
	PG_RETURN_VOID();
}
