/*
 * stream_info.h
 *	  What Redis says about a stream and its groups, by XINFO.
 *
 * A map, as an array of names and values.  Which there are depends on the version of
 * Redis, so what is not there is not an error here.
 */
#ifndef HC_STREAM_INFO_H
#define HC_STREAM_INFO_H

#include "inbound/message.h"

/* The value of that name and type (REDIS_REPLY_...), or NULL. */
extern const redisReply *hc_stream_info_field(const redisReply *map,
											  const char *name, int type);

/* A value that is the id of a message; false if there is none. */
extern bool hc_stream_info_id(const redisReply *map, const char *name,
							  HcMessageId *id);

/*
 * The map of one group (a name in the encoding of this database) among those of
 * XINFO GROUPS, or NULL.
 */
extern const redisReply *hc_stream_info_group(const redisReply *groups,
											  const char *name);

#endif							/* HC_STREAM_INFO_H */
