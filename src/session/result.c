/*
 * result.c
 *	  Replies of Redis as values of SQL.
 *
 * Anybody may have written what Redis holds, so no reply becomes text before
 * it was checked.
 */
#include "postgres.h"

#include "compat.h"
#include "encoding.h"
#include "mapping/bytes.h"
#include "mb/pg_wchar.h"
#include "session/result.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

text *
hc_result_text(const redisReply *reply)
{
	size_t		len;
	char	   *data;

	if (reply->type == REDIS_REPLY_NIL)
		return NULL;
	data = hc_result_decode(reply, &len);
	return cstring_to_text_with_len(data, len);
}

bool
hc_result_is_text(const redisReply *reply)
{
	HcBytes		bytes = {reply->str, reply->len};

	return hc_encoding_is_text(reply->str, reply->len) &&
		(GetDatabaseEncoding() == PG_UTF8 || hc_bytes_text(bytes) != NULL);
}

char *
hc_result_decode(const redisReply *reply, size_t *len)
{
	char	   *result;

	hc_reply_string(reply);
	*len = reply->len;

	/* Beyond this no text can be; let cstring_to_text_with_len() not try. */
	if (reply->len > MaxAllocSize - VARHDRSZ - 1)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("value from Redis is too large")));

	if (!hc_encoding_is_text(reply->str, reply->len))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("value from Redis is not text"),
				 errdetail("It contains a zero byte or is not valid UTF-8."),
				 errhint("Functions whose names end in _bytea return binary values.")));

	if (GetDatabaseEncoding() == PG_SQL_ASCII || reply->len == 0)
		return reply->str;
	result = pg_any_to_server(reply->str, reply->len, PG_UTF8);
	if (result != reply->str)
		*len = strlen(result);
	return result;
}

bytea *
hc_result_bytea(const redisReply *reply)
{
	bytea	   *result;

	if (reply->type == REDIS_REPLY_NIL)
		return NULL;
	hc_reply_string(reply);
	result = palloc(VARHDRSZ + reply->len);
	SET_VARSIZE(result, VARHDRSZ + reply->len);
	memcpy(VARDATA(result), reply->str, reply->len);
	return result;
}
