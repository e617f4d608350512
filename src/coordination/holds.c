/*
 * holds.c
 *	  hybrid_cache.hold() and its kin: several items at once, all or nothing.
 *
 * What is done in Redis carries a mark of the transaction (worker/mark.h) until it
 * is known how that ended.  Whoever meets a mark that the outcome depends on asks
 * PostgreSQL and tells the script; so nobody waits for a clean-up, and the sync
 * worker's is for clients that cannot ask.
 *
 * What must not happen twice or never, namely that items are confirmed, or
 * released after that, is part of the transaction's change record.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "capture/buffer.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "redis/arguments.h"
#include "redis/script.h"
#include "session/parameter.h"
#include "session/result.h"
#include "session/session.h"
#include "shmem.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "worker/fence.h"
#include "worker/holds.h"
#include "worker/mark.h"

PG_FUNCTION_INFO_V1(hybrid_cache_hold);
PG_FUNCTION_INFO_V1(hybrid_cache_hold_or_fail);
PG_FUNCTION_INFO_V1(hybrid_cache_confirm);
PG_FUNCTION_INFO_V1(hybrid_cache_release);
PG_FUNCTION_INFO_V1(hybrid_cache_extend_hold);
PG_FUNCTION_INFO_V1(hybrid_cache_holds);

/* So often the state of transactions may change while a script asks for it. */
#define MAX_ATTEMPTS	20

/*
 * Items of one call: what Redis does for one takes about 20 us, in which it serves
 * nobody else.
 */
#define MAX_ITEMS		10000

/* More items are not named in a message. */
#define MAX_NAMED		20

/* A mark that is never set: the script is to ask for the state of others. */
#define NO_MARK			"?"

/* A call of holds.lua. */
typedef struct Call
{
	const char *op;
	HcBytes		keys[HC_HOLDS_KEYS];
	char		mark[HC_MARK_SIZE];
	HcBytes		holder;
	List	   *known;			/* words: a mark, what became of it, ... */
	HcArguments rest;			/* what else the operation takes */
} Call;

static void begin(Call *call, const char *op, text *key, text *holder);
static void make_mark(Call *call, const char *function);
static const redisReply *ask(Call *call);
static const char *judge(const Call *call, const redisReply *mark);
static const redisReply *hold(FunctionCallInfo fcinfo, const char *function);
static void add_items(HcArguments *args, ArrayType *items, const char *function);
static void fail(text *key, const redisReply *reply);
static void capture(const Call *call, const char *op, const redisReply *items,
					bool marked);

/*
 * hybrid_cache.hold(key text, items text[], holder text, ttl interval,
 *					 free text, expired text)
 * RETURNS TABLE (item text, value text)
 */
Datum
hybrid_cache_hold(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const redisReply *reply;
	size_t		i;

	InitMaterializedSRF(fcinfo, 0);
	reply = hold(fcinfo, "hold");
	for (i = 1; i + 1 < reply->elements; i += 2)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};
		text	   *value = hc_result_text(reply->element[i + 1]);

		values[0] = PointerGetDatum(hc_result_text(hc_reply_string(reply->element[i])));
		values[1] = PointerGetDatum(value);
		nulls[1] = value == NULL;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * hybrid_cache.hold_or_fail(...) RETURNS void
 */
Datum
hybrid_cache_hold_or_fail(PG_FUNCTION_ARGS)
{
	const redisReply *reply = hold(fcinfo, "hold_or_fail");

	if (reply->elements > 1)
		fail(PG_GETARG_TEXT_PP(0), reply);
	PG_RETURN_VOID();
}

/*
 * hybrid_cache.confirm(key text, holder text) RETURNS boolean
 */
Datum
hybrid_cache_confirm(PG_FUNCTION_ARGS)
{
	Call		call;
	const redisReply *reply;

	begin(&call, "confirm", hc_parameter_text(fcinfo, 0, "key", "confirm"),
		  hc_parameter_text(fcinfo, 1, "holder", "confirm"));
	make_mark(&call, "hybrid_cache.confirm()");
	reply = ask(&call);
	if (hc_reply_integer(reply->element[0]) == 0)
		PG_RETURN_BOOL(false);
	if (reply->elements > 1)
		capture(&call, "confirm", reply, false);
	PG_RETURN_BOOL(true);
}

