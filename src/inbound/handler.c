/*
 * handler.c
 *	  Calls the handler of a consumer.
 *
 * The whole transaction runs as the consumer's role, from the first message to the
 * end of its commit: deferred triggers are code of that role, too.  It is the session
 * user as well, for functions that look at that, and cannot become another
 * one (SECURITY_LOCAL_USERID_CHANGE).  A security-restricted
 * operation would be more than is needed and refuse deferred constraints and
 * temporary tables; what a handler can leave behind in the session (temporary
 * tables, prepared statements) is thrown away before the handler of another role
 * is called.  Its settings are gone at the end of its transaction: a read-only
 * default, say, would be in the way of all consumers.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/discard.h"
#include "compat.h"
#include "inbound/handler.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "worker/recover.h"

/* Whose session this is; invalid: nobody's, so far or again. */
static Oid	last_role = InvalidOid;
static bool was_used = false;	/* there may be something of a handler in it */

/* The function or procedure of that name that takes (text, jsonb), or InvalidOid. */
static Oid
find_handler(const char *name)
{
	ObjectWithArgs *routine = makeNode(ObjectWithArgs);

	routine->objname = textToQualifiedNameList(cstring_to_text(name));
	routine->objargs = list_make2(makeTypeNameFromOid(TEXTOID, -1),
								  makeTypeNameFromOid(JSONBOID, -1));
	return LookupFuncWithArgs(OBJECT_ROUTINE, routine, true);
}

void
hc_handler_check(Oid handler, Oid role)
{
	Oid			schema = get_func_namespace(handler);

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", role)));
	if (!hc_compat_uses_schema(schema, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not use schema \"%s\"",
						GetUserNameFromId(role, false),
						get_namespace_name(schema))));
	if (!hc_compat_may_execute(handler, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not execute function %s",
						GetUserNameFromId(role, false), get_func_name(handler))));
}

