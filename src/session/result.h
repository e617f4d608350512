/*
 * result.h
 *	  Replies of Redis as values of SQL.
 */
#ifndef HC_RESULT_H
#define HC_RESULT_H

#include "redis/reply.h"

/*
 * A string reply as text in the server's encoding, NULL for nil.  Raises
 * 22021 for what is not text, 22P05 for a character that the server's encoding
 * does not have, 08P01 for a reply that is no string.
 */
extern text *hc_result_text(const redisReply *reply);

/* Is a string reply text that the server's encoding has? */
extern bool hc_result_is_text(const redisReply *reply);

/* What hc_result_text() returns as bytes, which *data points to inside the reply or a copy. */
extern char *hc_result_decode(const redisReply *reply, size_t *len);

/* A string reply as it is, NULL for nil. */
extern bytea *hc_result_bytea(const redisReply *reply);

#endif							/* HC_RESULT_H */
