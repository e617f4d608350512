/*
 * letter.c
 *	  Changes that Redis refused for good, and rows that could not be rendered:
 *	  what becomes of them.
 *
 * A letter says which entry is not what its row says, and why.  The value is
 * not kept: the row is the truth, and values can be private.
 *
 * Refusals are noted while replies are read, and written once the batch is applied.
 * Both they and the table have a bound: what is over it is only counted.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "compat.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "redis/reply.h"
#include "settings.h"
#include "shmem.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/letter.h"
#include "worker/letterbox.h"
#include "worker/wire.h"

/* Refusals and losses come in floods: say it once, then again after this time. */
#define LOG_INTERVAL_MS	60000

/* Why letters are dropped, mostly. */
#define TOO_MANY		"There were more than hybrid_cache.max_dead_letters."

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

/* Says it, now and then. */
static void
say_refused(HcBatch *batch, int slot, const char *message)
{
	static TimestampTz last_logged = 0;
	static uint64 n_unlogged = 0;
	TimestampTz now = GetCurrentTimestamp();
	char	   *key = hc_reply_clean(hc_batch_key(batch, slot));
	char	   *words = hc_reply_clean(message);

	n_unlogged++;
	if (last_logged == 0 ||
		TimestampDifferenceExceeds(last_logged, now, LOG_INTERVAL_MS))
	{
		ereport(LOG,
				(errcode(hc_reply_sqlstate(message)),
				 errmsg("Redis refused a change of key \"%s\"", key),
				 errdetail_plural("%s; " UINT64_FORMAT " change refused since the last message.",
								  "%s; " UINT64_FORMAT " changes refused since the last message.",
								  (unsigned long) n_unlogged,
								  words, n_unlogged),
				 hc_reply_hint(message) ? errhint("%s", hc_reply_hint(message)) : 0));
		last_logged = now;
		n_unlogged = 0;
	}
	hc_shmem_set_error(hc_shmem_mine(), psprintf("key \"%s\": %s", key, words));
	pfree(key);
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

/* Both put a letter into the table; true if there is one more in it. */
static bool
put_refusal(HcLetterbox *box, HcBatch *batch, const HcRefusal *refusal)
{
	const HcSlot *slot = &batch->slots[refusal->slot];
	HcBytes		member = {batch->text.data + slot->member, slot->member_len};
	HcLetter	letter = {0};

	letter.relid = slot->version.relation;
	letter.op = hc_wire_verb(slot->kind);
	letter.key.data = batch->text.data + slot->key;
	letter.key.len = slot->key_len;
	letter.member = hc_op_has_member(slot->kind) ? &member : NULL;
	letter.message = hc_reply_clean(refusal->message);
	letter.sqlstate = hc_reply_sqlstate(refusal->message);
	letter.lsn = slot->lsn;
	return hc_letterbox_put(box, &letter);
}

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

/* Either kind of letters, in a transaction: n of them, of batch or of rows. */
static void
write_letters(HcBatch *batch, const List *rows, int n)
{
	HcLetterbox *box = hc_letterbox_open();
	MemoryContext step;
	MemoryContext old;
	int			i;

	if (box == NULL)
	{
		count_dropped(n, "The table hybrid_cache.dead_letter was locked or is gone.");
		return;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	step = AllocSetContextCreate(CurrentMemoryContext, "hybrid_cache letter",
								 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(step);
	for (i = 0; i < n; i++)
	{
		bool		more;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(step);
		more = batch != NULL
			? put_refusal(box, batch, &batch->refusals[i])
			: put_row(box, list_nth(rows, i));
		if (more && n_letters >= 0)
			n_letters++;
	}
	MemoryContextSwitchTo(old);
	CommandCounterIncrement();
	keep_bound(box);
	PopActiveSnapshot();
	hc_letterbox_close(box);
}

void
hc_letter_write(HcBatch *batch)
{
	MemoryContext old = CurrentMemoryContext;

	hc_shmem_count(HC_COUNT_REFUSED, batch->n_refusals + batch->n_unkept);
	count_dropped(batch->n_unkept, TOO_MANY);
	batch->n_unkept = 0;
	if (batch->n_refusals == 0)
		return;
	StartTransactionCommand();
	write_letters(batch, NIL, batch->n_refusals);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
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
	write_letters(NULL, rows, list_length(rows));
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}
