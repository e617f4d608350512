/*
 * inlet.c
 *	  What a consumer process knows of one consumer: how it reads its stream.
 *
 * What is read is exact by the position in PostgreSQL alone.  XREADGROUP gives
 * what its group has not given yet, and a group can be anywhere: an earlier
 * process was killed between its commit and XACK, Redis lost the last writes, the
 * database was restored, somebody reads with the same group.  So in the same MULTI
 * the first message after the position is read; if the group gives another one,
 * the group is made anew at the position.
 *
 * A position means nothing in another stream of the same name.  The group goes
 * away with its stream, so where there is none it is found out if this is still
 * the stream that was read: by the message at the position (place()).
 */
#include "postgres.h"

#include "access/xlog.h"
#include "inbound/inlet.h"
#include "inbound/stream_info.h"
#include "miscadmin.h"
#include "redis/arguments.h"
#include "redis/reply.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* What Redis has of the group. */
typedef struct StreamGroup
{
	bool		exists;
	HcMessageId delivered;
	long long	pending;
} StreamGroup;

HcInlet *
hc_inlet_create(const HcConsumer *row)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "hybrid_cache consumer",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HcInlet    *inlet = palloc0(sizeof(HcInlet));

	inlet->context = context;
	inlet->row = *row;
	inlet->row.name = pstrdup(row->name);
	inlet->row.stream = pstrdup(row->stream);
	inlet->row.handler = pstrdup(row->handler);
	inlet->row.error = row->error != NULL ? pstrdup(row->error) : NULL;
	inlet->row.sqlstate = row->sqlstate != NULL ? pstrdup(row->sqlstate) : NULL;
	MemoryContextSwitchTo(old);
	return inlet;
}

void
hc_inlet_free(HcInlet *inlet)
{
	if (inlet->plan != NULL)
		SPI_freeplan(inlet->plan);
	MemoryContextDelete(inlet->context);
}

static void
add_id(HcArguments *args, const char *before, HcMessageId id)
{
	char		text[HC_MESSAGE_ID_SIZE];

	hc_message_format_id(id, text);
	hc_arguments_add_literal(args, psprintf("%s%s", before, text));
}

/* The name of the group. */
static void
add_group(HcArguments *args, const HcInlet *inlet)
{
	hc_arguments_add_text(args, cstring_to_text(inlet->row.name));
}

static void
add_key(HcArguments *args, const HcInlet *inlet)
{
	hc_arguments_add_key(args, cstring_to_text(inlet->row.stream));
}

static void
append(HcConnection *conn, const HcArguments *args)
{
	hc_connection_append(conn, args->n, args->data, args->len);
}

static void
append_word(HcConnection *conn, const char *command)
{
	HcArguments args;

	hc_arguments_begin(&args, command);
	append(conn, &args);
}

/* The next n replies. */
static redisReply **
receive(HcConnection *conn, int n)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   hc_command_timeout);
	redisReply **replies = palloc(n * sizeof(redisReply *));
	int			i;

	for (i = 0; i < n; i++)
		replies[i] = hc_connection_reply(conn, deadline);
	return replies;
}

/*
 * What EXEC replied, the last of n replies to a MULTI; raises if a command was refused
 * while queueing.
 */
static const redisReply *
executed(HcConnection *conn, redisReply **replies, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		hc_reply_check(replies[i], hc_connection_name(conn));
	return hc_reply_array(replies[n - 1], n - 2);
}

static bool
begins_with(const redisReply *reply, const char *word)
{
	return reply->type == REDIS_REPLY_ERROR &&
		strncmp(reply->str, word, strlen(word)) == 0;
}

static HcMessageId
id_field(const redisReply *reply, const char *name)
{
	HcMessageId id;

	if (!hc_stream_info_id(reply, name, &id))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("could not understand what Redis says about a stream")));
	return id;
}

/* The group among those of XINFO GROUPS. */
static StreamGroup
find_group(const HcInlet *inlet, const redisReply *reply)
{
	StreamGroup group = {0};
	const redisReply *found;
	const redisReply *pending;

	found = hc_stream_info_group(hc_reply_array(reply, HC_REPLY_ANY_LENGTH),
								 inlet->row.name);
	if (found == NULL)
		return group;
	pending = hc_stream_info_field(found, "pending", REDIS_REPLY_INTEGER);
	group.exists = true;
	group.delivered = id_field(found, "last-delivered-id");
	group.pending = pending != NULL ? pending->integer : 0;
	return group;
}

/* Writes another position into the row, since the stream is another. */
static void
move(HcInlet *inlet, HcMessageId position, const char *reason)
{
	MemoryContext old = CurrentMemoryContext;
	char		from[HC_MESSAGE_ID_SIZE];
	char		to[HC_MESSAGE_ID_SIZE];

	hc_message_format_id(inlet->row.position, from);
	hc_message_format_id(position, to);
	hc_roster_begin();
	if (!hc_roster_lock(&inlet->row))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("consumer \"%s\" is being changed", inlet->row.name)));
	hc_roster_advance(inlet->row.id, position, NULL, 0, 0);
	hc_roster_end(old);
	inlet->row.position = position;
	inlet->row.has_digest = false;
	ereport(LOG,
			(errmsg("consumer \"%s\" goes on at %s instead of %s in stream \"%s\"",
					inlet->row.name, to, from, inlet->row.stream),
			 errdetail_internal("%s", reason)));
}

