/*
 * due.c
 *	  Timers fire: pending events are added to their streams when it is time.
 *
 * What is pending is known to Redis alone, in sorted sets: so it comes once, and is
 * not forgotten, whoever was away when its time came.  The sync worker does it, since
 * only that knows when all changes up to a time are applied: a timer that was
 * moved by a transaction that committed before its time must not fire.  (An expiry
 * of keys with keyspace notifications was refused: nobody may be listening.)
 *
 * The scripts run in a MULTI behind the fence, as changes do: what an older
 * connection sent must not fire by what Redis has meanwhile.
 *
 * What Redis refuses here stops nothing else.  It stays pending, and is tried
 * again.
 */
#include "postgres.h"

#include <math.h>

#include "compat.h"
#include "redis/reply.h"
#include "redis/script.h"
#include "settings.h"
#include "shmem.h"
#include "utils/timestamp.h"
#include "worker/due.h"
#include "worker/owner.h"
#include "worker/timer.h"
#include "worker/wire.h"

/*
 * What comes is known to the worker, which has written it.  So often it looks
 * whether it knows all; a bit more often than it wakes up for nothing.
 */
#define LOOK_MS			900

/* After Redis has refused all that was due. */
#define REST_MS			1000

/* That Redis refuses something is said again after this time. */
#define LOG_INTERVAL_MS	60000

/* Streams that are dealt with at a time, and events of each. */
#define MOST_STREAMS	16
#define MOST_EVENTS		256

/* Another database writes to the stream now. */
#define FOREIGN_MS		5000

#define UNIX_EPOCH_OFFSET \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

void
hc_due_init(HcDue *due)
{
	due->next = DT_NOEND;
	due->look_at = 0;
	due->foreign = hc_owner_any_foreign;
	hc_announce_begin(&due->announce);
}

/* The last ms that is over. */
static int64
to_ms(TimestampTz time)
{
	return (time + UNIX_EPOCH_OFFSET) / 1000;
}

/* DT_NOEND if that is very far. */
static TimestampTz
from_ms(double at)
{
	if (isnan(at) || at >= (double) END_TIMESTAMP / 1000)
		return DT_NOEND;
	return (TimestampTz) Max(at, 0) * 1000 - UNIX_EPOCH_OFFSET;
}

void
hc_due_expect(HcDue *due, double at)
{
	due->next = Min(due->next, from_ms(at));
}

TimestampTz
hc_due_wake_at(const HcDue *due)
{
	return due->next;
}

/* Redis refuses something: said once, then again after a while. */
static void
say_refused(HcDue *due, HcConnection *conn, const char *message)
{
	char	   *words = hc_reply_clean(message);
	TimestampTz now = GetCurrentTimestamp();

	hc_shmem_set_error(hc_shmem_mine(), psprintf("timers: %s", words));
	if (due->said_at != 0 &&
		!TimestampDifferenceExceeds(due->said_at, now, LOG_INTERVAL_MS))
		return;
	due->said_at = now;
	ereport(LOG,
			(errcode(hc_reply_sqlstate(message)),
			 errmsg("Redis server \"%s\" refuses events of timers that are due",
					hc_connection_name(conn)),
			 errdetail_internal("%s", words),
			 hc_reply_hint(message) ? errhint("%s", hc_reply_hint(message)) : 0));
}

static void
append_word(StringInfo wire, const char *word)
{
	hc_wire_append_bulk(wire, word, strlen(word));
}

/* The first streams of the registry, each with its score. */
static const redisReply *
look(HcConnection *conn, const char *registry)
{
	StringInfoData wire;

	initStringInfo(&wire);
	hc_wire_append_array(&wire, 5);
	append_word(&wire, "ZRANGE");
	append_word(&wire, registry);
	hc_wire_append_int64(&wire, 0);
	hc_wire_append_int64(&wire, MOST_STREAMS - 1);
	append_word(&wire, "WITHSCORES");
	hc_connection_append_raw(conn, wire.data, wire.len, 1);
	pfree(wire.data);
	return hc_connection_reply(conn,
							   TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														   hc_command_timeout));
}

