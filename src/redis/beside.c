/*
 * beside.c
 *	  Names of keys of our own that live beside a key of the user's.
 *
 * A Redis Cluster takes scripts and transactions only of keys in one hash slot,
 * and what it hashes is the hash tag of a key: what is between the first opening
 * brace and the next closing one, if anything is, otherwise the whole key.  In
 * braces the whole key becomes the tag of another name.  (That is not so of a key
 * without a tag that contains a closing brace; on a single node it does not
 * matter.)
 */
#include "postgres.h"

#include "redis/beside.h"

static bool
has_hash_tag(const char *key, size_t len)
{
	const char *open = memchr(key, '{', len);
	const char *close;

	if (open == NULL)
		return false;
	close = memchr(open + 1, '}', key + len - (open + 1));
	return close != NULL && close > open + 1;
}

void
hc_beside_key(StringInfo buf, const char *what, const char *key, size_t len)
{
	bool		tagged = has_hash_tag(key, len);

	appendStringInfo(buf, "hybrid_cache:%s:", what);
	if (!tagged)
		appendStringInfoChar(buf, '{');
	appendBinaryStringInfo(buf, key, len);
	if (!tagged)
		appendStringInfoChar(buf, '}');
}