/* The plan that calls the handler, as the current user.  SPI is connected. */
static SPIPlanPtr
get_plan(HcInlet *inlet, Oid handler)
{
	Oid			types[2] = {TEXTOID, JSONBOID};
	SPIPlanPtr	plan;

	if (inlet->plan != NULL && inlet->plan_handler == handler)
		return inlet->plan;
	if (inlet->plan != NULL)
		SPI_freeplan(inlet->plan);
	inlet->plan = NULL;
	plan = SPI_prepare(psprintf(get_func_prokind(handler) == PROKIND_PROCEDURE
								? "CALL %s($1, $2)" : "SELECT %s($1, $2)",
								inlet->row.handler), 2, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare the call of a handler: %s",
			 SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep the plan of a handler's call");
	inlet->plan = plan;
	inlet->plan_handler = handler;
	return plan;
}

/* One call.  statement_timeout is its limit. */
static void
call(SPIPlanPtr plan, const char *id, Jsonb *fields)
{
	Datum		values[2] = {CStringGetTextDatum(id), JsonbPGetDatum(fields)};
	int			result;

	if (StatementTimeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
	result = SPI_execute_plan(plan, values, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "could not call a handler: %s", SPI_result_code_string(result));
	SPI_freetuptable(SPI_tuptable);
	disable_timeout(STATEMENT_TIMEOUT, false);
}

static Jsonb *
get_fields(const HcMessage *message)
{
	Jsonb	   *fields = hc_message_fields(message);

	if (fields == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("the message has fields that are no text of this database, or too large"),
				 errdetail("Its bytes are in the column \"raw\" of hybrid_cache.dead_message.")));
	return fields;
}

/* The calls for the messages, each in a memory context of its own. */
static void
call_all(SPIPlanPtr plan, const HcMessage *messages, int n)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache message",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int			i;

	for (i = 0; i < n; i++)
	{
		char		id[HC_MESSAGE_ID_SIZE];

		CHECK_FOR_INTERRUPTS();
		hc_message_format_id(messages[i].id, id);
		call(plan, id, get_fields(&messages[i]));
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * Makes the session one of this role, without what the handlers of another one have
 * left in it.
 */
static void
become(Oid role)
{
	DiscardStmt discard = {.type = T_DiscardStmt,.target = DISCARD_ALL};
	bool		is_super;

	if (last_role == role)
		return;

	/* before anything can fail: a role is not to find another session user */
	last_role = InvalidOid;
	SetSessionAuthorization(BOOTSTRAP_SUPERUSERID, true);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (was_used)
		DiscardCommand(&discard, true);
	is_super = superuser_arg(role);
	PopActiveSnapshot();
	CommitTransactionCommand();
	SetSessionAuthorization(role, is_super);
	last_role = role;
	was_used = true;
}

/*
 * Is it not the messages that are to blame?  Then it may go away, or somebody has to
 * do something about it.
 */
static bool
is_passing(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_CONNECTION_EXCEPTION:
			return true;
		default:
			break;
	}
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN ||
		error->sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION;
}

/*
 * Called with the error data set.  blame: messages can be the reason, also of what
 * is raised at the commit.
 */
static HcHandled
recover(HcInlet *inlet, bool blame, MemoryContext context, ErrorData **error)
{
	ErrorData  *copy;

	disable_timeout(STATEMENT_TIMEOUT, false);
	copy = hc_recover_error();
	MemoryContextSwitchTo(context);
	*error = copy;
	if (inlet->plan != NULL)
		SPI_freeplan(inlet->plan);
	inlet->plan = NULL;
	return blame && !is_passing(copy) ? HC_HANDLED_REFUSED : HC_HANDLED_LATER;
}

/*
 * Begins the transaction, as the consumer's role; false if it is not to be: then
 * there is none.  Returns the plan of the call in *plan, with SPI connected.
 */
static bool
begin(HcInlet *inlet, SPIPlanPtr *plan)
{
	Oid			handler;

	pgstat_report_activity(STATE_RUNNING, inlet->row.handler);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (!hc_roster_lock(&inlet->row))
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return false;
	}
	handler = find_handler(inlet->row.handler);
	if (!OidIsValid(handler))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("handler %s(text, jsonb) does not exist", inlet->row.handler)));
	hc_handler_check(handler, inlet->row.role);
	SetUserIdAndSecContext(inlet->row.role, SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	*plan = get_plan(inlet, handler);
	return true;
}

/* Commits, still as the role, and forgets what it has SET. */
static void
commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	ResetAllOptions();
}

HcHandled
hc_handler_run(HcInlet *inlet, const HcMessage *messages, int n, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool blame = false;
	volatile HcHandled result = HC_HANDLED_NOT;

	*error = NULL;
	PG_TRY();
	{
		SPIPlanPtr	plan;

		become(inlet->row.role);
		if (begin(inlet, &plan))
		{
			int64		digest = hc_message_digest(&messages[n - 1]);

			blame = true;
			call_all(plan, messages, n);
			hc_roster_advance(inlet->row.id, messages[n - 1].id, &digest, n, 0);
			commit();
			result = HC_HANDLED_DONE;
		}
		MemoryContextSwitchTo(context);
	}
	PG_CATCH();
	{
		result = recover(inlet, blame, context, error);
	}
	PG_END_TRY();
	return result;
}

HcHandled
hc_handler_retry(HcInlet *inlet, const HcDeadMessage *message, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool blame = false;
	volatile HcHandled result = HC_HANDLED_NOT;

	*error = NULL;
	PG_TRY();
	{
		SPIPlanPtr	plan;

		become(inlet->row.role);
		if (begin(inlet, &plan))
		{
			blame = true;
			call(plan, message->message, message->fields);
			hc_dead_message_remove(message->id);
			commit();
			result = HC_HANDLED_DONE;
		}
		MemoryContextSwitchTo(context);
	}
	PG_CATCH();
	{
		result = recover(inlet, blame, context, error);
	}
	PG_END_TRY();
	return result;
}
