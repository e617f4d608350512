/*
 * timer.c
 *	  Where pending timers are in Redis.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "redis/beside.h"
#include "worker/timer.h"

void
hc_timer_key(StringInfo buf, HcBytes stream)
{
	hc_beside_key(buf, HC_TIMER_WHAT, stream.data, stream.len);
}

static bool
is_name_of(HcBytes name, HcBytes stream)
{
	StringInfoData buf;
	HcBytes		own;
	bool		result;

	initStringInfo(&buf);
	hc_timer_key(&buf, stream);
	own.data = buf.data;
	own.len = buf.len;
	result = hc_bytes_equal(own, name);
	pfree(buf.data);
	return result;
}

int
hc_timer_streams(HcBytes name, HcBytes streams[2])
{
	size_t		prefix = strlen(HC_TIMER_PREFIX);
	HcBytes		stream;
	int			n = 0;

	if (name.len < prefix || memcmp(name.data, HC_TIMER_PREFIX, prefix) != 0)
		return 0;
	stream.data = name.data + prefix;
	stream.len = name.len - prefix;
	if (is_name_of(name, stream))
		streams[n++] = stream;
	if (stream.len >= 2)
	{
		stream.data++;
		stream.len -= 2;
		if (is_name_of(name, stream))
			streams[n++] = stream;
	}
	return n;
}

void
hc_timer_registry(char *buf)
{
	snprintf(buf, HC_TIMER_REGISTRY_SIZE, HC_TIMER_PREFIX UINT64_FORMAT ":%u",
			 GetSystemIdentifier(), MyDatabaseId);
}
