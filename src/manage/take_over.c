/*
 * take_over.c
 *	  hybrid_cache.take_over(): from now on this database writes what another one
 *	  has written.
 *
 * It changes what is said about owners in Redis (worker/owner.h, worker/fence.h),
 * nothing else: the workers of both databases find that.  The fence of whoever
 * loses something is removed in the same transaction, so that its worker cannot
 * write once more before it has looked.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "session/session.h"
#include "shmem.h"
#include "utils/builtins.h"
#include "worker/fence.h"
#include "worker/owner.h"

/* Times that somebody else may change the same meanwhile. */
#define MAX_ATTEMPTS	20

#define NATTS			2

PG_FUNCTION_INFO_V1(hybrid_cache_take_over);

/* A key template of ours that another database has. */
typedef struct Claim
{
	const char *field;
	uint64		system;
	Oid			database;
	bool		alive;
} Claim;

static void
put_row(ReturnSetInfo *result, const char *key, const char *owner)
{
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {0};

	nulls[0] = key == NULL;
	if (key != NULL)
		values[0] = CStringGetTextDatum(key);
	values[1] = CStringGetTextDatum(owner);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static HcArguments *
command(const char *verb, const char *key)
{
	HcArguments *args = palloc(sizeof(HcArguments));

	hc_arguments_begin(args, verb);
	hc_arguments_add_literal(args, key);
	return args;
}

static void
fail_contended(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("could not take over: the owners change all the time"),
			 errhint("Try again.")));
}

/* Gives the lease of this database to this copy of it; false if it has it. */
static bool
take_lease(void)
{
	char		fence[HC_FENCE_TEXT_SIZE];
	char		lease[HC_FENCE_TEXT_SIZE];
	char		incarnation[HC_FENCE_TEXT_SIZE];
	int			attempt;

	hc_fence_key(GetSystemIdentifier(), MyDatabaseId, fence);
	hc_fence_lease_key(GetSystemIdentifier(), MyDatabaseId, lease);
	hc_fence_incarnation(incarnation);

	for (attempt = 0; attempt < MAX_ATTEMPTS; attempt++)
	{
		const redisReply *found;
		HcArguments *set;

		hc_session_watch(lease);
		found = hc_session_command(command("GET", lease));
		if (found->type == REDIS_REPLY_NIL ||
			(found->type == REDIS_REPLY_STRING && strcmp(found->str, incarnation) == 0))
		{
			(void) hc_session_execute(NIL);
			return false;
		}
		set = command("SET", lease);
		hc_arguments_add_literal(set, incarnation);
		hc_arguments_add_literal(set, "PX");
		hc_arguments_add_integer(set, HC_LEASE_MS);
		if (hc_session_execute(list_make2(set, command("DEL", fence))) != NULL)
			return true;
	}
	fail_contended();
	return false;				/* keep compiler quiet */
}

/* The templates of ours that belong to others, each once.  Watches them. */
static List *
find_claims(const List *mappings)
{
	List	   *claims = NIL;
	ListCell   *lc;

	hc_session_watch(HC_OWNER_KEY);
	foreach(lc, mappings)
	{
		const char *field = ((HcOwned *) lfirst(lc))->field;
		HcArguments *get = command("HGET", HC_OWNER_KEY);
		const redisReply *found;
		Claim	   *claim;
		char		lease[HC_FENCE_TEXT_SIZE];
		ListCell   *cell;

		foreach(cell, claims)
		{
			if (strcmp(((Claim *) lfirst(cell))->field, field) == 0)
				break;
		}
		if (cell != NULL)
			continue;
		hc_arguments_add_literal(get, field);
		found = hc_session_command(get);
		if (found->type != REDIS_REPLY_STRING)
			continue;
		claim = palloc(sizeof(Claim));
		claim->field = field;
		if (!hc_owner_parse(found->str, found->len, &claim->system, &claim->database) ||
			(claim->system == GetSystemIdentifier() && claim->database == MyDatabaseId))
			continue;
		hc_fence_lease_key(claim->system, claim->database, lease);
		hc_session_watch(lease);
		claim->alive =
			hc_reply_integer(hc_session_command(command("EXISTS", lease))) != 0;
		claims = lappend(claims, claim);
	}
	return claims;
}

/* The field of a record, as text. */
static char *
to_server(const char *field)
{
	return GetDatabaseEncoding() == PG_SQL_ASCII ? pstrdup(field) :
		pg_any_to_server(field, strlen(field), PG_UTF8);
}

/* Takes what may be taken: a list of Claim *; *alive gets the others. */
static List *
take_templates(const List *mappings, bool force, List **alive)
{
	char		value[HC_OWNER_TEXT_SIZE];
	int			attempt;

	hc_owner_format(GetSystemIdentifier(), MyDatabaseId, value);
	for (attempt = 0; attempt < MAX_ATTEMPTS; attempt++)
	{
		List	   *claims = find_claims(mappings);
		List	   *commands = NIL;
		List	   *taken = NIL;
		ListCell   *lc;

		*alive = NIL;
		foreach(lc, claims)
		{
			Claim	   *claim = lfirst(lc);
			HcArguments *set = command("HSET", HC_OWNER_KEY);
			char	   *fence = palloc(HC_FENCE_TEXT_SIZE);

			if (claim->alive && !force)
			{
				*alive = lappend(*alive, claim);
				continue;
			}
			hc_arguments_add_literal(set, claim->field);
			hc_arguments_add_literal(set, value);
			hc_fence_key(claim->system, claim->database, fence);
			commands = lappend(commands, set);
			commands = lappend(commands, command("DEL", fence));
			taken = lappend(taken, claim);
		}
		if (hc_session_execute(commands) != NULL)
			return taken;
	}
	fail_contended();
	return NIL;					/* keep compiler quiet */
}

/*
 * Without force only what belongs to databases whose workers give no sign.
 * Returns a row for each key template that was taken, and one without a key if
 * another copy of this database had to give way.
 */
Datum
hybrid_cache_take_over(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		force = PG_GETARG_BOOL(0);
	List	   *taken;
	List	   *alive;
	ListCell   *lc;

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is in progress"),
				 errhint("hybrid_cache.take_over() cannot be executed during recovery.")));
	InitMaterializedSRF(fcinfo, 0);
	if (force && take_lease())
		put_row(result, NULL, "another copy of this database");
	taken = take_templates(hc_owner_mappings(), force, &alive);
	foreach(lc, taken)
	{
		Claim	   *claim = lfirst(lc);

		put_row(result, to_server(claim->field),
				hc_owner_describe(claim->system, claim->database));
	}
	foreach(lc, alive)
	{
		Claim	   *claim = lfirst(lc);

		ereport(NOTICE,
				(errmsg("key template \"%s\" belongs to %s, which is alive",
						to_server(claim->field),
						hc_owner_describe(claim->system, claim->database)),
				 errhint("To take it all the same: SELECT * FROM hybrid_cache.take_over(force => true).")));
	}
	hc_shmem_recheck(MyDatabaseId);
	return (Datum) 0;
}
