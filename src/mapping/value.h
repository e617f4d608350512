/*
 * value.h
 *	  Datums as text and as JSON, the same bytes whatever the session's settings.
 */
#ifndef HC_VALUE_H
#define HC_VALUE_H

#include "lib/stringinfo.h"

/* The types that are encoded directly, without output functions. */
typedef enum HcEncoder
{
	HC_ENCODER_NONE,			/* no direct encoding for this type */
	HC_ENCODER_BOOL,
	HC_ENCODER_INT2,
	HC_ENCODER_INT4,
	HC_ENCODER_INT8,
	HC_ENCODER_FLOAT4,
	HC_ENCODER_FLOAT8,
	HC_ENCODER_NUMERIC,
	HC_ENCODER_UUID,
	HC_ENCODER_DATE,
	HC_ENCODER_TIMESTAMP,
	HC_ENCODER_TIMESTAMPTZ,
	HC_ENCODER_TEXT,
	HC_ENCODER_JSON,
	HC_ENCODER_JSONB
} HcEncoder;

/* What one Redis string can hold: 512 MB. */
#define HC_VALUE_MAX	(512 * 1024 * 1024)

/* How many bytes may still be appended to buf. */
static inline Size
hc_value_room(const StringInfoData *buf)
{
	return buf->len < HC_VALUE_MAX ? (Size) (HC_VALUE_MAX - buf->len) : 0;
}

/* The encoder for a type (domains: of their base type). */
extern HcEncoder hc_value_encoder(Oid type);

/*
 * Append a datum that is not NULL, in the server's encoding.  false, with buf
 * in an undefined state, when the result would be longer than HC_VALUE_MAX.
 * Temporary memory comes from the current context.
 */
extern bool hc_value_text(StringInfo buf, HcEncoder encoder, Datum value);
extern bool hc_value_json(StringInfo buf, HcEncoder encoder, Datum value);

#endif							/* HC_VALUE_H */
