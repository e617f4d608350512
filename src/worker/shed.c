/*
 * shed.c
 *	  What to do while Redis has no memory left: entries that wait to change are
 *	  removed, since a missing entry is true and a stale one is not.
 *
 * With maxmemory reached and nothing to evict, Redis refuses every command of a
 * MULTI, even those that free memory.  Outside it takes removals, but there they
 * could come late, after newer data.  A script (src/lua/shed.lua) does both: it
 * removes only while fence and watermark are what they were when the removal was
 * decided.  As long as they are, the transactions that change these entries are
 * still to be applied, so nothing is removed that would not be written again.
 *
 * A feed of its own goes through the WAL up to its end, while the watermark
 * stays.  It leaves out what the keeper captures: that is not newer than Redis,
 * and can be all there is.  It is kept while changes are tried again in vain: what was removed
 * stays removed until some of it is applied.
 */
#include "postgres.h"

#include "compat.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "redis/reply.h"
#include "redis/script.h"
#include "settings.h"
#include "shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/shed.h"
#include "worker/wire.h"

/* Changes are sent again after this time, then twice as long, up to the most. */
#define RETRY_FIRST_MS	100
#define RETRY_MOST_MS	5000

/* That there is no memory is said again after this time. */
#define LOG_INTERVAL_MS	60000

/* Entries of one script; Redis stands still while it runs. */
#define SCRIPT_ENTRIES	512

/* Removals that are sent before anybody looks at anything else. */
#define TURN_BYTES		(1024 * 1024)

/* One script in the making. */
typedef struct Removal
{
	HcBatch    *batch;
	const HcScript *script;
	const HcFence *fence;
	const char *key;			/* of the watermark */
	const char *text;
	StringInfoData wire;
	int			n_scripts;
	HcOpKind	kind;
	int			slots[SCRIPT_ENTRIES];
	int			n;
} Removal;

void
hc_shed_init(HcShed *shed)
{
	memset(shed, 0, sizeof(*shed));
	shed->batch = hc_batch_create();
}

/* Redis may be at its limit for long, now below, now above. */
static void
say_waiting(HcShed *shed, HcConnection *conn)
{
	TimestampTz now = GetCurrentTimestamp();

	if (shed->said || (shed->said_at != 0 &&
					   !TimestampDifferenceExceeds(shed->said_at, now,
												   LOG_INTERVAL_MS)))
		return;
	shed->said = true;
	shed->said_at = now;
	ereport(LOG,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("%s waits: Redis server \"%s\" has no memory left",
					MyBgworkerEntry->bgw_name, hc_connection_name(conn)),
			 errdetail("Entries that wait to change are removed, so that no old ones are read."),
			 errhint("%s", hc_reply_hint("OOM "))));
}

void
hc_shed_begin(HcShed *shed, HcConnection *conn)
{
	if (shed->state == HC_SHED_NONE)
	{
		shed->retry_ms = 0;
		hc_shmem_set_error(hc_shmem_mine(),
						   psprintf("Redis server \"%s\" has no memory left",
									hc_connection_name(conn)));
		say_waiting(shed, conn);
	}
	shed->state = HC_SHED_WAITING;
	shed->retry_ms = Min(Max(RETRY_FIRST_MS, shed->retry_ms * 2), RETRY_MOST_MS);
	shed->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												 shed->retry_ms);
}

bool
hc_shed_is_over(HcShed *shed)
{
	if (shed->state == HC_SHED_WAITING && GetCurrentTimestamp() >= shed->retry_at)
	{
		shed->state = HC_SHED_TRYING;
		return true;
	}
	return false;
}

static void
forget(HcShed *shed)
{
	if (shed->feed != NULL)
		hc_feed_close(shed->feed);
	shed->feed = NULL;
	hc_batch_reset(shed->batch);
}

void
hc_shed_end(HcShed *shed, HcConnection *conn)
{
	if (shed->state == HC_SHED_NONE)
		return;
	forget(shed);
	shed->state = HC_SHED_NONE;
	if (!shed->said)
		return;
	shed->said = false;
	ereport(LOG,
			(errmsg("%s applies changes to Redis server \"%s\" again",
					MyBgworkerEntry->bgw_name, hc_connection_name(conn)),
			 shed->n_removed == 0 ? 0 :
			 errdetail_plural("For want of memory " UINT64_FORMAT " entry had been removed.",
							  "For want of memory " UINT64_FORMAT " entries had been removed.",
							  (unsigned long) shed->n_removed, shed->n_removed)));
	shed->n_removed = 0;
}

void
hc_shed_close(HcShed *shed)
{
	forget(shed);
	shed->state = HC_SHED_NONE;
	shed->unable = false;
}

static void
append_word(StringInfo wire, const char *word)
{
	hc_wire_append_bulk(wire, word, strlen(word));
}

static void
append_part(Removal *removal, size_t from, size_t to)
{
	appendBinaryStringInfo(&removal->wire, removal->batch->text.data + from,
						   to - from);
}

