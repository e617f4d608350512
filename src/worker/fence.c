/*
 * fence.c
 *	  Who may write into a Redis server for this database.
 *
 * The fence is a key that holds a random token.  Whoever connects sets it to a
 * token of its own, and WATCHes it before every MULTI.  So a MULTI of an older
 * connection, process or server fails as a whole, however late it arrives: the
 * key has changed since its WATCH.  (A token as a condition inside a script
 * would do as well, but puts the whole batch through Lua.)
 *
 * The fence lets the newest in.  The lease keeps others out: a key that
 * expires, with the name of the copy of the database that is at work.  A copy
 * that finds another's lease touches nothing and comes back later.  The lease
 * is a courtesy and the fence the guarantee: a copy that slept through its
 * lease finds the fence changed.
 *
 * Redis refuses to set keys when its memory is full, which is just when there is
 * something to do for a worker.  So a fence that is still the own one is only
 * touched then: that is a change of the key, too.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "broken.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "redis/reply.h"
#include "settings.h"
#include "utils/timestamp.h"
#include "worker/fence.h"
#include "worker/wire.h"

/* The lease is renewed after this time, with what is sent anyway. */
#define RENEW_MS		3000

/* Times that somebody else may come in between before we call it a fight. */
#define MAX_ATTEMPTS	5

/* How long last words may take. */
#define FAREWELL_MS		200

/* An expiry that never comes: setting it changes a key without taking memory. */
#define FAR_AWAY_MS		INT64CONST(1000000000000)

void
hc_fence_key(uint64 system, Oid database, char *buf)
{
	snprintf(buf, HC_FENCE_TEXT_SIZE, "hybrid_cache:fence:" UINT64_FORMAT ":%u",
			 system, database);
}

void
hc_fence_lease_key(uint64 system, Oid database, char *buf)
{
	snprintf(buf, HC_FENCE_TEXT_SIZE, "hybrid_cache:lease:" UINT64_FORMAT ":%u",
			 system, database);
}

/* The start of this machine, as the kernel names it; empty if it does not. */
static void
read_boot_id(char *buf, size_t size)
{
	FILE	   *file = fopen("/proc/sys/kernel/random/boot_id", "r");

	buf[0] = '\0';
	if (file == NULL)
		return;
	if (fgets(buf, (int) size, file) == NULL)
		buf[0] = '\0';
	fclose(file);
}

/*
 * A copy is in another folder or on another machine.  A machine that was copied
 * whole has started since.
 */
void
hc_fence_incarnation(char *buf)
{
	char		boot[64];
	char		host[256] = "";
	struct stat st;
	char		text[512];
	int			len;

	read_boot_id(boot, sizeof(boot));
	(void) gethostname(host, sizeof(host) - 1);
	if (stat(DataDir, &st) != 0)
		memset(&st, 0, sizeof(st));
	len = snprintf(text, sizeof(text), "%s %s %llu %llu", boot, host,
				   (unsigned long long) st.st_dev, (unsigned long long) st.st_ino);
	snprintf(buf, HC_FENCE_TEXT_SIZE, "%016llx%016llx",
			 (unsigned long long) hash_bytes_extended((unsigned char *) text, len, 0),
			 (unsigned long long) hash_bytes_extended((unsigned char *) text, len, 1));
}

void
hc_fence_init(HcFence *fence)
{
	memset(fence, 0, sizeof(*fence));
	hc_fence_key(GetSystemIdentifier(), MyDatabaseId, fence->key);
	hc_fence_lease_key(GetSystemIdentifier(), MyDatabaseId, fence->lease_key);
	hc_fence_incarnation(fence->incarnation);
}

/* A command of some words, in RESP. */
static void
append_words(StringInfo wire, int n, const char *const *words)
{
	int			i;

	hc_wire_append_array(wire, n);
	for (i = 0; i < n; i++)
		hc_wire_append_bulk(wire, words[i], strlen(words[i]));
}

#define APPEND(wire, ...) \
	append_words(wire, lengthof(((const char *const[]) {__VA_ARGS__})), \
				 (const char *const[]) {__VA_ARGS__})

/* A number as a word of a command. */
static char *
word(int64 number)
{
	return psprintf(INT64_FORMAT, number);
}

static TimestampTz
command_deadline(void)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									   hc_command_timeout);
}

/* Sends commands, and takes all their replies, error replies as well. */
static redisReply **
exchange(HcConnection *conn, const StringInfo wire, int n)
{
	redisReply **replies = palloc(n * sizeof(redisReply *));
	TimestampTz deadline = command_deadline();
	int			i;

	hc_connection_append_raw(conn, wire->data, wire->len, n);
	for (i = 0; i < n; i++)
		replies[i] = hc_connection_reply(conn, deadline);
	return replies;
}

static bool
is_text(const redisReply *reply, const char *text)
{
	return reply->type == REDIS_REPLY_STRING &&
		reply->len == strlen(text) && memcmp(reply->str, text, reply->len) == 0;
}

