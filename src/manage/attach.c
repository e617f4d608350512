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
#include "capture/ledger.h"
#include "capture/shape.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mapping/expression.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/bufmgr.h"
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

/* What to do with a mapping that is a partition's part of one. */
#define PART_HINT	"Detach it there, or detach the partition from its table."

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
		else if (i == HC_OPTION_MAXLEN)
			values[i] = psprintf(INT64_FORMAT, PG_GETARG_INT64(ARG_OPTIONS + i));
		else
			values[i] = text_to_cstring(PG_GETARG_TEXT_PP(ARG_OPTIONS + i));
	}
}

/*
 * Expressions are stored so that they mean the same whatever search_path the
 * sessions have in which the trigger fires.
 */
static void
qualify_options(Relation rel, HcScope scope, const char **values)
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
												   values[option], scope,
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

	if (function != HC_FUNCTION_INVALIDATE)
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

/* The clause of CREATE TRIGGER that calls the trigger function. */
static char *
trigger_call(HcFunction function, int nargs, char **args)
{
	StringInfoData call;
	int			i;

	initStringInfo(&call);
	appendStringInfo(&call, "EXECUTE FUNCTION hybrid_cache.%s(",
					 hc_function_name(function));
	for (i = 0; i < nargs; i++)
		appendStringInfo(&call, "%s%s", i > 0 ? ", " : "",
						 quote_literal_cstr(args[i]));
	appendStringInfoChar(&call, ')');
	return call.data;
}

/* Events have one trigger, for no more operations than have events. */
static void
create_event_trigger(Oid relid, const char *name, const HcOptions *options,
					 const char *call, bool always)
{
	const char *table = qualified_name(relid);
	StringInfoData events;

	initStringInfo(&events);
	if (options->operations & TRIGGER_TYPE_INSERT)
		appendStringInfoString(&events, " OR INSERT");
	if (options->operations & TRIGGER_TYPE_UPDATE)
		appendStringInfoString(&events, " OR UPDATE");
	if (options->operations & TRIGGER_TYPE_DELETE)
		appendStringInfoString(&events, " OR DELETE");
	execute(psprintf("CREATE TRIGGER %s AFTER%s ON %s FOR EACH ROW %s",
					 quote_identifier(name), events.data + strlen(" OR"), table, call));
	if (always)
		execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s",
						 table, quote_identifier(name)));
}

/* SPI is connected.  guard: how the guard is to be told of the relation. */
static void
create_triggers(Oid relid, const char *name, const char *call, bool always,
				Oid *guard)
{
	const char *table = qualified_name(relid);
	const char *companion = free_name(relid, name, "truncate");

	execute_guarded(guard, relid,
					psprintf("CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW %s",
							 quote_identifier(name), table, call),
					psprintf("CREATE TRIGGER %s BEFORE TRUNCATE ON %s FOR EACH STATEMENT %s",
							 quote_identifier(companion), table, call));
	if (always)
		execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s, ENABLE ALWAYS TRIGGER %s",
						 table, quote_identifier(name), quote_identifier(companion)));
}

/* Keeps writers out of the table and its partitions. */
static void
lock_table(Oid relid, LOCKMODE lockmode)
{
	LockRelationOid(relid, lockmode);
	(void) find_all_inheritors(relid, lockmode, NULL);
}

/* So many blocks are read in less time than a user notices. */
#define AT_ONCE_BLOCKS	1024

/* Have the table and its partitions few enough rows to be read at once? */
static bool
is_small(Oid relid)
{
	BlockNumber n_blocks = 0;
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);

		if (RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
			n_blocks += RelationGetNumberOfBlocks(rel);
		table_close(rel, NoLock);
		if (n_blocks > AT_ONCE_BLOCKS)
			return false;
	}
	return true;
}

/*
 * Captures the removal of all entries of the mapping, with the table locked; false
 * if that is for the keeper.
 *
 * The keeper finds them by the templates, or, where a template does not read
 * back, by what is in the table when it comes to look (keeper/purge.c).  In the
 * second case this is more exact, so it is done where it takes no time.
 */
