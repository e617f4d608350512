/*
 * holds.c
 *	  Holds in Redis, as the sync worker looks after them: what transactions left
 *	  behind, and what has run out.
 *
 * The script holds.lua keeps lists of what is to be looked at, so a look finds
 * everything however it came about: also what a session has sent that was killed,
 * and what arrived in Redis after the session's transaction had aborted.  So a
 * look once a second would do; that sessions tell about aborts makes it quick.
 *
 * What a committed transaction has frozen is confirmed by its change record.  If
 * the worker finds it frozen still although everything up to there is applied, the
 * record was lost, with WAL that was removed.  Then the state of the transaction
 * counts, if it is of this run of the server.  What is older is let go: its xid might
 * have been given again after two crashes.  (A seat that is sold but not taken in
 * Redis is refused by its table; one that is taken without a buyer is refused to
 * everybody.)
 *
 * Only marks of this database are settled, by a worker that has the fence: a copy
 * of the database would not know the transactions of this one.  To remove what has
 * run out is everybody's business.
 *
 * Locking: an atomic in the slot of the database.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "redis/beside.h"
#include "redis/reply.h"
#include "redis/script.h"
#include "settings.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/holds.h"
#include "worker/mark.h"
#include "worker/wal.h"

/* With nothing to do it looks so often; under aborts, not more often than ... */
#define LOOK_MS			1000
#define LEAST_MS		5

/* Marks and keys that are read at a time, and scripts that are sent at a time. */
#define PAGE			1000
#define PIPELINED		100

#define REGISTRY		"hybrid_cache:holds"

/* A call of holds.lua. */
typedef struct Call
{
	int			n;				/* words, of which 3 are for the command */
	const char *words[24];
	size_t		lens[24];
	char	   *member;			/* settle: the mark, as the registry has it */
} Call;

static TimestampTz look_at = 0;
static TimestampTz looked_at = 0;

/*
 * Marks of which something is frozen though their transactions have committed:
 * when this position is applied, nothing will come any more.  Strings in a context
 * of their own.
 */
static MemoryContext doubt_context = NULL;
static List *doubts = NIL;
static XLogRecPtr doubt_lsn = InvalidXLogRecPtr;

static bool refused = false;	/* this look, Redis refused something ... */
static bool complained = false; /* ... and it was said, then or before */

static HcBytes
bytes_of(const char *data)
{
	HcBytes		bytes = {data, strlen(data)};

	return bytes;
}

static char *
registry_of_marks(void)
{
	return psprintf("hybrid_cache:marks:" UINT64_FORMAT ":%u",
					GetSystemIdentifier(), MyDatabaseId);
}

void
hc_holds_keys(const char *key, size_t len, HcBytes *keys)
{
	static const char *const what[] = {"holds", "holders", "ends", "ranout"};
	int			i;

	keys[0].data = key;
	keys[0].len = len;
	for (i = 0; i < (int) lengthof(what); i++)
	{
		StringInfoData name;

		initStringInfo(&name);
		hc_beside_key(&name, what[i], key, len);
		keys[i + 1].data = name.data;
		keys[i + 1].len = name.len;
	}
	keys[5] = bytes_of(REGISTRY);
	keys[6] = bytes_of(registry_of_marks());
}

static TimestampTz
deadline(void)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), hc_command_timeout);
}

/* What Redis refuses, once until it takes something again. */
static void
complain(HcConnection *conn, const char *message)
{
	if (!complained)
		ereport(LOG,
				(errcode(hc_reply_sqlstate(message)),
				 errmsg("%s cannot look after holds in Redis server \"%s\"",
						MyBgworkerEntry->bgw_name, hc_connection_name(conn)),
				 errdetail_internal("%s", hc_reply_clean(message))));
	refused = true;
	complained = true;
}

/*
 * Sends calls of a script and returns their replies; NULL instead of an error
 * reply.
 */