/* Something else than a text under a key of ours was put there by hand. */
static void
check_key(const redisReply *reply, const char *key, HcConnection *conn)
{
	if (reply->type == REDIS_REPLY_ERROR &&
		strncmp(reply->str, "WRONGTYPE ", 10) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("key \"%s\" in Redis server \"%s\" is not a string",
						key, hc_connection_name(conn)),
				 errhint("The keys hybrid_cache:* belong to the extension: remove this one.")));
	hc_reply_check(reply, hc_connection_name(conn));
}

static void
new_token(HcFence *fence)
{
	uint64		random[2];

	if (!pg_strong_random(random, sizeof(random)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	snprintf(fence->token, sizeof(fence->token), "%s-%016llx%016llx",
			 fence->incarnation, (unsigned long long) random[0],
			 (unsigned long long) random[1]);
}

/*
 * Redis is out of memory, and the fence is one that we have set before: touches
 * it, and makes its token ours again.
 */
static bool
touch(HcFence *fence, HcConnection *conn, const redisReply *found)
{
	redisReply **replies;
	StringInfoData wire;

	if (found->type != REDIS_REPLY_STRING || found->len >= sizeof(fence->token) ||
		strncmp(found->str, fence->incarnation, strlen(fence->incarnation)) != 0)
		return false;
	strlcpy(fence->token, found->str, sizeof(fence->token));

	initStringInfo(&wire);
	APPEND(&wire, "PEXPIRE", fence->key, word(FAR_AWAY_MS));
	APPEND(&wire, "PEXPIRE", fence->lease_key, word(HC_LEASE_MS));
	hc_fence_append_guards(fence, &wire);
	replies = exchange(conn, &wire, 2 + HC_FENCE_GUARDS);
	hc_reply_check(replies[0], hc_connection_name(conn));
	hc_reply_check(replies[1], hc_connection_name(conn));
	hc_fence_renewed(fence, replies[1]);
	hc_reply_check(replies[2], hc_connection_name(conn));
	return replies[0]->type == REDIS_REPLY_INTEGER && replies[0]->integer == 1 &&
		hc_fence_check(fence, replies[3]) == HC_FENCE_OURS;
}

/* One attempt; false if somebody came in between. */
static bool
try_take(HcFence *fence, HcConnection *conn)
{
	redisReply **found;
	redisReply **replies;
	StringInfoData wire;
	const redisReply *refusal = NULL;
	int			i;

	initStringInfo(&wire);
	APPEND(&wire, "WATCH", fence->lease_key);
	APPEND(&wire, "GET", fence->lease_key);
	APPEND(&wire, "PTTL", fence->lease_key);
	APPEND(&wire, "GET", fence->key);
	found = exchange(conn, &wire, 4);
	hc_reply_check(found[0], hc_connection_name(conn));
	check_key(found[1], fence->lease_key, conn);
	hc_reply_check(found[2], hc_connection_name(conn));
	check_key(found[3], fence->key, conn);

	if (found[1]->type != REDIS_REPLY_NIL && !is_text(found[1], fence->incarnation))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another copy of this database is alive at Redis server \"%s\"",
						hc_connection_name(conn)),
				 errdetail("It has given a sign within the last %d seconds (key \"%s\").",
						   HC_LEASE_MS / 1000, fence->lease_key),
				 errhint("Give this copy another hybrid_cache.redis_url, or end the other one, or call hybrid_cache.take_over(force => true) here.")));

	new_token(fence);
	resetStringInfo(&wire);
	APPEND(&wire, "MULTI");
	APPEND(&wire, "SET", fence->lease_key, fence->incarnation, "PX", word(HC_LEASE_MS));
	APPEND(&wire, "SET", fence->key, fence->token);
	APPEND(&wire, "EXEC");
	hc_fence_append_guards(fence, &wire);
	replies = exchange(conn, &wire, 4 + HC_FENCE_GUARDS);
	for (i = 0; i < 4 && refusal == NULL; i++)
	{
		if (replies[i]->type == REDIS_REPLY_ERROR)
			refusal = replies[i];
	}
	if (refusal != NULL)
	{
		if (hc_reply_sqlstate(refusal->str) == ERRCODE_OUT_OF_MEMORY &&
			touch(fence, conn, found[3]))
			return true;
		fence->token[0] = '\0';
		hc_reply_check(refusal, hc_connection_name(conn));
	}
	if (replies[3]->type == REDIS_REPLY_NIL)
		return false;
	(void) hc_reply_array(replies[3], 2);
	hc_reply_check(replies[3]->element[0], hc_connection_name(conn));
	hc_reply_check(replies[3]->element[1], hc_connection_name(conn));
	hc_reply_check(replies[4], hc_connection_name(conn));
	return hc_fence_check(fence, replies[5]) == HC_FENCE_OURS;
}

void
hc_fence_take(HcFence *fence, HcConnection *conn)
{
	int			attempt = 0;

	fence->lapsed = false;
	fence->renew_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RENEW_MS);
	while (!try_take(fence, conn))
	{
		fence->token[0] = '\0';
		if (++attempt >= MAX_ATTEMPTS)
			hc_fence_require(HC_FENCE_TAKEN, conn);
	}
}

