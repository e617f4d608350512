/*
 * consumers.c
 *	  hybrid_cache.consume() and its kin: who reads which stream with which handler.
 *
 * They change the table hybrid_cache.consumer, within the transaction; the process
 * that does the work hears of it at commit.  A row is locked while a batch of its
 * consumer runs: so whoever pauses or drops it waits for that, and when the function
 * has returned, no handler is running.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "fmgr.h"
#include "inbound/dead_message.h"
#include "inbound/handler.h"
#include "inbound/roster.h"
#include "inbound/stream_info.h"
#include "miscadmin.h"
#include "role.h"
#include "session/session.h"
#include "settings.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define MAX_BATCH		10000
#define MAX_ATTEMPTS	1000

PG_FUNCTION_INFO_V1(hybrid_cache_consume);
PG_FUNCTION_INFO_V1(hybrid_cache_pause_consumer);
PG_FUNCTION_INFO_V1(hybrid_cache_resume_consumer);
PG_FUNCTION_INFO_V1(hybrid_cache_drop_consumer);
PG_FUNCTION_INFO_V1(hybrid_cache_retry_message);

/* Raises for what must not be null. */
static void
require(FunctionCallInfo fcinfo, int n, const char *argument, const char *function)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of hybrid_cache.%s() must not be null",
						argument, function)));
}

/* An integer argument in its range. */
static int
get_number(FunctionCallInfo fcinfo, int n, const char *argument, int most)
{
	int			value;

	require(fcinfo, n, argument, "consume");
	value = PG_GETARG_INT32(n);
	if (value < 1 || value > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of hybrid_cache.consume() must be between 1 and %d",
						argument, most)));
	return value;
}

/* The name of a handler that can be called, qualified. */
static char *
check_handler(Oid handler)
{
	Form_pg_proc form;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(handler));
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", handler)));
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if ((form->prokind != PROKIND_FUNCTION && form->prokind != PROKIND_PROCEDURE) ||
		form->pronargs != 2 || form->proargtypes.values[0] != TEXTOID ||
		form->proargtypes.values[1] != JSONBOID || OidIsValid(form->provariadic))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("%s cannot be the handler of a consumer",
						NameStr(form->proname)),
				 errdetail("A handler is a function or procedure with the arguments (id text, fields jsonb).")));
	if (get_typtype(form->prorettype) == TYPTYPE_PSEUDO &&
		form->prorettype != VOIDOID && form->prorettype != RECORDOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("%s cannot be the handler of a consumer",
						NameStr(form->proname)),
				 errdetail("It returns %s.", format_type_be(form->prorettype))));
	name = quote_qualified_identifier(get_namespace_name(form->pronamespace),
									  NameStr(form->proname));
	ReleaseSysCache(tuple);
	return name;
}

/* The id after which nothing is in the stream; zero if there is no stream. */
static HcMessageId
last_id(const text *stream)
{
	HcMessageId id = {0, 0};
	HcArguments args;
	const redisReply *reply;

	hc_arguments_begin(&args, "XINFO");
	hc_arguments_add_literal(&args, "STREAM");
	hc_arguments_add_key(&args, stream);
	reply = hc_session_ask(&args);
	if (reply->type == REDIS_REPLY_ERROR &&
		strncmp(reply->str, "ERR no such key", strlen("ERR no such key")) == 0)
		return id;
	hc_reply_check(reply, hc_session_server());
	(void) hc_stream_info_id(hc_reply_array(reply, HC_REPLY_ANY_LENGTH),
							 "last-generated-id", &id);
	return id;
}

/* Where to begin: after which message. */
static HcMessageId
get_start(FunctionCallInfo fcinfo, int n, const text *stream)
{
	HcMessageId id = {0, 0};
	HcMessageId last;
	char	   *start;

	require(fcinfo, n, "start", "consume");
	start = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (strcmp(start, "$") == 0)
		return last_id(stream);
	if (!hc_message_parse_id(start, &id))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid \"start\" of hybrid_cache.consume(): \"%s\"", start),
				 errdetail("It is 0 for all messages, $ for those to come, or the id of a message for those after it.")));
	if (hc_message_is_zero(id))
		return id;
	last = last_id(stream);
	if (hc_message_compare(last, id) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid \"start\" of hybrid_cache.consume(): \"%s\"", start),
				 errdetail("The stream has not come to that id yet."),
				 errhint("To begin with the messages to come, give $.")));
	return id;
}

static void
refuse_in_recovery(const char *function)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s during recovery", function)));
}

/* Raises unless the current user may do that with the consumer. */
static void
check_rights(const HcConsumer *consumer)
{
	if (has_privs_of_role(GetUserId(), consumer->role))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for consumer \"%s\"", consumer->name),
			 errdetail("It belongs to another role.")));
}

