/*
 * traffic.c
 *	  What each bridge has carried, in shared memory.
 *
 * There is one writer, the bridge process of the database; so atomics are enough,
 * and who reads them while a place changes hands sees numbers of two bridges at
 * worst.  A table would get a dead row for each transaction of the bridge.
 */
#include "postgres.h"

#include "inbound/traffic.h"
#include "utils/timestamp.h"

void
hc_traffic_init(HcTraffic *traffic)
{
	int			i;

	for (i = 0; i < HC_TRAFFIC_BRIDGES; i++)
	{
		pg_atomic_init_u64(&traffic[i].id, 0);
		pg_atomic_init_u64(&traffic[i].subscribed_at, 0);
		pg_atomic_init_u64(&traffic[i].last_at, 0);
		pg_atomic_init_u64(&traffic[i].messages, 0);
		pg_atomic_init_u64(&traffic[i].dropped, 0);
		pg_atomic_init_u64(&traffic[i].interruptions, 0);
	}
}

HcTraffic *
hc_traffic_find(HcTraffic *traffic, uint64 id, bool add)
{
	HcTraffic  *unused = NULL;
	int			i;

	for (i = 0; i < HC_TRAFFIC_BRIDGES; i++)
	{
		uint64		other = pg_atomic_read_u64(&traffic[i].id);

		if (other == id)
			return &traffic[i];
		if (other == 0 && unused == NULL)
			unused = &traffic[i];
	}
	if (!add || unused == NULL)
		return NULL;
	pg_atomic_write_u64(&unused->subscribed_at, 0);
	pg_atomic_write_u64(&unused->last_at, 0);
	pg_atomic_write_u64(&unused->messages, 0);
	pg_atomic_write_u64(&unused->dropped, 0);
	pg_atomic_write_u64(&unused->interruptions, 0);
	pg_write_barrier();
	pg_atomic_write_u64(&unused->id, id);
	return unused;
}

void
hc_traffic_keep(HcTraffic *traffic, const uint64 *ids, int n)
{
	int			i;
	int			k;

	for (i = 0; i < HC_TRAFFIC_BRIDGES; i++)
	{
		uint64		id = pg_atomic_read_u64(&traffic[i].id);

		for (k = 0; k < n && ids[k] != id; k++)
			;
		if (k == n)
			pg_atomic_write_u64(&traffic[i].id, 0);
	}
}

void
hc_traffic_subscribed(HcTraffic *traffic, bool subscribed)
{
	bool		was = pg_atomic_read_u64(&traffic->subscribed_at) != 0;

	if (was == subscribed)
		return;
	if (was)
		pg_atomic_fetch_add_u64(&traffic->interruptions, 1);
	pg_atomic_write_u64(&traffic->subscribed_at,
						subscribed ? (uint64) GetCurrentTimestamp() : 0);
}

void
hc_traffic_end(HcTraffic *traffic)
{
	int			i;

	for (i = 0; i < HC_TRAFFIC_BRIDGES; i++)
		hc_traffic_subscribed(&traffic[i], false);
}