static redisReply **
call_script(HcConnection *conn, const HcScript *script, int n_keys, Call *calls,
			int n_calls)
{
	redisReply **replies = palloc(n_calls * sizeof(*replies));
	char	   *number = psprintf("%d", n_keys);
	int			i;

	for (i = 0; i < n_calls; i++)
	{
		calls[i].words[0] = "EVALSHA";
		calls[i].lens[0] = strlen("EVALSHA");
		calls[i].words[1] = script->sha1;
		calls[i].lens[1] = strlen(script->sha1);
		calls[i].words[2] = number;
		calls[i].lens[2] = strlen(number);
		hc_connection_append(conn, calls[i].n, calls[i].words, calls[i].lens);
	}
	for (i = 0; i < n_calls; i++)
		replies[i] = hc_connection_reply(conn, deadline());
	for (i = 0; i < n_calls; i++)
	{
		if (hc_script_is_unknown(replies[i]))
		{
			calls[i].words[0] = "EVAL";
			calls[i].lens[0] = strlen("EVAL");
			calls[i].words[1] = script->text;
			calls[i].lens[1] = script->len;
			hc_connection_append(conn, calls[i].n, calls[i].words, calls[i].lens);
			replies[i] = hc_connection_reply(conn, deadline());
		}
		if (replies[i]->type == REDIS_REPLY_ERROR)
		{
			complain(conn, replies[i]->str);
			replies[i] = NULL;
		}
		else
			(void) hc_reply_array(replies[i], HC_REPLY_ANY_LENGTH);
	}
	return replies;
}

static void
add_word(Call *call, const char *data, size_t len)
{
	Assert(call->n < (int) lengthof(call->words));
	call->words[call->n] = data;
	call->lens[call->n] = len;
	call->n++;
}

static void
add_literal(Call *call, const char *word)
{
	add_word(call, word, strlen(word));
}

/* A call of holds.lua; another key, or NULL. */
static void
begin_call(Call *call, HcBytes key, const char *another, size_t another_len,
		   const char *op, HcBytes holder)
{
	HcBytes		keys[HC_HOLDS_KEYS];
	int			i;

	hc_holds_keys(key.data, key.len, keys);
	call->n = 3;
	call->member = NULL;
	for (i = 0; i < HC_HOLDS_KEYS; i++)
		add_word(call, keys[i].data, keys[i].len);
	if (another != NULL)
		add_word(call, another, another_len);
	add_literal(call, op);
	add_literal(call, "-");
	add_word(call, holder.data, holder.len);
	add_literal(call, "0");
}

/* Takes a member of the registry apart: MARK LENGTH:HOLDER:KEY. */
static bool
parse_member(const redisReply *reply, HcMark *mark, HcBytes *text,
			 HcBytes *holder, HcBytes *key)
{
	const char *end = reply->str + reply->len;
	const char *space = memchr(reply->str, ' ', reply->len);
	uint64		len = 0;
	const char *cursor;

	if (space == NULL || !hc_mark_parse(reply->str, space - reply->str, mark))
		return false;
	for (cursor = space + 1; cursor < end && *cursor >= '0' && *cursor <= '9'; cursor++)
	{
		len = len * 10 + (*cursor - '0');
		if (len > PG_INT32_MAX)
			return false;
	}
	if (cursor == end || *cursor++ != ':' || (uint64) (end - cursor) <= len ||
		cursor[len] != ':')
		return false;
	text->data = reply->str;
	text->len = space - reply->str;
	holder->data = cursor;
	holder->len = len;
	key->data = cursor + len + 1;
	key->len = end - key->data;
	return true;
}

static bool
is_doubted(const char *member)
{
	ListCell   *lc;

	foreach(lc, doubts)
	{
		if (strcmp(lfirst(lc), member) == 0)
			return true;
	}
	return false;
}

/*
 * What is to be told about a mark: false if its transaction is open.  conclude:
 * marks in doubt are not waited for any more.
 */