/* The consumer that the first argument names. */
static HcConsumer *
get_consumer(FunctionCallInfo fcinfo, const char *function)
{
	HcConsumer *consumer;

	require(fcinfo, 0, "name", function);
	refuse_in_recovery(psprintf("hybrid_cache.%s()", function));
	consumer = hc_roster_find(NameStr(*PG_GETARG_NAME(0)));
	if (consumer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer \"%s\" does not exist",
						NameStr(*PG_GETARG_NAME(0)))));
	check_rights(consumer);
	return consumer;
}

/*
 * consume(stream text, handler regprocedure, name name, batch integer,
 *		   start text, max_attempts integer, replace boolean) RETURNS name
 */
Datum
hybrid_cache_consume(PG_FUNCTION_ARGS)
{
	HcConsumer	consumer = {0};
	HcConsumer *old;
	text	   *stream;
	bool		replace;

	require(fcinfo, 0, "stream", "consume");
	require(fcinfo, 1, "handler", "consume");
	require(fcinfo, 2, "name", "consume");
	refuse_in_recovery("hybrid_cache.consume()");
	stream = PG_GETARG_TEXT_PP(0);
	replace = !PG_ARGISNULL(6) && PG_GETARG_BOOL(6);
	consumer.name = NameStr(*PG_GETARG_NAME(2));
	consumer.stream = text_to_cstring(stream);
	if (consumer.stream[0] == '\0' || consumer.name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of hybrid_cache.consume() must not be empty",
						consumer.stream[0] == '\0' ? "stream" : "name")));
	consumer.batch = get_number(fcinfo, 3, "batch", MAX_BATCH);
	consumer.max_attempts = get_number(fcinfo, 5, "max_attempts", MAX_ATTEMPTS);
	consumer.handler = check_handler(PG_GETARG_OID(1));
	consumer.role = GetUserId();
	hc_handler_check(PG_GETARG_OID(1), consumer.role);

	old = hc_roster_find(consumer.name);
	if (old != NULL && !replace)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consumer \"%s\" already exists", consumer.name),
				 errhint("To change it: replace => true.")));
	if (old != NULL)
		check_rights(old);
	if (old != NULL && strcmp(old->stream, consumer.stream) == 0)
	{
		/* it goes on where it is */
		consumer.position = old->position;
		consumer.has_digest = old->has_digest;
		consumer.digest = old->digest;
	}
	else
		consumer.position = get_start(fcinfo, 4, stream);
	consumer.id = old != NULL ? old->id : 0;
	hc_roster_write(&consumer);
	hc_role_call_at_commit(HC_ROLE_CONSUMER);
	PG_RETURN_NAME(PG_GETARG_NAME(2));
}

/*
 * pause_consumer(name name) RETURNS void
 */
Datum
hybrid_cache_pause_consumer(PG_FUNCTION_ARGS)
{
	HcConsumer *consumer = get_consumer(fcinfo, "pause_consumer");

	hc_roster_pause(consumer->id, true);
	hc_role_call_at_commit(HC_ROLE_CONSUMER);
	PG_RETURN_VOID();
}

/*
 * resume_consumer(name name) RETURNS void
 */
Datum
hybrid_cache_resume_consumer(PG_FUNCTION_ARGS)
{
	HcConsumer *consumer = get_consumer(fcinfo, "resume_consumer");

	hc_roster_pause(consumer->id, false);
	hc_role_call_at_commit(HC_ROLE_CONSUMER);
	PG_RETURN_VOID();
}

/*
 * The group is not part of the transaction.  If that is rolled back, the process
 * makes it again.
 */
static void
remove_group(const HcConsumer *consumer)
{
	HcArguments args;
	ErrorData  *error;

	hc_arguments_begin(&args, "XGROUP");
	hc_arguments_add_literal(&args, "DESTROY");
	hc_arguments_add_key(&args, cstring_to_text(consumer->stream));
	hc_arguments_add_text(&args, cstring_to_text(consumer->name));
	if (hc_redis_url == NULL || hc_redis_url[0] == '\0' ||
		hc_session_try(&args, &error) == NULL)
		ereport(NOTICE,
				(errmsg("the group \"%s\" of stream \"%s\" is still in Redis, which does not answer",
						consumer->name, consumer->stream)));
}

/*
 * drop_consumer(name name) RETURNS void
 */
Datum
hybrid_cache_drop_consumer(PG_FUNCTION_ARGS)
{
	HcConsumer *consumer = get_consumer(fcinfo, "drop_consumer");

	hc_roster_drop(consumer->id);
	if (!consumer->copied)
		remove_group(consumer);
	hc_role_call_at_commit(HC_ROLE_CONSUMER);
	PG_RETURN_VOID();
}

/*
 * retry_message(name name, message text) RETURNS boolean
 */
Datum
hybrid_cache_retry_message(PG_FUNCTION_ARGS)
{
	HcConsumer *consumer = get_consumer(fcinfo, "retry_message");
	bool		found;

	require(fcinfo, 1, "message", "retry_message");
	found = hc_dead_message_ask(consumer, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (found)
		hc_role_call_at_commit(HC_ROLE_CONSUMER);
	PG_RETURN_BOOL(found);
}