/* Writes the script for the entries collected. */
static void
finish_script(Removal *removal)
{
	StringInfo	wire = &removal->wire;
	const HcSlot *slots = removal->batch->slots;
	bool		members = hc_op_has_member(removal->kind);
	int			n_keys = 2 + (members ? 1 : removal->n);
	int			i;

	if (removal->n == 0)
		return;
	hc_wire_append_array(wire, 3 + n_keys + 3 + (members ? removal->n : 0));
	hc_wire_append_bulk(wire, "EVAL", 4);
	hc_wire_append_bulk(wire, removal->script->text, removal->script->len);
	hc_wire_append_int64(wire, n_keys);
	append_word(wire, removal->fence->key);
	append_word(wire, removal->key);
	for (i = 0; i < (members ? 1 : removal->n); i++)
	{
		const HcSlot *slot = &slots[removal->slots[i]];

		append_part(removal, slot->start, slot->args);
	}
	append_word(wire, removal->fence->token);
	append_word(wire, removal->text);
	append_word(wire, hc_wire_verb(removal->kind));
	for (i = 0; members && i < removal->n; i++)
	{
		const HcSlot *slot = &slots[removal->slots[i]];

		hc_wire_append_bulk(wire, removal->batch->text.data + slot->member,
							slot->member_len);
	}
	removal->n_scripts++;
	removal->n = 0;
}

static void
add_entry(Removal *removal, int index)
{
	HcOpKind	kind = hc_op_removal_of(removal->batch->slots[index].kind);

	/* nothing fires before what waits is applied, so that nobody sees it */
	if (kind == HC_OP_UNTIMER)
		return;
	if (kind != removal->kind || removal->n == SCRIPT_ENTRIES)
		finish_script(removal);
	removal->kind = kind;
	removal->slots[removal->n++] = index;
}

/* Makes removals of all that lives in the batch. */
static void
compile(Removal *removal)
{
	HcBatch    *batch = removal->batch;
	int			i;
	int			m;

	removal->kind = HC_OP_UNLINK;
	for (i = 0; i < batch->n_keys; i++)
	{
		int			whole = batch->key_entries[i].whole;

		if (whole >= 0 && !batch->slots[whole].dead)
			add_entry(removal, whole);
	}
	finish_script(removal);
	for (i = 0; i < batch->n_keys; i++)
	{
		for (m = batch->key_entries[i].first; m >= 0; m = batch->slots[m].next)
		{
			if (!batch->slots[m].dead)
				add_entry(removal, m);
		}
		finish_script(removal);
	}
}

/* The reply to one script. */
static void
take(HcShed *shed, HcConnection *conn, const redisReply *reply)
{
	if (reply->type == REDIS_REPLY_INTEGER)
		shed->n_removed += reply->integer;
	else if (reply->type == REDIS_REPLY_NIL)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("somebody else writes to Redis server \"%s\" for this database",
						hc_connection_name(conn))));
	else if (reply->type != REDIS_REPLY_ERROR)
		(void) hc_reply_integer(reply);

	/* what is of another type is not ours */
	else if (hc_reply_classify(reply->str) == HC_ERROR_OP)
		return;
	else if (strncmp(reply->str, "NOPERM ", 7) != 0 &&
			 strncmp(reply->str, "ERR ", 4) != 0)
		hc_reply_check(reply, hc_connection_name(conn));
	else if (!shed->unable)
	{
		shed->unable = true;
		ereport(LOG,
				(errcode(hc_reply_sqlstate(reply->str)),
				 errmsg("Redis server \"%s\" does not let old entries be removed",
						hc_connection_name(conn)),
				 errdetail_internal("%s", hc_reply_clean(reply->str)),
				 errhint("The Redis user needs the right to EVAL and to commands that remove.")));
	}
}

/* Removes the entries of the batch and empties it. */
static void
remove_batch(HcShed *shed, HcConnection *conn, HcFence *fence, const char *key,
			 const char *text)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache shed",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Removal    *removal = palloc0(sizeof(Removal));
	TimestampTz deadline;
	int			i;

	removal->batch = shed->batch;
	removal->script = hc_script_get("shed");
	removal->fence = fence;
	removal->key = key;
	removal->text = text;
	initStringInfo(&removal->wire);
	compile(removal);
	if (removal->n_scripts > 0)
		hc_connection_append_raw(conn, removal->wire.data, removal->wire.len,
								 removal->n_scripts);
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   hc_command_timeout);
	for (i = 0; i < removal->n_scripts; i++)
		take(shed, conn, hc_connection_reply(conn, deadline));
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	hc_batch_reset(shed->batch);
}

/* Nothing else is sent that could carry the renewal. */
static void
keep_lease(HcConnection *conn, HcFence *fence)
{
	StringInfoData wire;
	redisReply *reply;

	initStringInfo(&wire);
	hc_fence_append_renewal(fence, &wire);
	hc_connection_append_raw(conn, wire.data, wire.len, 1);
	reply = hc_connection_reply(conn,
								TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															hc_command_timeout));
	hc_fence_renewed(fence, reply);
	pfree(wire.data);
}

HcFeedResult
hc_shed_work(HcShed *shed, HcConnection *conn, HcFence *fence,
			 const char *key, const HcWatermark *mark, const char *text)
{
	HcFeedResult fed;

	if (hc_fence_is_due(fence))
		keep_lease(conn, fence);
	if (shed->unable || text == NULL)
		return HC_FEED_END;
	if (shed->feed == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		shed->feed = hc_feed_open(mark);
		hc_feed_look_ahead(shed->feed);
		MemoryContextSwitchTo(old);
	}
	do
	{
		CHECK_FOR_INTERRUPTS();
		fed = hc_feed_fill(shed->feed, shed->batch);
	} while (fed == HC_FEED_MORE && shed->batch->text.len < TURN_BYTES &&
			 GetCurrentTimestamp() < shed->retry_at);

	/* only of a whole transaction it is known which of its ops count */
	if (!shed->batch->open)
		remove_batch(shed, conn, fence, key, text);
	return fed == HC_FEED_FULL ? HC_FEED_MORE : fed;
}
