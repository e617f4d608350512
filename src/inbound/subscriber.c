/*
 * subscriber.c
 *	  A connection to Redis that listens to channels, by patterns.
 *
 * Messages come at any time, between the answers to what was asked; those come in
 * the order of the questions.  So what was asked is kept in a queue, and
 * what is no message answers the first of it.
 *
 * A server that is gone without a word looks like one where nobody publishes.  So
 * it is asked now and then.
 */
#include "postgres.h"

#include "inbound/subscriber.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "redis/reply.h"
#include "settings.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* After so long a silence the server is asked whether it is there. */
#define PING_MS		5000

typedef enum State
{
	ASKED,
	ACTIVE,
	REFUSED
} State;

typedef struct Subscription
{
	HcBytes		pattern;
	State		state;
	bool		wanted;
	bool		told;			/* that it was refused is in the log */
} Subscription;

struct HcSubscriber
{
	MemoryContext context;
	HcConnection *conn;
	List	   *subscriptions;	/* Subscription * */

	/* what Redis has not answered yet: HcBytes *, no data: another command */
	List	   *asked;
	TimestampTz asked_at;		/* since when the first waits, or later */
	uint64		received;		/* bytes, ... */
	TimestampTz heard_at;		/* ... and when there were fewer */
};

HcSubscriber *
hc_subscriber_create(HcConnection *conn)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache subscriber",
												  ALLOCSET_SMALL_SIZES);
	HcSubscriber *sub = MemoryContextAllocZero(context, sizeof(HcSubscriber));

	sub->context = context;
	sub->conn = conn;
	sub->heard_at = GetCurrentTimestamp();
	hc_connection_listen(conn);
	return sub;
}

void
hc_subscriber_close(HcSubscriber *sub)
{
	if (sub == NULL)
		return;
	hc_connection_close(sub->conn);
	MemoryContextDelete(sub->context);
}

static Subscription *
find(const HcSubscriber *sub, HcBytes pattern)
{
	ListCell   *lc;

	foreach(lc, sub->subscriptions)
	{
		Subscription *subscription = lfirst(lc);

		if (hc_bytes_equal(subscription->pattern, pattern))
			return subscription;
	}
	return NULL;
}

/* Asks for something; pattern has no data if there is none. */
static void
ask(HcSubscriber *sub, const char *command, HcBytes pattern)
{
	MemoryContext old = MemoryContextSwitchTo(sub->context);
	HcBytes    *copy = palloc0(sizeof(HcBytes));
	const char *argv[2] = {command, pattern.data};
	size_t		argvlen[2] = {strlen(command), pattern.len};

	if (pattern.data != NULL)
		*copy = hc_bytes_copy(sub->context, pattern);
	if (sub->asked == NIL)
		sub->asked_at = GetCurrentTimestamp();
	sub->asked = lappend(sub->asked, copy);
	MemoryContextSwitchTo(old);
	hc_connection_append(sub->conn, pattern.data != NULL ? 2 : 1, argv, argvlen);
}

static void
want(HcSubscriber *sub, HcBytes pattern)
{
	Subscription *subscription = find(sub, pattern);

	if (subscription == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(sub->context);

		subscription = palloc0(sizeof(Subscription));
		subscription->pattern = hc_bytes_copy(sub->context, pattern);
		subscription->state = REFUSED;
		sub->subscriptions = lappend(sub->subscriptions, subscription);
		MemoryContextSwitchTo(old);
	}
	subscription->wanted = true;
	if (subscription->state == REFUSED)
	{
		subscription->state = ASKED;
		ask(sub, "PSUBSCRIBE", subscription->pattern);
	}
}

void
hc_subscriber_want(HcSubscriber *sub, const List *patterns)
{
	ListCell   *lc;

	foreach(lc, sub->subscriptions)
		((Subscription *) lfirst(lc))->wanted = false;
	foreach(lc, patterns)
		want(sub, *(HcBytes *) lfirst(lc));
	foreach(lc, sub->subscriptions)
	{
		Subscription *subscription = lfirst(lc);

		if (subscription->wanted)
			continue;
		ask(sub, "PUNSUBSCRIBE", subscription->pattern);
		sub->subscriptions = foreach_delete_current(sub->subscriptions, lc);
		pfree(unconstify(char *, subscription->pattern.data));
		pfree(subscription);
	}
}

