/*
 * hybrid_cache.c
 *	  Module entry: everything the extension registers with PostgreSQL, in
 *	  order.  Each part defines its own _init().
 */
#include "postgres.h"

#include "cache/lease.h"
#include "cache/readable.h"
#include "capture/buffer.h"
#include "capture/guard.h"
#include "capture/synchronous.h"
#include "fmgr.h"
#include "inbound/bridge.h"
#include "inbound/consumer.h"
#include "keeper/keeper.h"
#include "mapping/mapping.h"
#include "miscadmin.h"
#include "role.h"
#include "settings.h"
#include "shmem.h"
#include "worker/launcher.h"
#include "worker/mark.h"
#include "worker/utility.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	/*
	 * Without shared memory nothing would be captured or applied, and nobody
	 * would notice.  So refuse early, where the administrator sees it.
	 */
	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("hybrid_cache must be loaded when the server starts"),
				 errhint("Add hybrid_cache to shared_preload_libraries and restart the server.")));

	hc_settings_init();
	hc_shmem_init();
	hc_mapping_init();
	hc_buffer_init();
	hc_synchronous_init();
	hc_mark_init();
	hc_role_register();
	hc_guard_init();
	hc_readable_init();
	hc_lease_init();
	hc_utility_init();
	hc_keeper_init();
	hc_consumer_init();
	hc_bridge_init();
	hc_launcher_init();
}
