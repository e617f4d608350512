/*
 * utility.c
 *	  Tells the background processes about commands that concern them.
 *
 * A worker is connected to its database, and some commands want nobody to be:
 * they make it step aside while they run.  Other commands are reported when
 * their transaction commits, since before that the background processes could
 * not see what they did.
 *
 * CREATE and DROP EXTENSION are noticed by an object access hook, because DROP
 * OWNED, DROP SCHEMA CASCADE and CREATE EXTENSION ... CASCADE do the same under
 * other names.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "capture/synchronous.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "shmem.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/utility.h"

/*
 * A command that dies before it lets the worker back holds it off for this
 * long.  It only has to come past the check for other sessions: then it holds
 * a lock that keeps everybody out.
 */
#define ASIDE_MS		60000

/* How long a command waits until the worker has left, and how often it looks. */
#define LEAVE_MS		5000
#define LOOK_MS			10

static ProcessUtility_hook_type next_utility = NULL;
static object_access_hook_type next_access = NULL;

/* What to report when this transaction commits. */
static bool anything = false;
static bool created_extension = false;
static bool is_ours = false;	/* ... and it is this one */
static bool dropped_extension = false;
static bool databases_changed = false;
static bool committed_prepared = false;
static List *settings_changed = NIL;	/* databases; in TopTransactionContext */

/* The database from which the command copies, moves or drops, or InvalidOid. */
static Oid
database_wanted_alone(Node *command)
{
	const char *name = NULL;
	ListCell   *cell;

	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) command)->dbname;
			break;
		case T_CreatedbStmt:
			name = "template1";
			foreach(cell, ((CreatedbStmt *) command)->options)
			{
				DefElem    *option = lfirst(cell);

				if (strcmp(option->defname, "template") == 0 && option->arg)
					name = defGetString(option);
			}
			break;
		case T_RenameStmt:
			if (((RenameStmt *) command)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) command)->subname;
			break;
		case T_AlterDatabaseStmt:
			foreach(cell, ((AlterDatabaseStmt *) command)->options)
			{
				if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
					name = ((AlterDatabaseStmt *) command)->dbname;
			}
			break;
		default:
			break;
	}
	return name ? get_database_oid(name, true) : InvalidOid;
}

/* Whoever may not run the command anyway is not to disturb the worker. */
static bool
may_disturb(Node *command, Oid database)
{
	HeapTuple	role;
	bool		may = false;

	if (hc_compat_owns_database(database, GetUserId()))
		return true;
	if (!IsA(command, CreatedbStmt))
		return false;
	role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(role))
	{
		may = ((Form_pg_authid) GETSTRUCT(role))->rolcreatedb;
		ReleaseSysCache(role);
	}
	return may;
}

/* Asks the workers of the database to leave and waits a little for them. */
static void
send_aside(Oid database)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz deadline = TimestampTzPlusMilliseconds(now, LEAVE_MS);
	HcDatabase *db = hc_shmem_find(database);

	if (db == NULL)
		return;
	hc_shmem_step_aside(database, TimestampTzPlusMilliseconds(now, ASIDE_MS));
	while (GetCurrentTimestamp() < deadline)
	{
		bool		gone;
		int			i;

		LWLockAcquire(hc_shared->lock, LW_SHARED);
		gone = db->worker_pid == 0;
		for (i = 0; i < HC_NUM_ROLES; i++)
			gone = gone && db->posts[i].pid == 0;
		gone = gone || db->database != database;
		LWLockRelease(hc_shared->lock);
		if (gone)
			break;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_MS, HC_WAIT_WORKER);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* ALTER DATABASE or ALTER ROLE ... IN DATABASE sets one of our settings. */
static void
note_setting(const char *database, VariableSetStmt *setting)
{
	MemoryContext old;
	Oid			oid;

	if (database == NULL ||
		(setting->name != NULL &&
		 pg_strncasecmp(setting->name, "hybrid_cache.", 13) != 0))
		return;
	oid = get_database_oid(database, true);
	if (!OidIsValid(oid))
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	settings_changed = list_append_unique_oid(settings_changed, oid);
	MemoryContextSwitchTo(old);
	anything = true;
}

