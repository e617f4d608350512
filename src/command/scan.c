/*
 * scan.c
 *	  redis_scan(): the keys that there are.
 *
 * As with SCAN, a key that is there from beginning to end comes, and it may come
 * twice.  Nothing of ours but the result set grows with the number of keys.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "command/call.h"
#include "encoding.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "session/rows.h"
#include "session/session.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(hybrid_cache_scan);

/* Keys that Redis looks at in a round trip, if it is not told. */
#define DEFAULT_COUNT	1000

static text *make_pattern(FunctionCallInfo fcinfo);
static void put_keys(ReturnSetInfo *rows, const redisReply *keys);

/*
 * redis_scan(match text, count bigint, type text) RETURNS SETOF text,
 * redis_scan_bytea(the same) RETURNS SETOF bytea
 */
Datum
hybrid_cache_scan(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rows = hc_rows_begin(fcinfo);
	text	   *pattern = make_pattern(fcinfo);
	int64		count = PG_ARGISNULL(1) ? DEFAULT_COUNT : PG_GETARG_INT64(1);
	MemoryContext step = AllocSetContextCreate(CurrentMemoryContext,
											   "hybrid_cache scan",
											   ALLOCSET_DEFAULT_SIZES);
	char		cursor[32] = "0";

	if (count < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("count must be greater than zero"),
				 errdetail("It is how many keys Redis looks at in a round trip.")));
	do
	{
		MemoryContext old = MemoryContextSwitchTo(step);
		HcArguments args;
		const redisReply *reply;

		CHECK_FOR_INTERRUPTS();
		hc_arguments_begin(&args, "SCAN");
		hc_arguments_add_literal(&args, cursor);
		if (pattern != NULL)
		{
			hc_arguments_add_literal(&args, "MATCH");
			hc_arguments_add_text(&args, pattern);
		}
		hc_arguments_add_literal(&args, "COUNT");
		hc_arguments_add_integer(&args, count);
		if (!PG_ARGISNULL(2))
		{
			hc_arguments_add_literal(&args, "TYPE");
			hc_arguments_add_text(&args, PG_GETARG_TEXT_PP(2));
		}
		reply = hc_reply_array(hc_session_command(&args), 2);
		strlcpy(cursor, hc_reply_string(reply->element[0])->str, sizeof(cursor));
		put_keys(rows, hc_reply_array(reply->element[1], HC_REPLY_ANY_LENGTH));
		MemoryContextSwitchTo(old);
		MemoryContextReset(step);
	} while (strcmp(cursor, "0") != 0);
	MemoryContextDelete(step);
	return (Datum) 0;
}

/* What keys match, with the prefix, which means nothing but itself; or NULL. */
static text *
make_pattern(FunctionCallInfo fcinfo)
{
	StringInfoData pattern;

	if (hc_key_prefix[0] == '\0')
		return PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);

	initStringInfo(&pattern);
	for (const char *p = hc_key_prefix; *p != '\0'; p++)
	{
		if (strchr("*?[]^\\", *p) != NULL)
			appendStringInfoChar(&pattern, '\\');
		appendStringInfoChar(&pattern, *p);
	}
	if (PG_ARGISNULL(0))
		appendStringInfoChar(&pattern, '*');
	else
		appendBinaryStringInfo(&pattern, VARDATA_ANY(PG_GETARG_TEXT_PP(0)),
							   VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)));
	return cstring_to_text_with_len(pattern.data, pattern.len);
}

/* Without the prefix, as the other functions take them. */
static void
put_keys(ReturnSetInfo *rows, const redisReply *keys)
{
	Oid			type = TupleDescAttr(rows->setDesc, 0)->atttypid;
	size_t		prefix_len = strlen(hc_encoding_string(hc_key_prefix));

	for (size_t i = 0; i < keys->elements; i++)
	{
		redisReply	key = *hc_reply_string(keys->element[i]);
		Datum		value;
		bool		null;

		if (key.len < prefix_len)
			continue;			/* nothing that matches the pattern */
		key.str += prefix_len;
		key.len -= prefix_len;
		value = hc_rows_value(&key, type, &null);
		hc_rows_put(rows, &value, &null);
	}
}
