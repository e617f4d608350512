/*
 * query_key.h
 *	  The key of a cached query, and a hash that tells it from all others.
 */
#ifndef HC_QUERY_KEY_H
#define HC_QUERY_KEY_H

#define HC_QUERY_HASH_DIGITS	32

/*
 * Makes "name:value1:value2...", without hybrid_cache.key_prefix, palloc'd; of gets
 * the digits of the hash of query, values and this database, and has room for a zero
 * behind them.  Values are written as a mapping would write them, so a cast of theirs
 * can raise, and so can a key that is too long.
 */
extern text *hc_query_key_make(const text *name, const char *query, int n,
							   const Oid *types, const Datum *values,
							   char *of);

#endif							/* HC_QUERY_KEY_H */