static bool
prepare_settling(Call *call, const redisReply *member, bool conclude,
				 HcFence *fence)
{
	HcMark		mark;
	HcMarkState state = HC_MARK_ABORTED;
	HcBytes		text;
	HcBytes		holder;
	HcBytes		key;
	const char *frozen = "aborted";

	if (!parse_member(member, &mark, &text, &holder, &key))
		return false;
	state = hc_mark_state(&mark);
	if (state == HC_MARK_OPEN || state == HC_MARK_OWN)
		return false;
	if (state == HC_MARK_COMMITTED)
	{
		frozen = "wait";
		if (conclude && is_doubted(member->str))
			frozen = hc_mark_is_recent(&mark) ? "committed" : "aborted";
	}
	begin_call(call, key, fence->key, strlen(fence->key), "settle", holder);
	add_word(call, text.data, text.len);
	add_literal(call, state == HC_MARK_COMMITTED ? "committed" : "aborted");
	add_literal(call, frozen);
	add_literal(call, fence->token);
	call->member = member->str;
	return true;
}

/* Marks whose changes have not been applied: looks again when they must be. */
static void
doubt(List *waiting)
{
	MemoryContext old;
	ListCell   *lc;

	if (doubt_context == NULL)
		doubt_context = AllocSetContextCreate(TopMemoryContext,
											  "hybrid_cache doubts",
											  ALLOCSET_SMALL_SIZES);
	MemoryContextReset(doubt_context);
	doubts = NIL;
	if (waiting == NIL)
		return;

	/* they have committed, so their commit records are before this position */
	doubt_lsn = hc_wal_flush();
	old = MemoryContextSwitchTo(doubt_context);
	foreach(lc, waiting)
		doubts = lappend(doubts, pstrdup(lfirst(lc)));
	MemoryContextSwitchTo(old);
}

/* Settles the marks of transactions that have ended. */
static void
settle(HcDatabase *db, HcConnection *conn, HcFence *fence)
{
	const HcScript *script = hc_script_get("holds");
	char	   *registry = registry_of_marks();
	bool		conclude = doubts != NIL &&
		pg_atomic_read_u64(&db->applied) >= doubt_lsn;
	Call	   *calls = palloc(PIPELINED * sizeof(Call));
	List	   *waiting = NIL;
	int64		skipped = 0;
	size_t		n_read;

	do
	{
		char	   *first = psprintf(INT64_FORMAT, skipped);
		char	   *last = psprintf(INT64_FORMAT, skipped + PAGE - 1);
		const char *argv[4] = {"ZRANGE", registry, first, last};
		size_t		argvlen[4] = {6, strlen(registry), strlen(first), strlen(last)};
		const redisReply *page;
		size_t		i = 0;

		hc_connection_append(conn, 4, argv, argvlen);
		page = hc_connection_reply(conn, deadline());
		if (page->type == REDIS_REPLY_ERROR)
		{
			complain(conn, page->str);
			return;
		}
		n_read = hc_reply_array(page, HC_REPLY_ANY_LENGTH)->elements;
		while (i < n_read)
		{
			int			n_calls = 0;
			redisReply **replies;
			int			j;

			for (; i < n_read && n_calls < PIPELINED; i++)
			{
				if (prepare_settling(&calls[n_calls],
									 hc_reply_string(page->element[i]),
									 conclude, fence))
					n_calls++;
				else
					skipped++;
			}
			replies = call_script(conn, script, HC_HOLDS_KEYS + 1, calls, n_calls);
			for (j = 0; j < n_calls; j++)
			{
				long long	number = -1;

				if (replies[j] != NULL && replies[j]->elements == 1)
					number = hc_reply_integer(replies[j]->element[0]);
				if (number != 0)
					skipped++;
				if (number > 0 && list_length(waiting) < PAGE)
					waiting = lappend(waiting, calls[j].member);
			}
		}
		CHECK_FOR_INTERRUPTS();
	} while (n_read == PAGE);

	if (doubts == NIL || conclude)
		doubt(waiting);
}

