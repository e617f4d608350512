/*
 * letter.c
 *	  Changes that Redis refused for good, and rows that could not be rendered:
 *	  what becomes of them.
 *
 * A letter says which entry is not what its row says, and why.  The value is
 * not kept: the row is the truth, and values can be private.  Of an event all is
 * kept, since nothing else has it.
 *
 * Refusals are noted while replies are read, and written once the batch is applied.
 * Both they and the table have a bound: what is over it is only counted.  While
 * somebody has locked the table, letters of entries are lost, since the next
 * change of the entry makes another; those of events stay in memory.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "compat.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "redis/reply.h"
#include "settings.h"
#include "shmem.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/event_slot.h"
#include "worker/letter.h"
#include "worker/letterbox.h"
#include "worker/wire.h"

/* Refusals and losses come in floods: say it once, then again after this time. */
#define LOG_INTERVAL_MS	60000

/* Why letters are dropped, mostly. */
#define TOO_MANY		"There were more than hybrid_cache.max_dead_letters."
#define CANNOT_WRITE	"The table hybrid_cache.dead_letter was locked or is gone."

/* Letters of events that wait in memory: so much of them, tried so often. */
#define WAITING_BYTES	(16 * 1024 * 1024)
#define WAITING_MS		5000

static List *waiting = NIL;		/* HcLetter *, in waiting_context */
static MemoryContext waiting_context = NULL;
static TimestampTz waiting_until;

/*
 * How many letters there are at most, -1 if that is not known.  Nobody else adds
 * any, but for the keeper, which counts them itself.
 */
static int64 n_letters = -1;

/* Where the next refusal goes: when there is no room, it is the oldest's place. */
static HcRefusal *
next_refusal(HcBatch *batch)
{
	if (batch->n_refusals >= hc_max_dead_letters)
	{
		uint64		place = batch->n_unkept++;

		return batch->n_refusals == 0 ? NULL :
			&batch->refusals[place % batch->n_refusals];
	}
	if (batch->n_refusals == batch->max_refusals)
	{
		batch->max_refusals = Max(16, 2 * batch->max_refusals);
		batch->refusals = batch->refusals == NULL ?
			palloc(batch->max_refusals * sizeof(HcRefusal)) :
			repalloc(batch->refusals, batch->max_refusals * sizeof(HcRefusal));
	}
	return &batch->refusals[batch->n_refusals++];
}

/* What is refused, for messages: palloc'd. */
static char *
describe(HcBatch *batch, int slot)
{
	char	   *key = hc_reply_clean(hc_batch_key(batch, slot));

	if (!hc_op_is_event(batch->slots[slot].kind))
		return psprintf("key \"%s\"", key);
	if (key[0] == '\0')
		return hc_event_slot_verb(batch, &batch->slots[slot]);
	return psprintf("%s \"%s\"", hc_event_slot_verb(batch, &batch->slots[slot]), key);
}

/* Says it, now and then. */
static void
say_refused(HcBatch *batch, int slot, const char *message)
{
	static TimestampTz last_logged = 0;
	static uint64 n_unlogged = 0;
	TimestampTz now = GetCurrentTimestamp();
	char	   *what = describe(batch, slot);
	char	   *words = hc_reply_clean(message);

	n_unlogged++;
	if (last_logged == 0 ||
		TimestampDifferenceExceeds(last_logged, now, LOG_INTERVAL_MS))
	{
		ereport(LOG,
				(errcode(hc_reply_sqlstate(message)),
				 hc_op_is_event(batch->slots[slot].kind) ?
				 errmsg("Redis refused an event: %s", what) :
				 errmsg("Redis refused a change of %s", what),
				 errdetail_plural("%s; " UINT64_FORMAT " change refused since the last message.",
								  "%s; " UINT64_FORMAT " changes refused since the last message.",
								  (unsigned long) n_unlogged,
								  words, n_unlogged),
				 hc_reply_hint(message) ? errhint("%s", hc_reply_hint(message)) : 0));
		last_logged = now;
		n_unlogged = 0;
	}
	hc_shmem_set_error(hc_shmem_mine(), psprintf("%s: %s", what, words));
	pfree(what);
	pfree(words);
}

void
hc_letter_add(HcBatch *batch, int slot, const char *message)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	HcRefusal  *refusal = next_refusal(batch);

	say_refused(batch, slot, message);
	if (refusal != NULL)
	{
		/* usually it is the same words over and over */
		if (batch->refusal_text == NULL ||
			strcmp(batch->refusal_text, message) != 0)
			batch->refusal_text = pstrdup(message);
		refusal->slot = slot;
		refusal->message = batch->refusal_text;
	}
	MemoryContextSwitchTo(old);
}

/* These letters are not kept, or not any longer. */
static void
count_dropped(uint64 n, const char *why)
{
	static TimestampTz last_logged = 0;
	static uint64 n_unlogged = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (n == 0)
		return;
	hc_shmem_count(HC_COUNT_DROPPED, n);
	n_unlogged += n;
	if (last_logged != 0 &&
		!TimestampDifferenceExceeds(last_logged, now, LOG_INTERVAL_MS))
		return;
	ereport(LOG,
			(errmsg_plural("%s dropped " UINT64_FORMAT " dead letter",
						   "%s dropped " UINT64_FORMAT " dead letters",
						   (unsigned long) n_unlogged,
						   MyBgworkerEntry->bgw_name, n_unlogged),
			 errdetail_internal("%s", why)));
	last_logged = now;
	n_unlogged = 0;
}

