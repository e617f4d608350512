/*
 * bridge.c
 *	  hybrid_cache.bridge(), drop_bridge(), and what the view hybrid_cache.bridges
 *	  shows.
 *
 * They are changes of a table; the bridge process (inbound/bridge.h) follows it
 * when they are committed.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "inbound/bridged.h"
#include "inbound/traffic.h"
#include "miscadmin.h"
#include "role.h"
#include "session/parameter.h"
#include "shmem.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define NATTS	8

PG_FUNCTION_INFO_V1(hybrid_cache_bridge);
PG_FUNCTION_INFO_V1(hybrid_cache_drop_bridge);
PG_FUNCTION_INFO_V1(hybrid_cache_bridge_list);

/* The name of a channel that one can LISTEN to. */
static char *
channel_parameter(FunctionCallInfo fcinfo, int n, const char *function)
{
	char	   *channel = text_to_cstring(hc_parameter_text(fcinfo, n, "channel", function));

	if (strlen(channel) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of hybrid_cache.%s() is too long", "channel", function),
				 errdetail("A channel's name has less than %d bytes.", NAMEDATALEN)));
	return channel;
}

/*
 * hybrid_cache.bridge(pattern text, channel text, with_channel boolean) RETURNS void
 */
Datum
hybrid_cache_bridge(PG_FUNCTION_ARGS)
{
	text	   *pattern = hc_parameter_text(fcinfo, 0, "pattern", "bridge");
	char	   *channel = channel_parameter(fcinfo, 1, "bridge");

	hc_parameter_need(fcinfo, 2, "with_channel", "bridge");
	PreventCommandIfReadOnly("hybrid_cache.bridge()");
	PreventCommandDuringRecovery("hybrid_cache.bridge()");
	if (!hc_bridged_add(pattern, channel, PG_GETARG_BOOL(2)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("there is already a bridge from \"%s\" to \"%s\"",
						text_to_cstring(pattern), channel)));
	hc_role_call_at_commit(HC_ROLE_BRIDGE);
	PG_RETURN_VOID();
}

/*
 * hybrid_cache.drop_bridge(pattern text, channel text) RETURNS void
 */
Datum
hybrid_cache_drop_bridge(PG_FUNCTION_ARGS)
{
	text	   *pattern = hc_parameter_text(fcinfo, 0, "pattern", "drop_bridge");
	char	   *channel = channel_parameter(fcinfo, 1, "drop_bridge");

	PreventCommandIfReadOnly("hybrid_cache.drop_bridge()");
	PreventCommandDuringRecovery("hybrid_cache.drop_bridge()");
	if (!hc_bridged_remove(pattern, channel))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no bridge from \"%s\" to \"%s\"",
						text_to_cstring(pattern), channel)));
	hc_role_call_at_commit(HC_ROLE_BRIDGE);
	PG_RETURN_VOID();
}

/* A time as a column; 0: null. */
static void
set_time(Datum *values, bool *nulls, int i, pg_atomic_uint64 *time)
{
	TimestampTz at = (TimestampTz) pg_atomic_read_u64(time);

	values[i] = TimestampTzGetDatum(at);
	nulls[i] = at == 0;
}

/*
 * hybrid_cache.bridge_list() RETURNS TABLE (pattern text, channel text,
 *		with_channel boolean, subscribed_at timestamptz, last_at timestamptz,
 *		messages bigint, dropped bigint, interruptions bigint)
 */
Datum
hybrid_cache_bridge_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HcDatabase *db = hc_shmem_mine();
	bool		exists;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, hc_bridged_list(&exists))
	{
		const HcBridged *bridged = lfirst(lc);
		HcTraffic  *traffic = db == NULL ? NULL :
			hc_traffic_find(db->bridges, bridged->id, false);
		Datum		values[NATTS] = {0};
		bool		nulls[NATTS] = {false, false, false, true, true, true, true, true};

		values[0] = PointerGetDatum(bridged->pattern);
		values[1] = CStringGetTextDatum(bridged->channel);
		values[2] = BoolGetDatum(bridged->with_channel);
		if (traffic != NULL)
		{
			set_time(values, nulls, 3, &traffic->subscribed_at);
			set_time(values, nulls, 4, &traffic->last_at);
			values[5] = Int64GetDatum((int64) pg_atomic_read_u64(&traffic->messages));
			values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&traffic->dropped));
			values[7] = Int64GetDatum((int64) pg_atomic_read_u64(&traffic->interruptions));
			nulls[5] = nulls[6] = nulls[7] = false;
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
