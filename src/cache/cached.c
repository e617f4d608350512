/*
 * cached.c
 *	  hybrid_cache.cached(): the result of a query, kept in Redis.
 *
 * Where Redis has no result, one session gets a lease on the key and runs the
 * query; the others wait for it, or take an old result.  An invalidation removes
 * the lease with the result, and the query's snapshot is taken after the lease was
 * got.  So a result that does not see the change which led to an invalidation
 * cannot be stored after it: either the query began after the change was
 * committed, or its lease is gone when it is done.
 *
 * That holds for what is committed.  A transaction that has changed something
 * sees what others must not, and must not miss it itself: it neither stores nor
 * reads.  One that keeps its snapshot does not store.
 *
 * What a crash can take back is not stored.
 *
 * No two queries share a result, whatever keys they are given (query_key.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "cache/lease.h"
#include "cache/query.h"
#include "cache/query_key.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "encoding.h"
#include "fmgr.h"
#include "mapping/value.h"
#include "miscadmin.h"
#include "redis/arguments.h"
#include "redis/beside.h"
#include "session/parameter.h"
#include "session/result.h"
#include "session/session.h"
#include "settings.h"
#include "shmem.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/wal.h"

#define FUNCTION	"cached"

/* Who is waited for is asked after again, in Redis, after this time. */
#define LOOK_AGAIN_MS	1000

/* Pauses between looks at the lease of a stranger. */
#define PAUSE_LEAST_MS	2
#define PAUSE_MOST_MS	100

/* So many others may fail before a session helps itself. */
#define MAX_HOLDERS		3

PG_FUNCTION_INFO_V1(hybrid_cache_cached);

typedef struct Call
{
	text	   *key;			/* without hybrid_cache.key_prefix */
	int64		ttl;			/* milliseconds */
	char	   *query;
	int			n;
	Oid		   *types;
	Datum	   *values;
	char		of[HC_QUERY_HASH_DIGITS + 1];	/* what the result depends on */
	char		token[HC_LEASE_TOKEN_SIZE]; /* empty: must not store */
} Call;

typedef enum Answer
{
	ANSWER_VALUE,
	ANSWER_STALE,				/* an old one, which will do while the holder of
								 * the lease computes */
	ANSWER_LEASE,				/* compute and store */
	ANSWER_WAIT,
	ANSWER_NONE					/* compute */
} Answer;

/* One whom we wait for, and what is known of him. */
typedef struct Wait
{
	TimestampTz begun;			/* 0: not yet */
	char		holder[HC_LEASE_TOKEN_SIZE];
	long		left;			/* milliseconds that Redis gives him */
	int			n_holders;
	const char *gone;			/* holder or empty: he does not compute any more, ... */
	const char *alive;			/* ... he still does */
	long		pause;
} Wait;

static void read_arguments(FunctionCallInfo fcinfo, Call *call);
static bool may_read(void);
static bool may_store(void);
static Jsonb *look_up(Call *call);
static Jsonb *run(const Call *call);

/*
 * cached(key text, ttl interval, query text [, VARIADIC args "any"]) RETURNS jsonb
 */
Datum
hybrid_cache_cached(PG_FUNCTION_ARGS)
{
	Call		call;
	Jsonb	   *volatile result = NULL;
	bool		leasing;

	memset(&call, 0, sizeof(call));
	call.ttl = hc_parameter_duration(fcinfo, 1, "ttl", FUNCTION);
	call.query = text_to_cstring(hc_parameter_text(fcinfo, 2, "query", FUNCTION));
	read_arguments(fcinfo, &call);
	call.key = hc_query_key_make(hc_parameter_text(fcinfo, 0, "key", FUNCTION),
								 call.query, call.n, call.types, call.values,
								 call.of);
	if (!may_read())
		PG_RETURN_JSONB_P(run(&call));

	/* the token is announced before Redis can tell others of it */
	leasing = may_store() && hc_lease_begin(call.token);
	PG_TRY();
	{
		result = look_up(&call);
	}
	PG_FINALLY();
	{
		if (leasing)
			hc_lease_end();
	}
	PG_END_TRY();
	PG_RETURN_JSONB_P(result);
}

