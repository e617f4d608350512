/*
 * document.c
 *	  What a mapping has at one key, as jsonb: the same from Redis and from rows.
 *
 * A string becomes a JSON string, a document itself, a hash an object of
 * strings, a set an array, a sorted set an object of the scores, a geo index an
 * object of positions.  Positions are those that Redis would give back, also
 * those of rows, and the members of a set are sorted: so nobody can tell from
 * the answer where it comes from.
 */
#include "postgres.h"

#include <math.h>

#include "cache/document.h"
#include "common/shortest_dec.h"
#include "lib/stringinfo.h"
#include "mapping/bytes.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "redis/geohash.h"
#include "redis/geoposition.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

struct HcDocument
{
	HcKind		kind;
	bool		any;			/* something was added */
	JsonbParseState *object;	/* hash, field, zset, geo */
	Jsonb	   *whole;			/* string, json */
	HcBytes    *members;		/* set */
	size_t		n_members;
	size_t		max_members;
};

HcDocument *
hc_document_begin(HcKind kind)
{
	HcDocument *document = palloc0(sizeof(HcDocument));

	document->kind = kind;
	return document;
}

void
hc_document_command(HcArguments *args, HcKind kind, HcBytes key)
{
	static const char *const commands[] = {
		[HC_KIND_STRING] = "GET",
		[HC_KIND_JSON] = "GET",
		[HC_KIND_HASH] = "HGETALL",
		[HC_KIND_FIELD] = "HGETALL",
		[HC_KIND_GEO] = "ZRANGE",
		[HC_KIND_ZSET] = "ZRANGE",
		[HC_KIND_SET] = "SMEMBERS"
	};

	hc_arguments_begin(args, commands[kind]);
	hc_arguments_add(args, key.data, key.len);
	if (kind == HC_KIND_GEO || kind == HC_KIND_ZSET)
	{
		hc_arguments_add_literal(args, "0");
		hc_arguments_add_literal(args, "-1");
		hc_arguments_add_literal(args, "WITHSCORES");
	}
}

/* Text of this database.  The result may point to the same bytes. */
static HcBytes
to_text(HcBytes bytes)
{
	text	   *converted;
	HcBytes		result;

	if (GetDatabaseEncoding() == PG_UTF8 &&
		pg_verify_mbstr(PG_UTF8, bytes.data, (int) bytes.len, true))
		return bytes;
	converted = hc_bytes_text(bytes);
	if (converted == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("value from Redis is not text")));
	result.data = VARDATA_ANY(converted);
	result.len = VARSIZE_ANY_EXHDR(converted);
	return result;
}

static JsonbValue
string_value(HcBytes bytes)
{
	HcBytes		converted = to_text(bytes);
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, converted.data);
	value.val.string.len = (int) converted.len;
	return value;
}

/* As to_jsonb() does it: what is no number in JSON is a string. */
static JsonbValue
number_value(double number)
{
	char	   *word = palloc(DOUBLE_SHORTEST_DECIMAL_LEN);
	JsonbValue	value;

	double_to_shortest_decimal_buf(number, word);
	if (isinf(number) || isnan(number))
	{
		value.type = jbvString;
		value.val.string.val = word;
		value.val.string.len = (int) strlen(word);
		return value;
	}
	value.type = jbvNumeric;
	value.val.numeric =
		DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(word),
											ObjectIdGetDatum(InvalidOid),
											Int32GetDatum(-1)));
	pfree(word);
	return value;
}

static void
push_key(JsonbParseState **state, HcBytes name)
{
	JsonbValue	key = string_value(name);

	pushJsonbValue(state, WJB_KEY, &key);
}

/* The member's key in the object that is being made. */
static void
begin_member(HcDocument *document, HcBytes member)
{
	if (!document->any)
		pushJsonbValue(&document->object, WJB_BEGIN_OBJECT, NULL);
	document->any = true;
	push_key(&document->object, member);
}

static void
add_string(HcDocument *document, HcBytes member, HcBytes content)
{
	JsonbValue	value = string_value(content);

	begin_member(document, member);
	pushJsonbValue(&document->object, WJB_VALUE, &value);
}