static bool
remove_at_once(const HcTrigger *trigger)
{
	HcShape		shape;
	HcOptions	options;
	Relation	rel;

	if (!hc_enabled || trigger->function != HC_FUNCTION_WRITE_THROUGH ||
		!hc_shape_of_trigger(&shape, trigger) || hc_shape_is_certain(&shape) ||
		hc_owed_reasons(trigger->oid) != NIL || !is_small(trigger->relid))
		return false;

	hc_options_parse(trigger->function, trigger->nargs, trigger->args, &options);
	rel = table_open(trigger->relid, NoLock);
	(void) hc_capture_table(rel, trigger->name, &options, true);
	table_close(rel, NoLock);
	return true;
}

/*
 * SPI is connected; the caller owns the table.  guard: how the guard is to be
 * told of the mapping.
 */
static void
drop_mapping(const HcTrigger *trigger, Oid *guard)
{
	const char *table = qualified_name(trigger->relid);
	HcTrigger  *companion =
	hc_catalog_companion(hc_catalog_relation(trigger->relid, NULL), trigger);

	execute_guarded(guard, trigger->oid,
					companion != NULL && !companion->internal
					? psprintf("DROP TRIGGER %s ON %s",
							   quote_identifier(companion->name), table) : NULL,
					psprintf("DROP TRIGGER %s ON %s",
							 quote_identifier(trigger->name), table));
}

/* Does a mapping with these arguments write the entries of the old one? */
static bool
inherits(const HcTrigger *old, const char *kind, const HcOptions *options)
{
	const char *member = options->values[HC_OPTION_MEMBER];
	HcClaim		claim;
	HcClaim		old_claim;

	if (member == NULL)
		member = options->values[HC_OPTION_FIELD];
	return hc_check_claim(&claim, kind, options->values[HC_OPTION_KEY], member) &&
		claim.type != NULL && !claim.event &&
		hc_check_trigger_claim(&old_claim, old) && !old_claim.event &&
		hc_check_overlap(&claim, &old_claim);
}

/*
 * attach(relation, kind, ...options, name, populate, replace, always): makes a
 * mapping, and asks the keeper to populate it.  Returns its name.
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
	bool		inherited = false;
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
	function = hc_kind_function(kind);

	/* everything that can be found wrong without a lock */
	hc_check_relation(relid);
	read_options(fcinfo, values);
	nargs = make_args(function, kind, values, args);
	hc_options_parse(function, nargs, args, &options);

	populate = PG_ARGISNULL(ARG_POPULATE)
		? function == HC_FUNCTION_WRITE_THROUGH && values[HC_OPTION_TTL] == NULL
		: PG_GETARG_BOOL(ARG_POPULATE);
	if (populate && function != HC_FUNCTION_WRITE_THROUGH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a mapping of kind %s has nothing to populate", kind)));

	/* what CREATE TRIGGER will take; before the triggers are looked at */
	lock_table(relid, replace ? AccessExclusiveLock : ShareRowExclusiveLock);
	rel = table_open(relid, NoLock);
	qualify_options(rel, function == HC_FUNCTION_EMIT ? HC_SCOPE_CHANGE : HC_SCOPE_ROW,
					values);
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
		old = hc_check_mapping(relid, name, PART_HINT);
		if (remove_at_once(old))
			drop_mapping(old, &hc_guard_purged);
		else if (inherits(old, kind, &options))
		{
			drop_mapping(old, &hc_guard_purged);
			inherited = true;
		}
		else
			drop_mapping(old, &hc_guard_purging);
	}

	if (populate)
		guard = &hc_guard_populating;
	else if (!PG_ARGISNULL(ARG_POPULATE))
		guard = &hc_guard_unpopulated;
	if (function == HC_FUNCTION_EMIT)
		create_event_trigger(relid, name, &options,
							 trigger_call(function, nargs, args), always);
	else
		create_triggers(relid, name, trigger_call(function, nargs, args), always,
						guard);
	if (inherited)
		hc_owed_mark(get_trigger_oid(relid, name, false), "was replaced");
	SPI_finish();

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
	HcTrigger  *trigger;
	Oid			unguarded = InvalidOid;

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
	trigger = hc_check_mapping(relid, name, PART_HINT);
	if (!purge)
		drop_mapping(trigger, &unguarded);
	else
		drop_mapping(trigger, remove_at_once(trigger)
					 ? &hc_guard_purged : &hc_guard_purging);
	SPI_finish();
	PG_RETURN_VOID();
}