/* How many of the streams have something that is due; notes when the next is. */
static int
count_due(HcDue *due, HcConnection *conn, const redisReply *first, int64 now)
{
	int			n = 0;

	due->next = DT_NOEND;
	if (first->type == REDIS_REPLY_ERROR)
	{
		/* somebody has written to a key of ours, or does not let us read it */
		if (hc_reply_classify(first->str) != HC_ERROR_OP)
			hc_reply_check(first, hc_connection_name(conn));
		say_refused(due, conn, first->str);
		return 0;
	}
	(void) hc_reply_array(first, HC_REPLY_ANY_LENGTH);
	for (; 2 * n + 1 < (int) first->elements; n++)
	{
		double		at = hc_reply_double(first->element[2 * n + 1]);

		(void) hc_reply_string(first->element[2 * n]);
		if (at > now)
		{
			due->next = from_ms(at);
			break;
		}
	}
	return n;
}

/* The command that does what is due of a stream. */
static void
append_call(StringInfo wire, const char *registry, HcBytes stream, int64 now)
{
	const HcScript *script = hc_script_get("fire");
	StringInfoData pending;

	initStringInfo(&pending);
	hc_timer_key(&pending, stream);
	hc_wire_append_array(wire, 8);
	append_word(wire, "EVAL");
	hc_wire_append_bulk(wire, script->text, script->len);
	hc_wire_append_int64(wire, 3);
	append_word(wire, registry);
	hc_wire_append_bulk(wire, pending.data, pending.len);
	hc_wire_append_bulk(wire, stream.data, stream.len);
	hc_wire_append_int64(wire, now);
	hc_wire_append_int64(wire, MOST_EVENTS);
	pfree(pending.data);
}

/* A mapping that another database has: that one has its timers, too. */
static void
append_delay(StringInfo wire, const char *registry, HcBytes stream, int64 now)
{
	hc_wire_append_array(wire, 5);
	append_word(wire, "ZADD");
	append_word(wire, registry);
	append_word(wire, "XX");
	hc_wire_append_int64(wire, now + FOREIGN_MS);
	hc_wire_append_bulk(wire, stream.data, stream.len);
}

/* Does what is due of the first n streams; returns whether any of it went well. */
static bool
fire(HcDue *due, HcConnection *conn, HcFence *fence, const char *registry,
	 const redisReply *first, int n, int64 now)
{
	StringInfoData wire;
	const redisReply *result;
	const char *refusal;
	bool		went_well = false;
	int			i;

	initStringInfo(&wire);
	for (i = 0; i < n; i++)
	{
		HcBytes		stream = {first->element[2 * i]->str, first->element[2 * i]->len};

		if (hc_owner_any_foreign && hc_owner_is_foreign(stream))
			append_delay(&wire, registry, stream, now);
		else
			append_call(&wire, registry, stream, now);
	}
	result = hc_fence_ask(fence, conn, &wire, n, &refusal);
	pfree(wire.data);
	if (refusal != NULL)
	{
		say_refused(due, conn, refusal);
		return false;
	}
	for (i = 0; i < n; i++)
	{
		const redisReply *reply = result->element[i];

		if (reply->type == REDIS_REPLY_INTEGER)
			went_well = true;
		else if (reply->type == REDIS_REPLY_ERROR)
			say_refused(due, conn, reply->str);
		else
			say_refused(due, conn, hc_reply_string(reply)->str);
	}
	return went_well;
}

bool
hc_due_work(HcDue *due, HcConnection *conn, HcFence *fence, TimestampTz now)
{
	char		registry[HC_TIMER_REGISTRY_SIZE];
	const redisReply *first;
	int			n;

	if (due->foreign && !hc_owner_any_foreign)
		hc_announce_begin(&due->announce);
	due->foreign = hc_owner_any_foreign;
	if (hc_announce_step(&due->announce, conn, fence))
	{
		due->look_at = now;
		return true;
	}
	if (now < due->look_at && now < due->next)
		return false;

	due->look_at = TimestampTzPlusMilliseconds(now, LOOK_MS);
	hc_timer_registry(registry);
	first = look(conn, registry);
	n = count_due(due, conn, first, to_ms(now));
	if (n == 0)
		return false;
	if (fire(due, conn, fence, registry, first, n, to_ms(now)))
	{
		/* what is next is known after another look */
		due->look_at = now;
		return true;
	}
	due->look_at = TimestampTzPlusMilliseconds(now, REST_MS);
	due->next = DT_NOEND;
	return false;
}