/*
 * hybrid_cache.release(key text, holder text) RETURNS integer
 */
Datum
hybrid_cache_release(PG_FUNCTION_ARGS)
{
	Call		call;
	const redisReply *reply;
	int			n;

	begin(&call, "release", hc_parameter_text(fcinfo, 0, "key", "release"),
		  hc_parameter_text(fcinfo, 1, "holder", "release"));
	make_mark(&call, "hybrid_cache.release()");
	reply = ask(&call);
	n = (int) hc_reply_integer(reply->element[0]);
	if (reply->elements > 1)
		capture(&call, "release", reply, true);
	PG_RETURN_INT32(n + (int) (reply->elements - 1) / 2);
}

/*
 * hybrid_cache.extend_hold(key text, holder text, ttl interval) RETURNS boolean
 */
Datum
hybrid_cache_extend_hold(PG_FUNCTION_ARGS)
{
	Call		call;

	begin(&call, "extend", hc_parameter_text(fcinfo, 0, "key", "extend_hold"),
		  hc_parameter_text(fcinfo, 1, "holder", "extend_hold"));
	hc_arguments_add_integer(&call.rest,
							 hc_parameter_duration(fcinfo, 2, "ttl", "extend_hold"));
	PG_RETURN_BOOL(hc_reply_integer(ask(&call)->element[0]) != 0);
}

/*
 * hybrid_cache.holds(key text)
 * RETURNS TABLE (item text, holder text, state text, expires_at timestamptz)
 */
