/*
 * value.c
 *	  Datums as text and as JSON, the same bytes whatever the session's settings.
 *
 * The common types are encoded here, with PostgreSQL's own routines below the
 * output functions, which do not look at DateStyle, TimeZone and their kin:
 * this is what every captured row passes through, so it has to be fast.  All
 * other types are cast by an expression under pinned settings (render.c).
 */
#include "postgres.h"

#include <math.h>

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "common/shortest_dec.h"
#include "mapping/value.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

HcEncoder
hc_value_encoder(Oid type)
{
	switch (getBaseType(type))
	{
		case BOOLOID:
			return HC_ENCODER_BOOL;
		case INT2OID:
			return HC_ENCODER_INT2;
		case INT4OID:
			return HC_ENCODER_INT4;
		case INT8OID:
			return HC_ENCODER_INT8;
		case FLOAT4OID:
			return HC_ENCODER_FLOAT4;
		case FLOAT8OID:
			return HC_ENCODER_FLOAT8;
		case NUMERICOID:
			return HC_ENCODER_NUMERIC;
		case UUIDOID:
			return HC_ENCODER_UUID;
		case DATEOID:
			return HC_ENCODER_DATE;
		case TIMESTAMPOID:
			return HC_ENCODER_TIMESTAMP;
		case TIMESTAMPTZOID:
			return HC_ENCODER_TIMESTAMPTZ;
		case TEXTOID:
		case VARCHAROID:
			return HC_ENCODER_TEXT;
		case JSONOID:
			return HC_ENCODER_JSON;
		case JSONBOID:
			return HC_ENCODER_JSONB;
		default:
			return HC_ENCODER_NONE;
	}
}

static void
append_float4(StringInfo buf, float4 value)
{
	char		text[FLOAT_SHORTEST_DECIMAL_LEN];

	appendBinaryStringInfo(buf, text, float_to_shortest_decimal_bufn(value, text));
}

static void
append_float8(StringInfo buf, float8 value)
{
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN];

	appendBinaryStringInfo(buf, text, double_to_shortest_decimal_bufn(value, text));
}

