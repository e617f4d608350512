/*
 * json_reply.h
 *	  Replies of Redis of any form as jsonb.
 */
#ifndef HC_JSON_REPLY_H
#define HC_JSON_REPLY_H

#include "redis/reply.h"
#include "utils/jsonb.h"

/*
 * Arrays become arrays, strings and numbers what they are, nil null.  An error,
 * and a string that is not text, is raised; ...
 */
extern Jsonb *hc_json_reply(const redisReply *reply);

/* ... or becomes an object with "error" and "sqlstate", which no reply is. */
extern Jsonb *hc_json_reply_or_error(const redisReply *reply);

#endif							/* HC_JSON_REPLY_H */