void
hc_fence_append_guards(HcFence *fence, StringInfo wire)
{
	APPEND(wire, "WATCH", hc_breaks(HC_BREAK_FENCE) ? "" : fence->key);
	APPEND(wire, "GET", fence->key);
}

HcFenceState
hc_fence_check(HcFence *fence, const redisReply *reply)
{
	if (fence->token[0] != '\0' && is_text(reply, fence->token))
		return HC_FENCE_OURS;
	return reply->type == REDIS_REPLY_NIL ? HC_FENCE_GONE : HC_FENCE_TAKEN;
}

bool
hc_fence_is_due(HcFence *fence)
{
	return GetCurrentTimestamp() >= fence->renew_at;
}

/* Renewing what is there is allowed even when Redis is out of memory. */
void
hc_fence_append_renewal(HcFence *fence, StringInfo wire)
{
	char		time[32];

	snprintf(time, sizeof(time), "%d", HC_LEASE_MS);
	if (fence->lapsed)
		APPEND(wire, "SET", fence->lease_key, fence->incarnation, "PX", time);
	else
		APPEND(wire, "PEXPIRE", fence->lease_key, time);
	fence->renew_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RENEW_MS);
}

void
hc_fence_renewed(HcFence *fence, const redisReply *reply)
{
	fence->lapsed = reply->type == REDIS_REPLY_INTEGER && reply->integer == 0;
	if (fence->lapsed)
		fence->renew_at = 0;
}

/*
 * Runs a MULTI and returns what EXEC replied.  What Redis refuses while it is
 * being queued, or as a whole, is raised, or is *refusal, if there is room for it.
 */
static redisReply *
execute(HcFence *fence, HcConnection *conn, const StringInfo wire, int n_commands,
		const char **refusal)
{
	redisReply **replies;
	StringInfoData all;
	int			i;

	initStringInfo(&all);
	APPEND(&all, "MULTI");
	appendBinaryStringInfo(&all, wire->data, wire->len);
	APPEND(&all, "EXEC");
	hc_fence_append_guards(fence, &all);
	replies = exchange(conn, &all, n_commands + 2 + HC_FENCE_GUARDS);
	pfree(all.data);

	/* the error of a command comes before the one of EXEC that follows from it */
	for (i = 0; i < n_commands + 3; i++)
	{
		if (replies[i]->type != REDIS_REPLY_ERROR)
			continue;
		if (refusal == NULL || i == n_commands + 2)
			hc_reply_check(replies[i], hc_connection_name(conn));
		else if (*refusal == NULL)
			*refusal = replies[i]->str;
	}
	hc_fence_require(hc_fence_check(fence, replies[n_commands + 3]), conn);
	return replies[n_commands + 1];
}

redisReply *
hc_fence_try(HcFence *fence, HcConnection *conn, const StringInfo wire,
			 int n_commands)
{
	redisReply *result = execute(fence, conn, wire, n_commands, NULL);
	int			i;

	if (result->type == REDIS_REPLY_NIL)
		return NULL;
	(void) hc_reply_array(result, n_commands);
	for (i = 0; i < n_commands; i++)
		hc_reply_check(result->element[i], hc_connection_name(conn));
	return result;
}

redisReply *
hc_fence_run(HcFence *fence, HcConnection *conn, const StringInfo wire,
			 int n_commands)
{
	redisReply *result = hc_fence_try(fence, conn, wire, n_commands);

	if (result == NULL)
		hc_fence_require(HC_FENCE_TAKEN, conn);
	return result;
}

redisReply *
hc_fence_ask(HcFence *fence, HcConnection *conn, const StringInfo wire,
			 int n_commands, const char **refusal)
{
	redisReply *result;

	*refusal = NULL;
	result = execute(fence, conn, wire, n_commands, refusal);
	if (*refusal != NULL)
		return NULL;
	if (result->type == REDIS_REPLY_NIL)
		hc_fence_require(HC_FENCE_TAKEN, conn);
	(void) hc_reply_array(result, n_commands);
	return result;
}

void
hc_fence_require(HcFenceState state, HcConnection *conn)
{
	if (state == HC_FENCE_GONE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("Redis server \"%s\" has lost its data, or another database has taken a key template over",
						hc_connection_name(conn))));
	if (state == HC_FENCE_TAKEN)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("somebody else writes to Redis server \"%s\" for this database",
						hc_connection_name(conn)),
				 errdetail("What was sent since then has had no effect."),
				 errhint("Look for another copy of this server.")));
}

void
hc_fence_leave(HcFence *fence, HcConnection *conn, const StringInfo wire)
{
	StringInfoData all;

	if (fence->token[0] == '\0')
		return;
	initStringInfo(&all);
	APPEND(&all, "MULTI");
	if (wire != NULL)
		appendBinaryStringInfo(&all, wire->data, wire->len);
	else
		APPEND(&all, "DEL", fence->lease_key);
	APPEND(&all, "EXEC");
	hc_connection_farewell(conn, all.data, all.len, FAREWELL_MS);
	pfree(all.data);
	fence->token[0] = '\0';
}