/* The arguments of the query. */
static void
read_arguments(FunctionCallInfo fcinfo, Call *call)
{
	bool	   *nulls = NULL;
	int			i;

	if (PG_NARGS() > 3 && get_fn_expr_variadic(fcinfo->flinfo))
	{
		ArrayType  *array;
		int16		typlen;
		bool		typbyval;
		char		typalign;
		Oid			type;

		hc_parameter_need(fcinfo, 3, "args", FUNCTION);
		array = PG_GETARG_ARRAYTYPE_P(3);
		type = ARR_ELEMTYPE(array);
		get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
		deconstruct_array(array, type, typlen, typbyval, typalign,
						  &call->values, &nulls, &call->n);
		call->types = palloc(Max(call->n, 1) * sizeof(Oid));
		for (i = 0; i < call->n; i++)
			call->types[i] = type;
	}
	else
	{
		call->n = PG_NARGS() - 3;
		call->types = palloc(Max(call->n, 1) * sizeof(Oid));
		call->values = palloc(Max(call->n, 1) * sizeof(Datum));
		nulls = palloc(Max(call->n, 1) * sizeof(bool));
		for (i = 0; i < call->n; i++)
		{
			call->types[i] = get_fn_expr_argtype(fcinfo->flinfo, i + 3);
			call->values[i] = PG_GETARG_DATUM(i + 3);
			nulls[i] = PG_ARGISNULL(i + 3);
		}
	}
	for (i = 0; i < call->n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %d of the query of hybrid_cache.%s() is null",
							i + 1, FUNCTION),
					 errdetail("Arguments are part of the key, and keys know no null."),
					 errhint("Use coalesce().")));

		/* a literal */
		if (call->types[i] == UNKNOWNOID)
		{
			call->types[i] = TEXTOID;
			call->values[i] = CStringGetTextDatum(DatumGetCString(call->values[i]));
		}
	}
}

/*
 * May a result come from Redis?  Not in a copy of the database that is not the one
 * at work there: it has other rows.  A standby has those of its primary.
 */
static bool
may_read(void)
{
	HcDatabase *db;

	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return false;
	if (RecoveryInProgress())
		return hc_redis_url != NULL && hc_redis_url[0] != '\0';
	db = hc_shmem_mine();
	return db != NULL && pg_atomic_read_u32(&db->ours) != 0;
}

static bool
may_store(void)
{
	return !RecoveryInProgress() && !IsolationUsesXactSnapshot();
}

static Jsonb *
run(const Call *call)
{
	return hc_query_run(call->query, call->n, call->types, call->values, FUNCTION);
}

/* Makes jsonb of what Redis has; NULL, with a warning, for anything else. */
static Jsonb *
parse(const Call *call, const redisReply *reply)
{
	MemoryContext context = CurrentMemoryContext;
	Jsonb	   *volatile result = NULL;

	/* nothing but memory is left behind by these errors */
	PG_TRY();
	{
		result = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
													CStringGetDatum(text_to_cstring(hc_result_text(reply)))));
	}
	PG_CATCH();
	{
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	if (result != NULL && JB_ROOT_IS_ARRAY(result) && !JB_ROOT_IS_SCALAR(result))
		return result;
	ereport(WARNING,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("Redis key \"%s\" holds no result of a query",
					text_to_cstring(call->key)),
			 errdetail("Somebody else has written to it. The query was run.")));
	return NULL;
}

static void
begin_script(const Call *call, HcArguments *args)
{
	hc_arguments_begin(args, NULL);
	hc_arguments_add_key(args, call->key);
	hc_arguments_add_beside(args, HC_CACHED, call->key);
}

/* Notes who computes. */
static void
note_holder(Wait *wait, const redisReply *token)
{
	const char *holder = hc_reply_string(token)->str;

	if (strncmp(wait->holder, holder, HC_LEASE_TOKEN_SIZE - 1) == 0)
		return;
	strlcpy(wait->holder, holder, HC_LEASE_TOKEN_SIZE);
	wait->n_holders++;
	wait->pause = PAUSE_LEAST_MS;
}

/* Asks Redis. */
static Answer
ask(const Call *call, Wait *wait, Jsonb **result)
{
	HcArguments args;
	const redisReply *reply;
	const char *word;
	ErrorData  *down;

	begin_script(call, &args);
	hc_arguments_add_literal(&args, call->of);
	hc_arguments_add_integer(&args, hc_stale_ttl);
	hc_arguments_add_literal(&args, call->token);
	hc_arguments_add_integer(&args, hc_lease_timeout);
	hc_arguments_add_literal(&args, wait->gone);
	hc_arguments_add_literal(&args, wait->alive);
	reply = hc_fallback
		? hc_session_try_script("cached_get", &args, 2, &down)
		: hc_session_script("cached_get", &args, 2);
	if (reply == NULL)
		return ANSWER_NONE;
	hc_reply_check(reply, hc_session_server());
	reply = hc_reply_array(reply, HC_REPLY_ANY_LENGTH);
	word = reply->elements > 0 ? hc_reply_string(reply->element[0])->str : "";
	if (strcmp(word, "lease") == 0)
		return ANSWER_LEASE;
	if (strcmp(word, "hit") == 0)
	{
		*result = parse(call, hc_reply_array(reply, 2)->element[1]);
		return *result != NULL ? ANSWER_VALUE : ANSWER_NONE;
	}
	if (strcmp(word, "stale") == 0)
	{
		note_holder(wait, hc_reply_array(reply, 3)->element[2]);
		*result = parse(call, reply->element[1]);
		return *result != NULL ? ANSWER_STALE : ANSWER_NONE;
	}
	if (strcmp(word, "wait") == 0)
	{
		note_holder(wait, hc_reply_array(reply, 3)->element[1]);
		wait->left = (long) Min(hc_reply_integer(reply->element[2]), INT_MAX);
		return ANSWER_WAIT;
	}
	return ANSWER_NONE;
}