/* Makes a letter that lives in the current memory context. */
static HcLetter *
make_letter(HcBatch *batch, const HcRefusal *refusal)
{
	const HcSlot *slot = &batch->slots[refusal->slot];
	HcLetter   *letter = palloc0(sizeof(HcLetter));
	HcBytes		key = {batch->text.data + slot->key, slot->key_len};
	HcBytes		member = {batch->text.data + slot->member, slot->member_len};

	letter->relid = slot->version.relation;
	letter->key = hc_bytes_copy(CurrentMemoryContext, key);
	if (hc_op_has_member(slot->kind))
	{
		HcBytes    *copy = palloc(sizeof(HcBytes));

		*copy = hc_bytes_copy(CurrentMemoryContext, member);
		letter->member = copy;
	}
	if (hc_op_is_event(slot->kind))
	{
		HcBytes    *event = palloc(sizeof(HcBytes));
		StringInfoData payload;

		initStringInfo(&payload);
		hc_event_slot_encode(batch, slot, &payload);
		event->data = payload.data;
		event->len = payload.len;
		letter->event = event;
		letter->op = hc_event_slot_verb(batch, slot);
	}
	else
		letter->op = hc_wire_verb(slot->kind);
	letter->message = hc_reply_clean(refusal->message);
	letter->sqlstate = hc_reply_sqlstate(refusal->message);
	letter->lsn = slot->lsn;
	return letter;
}

/* The table cannot be written now: what of the batch is lost? */
static int
let_wait(HcBatch *batch)
{
	int			n_lost = 0;
	MemoryContext old;
	int			i;

	if (waiting_context == NULL)
		waiting_context = AllocSetContextCreate(TopMemoryContext,
												"hybrid_cache waiting letters",
												ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(waiting_context);
	for (i = 0; i < batch->n_refusals; i++)
	{
		const HcRefusal *refusal = &batch->refusals[i];

		if (!hc_op_is_event(batch->slots[refusal->slot].kind) ||
			list_length(waiting) >= hc_max_dead_letters ||
			MemoryContextMemAllocated(waiting_context, false) > WAITING_BYTES)
			n_lost++;
		else
			waiting = lappend(waiting, make_letter(batch, refusal));
	}
	MemoryContextSwitchTo(old);
	waiting_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WAITING_MS);
	return n_lost;
}

/* They are in the table. */
static void
forget_waiting(void)
{
	if (waiting == NIL)
		return;
	waiting = NIL;
	MemoryContextReset(waiting_context);
}

/* Puts the letter of a row into the table; true if there is one more in it. */
static bool
put_row(HcLetterbox *box, const HcLetterRow *row)
{
	HcLetter	letter = {0};

	letter.relid = row->relid;
	letter.mapping = row->mapping;
	letter.op = HC_LETTER_RENDER;
	letter.key = row->key;
	letter.member = row->has_member ? &row->member : NULL;
	letter.message = row->message;
	letter.sqlstate = row->sqlstate;
	letter.lsn = GetXLogInsertRecPtr();
	return hc_letterbox_put(box, &letter);
}

/* Others may have deleted letters, so it is counted before anything goes. */
static void
keep_bound(HcLetterbox *box)
{
	if (n_letters >= 0 && n_letters <= hc_max_dead_letters)
		return;
	n_letters = hc_letterbox_count(box);
	if (n_letters > hc_max_dead_letters)
	{
		count_dropped(hc_letterbox_delete_oldest(box, n_letters - hc_max_dead_letters),
					  TOO_MANY);
		n_letters = hc_max_dead_letters;
	}
}

/*
 * Either kind of letters, in a transaction: those that wait and those of batch, or
 * those of rows.  false if the table cannot be written.
 */
static bool
write_letters(HcBatch *batch, const List *rows)
{
	HcLetterbox *box = hc_letterbox_open();
	int			n_waiting = batch != NULL ? list_length(waiting) : 0;
	int			n = batch != NULL ? n_waiting + batch->n_refusals : list_length(rows);
	MemoryContext step;
	MemoryContext old;
	int			i;

	if (box == NULL)
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	step = AllocSetContextCreate(CurrentMemoryContext, "hybrid_cache letter",
								 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(step);
	for (i = 0; i < n; i++)
	{
		bool		more;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(step);
		if (batch == NULL)
			more = put_row(box, list_nth(rows, i));
		else if (i < n_waiting)
			more = hc_letterbox_put(box, list_nth(waiting, i));
		else
			more = hc_letterbox_put(box, make_letter(batch, &batch->refusals[i - n_waiting]));
		if (more && n_letters >= 0)
			n_letters++;
	}
	MemoryContextSwitchTo(old);
	CommandCounterIncrement();
	keep_bound(box);
	PopActiveSnapshot();
	hc_letterbox_close(box);
	return true;
}

void
hc_letter_write(HcBatch *batch)
{
	MemoryContext old = CurrentMemoryContext;
	bool		written;

	hc_shmem_count(HC_COUNT_REFUSED, batch->n_refusals + batch->n_unkept);
	count_dropped(batch->n_unkept, TOO_MANY);
	batch->n_unkept = 0;
	if (batch->n_refusals == 0 &&
		(waiting == NIL || GetCurrentTimestamp() < waiting_until))
		return;
	StartTransactionCommand();
	written = write_letters(batch, NIL);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	if (written)
		forget_waiting();
	else
		count_dropped(let_wait(batch), CANNOT_WRITE);
	batch->n_refusals = 0;
}

void
hc_letter_rows(const List *rows)
{
	MemoryContext old = CurrentMemoryContext;

	if (rows == NIL)
		return;

	/* the sync worker adds some as well, so what was counted is of no use */
	n_letters = -1;
	StartTransactionCommand();
	if (!write_letters(NULL, rows))
		count_dropped(list_length(rows), CANNOT_WRITE);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}