/* Is the message that was done last the one that is there now? */
static bool
is_same(const HcInlet *inlet, const redisReply *reply)
{
	HcMessage	message = hc_message_read(reply);

	return !inlet->row.has_digest ||
		inlet->row.digest == hc_message_digest(&message);
}

/*
 * Sees to it that the position is one of this stream: last is the last id that it
 * has given, at what XRANGE finds at the position, before the first message up to
 * it.
 *
 * Where there is a group that has given something, this is the stream that was read,
 * though maybe as it was earlier.  In another one everything is new.  A stream
 * whose message at the position is gone, but not those before it, could be either:
 * then rather twice than never.
 */
static void
check_position(HcInlet *inlet, const StreamGroup *group, HcMessageId last,
			   const redisReply *at, const redisReply *before)
{
	HcMessageId zero = {0, 0};
	bool		behind = hc_message_compare(last, inlet->row.position) < 0;

	if (hc_message_is_zero(inlet->row.position))
		return;
	if (group->exists && !hc_message_is_zero(group->delivered))
	{
		if (behind)
			move(inlet, last, "Redis has gone back to older data.");
		return;
	}
	if (behind ||
		(at->elements > 0 && !is_same(inlet, at->element[0])) ||
		(inlet->row.has_digest && at->elements == 0 && before->elements > 0))
		move(inlet, zero, "The stream was made anew.");
}

/* Makes the group anew where the position is. */
static void
make_group(HcInlet *inlet, HcConnection *conn)
{
	HcArguments args;
	const redisReply *reply;

	append_word(conn, "MULTI");
	hc_arguments_begin(&args, "XGROUP");
	hc_arguments_add_literal(&args, "DESTROY");
	add_key(&args, inlet);
	add_group(&args, inlet);
	append(conn, &args);
	hc_arguments_begin(&args, "XGROUP");
	hc_arguments_add_literal(&args, "CREATE");
	add_key(&args, inlet);
	add_group(&args, inlet);
	add_id(&args, "", inlet->row.position);
	append(conn, &args);
	append_word(conn, "EXEC");
	reply = executed(conn, receive(conn, 4), 4);
	hc_reply_check(reply->element[1], hc_connection_name(conn));
}

/*
 * Brings position, stream and group together.  false: there is no stream.
 */
static bool
place(HcInlet *inlet, HcConnection *conn, bool anew)
{
	const char *server = hc_connection_name(conn);
	redisReply **replies;
	HcMessageId last;
	StreamGroup group;
	HcArguments args;

	hc_arguments_begin(&args, "XINFO");
	hc_arguments_add_literal(&args, "STREAM");
	add_key(&args, inlet);
	append(conn, &args);
	hc_arguments_begin(&args, "XINFO");
	hc_arguments_add_literal(&args, "GROUPS");
	add_key(&args, inlet);
	append(conn, &args);
	hc_arguments_begin(&args, "XRANGE");
	add_key(&args, inlet);
	add_id(&args, "", inlet->row.position);
	add_id(&args, "", inlet->row.position);
	append(conn, &args);
	hc_arguments_begin(&args, "XRANGE");
	add_key(&args, inlet);
	hc_arguments_add_literal(&args, "-");
	add_id(&args, "", inlet->row.position);
	hc_arguments_add_literal(&args, "COUNT");
	hc_arguments_add_literal(&args, "1");
	append(conn, &args);

	replies = receive(conn, 4);
	inlet->absent = begins_with(replies[0], "ERR no such key") ||
		begins_with(replies[1], "ERR no such key");
	if (inlet->absent)
		return false;
	hc_reply_check(replies[0], server);
	hc_reply_check(replies[1], server);
	hc_reply_check(replies[2], server);
	hc_reply_check(replies[3], server);
	last = id_field(hc_reply_array(replies[0], HC_REPLY_ANY_LENGTH),
					"last-generated-id");
	group = find_group(inlet, replies[1]);
	check_position(inlet, &group, last,
				   hc_reply_array(replies[2], HC_REPLY_ANY_LENGTH),
				   hc_reply_array(replies[3], HC_REPLY_ANY_LENGTH));
	if (anew || !group.exists || group.pending > 0 ||
		hc_message_compare(group.delivered, inlet->row.position) != 0)
		make_group(inlet, conn);
	inlet->n_done = 0;
	inlet->placed = true;
	return true;
}

/* The name by which this process reads: one per database. */
static char *
reader_name(void)
{
	return psprintf("hybrid_cache:" UINT64_FORMAT ":%u", GetSystemIdentifier(),
					MyDatabaseId);
}