static void
add_number(JsonbParseState **state, const char *name, double number)
{
	HcBytes		bytes = {name, strlen(name)};
	JsonbValue	value = number_value(number);

	push_key(state, bytes);
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* A member of a sorted set, of which a geo index is one. */
static void
add_scored(HcDocument *document, HcBytes member, double score)
{
	begin_member(document, member);
	if (document->kind == HC_KIND_GEO)
	{
		double		longitude;
		double		latitude;

		hc_geoposition_of(score, &longitude, &latitude);
		pushJsonbValue(&document->object, WJB_BEGIN_OBJECT, NULL);
		add_number(&document->object, "longitude", longitude);
		add_number(&document->object, "latitude", latitude);
		pushJsonbValue(&document->object, WJB_END_OBJECT, NULL);
	}
	else
	{
		JsonbValue	value = number_value(score);

		pushJsonbValue(&document->object, WJB_VALUE, &value);
	}
}

static void
add_member(HcDocument *document, HcBytes member)
{
	if (document->members == NULL)
	{
		document->max_members = 64;
		document->members = palloc(document->max_members * sizeof(HcBytes));
	}
	else if (document->n_members == document->max_members)
	{
		document->max_members *= 2;
		document->members = repalloc_huge(document->members,
										  document->max_members * sizeof(HcBytes));
	}
	document->members[document->n_members++] = member;
	document->any = true;
}

static void
set_whole(HcDocument *document, HcBytes bytes)
{
	document->any = true;
	if (document->kind == HC_KIND_STRING)
	{
		JsonbValue	value = string_value(bytes);

		document->whole = JsonbValueToJsonb(&value);
	}
	else
	{
		HcBytes		converted = to_text(bytes);
		char	   *source = pnstrdup(converted.data, converted.len);

		document->whole =
			DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(source)));
		pfree(source);
		if (!JB_ROOT_IS_OBJECT(document->whole))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("value from Redis is not an object")));
	}
}

static HcBytes
reply_bytes(const redisReply *reply)
{
	HcBytes		bytes;

	(void) hc_reply_string(reply);
	bytes.data = reply->str;
	bytes.len = reply->len;
	return bytes;
}

void
hc_document_add_reply(HcDocument *document, const redisReply *reply,
					  const HcMatcher *members)
{
	size_t		step = document->kind == HC_KIND_SET ? 1 : 2;
	size_t		i;

	if (document->kind == HC_KIND_STRING || document->kind == HC_KIND_JSON)
	{
		if (reply->type != REDIS_REPLY_NIL)
			set_whole(document, reply_bytes(reply));
		return;
	}

	(void) hc_reply_array(reply, HC_REPLY_ANY_LENGTH);
	(void) hc_reply_array(reply, reply->elements / step * step);
	for (i = 0; i < reply->elements; i += step)
	{
		HcBytes		member = reply_bytes(reply->element[i]);

		CHECK_FOR_INTERRUPTS();
		if (members != NULL && !hc_match(members, member.data, member.len))
			continue;
		if (document->kind == HC_KIND_SET)
			add_member(document, member);
		else if (document->kind == HC_KIND_HASH || document->kind == HC_KIND_FIELD)
			add_string(document, member, reply_bytes(reply->element[i + 1]));
		else
			add_scored(document, member, hc_reply_double(reply->element[i + 1]));
	}
}

void
hc_document_add_op(HcDocument *document, const HcOp *op)
{
	MemoryContext context = CurrentMemoryContext;
	HcBytes		member = hc_bytes_copy(context, op->member);

	switch (op->kind)
	{
		case HC_OP_SET:
			set_whole(document, op->value);
			break;
		case HC_OP_HASH:
			{
				HcBytes		rest = hc_bytes_copy(context, op->value);
				HcBytes		field;
				HcBytes		content;

				while (hc_op_hash_next(&rest, &field, &content))
					add_string(document, field, content);
				break;
			}
		case HC_OP_HSET:
			add_string(document, member, hc_bytes_copy(context, op->value));
			break;
		case HC_OP_GEOADD:
			add_scored(document, member, hc_geohash_score(op->x, op->y));
			break;
		case HC_OP_ZADD:
			add_scored(document, member, op->x);
			break;
		case HC_OP_SADD:
			add_member(document, member);
			break;
		default:
			elog(ERROR, "op of kind %d has no value", (int) op->kind);
	}
}

static int
compare_members(const void *a, const void *b)
{
	const HcBytes *left = a;
	const HcBytes *right = b;
	int			result = memcmp(left->data, right->data, Min(left->len, right->len));

	if (result != 0)
		return result;
	return left->len < right->len ? -1 : left->len > right->len;
}

static Jsonb *
array_of_members(HcDocument *document)
{
	JsonbParseState *state = NULL;
	size_t		i;

	qsort(document->members, document->n_members, sizeof(HcBytes), compare_members);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (i = 0; i < document->n_members; i++)
	{
		JsonbValue	value;

		/* two rows with one entry */
		if (i > 0 && hc_bytes_equal(document->members[i - 1], document->members[i]))
			continue;
		value = string_value(document->members[i]);
		pushJsonbValue(&state, WJB_ELEM, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

Jsonb *
hc_document_end(HcDocument *document)
{
	if (!document->any)
		return NULL;
	if (document->whole != NULL)
		return document->whole;
	if (document->kind == HC_KIND_SET)
		return array_of_members(document);
	return JsonbValueToJsonb(pushJsonbValue(&document->object, WJB_END_OBJECT, NULL));
}
