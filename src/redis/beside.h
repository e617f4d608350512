/*
 * beside.h
 *	  Names of keys of our own that live beside a key of the user's.
 */
#ifndef HC_BESIDE_H
#define HC_BESIDE_H

#include "lib/stringinfo.h"

/* What there is, where more than one place must know it: leases of cached values. */
#define HC_CACHED	"cached"

/*
 * Appends the name: "hybrid_cache:", what, a colon, and the key if it has a hash
 * tag, else the key in braces.  So the name has the hash slot of the key.  key is
 * with hybrid_cache.key_prefix.
 */
extern void hc_beside_key(StringInfo buf, const char *what, const char *key,
						  size_t len);

#endif							/* HC_BESIDE_H */
