/*
 * event_slot.c
 *	  Events in a batch: the arguments of their commands, and how they are kept
 *	  when Redis refuses them.
 *
 * In the text of the batch an event is in RESP like all else, once: what is
 * refused is rare, and is made an op again from there.
 */
#include "postgres.h"

#include "redis/reply.h"
#include "worker/event_slot.h"
#include "worker/wire.h"

/* A position as %X/%X. */
#define LSN_TEXT_SIZE	(2 * 8 + sizeof("/"))

/* The words in front of an XADD's pairs, behind its key. */
#define MAXLEN_WORDS	3		/* MAXLEN ~ n */
#define ID_WORDS		1		/* * */

static int
format_lsn(char *buf, XLogRecPtr lsn)
{
	return snprintf(buf, LSN_TEXT_SIZE, "%X/%X", LSN_FORMAT_ARGS(lsn));
}

static void
append_word(StringInfo text, HcSlot *slot, HcBytes word)
{
	hc_wire_append_bulk(text, word.data, word.len);
	slot->n_args++;
}

static void
append_literal(StringInfo text, HcSlot *slot, const char *word)
{
	HcBytes		bytes = {word, strlen(word)};

	append_word(text, slot, bytes);
}

static void
write_pairs(StringInfo text, HcSlot *slot, const HcOp *op)
{
	HcBytes		rest = op->value;
	HcBytes		field;
	HcBytes		value;
	int64		pair;

	if (op->maxlen > 0)
	{
		append_literal(text, slot, "MAXLEN");
		append_literal(text, slot, "~");
		hc_wire_append_int64(text, op->maxlen);
		slot->n_args++;
	}
	append_literal(text, slot, "*");
	for (pair = 0; hc_op_hash_next(&rest, &field, &value); pair++)
	{
		char		lsn[LSN_TEXT_SIZE];

		if (pair == op->lsn_at)
		{
			value.len = format_lsn(lsn, slot->lsn);
			value.data = lsn;
		}
		append_word(text, slot, field);
		append_word(text, slot, value);
	}
}

/* The value with the position of the commit within. */
static void
write_value(StringInfo text, HcSlot *slot, const HcOp *op)
{
	char		lsn[LSN_TEXT_SIZE];
	int			len;

	if (op->lsn_at == HC_OP_NO_LSN)
	{
		append_word(text, slot, op->value);
		return;
	}
	len = format_lsn(lsn, slot->lsn);
	hc_wire_append_length(text, op->value.len + len);
	appendBinaryStringInfo(text, op->value.data, op->lsn_at);
	appendBinaryStringInfo(text, lsn, len);
	appendBinaryStringInfo(text, op->value.data + op->lsn_at,
						   op->value.len - op->lsn_at);
	appendBinaryStringInfo(text, "\r\n", 2);
	slot->n_args++;
}

void
hc_event_slot_write(StringInfo text, HcSlot *slot, const HcOp *op)
{
	HcBytes		rest = op->value;
	HcBytes		word;

	switch (op->kind)
	{
		case HC_OP_XADD:
			write_pairs(text, slot, op);
			slot->trimmed = op->maxlen > 0;
			break;
		case HC_OP_COMMAND:
			while (hc_op_word_next(&rest, &word))
				append_word(text, slot, word);
			break;
		default:
			write_value(text, slot, op);
			break;
	}
}

void
hc_event_slot_append(HcBatch *batch, const HcSlot *slot)
{
	StringInfo	wire = &batch->wire;
	size_t		from = slot->start;

	if (slot->kind == HC_OP_COMMAND)
	{
		/* the key is among its words, if anywhere */
		hc_wire_append_array(wire, slot->n_args);
		from = slot->args;
	}
	else
	{
		const char *verb = hc_wire_verb(slot->kind);

		hc_wire_append_array(wire, 2 + slot->n_args);
		hc_wire_append_bulk(wire, verb, strlen(verb));
	}
	appendBinaryStringInfo(wire, batch->text.data + from, slot->end - from);
}

bool
hc_event_slot_is_too_long(const HcOp *op)
{
	HcBytes		rest = op->value;
	HcBytes		word;

	if (op->key.len > hc_batch_longest)
		return true;
	if (op->value.len + LSN_TEXT_SIZE <= hc_batch_longest)
		return false;
	if (op->kind != HC_OP_XADD && op->kind != HC_OP_COMMAND)
		return true;
	while (hc_op_word_next(&rest, &word))
	{
		if (word.len > hc_batch_longest)
			return true;
	}
	return false;
}

/* Takes the next bulk string off what hc_wire_append_bulk() has written. */
static HcBytes
next_bulk(const char **cursor)
{
	HcBytes		bulk;

	bulk.len = strtoull(*cursor + 1, NULL, 10);
	bulk.data = strchr(*cursor, '\n') + 1;
	*cursor = bulk.data + bulk.len + 2;
	return bulk;
}

char *
hc_event_slot_verb(const HcBatch *batch, const HcSlot *slot)
{
	const char *cursor = batch->text.data + slot->args;
	HcBytes		word;
	char	   *verb;
	int			i;

	if (slot->kind != HC_OP_COMMAND)
		return pstrdup(hc_wire_verb(slot->kind));
	word = next_bulk(&cursor);
	verb = hc_reply_clean(pnstrdup(word.data, Min(word.len, NAMEDATALEN)));
	for (i = 0; verb[i] != '\0'; i++)
		verb[i] = pg_ascii_toupper((unsigned char) verb[i]);
	return verb;
}

void
hc_event_slot_encode(const HcBatch *batch, const HcSlot *slot, StringInfo buf)
{
	const char *cursor = batch->text.data + slot->args;
	StringInfoData value;
	HcOp		op = {0};
	int			i = 0;

	op.kind = slot->kind;
	op.version = slot->version;
	op.lsn_at = HC_OP_NO_LSN;
	op.key.data = batch->text.data + slot->key;
	op.key.len = slot->key_len;

	initStringInfo(&value);
	switch (slot->kind)
	{
		case HC_OP_XADD:
			if (slot->trimmed)
			{
				(void) next_bulk(&cursor);
				(void) next_bulk(&cursor);
				op.maxlen = strtoll(next_bulk(&cursor).data, NULL, 10);
				i += MAXLEN_WORDS;
			}
			(void) next_bulk(&cursor);
			i += ID_WORDS;
			/* FALLTHROUGH */
		case HC_OP_COMMAND:
			for (; i < slot->n_args; i++)
			{
				HcBytes		word = next_bulk(&cursor);

				hc_op_hash_append(&value, word.data, word.len);
			}
			op.value.data = value.data;
			op.value.len = value.len;
			break;
		default:
			op.value = next_bulk(&cursor);
			break;
	}
	hc_op_encode(buf, &op);
	pfree(value.data);
}

/*
 * What Redis says once it executes an event is about that event, and to try it
 * again would repeat those around it.  While it only queues, a command that it
 * does not know, or does not want so, was not made by us.
 */
bool
hc_event_slot_is_guilty(const HcSlot *slot, const char *message, bool queueing)
{
	if (!queueing)
		return true;
	return slot->kind == HC_OP_COMMAND &&
		(strncmp(message, "NOPERM ", 7) == 0 ||
		 strncmp(message, "CROSSSLOT ", 10) == 0 ||
		 strncmp(message, "ERR ", 4) == 0);
}
