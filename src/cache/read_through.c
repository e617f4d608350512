/*
 * read_through.c
 *	  hybrid_cache.get(): what a mapping has at a key, from Redis or the table.
 *
 * Redis is asked first.  What it does not have is read from the table, and the
 * keeper is asked to fill it in (keeper/fill.c); what it cannot say, since it is
 * down or holds something that is not ours, is read from the table.
 *
 * Whoever calls it sees what a query on the table would show: the privileges
 * are those that a query needs, and where row security hides rows from the
 * caller, Redis is not asked.
 */
#include "postgres.h"

#include "access/table.h"
#include "cache/document.h"
#include "cache/key_arguments.h"
#include "cache/readable.h"
#include "cache/table_read.h"
#include "catalog/pg_namespace.h"
#include "compat.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "keeper/fill.h"
#include "mapping/bytes.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "session/session.h"
#include "settings.h"
#include "shmem.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/timestamp.h"

/* How much of a key a message shows. */
#define SHOWN_KEY	100

PG_FUNCTION_INFO_V1(hybrid_cache_read_through);

/* What is kept from call to call of an expression, in fn_extra. */
typedef struct Call
{
	MemoryContext context;		/* of all this */
	HcReadable *readable;
	HcKeyArguments *arguments;
	HcRenderer *renderer;
	TupleTableSlot *slot;		/* a row of the table */
	Datum	   *values;			/* of the key */
} Call;

/* What Redis said. */
typedef enum Answer
{
	ANSWER_HIT,
	ANSWER_MISS,
	ANSWER_STRANGE,				/* something that the mapping never writes */
	ANSWER_NONE					/* nothing: it is down, or was not asked */
} Answer;

static Call *prepare(FunctionCallInfo fcinfo, Relation rel, const char *name);
static void check_rights(Relation rel, const HcReadable *readable);
static bool read_key(Call *call, FunctionCallInfo fcinfo, HcBytes *key);
static bool is_secured(Oid relid);
static Answer ask(const HcReadable *readable, HcBytes key, Jsonb **result);
static void warn_of_stranger(const HcReadable *readable, HcBytes key);

/*
 * get(relation regclass, name name, VARIADIC key "any") RETURNS jsonb
 */
Datum
hybrid_cache_read_through(PG_FUNCTION_ARGS)
{
	HcCounter	counter = HC_COUNT_READ_BYPASSES;
	Answer		answer = ANSWER_NONE;
	TimestampTz asked_at = 0;
	Jsonb	   *result = NULL;
	Relation	rel;
	Call	   *call;
	HcBytes		key;

	if (PG_NARGS() < 2 || PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of hybrid_cache.get() must not be null",
						PG_ARGISNULL(0) ? "relation" : "name")));
	AcceptInvalidationMessages();
	rel = table_open(PG_GETARG_OID(0), AccessShareLock);
	call = prepare(fcinfo, rel, NameStr(*PG_GETARG_NAME(1)));
	check_rights(rel, call->readable);
	table_close(rel, NoLock);

	if (!read_key(call, fcinfo, &key))
		PG_RETURN_NULL();
	if (!is_secured(PG_GETARG_OID(0)) && hc_readable_is_trusted(call->readable, key))
	{
		asked_at = GetCurrentTimestamp();
		answer = ask(call->readable, key, &result);
		counter = answer == ANSWER_HIT ? HC_COUNT_READ_HITS :
			answer == ANSWER_MISS ? HC_COUNT_READ_MISSES : HC_COUNT_FALLBACKS;
	}
	hc_shmem_count(counter, 1);
	if (answer == ANSWER_STRANGE)
		warn_of_stranger(call->readable, key);
	if (answer != ANSWER_HIT)
		result = hc_table_read(call->readable, call->renderer, call->slot,
							   call->values, key);
	if (answer == ANSWER_MISS && result != NULL)
		hc_fill_ask(call->readable->trigger, key, asked_at);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

/* What is kept, made anew if the mapping is another one. */
static Call *
prepare(FunctionCallInfo fcinfo, Relation rel, const char *name)
{
	Call	   *call = fcinfo->flinfo->fn_extra;
	MemoryContext context;
	MemoryContext old;

	if (call != NULL && hc_readable_is_valid(call->readable) &&
		call->readable->mapping->relid == RelationGetRelid(rel) &&
		strcmp(call->readable->mapping->name, name) == 0)
		return call;
	if (call != NULL)
	{
		fcinfo->flinfo->fn_extra = NULL;
		MemoryContextDelete(call->context);
	}

	context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "hybrid_cache get",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	call = palloc0(sizeof(Call));
	call->context = context;
	call->readable = hc_readable_get(rel, name, context);
	call->arguments = hc_key_arguments_create(call->readable, fcinfo, 2);
	call->renderer = hc_render_create(call->readable->mapping, context);
	call->slot = MakeSingleTupleTableSlot(call->readable->desc, &TTSOpsVirtual);
	call->values = palloc(Max(call->readable->n_keys, 1) * sizeof(Datum));
	MemoryContextSwitchTo(old);
	fcinfo->flinfo->fn_extra = call;
	return call;
}