Datum
hybrid_cache_holds(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Call		call;
	const redisReply *reply;
	size_t		i;

	InitMaterializedSRF(fcinfo, 0);
	begin(&call, "list", hc_parameter_text(fcinfo, 0, "key", "holds"), NULL);
	reply = ask(&call);
	for (i = 0; i + 3 < reply->elements; i += 4)
	{
		double		ms = hc_reply_double(reply->element[i + 3]);
		Datum		values[4];
		bool		nulls[4] = {false, false, false, ms == 0};
		int			j;

		CHECK_FOR_INTERRUPTS();
		for (j = 0; j < 3; j++)
			values[j] = PointerGetDatum(hc_result_text(hc_reply_string(reply->element[i + j])));
		values[3] = TimestampTzGetDatum((TimestampTz) (ms * 1000) -
										(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		for (j = 0; j < 3; j++)
			pfree(DatumGetPointer(values[j]));
	}
	return (Datum) 0;
}

/* A call without a mark; holder may be NULL. */
static void
begin(Call *call, const char *op, text *key, text *holder)
{
	HcArguments words;

	hc_arguments_begin(&words, NULL);
	hc_arguments_add_key(&words, key);
	hc_holds_keys(words.data[0], words.len[0], call->keys);
	call->op = op;
	strlcpy(call->mark, NO_MARK, sizeof(call->mark));
	call->holder.data = "";
	call->holder.len = 0;
	if (holder != NULL)
	{
		hc_arguments_add_text(&words, holder);
		call->holder.data = words.data[1];
		call->holder.len = words.len[1];
	}
	call->known = NIL;
	hc_arguments_begin(&call->rest, NULL);
}

/* What is done belongs to the transaction. */
static void
make_mark(Call *call, const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	hc_mark_make(call->mark);
}

/*
 * Runs the script, until it knows what became of the transactions whose marks it
 * has met.  Returns its reply, an array of one element at least unless the
 * operation is list.
 */
static const redisReply *
ask(Call *call)
{
	int			attempt;

	for (attempt = 0; attempt < MAX_ATTEMPTS; attempt++)
	{
		HcArguments args;
		const redisReply *reply;
		ListCell   *lc;
		size_t		i;
		int			j;

		hc_arguments_begin(&args, NULL);
		for (j = 0; j < HC_HOLDS_KEYS; j++)
			hc_arguments_add(&args, call->keys[j].data, call->keys[j].len);
		hc_arguments_add_literal(&args, call->op);
		hc_arguments_add_literal(&args, call->mark);
		hc_arguments_add(&args, call->holder.data, call->holder.len);
		hc_arguments_add_integer(&args, list_length(call->known) / 2);
		foreach(lc, call->known)
			hc_arguments_add_literal(&args, lfirst(lc));
		for (j = 0; j < call->rest.n; j++)
			hc_arguments_add(&args, call->rest.data[j], call->rest.len[j]);

		reply = hc_reply_array(hc_session_script("holds", &args, HC_HOLDS_KEYS),
							   HC_REPLY_ANY_LENGTH);
		if (reply->elements == 0 && strcmp(call->op, "list") != 0)
			hc_reply_array(reply, 1);
		if (reply->elements == 0 ||
			reply->element[0]->type != REDIS_REPLY_STRING ||
			strcmp(reply->element[0]->str, "?") != 0)
			return reply;

		/* what is not known of one mark may have changed for another */
		for (i = 1; i < reply->elements; i++)
		{
			const redisReply *mark = hc_reply_string(reply->element[i]);

			call->known = lappend(call->known, mark->str);
			call->known = lappend(call->known, unconstify(char *, judge(call, mark)));
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("holds of the same items change too quickly"),
			 errhint("Try again.")));
}

/*
 * Can this server tell what became of the transaction?  One that was started in a
 * copy of the data of another cannot; the sync worker finds that out.
 */
static bool
can_tell(const HcMark *mark)
{
	HcDatabase *db = hc_shmem_mine();

	if (hc_mark_is_recent(mark))
		return true;
	return mark->system == GetSystemIdentifier() && db != NULL &&
		pg_atomic_read_u32(&db->connected) != 0;
}

/* What became of the transaction of a mark, for the script. */
static const char *
judge(const Call *call, const redisReply *reply)
{
	bool		releasing = strcmp(call->op, "release") == 0;
	HcMark		mark;
	char		lease[HC_FENCE_TEXT_SIZE];
	HcArguments args;

	/* of another client, which alone knows what it means */
	if (!hc_mark_parse(reply->str, reply->len, &mark))
		return releasing ? "gone" : "open";
	if (can_tell(&mark))
	{
		switch (hc_mark_state(&mark))
		{
			case HC_MARK_OWN:
				return "own";
			case HC_MARK_OPEN:
				return "open";
			case HC_MARK_COMMITTED:
				return "committed";
			case HC_MARK_ABORTED:
				return "aborted";
		}
	}
	if (releasing)
	{
		hc_fence_lease_key(mark.system, mark.database, lease);
		hc_arguments_begin(&args, "EXISTS");
		hc_arguments_add_literal(&args, lease);
		if (hc_reply_integer(hc_session_command(&args)) == 0)
			return "gone";
	}

	/* not to be taken for an answer: it could be the wrong one in a moment */
	if (mark.system == GetSystemIdentifier() &&
		(releasing || strcmp(call->op, "confirm") == 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("holds of before the server was started cannot be told yet"),
				 errhint("Try again when hybrid_cache.status shows that the sync worker is connected.")));
	return "open";
}

/* For both hold() and hold_or_fail(). */
static const redisReply *
hold(FunctionCallInfo fcinfo, const char *function)
{
	Call		call;
	ArrayType  *items;
	int64		ttl;

	begin(&call, "hold", hc_parameter_text(fcinfo, 0, "key", function),
		  hc_parameter_text(fcinfo, 2, "holder", function));
	hc_parameter_need(fcinfo, 1, "items", function);
	items = PG_GETARG_ARRAYTYPE_P(1);
	ttl = hc_parameter_duration(fcinfo, 3, "ttl", function);

	hc_arguments_add_integer(&call.rest, ttl);
	if (PG_ARGISNULL(5))
		hc_arguments_add_literal(&call.rest, "");
	else
		hc_arguments_add_key(&call.rest,
							 hc_parameter_text(fcinfo, 5, "expired", function));
	if (PG_ARGISNULL(4))
	{
		hc_arguments_add_literal(&call.rest, "0");
		hc_arguments_add_literal(&call.rest, "");
	}
	else
	{
		hc_arguments_add_literal(&call.rest, "1");
		hc_arguments_add_text(&call.rest, PG_GETARG_TEXT_PP(4));
	}
	add_items(&call.rest, items, function);
	make_mark(&call, psprintf("hybrid_cache.%s()", function));
	return ask(&call);
}

static void
add_items(HcArguments *args, ArrayType *items, const char *function)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;
	int			i;

	deconstruct_array(items, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of hybrid_cache.%s() must not be empty",
						"items", function)));
	if (n > MAX_ITEMS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many items for hybrid_cache.%s(): %d", function, n),
				 errdetail("At most %d can be held in one step, since Redis serves nobody else meanwhile.",
						   MAX_ITEMS),
				 errhint("Make several calls in one transaction.")));
	for (i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("\"%s\" of hybrid_cache.%s() must not contain nulls",
							"items", function)));
		hc_arguments_add_text(args, DatumGetTextPP(values[i]));
	}
}

