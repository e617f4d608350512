/*
 * message.c
 *	  A message of a Redis stream.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "compat.h"
#include "inbound/message.h"
#include "mapping/bytes.h"
#include "redis/reply.h"
#include "utils/builtins.h"

/* Reads digits only; strtoull() would take signs and blanks, too. */
static bool
parse_number(const char **text, uint64 *number)
{
	const char *c = *text;
	uint64		value = 0;

	for (; *c >= '0' && *c <= '9'; c++)
	{
		unsigned	digit = *c - '0';

		if (value > (PG_UINT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	if (c == *text)
		return false;
	*text = c;
	*number = value;
	return true;
}

bool
hc_message_parse_id(const char *text, HcMessageId *id)
{
	id->number = 0;
	if (!parse_number(&text, &id->ms))
		return false;
	if (*text == '-')
	{
		text++;
		if (!parse_number(&text, &id->number))
			return false;
	}
	return *text == '\0';
}

void
hc_message_format_id(HcMessageId id, char *buf)
{
	snprintf(buf, HC_MESSAGE_ID_SIZE, UINT64_FORMAT "-" UINT64_FORMAT,
			 id.ms, id.number);
}

int
hc_message_compare(HcMessageId a, HcMessageId b)
{
	if (a.ms != b.ms)
		return a.ms < b.ms ? -1 : 1;
	if (a.number != b.number)
		return a.number < b.number ? -1 : 1;
	return 0;
}

bool
hc_message_is_zero(HcMessageId id)
{
	return id.ms == 0 && id.number == 0;
}

static void
fail(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("could not understand a message of a Redis stream")));
}

HcMessage
hc_message_read(const redisReply *reply)
{
	HcMessage	message;

	(void) hc_reply_array(reply, 2);
	if (!hc_message_parse_id(hc_reply_string(reply->element[0])->str, &message.id))
		fail();
	message.fields = hc_reply_array(reply->element[1], HC_REPLY_ANY_LENGTH);
	if (message.fields->elements % 2 != 0)
		fail();
	return message;
}

static HcBytes
word(const HcMessage *message, size_t i)
{
	const redisReply *reply = hc_reply_string(message->fields->element[i]);
	HcBytes		bytes;

	bytes.data = reply->str;
	bytes.len = reply->len;
	return bytes;
}

/* false: it cannot be text here. */
static bool
make_string(HcBytes bytes, JsonbValue *value)
{
	text	   *string = hc_bytes_text(bytes);

	if (string == NULL)
		return false;
	value->type = jbvString;
	value->val.string.val = VARDATA_ANY(string);
	value->val.string.len = VARSIZE_ANY_EXHDR(string);
	return true;
}

Jsonb *
hc_message_fields(const HcMessage *message)
{
	JsonbParseState *state = NULL;
	JsonbValue *result;
	size_t		total = 0;
	size_t		i;

	for (i = 0; i < message->fields->elements; i++)
		total += word(message, i).len;
	if (total > JENTRY_OFFLENMASK)
		return NULL;
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (i = 0; i < message->fields->elements; i += 2)
	{
		JsonbValue	name;
		JsonbValue	value;

		if (!make_string(word(message, i), &name) ||
			!make_string(word(message, i + 1), &value))
			return NULL;
		(void) pushJsonbValue(&state, WJB_KEY, &name);
		(void) pushJsonbValue(&state, WJB_VALUE, &value);
	}
	result = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(result);
}

ArrayType *
hc_message_raw(const HcMessage *message)
{
	size_t		n = message->fields->elements;
	Datum	   *words = palloc(Max(n, 1) * sizeof(Datum));
	size_t		i;

	for (i = 0; i < n; i++)
	{
		HcBytes		bytes = word(message, i);
		bytea	   *copy = palloc(VARHDRSZ + bytes.len);

		SET_VARSIZE(copy, VARHDRSZ + bytes.len);
		memcpy(VARDATA(copy), bytes.data, bytes.len);
		words[i] = PointerGetDatum(copy);
	}
	return construct_array(words, (int) n, BYTEAOID, -1, false, TYPALIGN_INT);
}

int64
hc_message_digest(const HcMessage *message)
{
	uint64		hash = hash_combine64(message->id.ms, message->id.number);
	size_t		i;

	for (i = 0; i < message->fields->elements; i++)
	{
		HcBytes		bytes = word(message, i);

		hash = hash_combine64(hash,
							  hash_bytes_extended((const unsigned char *) bytes.data,
												  (int) bytes.len, i));
	}
	return (int64) hash;
}