/* May the user read, in a query, what the mapping reads? */
static void
check_rights(Relation rel, const HcReadable *readable)
{
	Oid			relid = RelationGetRelid(rel);
	Oid			user = GetUserId();
	int			attnum = -1;

	if (!hc_compat_uses_schema(RelationGetNamespace(rel), user))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_SCHEMA,
					   get_namespace_name(RelationGetNamespace(rel)));
	if (pg_class_aclcheck(relid, user, ACL_SELECT) == ACLCHECK_OK)
		return;

	/* of a query that reads no column, PostgreSQL demands one of them */
	if (bms_is_empty(readable->attrs) &&
		pg_attribute_aclcheck_all(relid, user, ACL_SELECT, ACLMASK_ANY) == ACLCHECK_OK)
		return;
	while ((attnum = bms_next_member(readable->attrs, attnum)) >= 0)
	{
		if (pg_attribute_aclcheck(relid, (AttrNumber) attnum, user,
								  ACL_SELECT) != ACLCHECK_OK)
			break;
	}
	if (bms_is_empty(readable->attrs) || attnum >= 0)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, RelationGetRelationName(rel));
}

/* The key that is asked for; false if no row can have it. */
static bool
read_key(Call *call, FunctionCallInfo fcinfo, HcBytes *key)
{
	const HcReadable *readable = call->readable;
	TupleTableSlot *slot = call->slot;
	HcOp		op;
	int			i;

	if (!hc_key_arguments_read(call->arguments, fcinfo, call->values))
		return false;
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, readable->desc->natts * sizeof(bool));
	for (i = 0; i < readable->n_keys; i++)
	{
		AttrNumber	attnum = readable->keys[i].attnum;

		slot->tts_values[attnum - 1] = call->values[i];
		slot->tts_isnull[attnum - 1] = false;
	}
	ExecStoreVirtualTuple(slot);
	if (hc_render_key(call->renderer, slot, &op) != HC_RENDERED_ENTRY)
		return false;
	*key = hc_bytes_copy(CurrentMemoryContext, op.key);
	return true;
}

/* Do policies decide which rows the user sees? */
static bool
is_secured(Oid relid)
{
	return check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED;
}

/* Errors after which a value is not what the mapping has written. */
static bool
is_of_value(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_DATA_EXCEPTION ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		sqlstate == ERRCODE_PROTOCOL_VIOLATION;
}

/* Makes jsonb of what Redis has. */
static Answer
look_at(const HcReadable *readable, const redisReply *reply, Jsonb **result)
{
	HcDocument *document = hc_document_begin(readable->mapping->options.kind);

	hc_document_add_reply(document, reply, readable->members);
	*result = hc_document_end(document);
	return *result != NULL ? ANSWER_HIT : ANSWER_MISS;
}

/*
 * The same, if it can be what the mapping writes.  The errors that are caught
 * leave nothing but memory behind, so it takes no subtransaction.
 */
static Answer
look_carefully(const HcReadable *readable, const redisReply *reply, Jsonb **result)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Answer answer = ANSWER_STRANGE;

	PG_TRY();
	{
		answer = look_at(readable, reply, result);
	}
	PG_CATCH();
	{
		if (!is_of_value(geterrcode()))
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return answer;
}

static Answer
ask(const HcReadable *readable, HcBytes key, Jsonb **result)
{
	const redisReply *reply;
	ErrorData  *down;
	HcArguments args;

	hc_document_command(&args, readable->mapping->options.kind, key);
	reply = hc_fallback ? hc_session_try(&args, &down) : hc_session_ask(&args);
	if (reply == NULL)
		return ANSWER_NONE;
	if (reply->type == REDIS_REPLY_ERROR &&
		hc_reply_sqlstate(reply->str) == ERRCODE_WRONG_OBJECT_TYPE)
		return ANSWER_STRANGE;
	hc_reply_check(reply, hc_session_server());
	return look_carefully(readable, reply, result);
}

static void
warn_of_stranger(const HcReadable *readable, HcBytes key)
{
	HcBytes		shown = {key.data, Min(key.len, SHOWN_KEY)};
	text	   *name;

	shown.len = pg_encoding_mbcliplen(PG_UTF8, key.data, (int) key.len, SHOWN_KEY);
	name = hc_bytes_text(shown);
	ereport(WARNING,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("Redis key \"%s\" holds what mapping \"%s\" of table \"%s\" never writes",
					name != NULL ? text_to_cstring(name) : "",
					readable->mapping->name, get_rel_name(readable->mapping->relid)),
			 errdetail("Somebody else has written to it. The answer comes from the table.")));
}