/* Has the session ended that was to replace the old value?  Then it is our turn. */
static bool
is_abandoned(Wait *wait, bool leasing)
{
	if (!leasing || wait->n_holders > MAX_HOLDERS ||
		hc_lease_look(wait->holder) != HC_LEASE_GONE)
		return false;
	wait->gone = wait->holder;
	wait->alive = "";
	return true;
}

/*
 * Waits for the holder.  false: do not.  A session that somebody may wait for
 * waits for nobody, so sessions cannot wait for each other in a circle; where
 * locks close one, the time is limited.
 */
static bool
wait_for(Wait *wait, bool leasing)
{
	TimestampTz now = GetCurrentTimestamp();
	long		left;

	if (wait->begun == 0)
		wait->begun = now;
	left = hc_lease_timeout - TimestampDifferenceMilliseconds(wait->begun, now);
	if (left <= 0 || wait->n_holders > MAX_HOLDERS ||
		hc_lease_depth() > (leasing ? 1 : 0))
		return false;

	wait->gone = wait->alive = "";
	switch (hc_lease_look(wait->holder))
	{
		case HC_LEASE_GONE:
			wait->gone = wait->holder;
			break;
		case HC_LEASE_AT_WORK:
			wait->alive = wait->holder;
			hc_lease_wait(wait->holder, Min(left, LOOK_AGAIN_MS));
			break;
		case HC_LEASE_FOREIGN:
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 Max(Min(Min(left, wait->left), wait->pause), 1),
							 HC_WAIT_REDIS);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
			wait->pause = Min(2 * wait->pause, PAUSE_MOST_MS);
			break;
	}
	return true;
}

/* Ends the lease; whether that succeeds does not matter. */
static void
give_back(const Call *call)
{
	HcArguments args;
	ErrorData  *down;

	hc_arguments_begin(&args, NULL);
	hc_arguments_add_beside(&args, HC_CACHED, call->key);
	hc_arguments_add_literal(&args, call->token);
	(void) hc_session_try_script("cached_release", &args, 1, &down);
}

/* Stores the result and ends the lease.  The caller has his result anyway. */
static void
store(const Call *call, Jsonb *result)
{
	StringInfoData buf;
	size_t		len;
	char	   *data;
	HcArguments args;
	const redisReply *reply;
	ErrorData  *down;

	initStringInfo(&buf);
	(void) JsonbToCString(&buf, &result->root, VARSIZE(result));
	len = buf.len;
	data = hc_encoding_to_redis(buf.data, &len);
	if (len > HC_VALUE_MAX)
	{
		ereport(WARNING,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the result of the query is too long for Redis"),
				 errdetail("A Redis string holds at most 512 MB. The result was not stored.")));
		give_back(call);
		return;
	}
	begin_script(call, &args);
	hc_arguments_add_literal(&args, call->token);
	hc_arguments_add(&args, data, len);
	hc_arguments_add_integer(&args, call->ttl);
	hc_arguments_add_integer(&args, hc_stale_ttl);
	reply = hc_session_try_script("cached_store", &args, 2, &down);
	if (reply != NULL && reply->type == REDIS_REPLY_ERROR)
		ereport(WARNING,
				(errcode(hc_reply_sqlstate(reply->str)),
				 errmsg("Redis server \"%s\" refused the result of the query",
						hc_session_server()),
				 errdetail_internal("%s", hc_reply_clean(reply->str))));
	pfree(buf.data);
}

static Jsonb *
look_up(Call *call)
{
	bool		leasing = call->token[0] != '\0';
	Wait		wait = {.gone = "", .alive = ""};
	Jsonb	   *result = NULL;
	Answer		answer;

	do
	{
		answer = ask(call, &wait, &result);
	} while ((answer == ANSWER_WAIT && wait_for(&wait, leasing)) ||
			 (answer == ANSWER_STALE && is_abandoned(&wait, leasing)));

	if (answer == ANSWER_VALUE || answer == ANSWER_STALE)
		return result;
	result = run(call);
	if (answer != ANSWER_LEASE)
		return result;

	/* a function that it called has changed something */
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
	{
		give_back(call);
		return result;
	}

	/*
	 * All that the result can have seen: transactions with synchronous_commit =
	 * off are visible before they are on disk, and a crash takes them back.
	 */
	(void) hc_wal_flush();
	store(call, result);
	return result;
}