/* "ISO" of DateStyle, in UTC */
static void
append_timestamp(StringInfo buf, Timestamp value, bool with_zone)
{
	char		text[MAXDATELEN + 1];
	struct pg_tm tm;
	fsec_t		fsec;

	if (TIMESTAMP_NOT_FINITE(value))
		EncodeSpecialTimestamp(value, text);
	else if (timestamp2tm(value, NULL, &tm, &fsec, NULL, NULL) == 0)
	{
		tm.tm_isdst = with_zone ? 1 : -1;	/* otherwise no zone is printed */
		EncodeDateTime(&tm, fsec, with_zone, 0, NULL, USE_ISO_DATES, text);
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	appendStringInfoString(buf, text);
}

static void
append_date(StringInfo buf, DateADT value)
{
	char		text[MAXDATELEN + 1];
	struct pg_tm tm;

	if (DATE_NOT_FINITE(value))
		EncodeSpecialDate(value, text);
	else
	{
		j2date(value + POSTGRES_EPOCH_JDATE,
			   &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
		EncodeDateOnly(&tm, USE_ISO_DATES, text);
	}
	appendStringInfoString(buf, text);
}

/* The text of a varlena; false if it cannot fit. */
static bool
append_varlena(StringInfo buf, Datum value)
{
	struct varlena *packed;

	if (toast_raw_datum_size(value) - VARHDRSZ > hc_value_room(buf))
		return false;
	packed = PG_DETOAST_DATUM_PACKED(value);
	appendBinaryStringInfo(buf, VARDATA_ANY(packed), VARSIZE_ANY_EXHDR(packed));
	return true;
}

static bool
append_jsonb(StringInfo buf, Datum value)
{
	Jsonb	   *jsonb;

	/* a jsonb's text is never more than a few times its size on disk */
	if (toast_raw_datum_size(value) > hc_value_room(buf))
		return false;
	jsonb = DatumGetJsonbP(value);
	JsonbToCString(buf, &jsonb->root, VARSIZE(jsonb));
	return buf->len <= HC_VALUE_MAX;
}

bool
hc_value_text(StringInfo buf, HcEncoder encoder, Datum value)
{
	switch (encoder)
	{
		case HC_ENCODER_BOOL:
			appendStringInfoString(buf, DatumGetBool(value) ? "true" : "false");
			break;
		case HC_ENCODER_INT2:
		case HC_ENCODER_INT4:
			{
				char		text[12];
				int32		number = encoder == HC_ENCODER_INT2 ?
					DatumGetInt16(value) : DatumGetInt32(value);

				appendBinaryStringInfo(buf, text, pg_ltoa(number, text));
				break;
			}
		case HC_ENCODER_INT8:
			{
				char		text[MAXINT8LEN + 1];

				appendBinaryStringInfo(buf, text,
									   pg_lltoa(DatumGetInt64(value), text));
				break;
			}
		case HC_ENCODER_FLOAT4:
			append_float4(buf, DatumGetFloat4(value));
			break;
		case HC_ENCODER_FLOAT8:
			append_float8(buf, DatumGetFloat8(value));
			break;
		case HC_ENCODER_NUMERIC:
			appendStringInfoString(buf,
								   DatumGetCString(DirectFunctionCall1(numeric_out, value)));
			break;
		case HC_ENCODER_UUID:
			appendStringInfoString(buf,
								   DatumGetCString(DirectFunctionCall1(uuid_out, value)));
			break;
		case HC_ENCODER_DATE:
			append_date(buf, DatumGetDateADT(value));
			break;
		case HC_ENCODER_TIMESTAMP:
			append_timestamp(buf, DatumGetTimestamp(value), false);
			break;
		case HC_ENCODER_TIMESTAMPTZ:
			append_timestamp(buf, DatumGetTimestampTz(value), true);
			break;
		case HC_ENCODER_TEXT:
		case HC_ENCODER_JSON:
			return append_varlena(buf, value);
		case HC_ENCODER_JSONB:
			return append_jsonb(buf, value);
		case HC_ENCODER_NONE:
			elog(ERROR, "type has no direct encoding");
	}
	return buf->len <= HC_VALUE_MAX;
}

/* How long a JSON string literal becomes; control characters are \uXXXX. */
static Size
escaped_length(const char *text, Size len)
{
	Size		result = 2;
	Size		i;

	for (i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c < ' ')
			result += strchr("\b\f\n\r\t", c) != NULL ? 2 : 6;
		else
			result += (c == '"' || c == '\\') ? 2 : 1;
	}
	return result;
}

static bool
append_json_string(StringInfo buf, Datum value)
{
	Size		room = hc_value_room(buf);
	char	   *string;
	Size		len;

	if (toast_raw_datum_size(value) - VARHDRSZ > room)
		return false;
	string = TextDatumGetCString(value);
	len = strlen(string);

	/* counting costs a pass, so only where the worst case would not fit */
	if (len > room / 6 && escaped_length(string, len) > room)
		return false;
	escape_json(buf, string);
	pfree(string);
	return true;
}

bool
hc_value_json(StringInfo buf, HcEncoder encoder, Datum value)
{
	switch (encoder)
	{
		case HC_ENCODER_FLOAT4:
		case HC_ENCODER_FLOAT8:
		case HC_ENCODER_NUMERIC:
			{
				int			start = buf->len;
				char		last;

				/* JSON has no NaN and no infinities: they are strings */
				hc_value_text(buf, encoder, value);
				last = buf->data[buf->len - 1];
				if (last < '0' || last > '9')
				{
					char	   *word = pstrdup(buf->data + start);

					buf->len = start;
					escape_json(buf, word);
					pfree(word);
				}
				break;
			}
		case HC_ENCODER_UUID:
			appendStringInfoChar(buf, '"');
			hc_value_text(buf, encoder, value);
			appendStringInfoChar(buf, '"');
			break;
		case HC_ENCODER_DATE:
		case HC_ENCODER_TIMESTAMP:
		case HC_ENCODER_TIMESTAMPTZ:
			{
				char		text[MAXDATELEN + 1];
				const int	utc = 0;
				Oid			type = encoder == HC_ENCODER_DATE ? DATEOID :
					encoder == HC_ENCODER_TIMESTAMP ? TIMESTAMPOID : TIMESTAMPTZOID;

				appendStringInfoChar(buf, '"');
				appendStringInfoString(buf, JsonEncodeDateTime(text, value, type, &utc));
				appendStringInfoChar(buf, '"');
				break;
			}
		case HC_ENCODER_TEXT:
			return append_json_string(buf, value);
		default:
			return hc_value_text(buf, encoder, value);
	}
	return buf->len <= HC_VALUE_MAX;
}