/* Raises what hold_or_fail() does when something is in the way. */
static void
fail(text *key, const redisReply *reply)
{
	StringInfoData list;
	size_t		n = (reply->elements - 1) / 2;
	size_t		i;

	initStringInfo(&list);
	for (i = 0; i < Min(n, MAX_NAMED); i++)
	{
		text	   *item = hc_result_text(hc_reply_string(reply->element[1 + 2 * i]));
		text	   *value = hc_result_text(reply->element[2 + 2 * i]);

		appendStringInfo(&list, "%s\"%s\" (%s)", i > 0 ? ", " : "",
						 text_to_cstring(item),
						 value ? text_to_cstring(value) : "no such item");
	}
	if (n > MAX_NAMED)
		appendStringInfo(&list, " and %zu more", n - MAX_NAMED);
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not hold items of \"%s\"", text_to_cstring(key)),
			 errdetail("In the way: %s.", list.data)));
}

/* The text of a script from its first line of code on: it goes into the WAL. */
static const char *
code_of(const HcScript *script)
{
	const char *text = script->text;

	while (strncmp(text, "--", 2) == 0)
		text = strchr(text, '\n') + 1;
	return text;
}

/*
 * Items that holds.lua has told, from the second element of its reply on, become
 * part of the change record; marked: each with the mark that it was frozen with,
 * otherwise that is the mark of the call.
 */
static void
capture(const Call *call, const char *op, const redisReply *items, bool marked)
{
	const char *code = code_of(hc_script_get("holds_commit"));
	StringInfoData words;
	HcOp		event = {.kind = HC_OP_COMMAND, .lsn_at = HC_OP_NO_LSN};
	size_t		i;

	initStringInfo(&words);
	hc_op_hash_append(&words, "EVAL", 4);
	hc_op_hash_append(&words, code, strlen(code));
	hc_op_hash_append(&words, "2", 1);
	hc_op_hash_append(&words, call->keys[HC_HOLDS_RECORDS].data,
					  call->keys[HC_HOLDS_RECORDS].len);
	hc_op_hash_append(&words, call->keys[HC_HOLDS_INDEX].data,
					  call->keys[HC_HOLDS_INDEX].len);
	hc_op_hash_append(&words, op, strlen(op));
	hc_op_hash_append(&words, call->holder.data, call->holder.len);
	for (i = 1; i < items->elements; i++)
	{
		const redisReply *word = hc_reply_string(items->element[i]);

		hc_op_hash_append(&words, word->str, word->len);
		if (!marked)
			hc_op_hash_append(&words, call->mark, strlen(call->mark));
	}
	event.key = call->keys[0];
	event.value.data = words.data;
	event.value.len = words.len;
	hc_buffer_append(&event);
}