/* After a command has succeeded. */
static void
note_command(Node *command)
{
	switch (nodeTag(command))
	{
		case T_DropdbStmt:
		case T_CreatedbStmt:
			databases_changed = anything = true;
			break;
		case T_AlterDatabaseSetStmt:
			note_setting(((AlterDatabaseSetStmt *) command)->dbname,
						 ((AlterDatabaseSetStmt *) command)->setstmt);
			break;
		case T_AlterRoleSetStmt:
			note_setting(((AlterRoleSetStmt *) command)->database,
						 ((AlterRoleSetStmt *) command)->setstmt);
			break;
		default:
			break;
	}
}

static void
run(PlannedStmt *statement, const char *source, bool read_only,
	ProcessUtilityContext context, ParamListInfo params,
	QueryEnvironment *environment, DestReceiver *receiver,
	QueryCompletion *completion)
{
	if (next_utility)
		next_utility(statement, source, read_only, context, params,
					 environment, receiver, completion);
	else
		standard_ProcessUtility(statement, source, read_only, context, params,
								environment, receiver, completion);
}

static void
utility(PlannedStmt *statement, const char *source, bool read_only,
		ProcessUtilityContext context, ParamListInfo params,
		QueryEnvironment *environment, DestReceiver *receiver,
		QueryCompletion *completion)
{
	Node	   *command = statement->utilityStmt;
	Oid			database;

	/*
	 * The end of a transaction can free the statement: do not look at it
	 * again.
	 */
	if (IsA(command, TransactionStmt))
	{
		bool		wake = ((TransactionStmt *) command)->kind == TRANS_STMT_COMMIT_PREPARED;

		run(statement, source, read_only, context, params, environment,
			receiver, completion);

		/* another session captured the changes, so nobody tells the worker */
		if (wake)
		{
			hc_shmem_wake();
			committed_prepared = anything = true;
		}
		return;
	}

	database = database_wanted_alone(command);
	if (!OidIsValid(database) || !may_disturb(command, database))
		run(statement, source, read_only, context, params, environment,
			receiver, completion);
	else
	{
		PG_TRY();
		{
			send_aside(database);
			run(statement, source, read_only, context, params, environment,
				receiver, completion);
		}
		PG_CATCH();
		{
			hc_shmem_step_aside(database, 0);
			PG_RE_THROW();
		}
		PG_END_TRY();

		/* into a dropped database no worker comes back */
		if (!IsA(command, DropdbStmt))
			hc_shmem_step_aside(database, 0);
	}
	note_command(command);
}

static void
access_object(ObjectAccessType access, Oid class_id, Oid object_id,
			  int sub_id, void *arg)
{
	if (next_access)
		next_access(access, class_id, object_id, sub_id, arg);
	if (class_id != ExtensionRelationId)
		return;

	/* a new extension has no name yet that could be looked up */
	if (access == OAT_POST_CREATE)
		created_extension = anything = true;
	else if (access == OAT_DROP)
	{
		char	   *name = get_extension_name(object_id);

		if (name != NULL && strcmp(name, "hybrid_cache") == 0)
			dropped_extension = anything = true;
	}
}

static void
forget(void)
{
	anything = created_extension = is_ours = false;
	dropped_extension = databases_changed = committed_prepared = false;
	settings_changed = NIL;
}

static void
end_of_transaction(XactEvent event, void *arg)
{
	ListCell   *cell;

	if (!anything)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			is_ours = created_extension &&
				OidIsValid(get_extension_oid("hybrid_cache", true));
			break;
		case XACT_EVENT_COMMIT:
			if (is_ours)
				hc_shmem_rescan();
			if (dropped_extension)
				hc_shmem_recheck(MyDatabaseId);
			if (databases_changed)
				hc_shmem_scan();
			foreach(cell, settings_changed)
				hc_shmem_recheck(lfirst_oid(cell));

			/* whether it had changes is not known here */
			if (committed_prepared && hc_shmem_mine() != NULL)
				hc_synchronous_expect(XactLastCommitEnd);
			forget();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			forget();
			break;
		default:
			break;
	}
}

void
hc_utility_init(void)
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
	next_access = object_access_hook;
	object_access_hook = access_object;
	RegisterXactCallback(end_of_transaction, NULL);
}
