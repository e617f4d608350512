/*
 * notifier.c
 *	  Messages of Redis as notifications of PostgreSQL.
 *
 * Transactions that notify commit one after the other, whatever database they are
 * in.  So the messages that have come together share one.  PostgreSQL makes one
 * notification of several that are the same in a transaction; each message
 * counts, so one that was there already begins another transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "inbound/notifier.h"
#include "mapping/bytes.h"
#include "mb/pg_wchar.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Of one transaction. */
#define MAX_ITEMS		64
#define MAX_BYTES		(256 * 1024)

/* A payload must be shorter, as commands/async.c has it. */
#define PAYLOAD_LIMIT	(BLCKSZ - NAMEDATALEN - 128)

/* That messages were dropped is said again after this time. */
#define LOG_INTERVAL_MS	60000

typedef struct Item
{
	const char *target;			/* the channel of PostgreSQL */
	bool		with_channel;
	HcBytes		channel;		/* of Redis */
	HcBytes		message;
	HcTraffic  *traffic;
	const char *payload;		/* in the transaction; NULL: it is dropped */
} Item;

struct HcNotifier
{
	MemoryContext context;		/* of the items */
	Item		items[MAX_ITEMS];
	int			n_items;
	int			n_sent;
	size_t		bytes;
	uint64		n_dropped;		/* since that was said last */
	TimestampTz said_at;		/* 0: never */
};

HcNotifier *
hc_notifier_create(void)
{
	HcNotifier *notifier = palloc0(sizeof(HcNotifier));

	notifier->context = AllocSetContextCreate(CurrentMemoryContext,
											  "hybrid_cache notifications",
											  ALLOCSET_DEFAULT_SIZES);
	return notifier;
}

void
hc_notifier_add(HcNotifier *notifier, const HcBridged *bridge,
				HcTraffic *traffic, const HcPublished *published)
{
	Item	   *item = &notifier->items[notifier->n_items];

	Assert(!hc_notifier_is_full(notifier));
	item->target = MemoryContextStrdup(notifier->context, bridge->channel);
	item->with_channel = bridge->with_channel;
	item->channel = hc_bytes_copy(notifier->context, published->channel);
	item->message = hc_bytes_copy(notifier->context, published->message);
	item->traffic = traffic;
	notifier->bytes += published->message.len;
	notifier->n_items++;
}

bool
hc_notifier_is_empty(const HcNotifier *notifier)
{
	return notifier->n_items == 0;
}

bool
hc_notifier_is_full(const HcNotifier *notifier)
{
	return notifier->n_items == MAX_ITEMS || notifier->bytes >= MAX_BYTES;
}

/* The payload, or NULL and why there is none. */
static const char *
make_payload(const Item *item, const char **problem)
{
	text	   *message;
	text	   *channel;
	const char *payload;
	StringInfoData json;

	*problem = "it is too long for a notification";
	if (item->message.len >= PAYLOAD_LIMIT * MAX_CONVERSION_GROWTH)
		return NULL;
	message = hc_bytes_text(item->message);
	channel = hc_bytes_text(item->channel);
	if (message == NULL || (item->with_channel && channel == NULL))
	{
		*problem = "it is not text in the encoding of the database";
		return NULL;
	}
	payload = text_to_cstring(message);
	if (item->with_channel)
	{
		initStringInfo(&json);
		appendStringInfoString(&json, "{\"channel\": ");
		escape_json(&json, text_to_cstring(channel));
		appendStringInfoString(&json, ", \"message\": ");
		escape_json(&json, payload);
		appendStringInfoChar(&json, '}');
		payload = json.data;
	}
	return strlen(payload) < PAYLOAD_LIMIT ? payload : NULL;
}

/* Is there the same among those from first on? */
static bool
is_repeated(const HcNotifier *notifier, int first, int i)
{
	const Item *item = &notifier->items[i];
	int			k;

	for (k = first; k < i; k++)
	{
		const Item *other = &notifier->items[k];

		if (other->payload != NULL &&
			strcmp(other->payload, item->payload) == 0 &&
			strcmp(other->target, item->target) == 0)
			return true;
	}
	return false;
}

static void
say_dropped(HcNotifier *notifier, const Item *item, const char *problem)
{
	TimestampTz now = GetCurrentTimestamp();

	notifier->n_dropped++;
	if (notifier->said_at != 0 &&
		!TimestampDifferenceExceeds(notifier->said_at, now, LOG_INTERVAL_MS))
		return;
	ereport(LOG,
			(errmsg("%s drops a message for channel \"%s\": %s",
					MyBgworkerEntry->bgw_name, item->target, problem),
			 errdetail("It has %zu bytes; so many messages were dropped since this was said last: " UINT64_FORMAT ".",
					   item->message.len, notifier->n_dropped),
			 errhint("A notification is text of less than %d bytes.", PAYLOAD_LIMIT)));
	notifier->said_at = now;
	notifier->n_dropped = 0;
}

static void
count(const Item *item)
{
	if (item->traffic == NULL)
		return;
	pg_atomic_fetch_add_u64(item->payload != NULL ? &item->traffic->messages :
							&item->traffic->dropped, 1);
	pg_atomic_write_u64(&item->traffic->last_at, (uint64) GetCurrentTimestamp());
}

/* One transaction, of as many as can share it. */
static void
deliver(HcNotifier *notifier)
{
	MemoryContext old = CurrentMemoryContext;
	int			first = notifier->n_sent;
	int			end;
	int			i;

	StartTransactionCommand();
	for (end = first; end < notifier->n_items; end++)
	{
		Item	   *item = &notifier->items[end];
		const char *problem;

		item->payload = make_payload(item, &problem);
		if (item->payload == NULL)
			say_dropped(notifier, item, problem);
		else if (is_repeated(notifier, first, end))
			break;
		else
			Async_Notify(item->target, item->payload);
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	for (i = first; i < end; i++)
		count(&notifier->items[i]);
	notifier->n_sent = end;
}

void
hc_notifier_deliver(HcNotifier *notifier)
{
	while (notifier->n_sent < notifier->n_items)
		deliver(notifier);
	MemoryContextReset(notifier->context);
	notifier->n_items = 0;
	notifier->n_sent = 0;
	notifier->bytes = 0;
}
