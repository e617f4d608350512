/*
 * query_key.c
 *	  The key of a cached query, and a hash that tells it from all others.
 *
 * The key is for people, who want to name it in an invalidate mapping: so the
 * arguments are written into it as a mapping would do it, and nothing keeps two
 * queries from having one key.  The hash does, which is kept with the result.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "cache/query_key.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "executor/executor.h"
#include "mapping/pin.h"
#include "mapping/value.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"

/* A cast to text, as of a column in a key template. */
static text *
cast_to_text(Oid type, Datum value)
{
	ExprContext *econtext;
	int16		typlen;
	bool		typbyval;
	bool		isnull;
	Node	   *node;
	Datum		result;

	get_typlenbyval(type, &typlen, &typbyval);
	node = (Node *) makeConst(type, -1, get_typcollation(type), typlen, value,
							  false, typbyval);
	node = coerce_to_target_type(NULL, node, type, TEXTOID, -1,
								 COERCION_EXPLICIT, COERCE_EXPLICIT_CAST, -1);
	if (node == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type %s cannot be cast to text", format_type_be(type))));
	econtext = CreateStandaloneExprContext();
	result = ExecEvalExprSwitchContext(ExecInitExpr(expression_planner((Expr *) node), NULL),
									   econtext, &isnull);
	result = isnull ? CStringGetTextDatum("") : datumCopy(result, false, -1);
	FreeExprContext(econtext, true);
	return DatumGetTextPP(result);
}

/* Appends an argument as a mapping would write it into a key. */
static void
append_argument(StringInfo buf, Oid type, Datum value)
{
	HcEncoder	encoder = hc_value_encoder(type);
	bool		fits;

	if (encoder != HC_ENCODER_NONE)
		fits = hc_value_text(buf, encoder, value);
	else
	{
		text	   *word;
		HcPin		pin;

		hc_pin_begin(&pin, GetUserId());
		word = cast_to_text(type, value);
		hc_pin_end(&pin);
		fits = VARSIZE_ANY_EXHDR(word) <= hc_value_room(buf);
		if (fits)
			appendBinaryStringInfo(buf, VARDATA_ANY(word), VARSIZE_ANY_EXHDR(word));
	}
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the key is too long"),
				 errdetail("A Redis string holds at most 512 MB.")));
}

static void
hash_bytes_of(pg_cryptohash_ctx *hash, const void *data, size_t len)
{
	if (pg_cryptohash_update(hash, data, len) < 0)
		elog(ERROR, "could not compute a hash: %s", pg_cryptohash_error(hash));
}

/*
 * In the hash the arguments are with their lengths and types: ('a:b', 'c') is not
 * ('a', 'b:c').  And so is the search_path: with a schema for each tenant, the same
 * query finds the tables of another.
 */
text *
hc_query_key_make(const text *name, const char *query, int n, const Oid *types,
				  const Datum *values, char *of)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
	uint64		system = GetSystemIdentifier();
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	StringInfoData key;
	text	   *result;
	ListCell   *lc;
	int			i;

	if (pg_cryptohash_init(hash) < 0)
		elog(ERROR, "could not compute a hash: %s", pg_cryptohash_error(hash));
	hash_bytes_of(hash, &system, sizeof(system));
	hash_bytes_of(hash, &MyDatabaseId, sizeof(MyDatabaseId));
	hash_bytes_of(hash, query, strlen(query) + 1);
	foreach(lc, fetch_search_path(false))
		hash_bytes_of(hash, &lfirst_oid(lc), sizeof(Oid));

	initStringInfo(&key);
	appendBinaryStringInfo(&key, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	for (i = 0; i < n; i++)
	{
		int			start;
		int			len;

		appendStringInfoChar(&key, ':');
		start = key.len;
		append_argument(&key, types[i], values[i]);
		len = key.len - start;
		hash_bytes_of(hash, &types[i], sizeof(Oid));
		hash_bytes_of(hash, &len, sizeof(len));
		hash_bytes_of(hash, key.data + start, len);
	}
	result = cstring_to_text_with_len(key.data, key.len);
	pfree(key.data);

	if (pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a hash: %s", pg_cryptohash_error(hash));
	pg_cryptohash_free(hash);
	for (i = 0; i < HC_QUERY_HASH_DIGITS / 2; i++)
		snprintf(of + 2 * i, 3, "%02x", digest[i]);
	return result;
}
