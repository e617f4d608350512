/*
 * announce.c
 *	  Which streams have pending timers: finding out what the registry should know.
 *
 * The registry is written with each timer.  So it is right, unless somebody else
 * has removed it (eviction, a DEL by hand), or a key template comes from another
 * database, whose registry it was.  Pending timers would wait for ever then, and
 * comparing them with their table finds nothing wrong.  So a worker that connects,
 * or gets a template, looks what there is: mostly the mapping has one stream, whose
 * name is known; for others Redis is searched, in steps.
 */
#include "postgres.h"

#include "access/xact.h"
#include "capture/shape.h"
#include "redis/reply.h"
#include "settings.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/announce.h"
#include "worker/owner.h"
#include "worker/timer.h"
#include "worker/wire.h"

/* Redis's hint for how much one step of the search looks at. */
#define SCAN_COUNT	"2000"

/* Commands that put streams into the registry. */
typedef struct Entries
{
	StringInfoData wire;
	int			n;
} Entries;

void
hc_announce_begin(HcAnnounce *announce)
{
	if (announce->context == NULL)
		announce->context = AllocSetContextCreate(TopMemoryContext,
												  "hybrid_cache announce",
												  ALLOCSET_SMALL_SIZES);
	announce->begun = true;
	announce->cursor[0] = '\0';
}

static void
append_word(StringInfo wire, const char *word)
{
	hc_wire_append_bulk(wire, word, strlen(word));
}

/* Its score says that something is due: the script puts that right. */
static void
add_stream(Entries *entries, HcBytes stream)
{
	char		registry[HC_TIMER_REGISTRY_SIZE];

	if (hc_owner_any_foreign && hc_owner_is_foreign(stream))
		return;
	hc_timer_registry(registry);
	hc_wire_append_array(&entries->wire, 5);
	append_word(&entries->wire, "ZADD");
	append_word(&entries->wire, registry);
	append_word(&entries->wire, "LT");
	hc_wire_append_int64(&entries->wire, 0);
	hc_wire_append_bulk(&entries->wire, stream.data, stream.len);
	entries->n++;
}

/* The streams that are known by name, and what to search for. */
static void
read_mappings(HcAnnounce *announce, Entries *entries)
{
	MemoryContext old = CurrentMemoryContext;
	ListCell   *lc;

	MemoryContextReset(announce->context);
	announce->matchers = NIL;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(lc, hc_shape_candidates(InvalidOid))
	{
		const HcShape *shape = &((HcCandidate *) lfirst(lc))->shape;
		const HcTemplate *key = shape->key_template;

		if (shape->type == NULL || strcmp(shape->type, HC_TYPE_TIMER) != 0)
			continue;
		if (key->n_parts == 1 && !key->parts[0].is_column)
		{
			HcBytes		stream = hc_match_literal(shape->key);

			MemoryContextSwitchTo(old);
			add_stream(entries, stream);
			continue;
		}
		MemoryContextSwitchTo(announce->context);
		announce->matchers = lappend(announce->matchers, hc_match_copy(shape->key));
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	if (announce->matchers != NIL)
		strlcpy(announce->cursor, "0", sizeof(announce->cursor));
}

/* Could the stream be one of a mapping? */
static bool
is_ours(const HcAnnounce *announce, HcBytes stream)
{
	ListCell   *lc;

	foreach(lc, announce->matchers)
	{
		if (hc_match(lfirst(lc), stream.data, stream.len))
			return true;
	}
	return false;
}

/* One step of the search. */
static void
search(HcAnnounce *announce, HcConnection *conn, Entries *entries)
{
	const char *words[] = {"SCAN", announce->cursor, "MATCH", HC_TIMER_PREFIX "*",
		"COUNT", SCAN_COUNT, "TYPE", "zset"};
	size_t		lengths[lengthof(words)];
	const redisReply *reply;
	const redisReply *names;
	size_t		i;

	for (i = 0; i < lengthof(words); i++)
		lengths[i] = strlen(words[i]);
	hc_connection_append(conn, lengthof(words), words, lengths);
	reply = hc_connection_reply(conn,
								TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															hc_command_timeout));
	announce->cursor[0] = '\0';

	/* a user who may not search has what was announced when it was written */
	if (reply->type == REDIS_REPLY_ERROR)
		return;
	(void) hc_reply_array(reply, 2);
	if (strcmp(hc_reply_string(reply->element[0])->str, "0") != 0)
		strlcpy(announce->cursor, reply->element[0]->str, sizeof(announce->cursor));
	names = hc_reply_array(reply->element[1], HC_REPLY_ANY_LENGTH);
	for (i = 0; i < names->elements; i++)
	{
		const redisReply *name = hc_reply_string(names->element[i]);
		HcBytes		bytes = {name->str, name->len};
		HcBytes		streams[2];
		int			n;

		for (n = hc_timer_streams(bytes, streams); n > 0; n--)
		{
			if (is_ours(announce, streams[n - 1]))
				add_stream(entries, streams[n - 1]);
		}
	}
}

bool
hc_announce_step(HcAnnounce *announce, HcConnection *conn, HcFence *fence)
{
	Entries		entries = {.n = 0};
	const char *refusal;

	if (!announce->begun && announce->cursor[0] == '\0')
		return false;
	initStringInfo(&entries.wire);
	if (announce->begun)
		read_mappings(announce, &entries);
	else
		search(announce, conn, &entries);
	announce->begun = false;
	if (entries.n > 0)
		(void) hc_fence_ask(fence, conn, &entries.wire, entries.n, &refusal);
	pfree(entries.wire.data);
	return true;
}