/*
 * Adds the events of holds that ran out to their streams.  false: there are none,
 * or Redis has refused one.
 */
static bool
send_events(HcConnection *conn, HcBytes key, const redisReply *expired)
{
	const HcScript *script = hc_script_get("holds");
	HcBytes		nobody = {"-", 1};
	size_t		i;

	for (i = 1; i + 1 < expired->elements; i += 2)
	{
		const redisReply *stream = hc_reply_string(expired->element[i]);
		const redisReply *event = hc_reply_string(expired->element[i + 1]);
		Call		call;
		redisReply *reply;

		begin_call(&call, key, stream->str, stream->len, "event", nobody);
		add_word(&call, stream->str, stream->len);
		add_word(&call, event->str, event->len);
		reply = call_script(conn, script, HC_HOLDS_KEYS + 1, &call, 1)[0];
		if (reply == NULL)
			return false;		/* the next look tries again */
		if (reply->elements == 2)
			ereport(LOG,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("%s has lost the event of a hold that ran out",
							MyBgworkerEntry->bgw_name),
					 errdetail_internal("%s", hc_reply_clean(hc_reply_string(reply->element[1])->str)),
					 errhint("The key that hybrid_cache.hold() was given for such events must be a stream.")));
	}
	return expired->elements > 1;
}

/* Removes the holds that ran out; the next look is due when the next one does. */
static void
expire(HcConnection *conn, TimestampTz now)
{
	HcBytes		nobody = {"-", 1};
	HcBytes		registry = bytes_of(REGISTRY);
	Call		call = {.n = 3};
	redisReply *due;
	long long	next;
	size_t		i;

	add_word(&call, registry.data, registry.len);
	add_literal(&call, "1000");
	due = call_script(conn, hc_script_get("holds_due"), 1, &call, 1)[0];
	if (due == NULL || due->elements == 0)
		return;
	next = hc_reply_integer(due->element[0]);
	if (next > 0 && next < LOOK_MS)
		look_at = TimestampTzPlusMilliseconds(now, next);
	for (i = 1; i < due->elements; i++)
	{
		const redisReply *name = hc_reply_string(due->element[i]);
		HcBytes		key = {name->str, name->len};
		redisReply *expired;

		begin_call(&call, key, NULL, 0, "expire", nobody);
		expired = call_script(conn, hc_script_get("holds"), HC_HOLDS_KEYS, &call, 1)[0];
		if (expired == NULL || expired->elements == 0)
			continue;

		/* there may be more, which is not to wait; changes have their turn first */
		if (send_events(conn, key, expired) ||
			hc_reply_integer(expired->element[0]) > 0)
			look_at = TimestampTzPlusMilliseconds(now, LEAST_MS);
		CHECK_FOR_INTERRUPTS();
	}
}

void
hc_holds_look(HcDatabase *db, HcConnection *conn, HcFence *fence)
{
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext context;
	MemoryContext old;

	if (now < hc_holds_wake_at(db))
		return;
	pg_atomic_write_u32(&db->marks_aborted, 0);
	refused = false;
	looked_at = now;
	look_at = TimestampTzPlusMilliseconds(now, LOOK_MS);

	/* replies live in the current context */
	context = AllocSetContextCreate(CurrentMemoryContext, "hybrid_cache holds",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	settle(db, conn, fence);
	expire(conn, now);
	if (!refused)
		complained = false;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);

	/* waiting for replies may have eaten a wake-up */
	SetLatch(MyLatch);
}

TimestampTz
hc_holds_wake_at(HcDatabase *db)
{
	if (pg_atomic_read_u32(&db->marks_aborted) != 0)
		return TimestampTzPlusMilliseconds(looked_at, LEAST_MS);
	return look_at;
}
