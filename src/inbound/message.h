/*
 * message.h
 *	  A message of a Redis stream.
 */
#ifndef HC_MESSAGE_H
#define HC_MESSAGE_H

#include <hiredis/hiredis.h>

#include "utils/array.h"
#include "utils/jsonb.h"

/* The id of a message: milliseconds since 1970, and a number within them. */
typedef struct HcMessageId
{
	uint64		ms;
	uint64		number;
} HcMessageId;

#define HC_MESSAGE_ID_SIZE	48

typedef struct HcMessage
{
	HcMessageId id;
	const redisReply *fields;	/* an array of names and values */
} HcMessage;

/* false: that is no id.  "5" is 5-0. */
extern bool hc_message_parse_id(const char *text, HcMessageId *id);

/* buf has HC_MESSAGE_ID_SIZE bytes. */
extern void hc_message_format_id(HcMessageId id, char *buf);

extern int	hc_message_compare(HcMessageId a, HcMessageId b);
extern bool hc_message_is_zero(HcMessageId id);

/*
 * The message in an answer of XREADGROUP or XRANGE, an array of id and fields.
 * Raises 08P01 if it is none.
 */
extern HcMessage hc_message_read(const redisReply *reply);

/*
 * The fields as an object, of several with one name the last.  NULL if a name or a
 * value cannot be text in this database, or all is too large.  palloc'd.
 */
extern Jsonb *hc_message_fields(const HcMessage *message);

/* Names and values one after another, as an array of bytea. */
extern ArrayType *hc_message_raw(const HcMessage *message);

/* Tells two messages with one id apart. */
extern int64 hc_message_digest(const HcMessage *message);

#endif							/* HC_MESSAGE_H */