/* XACK, XRANGE and XREADGROUP; the array of their replies. */
static const redisReply *
ask(HcInlet *inlet, HcConnection *conn, int max)
{
	HcArguments args;
	int			n = 4;
	int			i;

	append_word(conn, "MULTI");
	if (inlet->n_done > 0)
	{
		hc_arguments_begin(&args, "XACK");
		add_key(&args, inlet);
		add_group(&args, inlet);
		for (i = 0; i < inlet->n_done; i++)
			add_id(&args, "", inlet->done[i]);
		append(conn, &args);
		n++;
	}
	hc_arguments_begin(&args, "XRANGE");
	add_key(&args, inlet);
	add_id(&args, "(", inlet->row.position);
	hc_arguments_add_literal(&args, "+");
	hc_arguments_add_literal(&args, "COUNT");
	hc_arguments_add_literal(&args, "1");
	append(conn, &args);
	hc_arguments_begin(&args, "XREADGROUP");
	hc_arguments_add_literal(&args, "GROUP");
	add_group(&args, inlet);
	hc_arguments_add_literal(&args, reader_name());
	hc_arguments_add_literal(&args, "COUNT");
	hc_arguments_add_integer(&args, max);
	hc_arguments_add_literal(&args, "STREAMS");
	add_key(&args, inlet);
	hc_arguments_add_literal(&args, ">");
	append(conn, &args);
	append_word(conn, "EXEC");
	return executed(conn, receive(conn, n), n);
}

/* The messages in what XREADGROUP replied for one stream; nil: none. */
static int
take_messages(const redisReply *reply, HcMessage **messages)
{
	const redisReply *list;
	size_t		i;

	*messages = NULL;
	if (reply->type == REDIS_REPLY_NIL)
		return 0;
	list = hc_reply_array(hc_reply_array(reply, 1)->element[0], 2)->element[1];
	(void) hc_reply_array(list, HC_REPLY_ANY_LENGTH);
	*messages = palloc(Max(list->elements, 1) * sizeof(HcMessage));
	for (i = 0; i < list->elements; i++)
		(*messages)[i] = hc_message_read(list->element[i]);
	return (int) list->elements;
}

/* Does the group give the first message after the position? */
static bool
fits(const redisReply *first, const HcMessage *messages, int n)
{
	(void) hc_reply_array(first, HC_REPLY_ANY_LENGTH);
	if (first->elements == 0)
		return n == 0;
	return n > 0 &&
		hc_message_compare(hc_message_read(first->element[0]).id, messages[0].id) == 0;
}

int
hc_inlet_read(HcInlet *inlet, HcConnection *conn, int max, HcMessage **messages)
{
	bool		again = false;

	for (;;)
	{
		const redisReply *replies;
		const redisReply *first;
		const redisReply *given;
		int			n;

		CHECK_FOR_INTERRUPTS();
		if (!inlet->placed && !place(inlet, conn, again))
			return 0;
		replies = ask(inlet, conn, max);
		inlet->placed = false;	/* until it is known */
		first = replies->element[replies->elements - 2];
		given = replies->element[replies->elements - 1];
		hc_reply_check(first, hc_connection_name(conn));

		/* the stream is gone, or was made anew, or somebody removed the group */
		if (begins_with(given, "NOGROUP"))
			continue;
		hc_reply_check(given, hc_connection_name(conn));
		n = take_messages(given, messages);
		if (fits(first, *messages, n))
		{
			inlet->n_done = 0;
			inlet->placed = true;
			return n;
		}
		again = true;
	}
}

void
hc_inlet_advance(HcInlet *inlet, const HcMessage *messages, int n)
{
	int			i;

	if (inlet->done == NULL)
		inlet->done = MemoryContextAlloc(inlet->context,
										 inlet->row.batch * sizeof(HcMessageId));
	for (i = 0; i < n; i++)
	{
		Assert(inlet->n_done < inlet->row.batch);
		inlet->done[inlet->n_done++] = messages[i].id;
	}
	inlet->row.position = messages[n - 1].id;
	inlet->row.digest = hc_message_digest(&messages[n - 1]);
	inlet->row.has_digest = true;
}

void
hc_inlet_reread(HcInlet *inlet)
{
	inlet->placed = false;
}

void
hc_inlet_listen(const List *inlets, HcConnection *conn, long ms)
{
	HcMessageId zero = {0, 0};
	HcArguments args;
	ListCell   *lc;

	hc_arguments_begin(&args, "XREAD");
	hc_arguments_add_literal(&args, "COUNT");
	hc_arguments_add_literal(&args, "1");
	hc_arguments_add_literal(&args, "BLOCK");
	hc_arguments_add_integer(&args, Max(ms, 1));
	hc_arguments_add_literal(&args, "STREAMS");
	foreach(lc, inlets)
		add_key(&args, lfirst(lc));
	foreach(lc, inlets)
	{
		const HcInlet *inlet = lfirst(lc);

		add_id(&args, "", inlet->absent ? zero : inlet->row.position);
	}
	append(conn, &args);
}
