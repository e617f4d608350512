/*
 * delivery.c
 *	  What becomes of a consumer's messages: handled, tried again, put aside.
 *
 * A batch that fails is tried again one message at a time, so that it is known
 * which one fails.  That one is tried a few times, and nothing after it before it
 * has succeeded or is among the dead messages.
 */
#include "postgres.h"

#include "inbound/consumer.h"
#include "inbound/delivery.h"
#include "inbound/handler.h"
#include "role.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* After a failure: wait this long, then twice as long, up to the most. */
#define RETRY_FIRST_MS		100
#define RETRY_MOST_MS		10000

/* Somebody has locked a consumer's row: look again. */
#define BUSY_MS				100

/* Dead messages that are tried again in one go. */
#define MAX_DEAD			100

int
hc_delivery_pause(int ms)
{
	return Min(Max(RETRY_FIRST_MS, ms * 2), RETRY_MOST_MS);
}

/* The consumer is to be tried again later. */
static void
put_off(HcInlet *inlet)
{
	inlet->retry_ms = hc_delivery_pause(inlet->retry_ms);
	inlet->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  inlet->retry_ms);
	hc_inlet_reread(inlet);
}

/* What went wrong, in one line. */
static char *
describe(const ErrorData *error)
{
	return error->detail == NULL ? pstrdup(error->message) :
		psprintf("%s: %s", error->message, error->detail);
}

/* Writes what went wrong into the consumer's row, if that is news. */
static void
note(HcInlet *inlet, int attempts, const ErrorData *error)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *description = describe(error);
	bool		news = inlet->row.error == NULL ||
		strcmp(inlet->row.error, description) != 0;

	if (news)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("consumer \"%s\" cannot go on: %s", inlet->row.name,
						error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0,
				 error->context ? errcontext("%s", error->context) : 0));
	if (!news && attempts == inlet->row.attempts)
		return;
	hc_roster_begin();
	hc_roster_note(inlet->row.id, attempts,
				   unpack_sql_state(error->sqlerrcode), description);
	hc_roster_end(context);
	inlet->row.attempts = attempts;
	if (inlet->row.error != NULL)
		pfree(inlet->row.error);
	inlet->row.error = MemoryContextStrdup(inlet->context, description);
}

/* The consumer works, or works again. */
static void
succeed(HcInlet *inlet)
{
	inlet->retry_ms = 0;
	inlet->retry_at = 0;
	inlet->row.attempts = 0;
	if (inlet->row.error != NULL)
		pfree(inlet->row.error);
	inlet->row.error = NULL;
}

/* Puts a message aside that has failed often enough; false: not now. */
static bool
bury(HcInlet *inlet, const HcMessage *message, const ErrorData *error, int attempts)
{
	MemoryContext context = CurrentMemoryContext;
	int64		digest = hc_message_digest(message);
	char		id[HC_MESSAGE_ID_SIZE];
	bool		locked;

	hc_message_format_id(message->id, id);
	hc_roster_begin();
	locked = hc_roster_lock(&inlet->row);
	if (locked)
	{
		hc_dead_message_add(&inlet->row, message, hc_message_fields(message),
							unpack_sql_state(error->sqlerrcode), describe(error),
							attempts);
		hc_roster_advance(inlet->row.id, message->id, &digest, 0, 1);
	}
	hc_roster_end(context);
	if (locked)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("consumer \"%s\" puts message %s of stream \"%s\" aside: %s",
						inlet->row.name, id, inlet->row.stream, error->message)));
	return locked;
}

/* One message failed; true if it was put aside, and the next one may come. */
static bool
fail_message(HcInlet *inlet, const HcMessage *message, const ErrorData *error)
{
	int			attempts = inlet->row.attempts + 1;

	/* no handler can be given what is no text here */
	if (attempts >= inlet->row.max_attempts || hc_message_fields(message) == NULL)
	{
		if (!bury(inlet, message, error, attempts))
			return false;
		hc_inlet_advance(inlet, message, 1);
		succeed(inlet);
		return true;
	}
	note(inlet, attempts, error);
	return false;
}

/* Handles messages in one transaction; false: no more of this batch. */
static bool
handle(HcInlet *inlet, const HcMessage *messages, int n)
{
	ErrorData  *error;
	HcHandled	handled = hc_handler_run(inlet, messages, n, &error);
	bool		go_on = true;

	switch (handled)
	{
		case HC_HANDLED_DONE:
			hc_inlet_advance(inlet, messages, n);
			succeed(inlet);
			break;
		case HC_HANDLED_NOT:
			/* look at its row again, when whoever changes it has done so */
			inlet->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BUSY_MS);
			hc_inlet_reread(inlet);
			hc_role_call(HC_ROLE_CONSUMER);
			go_on = false;
			break;
		case HC_HANDLED_REFUSED:
			if (n > 1)
			{
				int			i;

				for (i = 0; go_on && i < n; i++)
				{
					hc_consumer_obey();
					go_on = handle(inlet, &messages[i], 1);
				}
			}
			else
				go_on = fail_message(inlet, messages, error);
			if (!go_on && inlet->retry_at <= GetCurrentTimestamp())
				put_off(inlet);
			break;
		case HC_HANDLED_LATER:
			note(inlet, inlet->row.attempts, error);
			put_off(inlet);
			go_on = false;
			break;
	}
	if (error != NULL)
		FreeErrorData(error);
	return go_on;
}

/* Tries dead messages again, where somebody has asked for that. */
static void
retry_dead(HcInlet *inlet)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext old;
	List	   *messages;
	ListCell   *lc;

	hc_roster_begin();
	old = MemoryContextSwitchTo(context);
	messages = hc_dead_message_asked(&inlet->row, MAX_DEAD);
	MemoryContextSwitchTo(old);
	hc_roster_end(context);
	inlet->asked = list_length(messages) == MAX_DEAD;

	foreach(lc, messages)
	{
		const HcDeadMessage *message = lfirst(lc);
		ErrorData  *error;
		HcHandled	handled;

		hc_consumer_obey();
		handled = hc_handler_retry(inlet, message, &error);
		if (handled == HC_HANDLED_REFUSED)
		{
			hc_roster_begin();
			hc_dead_message_refuse(message->id, unpack_sql_state(error->sqlerrcode),
								   describe(error));
			hc_roster_end(context);
		}
		else if (handled != HC_HANDLED_DONE)
			inlet->asked = true;
		if (error != NULL)
			FreeErrorData(error);
		if (handled == HC_HANDLED_NOT || handled == HC_HANDLED_LATER)
			break;
	}
}

bool
hc_delivery_serve(HcInlet *inlet, HcConnection *conn)
{
	HcMessage  *messages;
	int			n;

	if (inlet->asked)
		retry_dead(inlet);

	/* a message that has failed is tried alone */
	n = hc_inlet_read(inlet, conn, inlet->row.attempts > 0 ? 1 : inlet->row.batch,
					  &messages);
	if (n == 0)
	{
		if (inlet->row.error != NULL && inlet->row.attempts == 0)
		{
			/* what was wrong with the stream is over */
			MemoryContext context = CurrentMemoryContext;

			hc_roster_begin();
			hc_roster_note(inlet->row.id, 0, NULL, NULL);
			hc_roster_end(context);
			succeed(inlet);
		}
		return false;
	}
	(void) handle(inlet, messages, n);
	return true;
}

void
hc_delivery_fail(HcInlet *inlet, const ErrorData *error)
{
	note(inlet, inlet->row.attempts, error);
	put_off(inlet);
}
