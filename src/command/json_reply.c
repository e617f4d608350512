/*
 * json_reply.c
 *	  Replies of Redis of any form as jsonb.
 */
#include "postgres.h"

#include "command/json_reply.h"
#include "miscadmin.h"
#include "session/result.h"
#include "session/session.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

static Jsonb *convert(const redisReply *reply, bool keep_errors);
static JsonbValue *push_value(JsonbParseState **state, JsonbIteratorToken token,
							  const redisReply *reply, bool keep_errors);
static JsonbValue *push_array(JsonbParseState **state, const redisReply *reply,
							  bool keep_errors);
static JsonbValue *push_error(JsonbParseState **state, const char *message,
							  int sqlstate);
static void push_word(JsonbParseState **state, JsonbIteratorToken token,
					  const char *word);
static void set_scalar(JsonbValue *value, const redisReply *reply);

Jsonb *
hc_json_reply(const redisReply *reply)
{
	return convert(reply, false);
}

Jsonb *
hc_json_reply_or_error(const redisReply *reply)
{
	return convert(reply, true);
}

static Jsonb *
convert(const redisReply *reply, bool keep_errors)
{
	JsonbParseState *state = NULL;
	JsonbValue	scalar;
	JsonbValue *value = push_value(&state, WJB_DONE, reply, keep_errors);

	if (value == NULL)
	{
		set_scalar(&scalar, reply);
		value = &scalar;
	}
	return JsonbValueToJsonb(value);
}

/*
 * Pushes what is in an array with WJB_ELEM.  With WJB_DONE it is not in one, and
 * NULL is returned for what can then not be pushed, a scalar.
 */
static JsonbValue *
push_value(JsonbParseState **state, JsonbIteratorToken token,
		   const redisReply *reply, bool keep_errors)
{
	JsonbValue	value;

	if (reply->type == REDIS_REPLY_ARRAY)
		return push_array(state, reply, keep_errors);
	if (keep_errors && reply->type == REDIS_REPLY_ERROR)
		return push_error(state, hc_reply_clean(reply->str),
						  hc_reply_sqlstate(reply->str));
	if (keep_errors &&
		(reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS) &&
		!hc_result_is_text(reply))
		return push_error(state, "value from Redis is not text",
						  ERRCODE_CHARACTER_NOT_IN_REPERTOIRE);
	if (token == WJB_DONE)
		return NULL;
	set_scalar(&value, reply);
	return pushJsonbValue(state, token, &value);
}

/* The connection limits how deep replies are nested, and so the recursion. */
static JsonbValue *
push_array(JsonbParseState **state, const redisReply *reply, bool keep_errors)
{
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (size_t i = 0; i < reply->elements; i++)
	{
		CHECK_FOR_INTERRUPTS();
		push_value(state, WJB_ELEM, reply->element[i], keep_errors);
	}
	return pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static JsonbValue *
push_error(JsonbParseState **state, const char *message, int sqlstate)
{
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_word(state, WJB_KEY, "error");
	push_word(state, WJB_VALUE, message);
	push_word(state, WJB_KEY, "sqlstate");
	push_word(state, WJB_VALUE, pstrdup(unpack_sql_state(sqlstate)));
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
push_word(JsonbParseState **state, JsonbIteratorToken token, const char *word)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, word);
	value.val.string.len = (int) strlen(word);
	pushJsonbValue(state, token, &value);
}

static void
set_scalar(JsonbValue *value, const redisReply *reply)
{
	size_t		len;

	switch (reply->type)
	{
		case REDIS_REPLY_NIL:
			value->type = jbvNull;
			break;
		case REDIS_REPLY_INTEGER:
			value->type = jbvNumeric;
			value->val.numeric = int64_to_numeric(reply->integer);
			break;
		default:
			/* A script can put errors into an array. */
			hc_reply_check(reply, hc_session_server());
			value->type = jbvString;
			value->val.string.val = hc_result_decode(reply, &len);
			value->val.string.len = (int) len;
			break;
	}
}
