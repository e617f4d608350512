/*
 * stream_info.c
 *	  What Redis says about a stream and its groups, by XINFO.
 */
#include "postgres.h"

#include "encoding.h"
#include "inbound/stream_info.h"

const redisReply *
hc_stream_info_field(const redisReply *map, const char *name, int type)
{
	size_t		i;

	for (i = 0; i + 1 < map->elements; i += 2)
	{
		if (map->element[i]->type == REDIS_REPLY_STRING &&
			map->element[i + 1]->type == type &&
			strcmp(map->element[i]->str, name) == 0)
			return map->element[i + 1];
	}
	return NULL;
}

bool
hc_stream_info_id(const redisReply *map, const char *name, HcMessageId *id)
{
	const redisReply *value = hc_stream_info_field(map, name, REDIS_REPLY_STRING);

	return value != NULL && hc_message_parse_id(value->str, id);
}

const redisReply *
hc_stream_info_group(const redisReply *groups, const char *name)
{
	size_t		len = strlen(name);
	const char *wanted = hc_encoding_to_redis(name, &len);
	size_t		i;

	for (i = 0; i < groups->elements; i++)
	{
		const redisReply *found = hc_stream_info_field(groups->element[i], "name",
													   REDIS_REPLY_STRING);

		if (found != NULL && found->len == len &&
			memcmp(found->str, wanted, len) == 0)
			return groups->element[i];
	}
	return NULL;
}