bool
hc_subscriber_is_settled(const HcSubscriber *sub)
{
	return sub->asked == NIL;
}

bool
hc_subscriber_has(const HcSubscriber *sub, HcBytes pattern)
{
	const Subscription *subscription = find(sub, pattern);

	return subscription != NULL && subscription->state == ACTIVE;
}

/* Redis has refused to subscribe: the others go on. */
static void
refused(HcSubscriber *sub, Subscription *subscription, const char *message)
{
	char	   *pattern = pnstrdup(subscription->pattern.data, subscription->pattern.len);
	const char *hint = hc_reply_hint(message);

	subscription->state = REFUSED;
	if (subscription->told)
		return;
	subscription->told = true;
	ereport(LOG,
			(errcode(hc_reply_sqlstate(message)),
			 errmsg("%s cannot subscribe to \"%s\" of Redis server \"%s\"",
					MyBgworkerEntry->bgw_name, hc_reply_clean(pattern),
					hc_connection_name(sub->conn)),
			 errdetail_internal("%s", hc_reply_clean(message)),
			 hint ? errhint("%s", hint) : 0));
}

/* Is it what Redis sends under this name? */
static bool
is_push(const redisReply *reply, const char *name, size_t elements)
{
	return reply->type == REDIS_REPLY_ARRAY && reply->elements == elements &&
		reply->element[0]->type == REDIS_REPLY_STRING &&
		strcmp(reply->element[0]->str, name) == 0;
}

/* The reply answers what was asked first. */
static void
take_answer(HcSubscriber *sub, const redisReply *reply)
{
	HcBytes    *pattern;
	Subscription *subscription;

	if (sub->asked == NIL)
		hc_connection_distrust(sub->conn);
	pattern = linitial(sub->asked);
	sub->asked = list_delete_first(sub->asked);
	sub->asked_at = GetCurrentTimestamp();

	subscription = pattern->data != NULL ? find(sub, *pattern) : NULL;
	if (reply->type == REDIS_REPLY_ERROR)
	{
		if (subscription == NULL)
			hc_reply_check(reply, hc_connection_name(sub->conn));
		else
			refused(sub, subscription, reply->str);
	}
	else if (subscription != NULL && subscription->state == ASKED)
	{
		if (!is_push(reply, "psubscribe", 3))
			hc_connection_distrust(sub->conn);
		subscription->state = ACTIVE;
		subscription->told = false;
	}
	if (pattern->data != NULL)
		pfree(unconstify(char *, pattern->data));
	pfree(pattern);
}

/* The bytes of a reply's element. */
static HcBytes
element(const redisReply *reply, size_t i)
{
	const redisReply *string = hc_reply_string(reply->element[i]);
	HcBytes		bytes;

	bytes.data = string->str;
	bytes.len = string->len;
	return bytes;
}

bool
hc_subscriber_next(HcSubscriber *sub, HcPublished *published)
{
	const redisReply *reply;

	while ((reply = hc_connection_next(sub->conn)) != NULL)
	{
		if (is_push(reply, "pmessage", 4))
		{
			published->pattern = element(reply, 1);
			published->channel = element(reply, 2);
			published->message = element(reply, 3);
			return true;
		}
		take_answer(sub, reply);
	}
	return false;
}

void
hc_subscriber_wait(HcSubscriber *sub, TimestampTz deadline)
{
	TimestampTz now = GetCurrentTimestamp();
	uint64		received = hc_connection_received(sub->conn);
	TimestampTz limit;

	if (received != sub->received)
	{
		sub->received = received;
		sub->heard_at = now;
	}
	if (sub->asked == NIL &&
		TimestampDifferenceExceeds(sub->heard_at, now, PING_MS))
	{
		HcBytes		none = {0};

		ask(sub, "PING", none);
	}

	/* a long message may be on its way before the answer */
	limit = sub->asked != NIL
		? TimestampTzPlusMilliseconds(Max(sub->asked_at, sub->heard_at), hc_command_timeout)
		: TimestampTzPlusMilliseconds(sub->heard_at, PING_MS + 1);
	if (sub->asked != NIL && now >= limit)
		hc_connection_time_out(sub->conn);
	(void) hc_connection_wait(sub->conn, Min(limit, deadline));
}
