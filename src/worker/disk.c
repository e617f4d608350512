/*
 * disk.c
 *	  Whether there is room for more WAL.
 *
 * PostgreSQL ends with a PANIC when the disk of pg_wal is full.  WAL that is
 * kept for a Redis that is away is not worth that: what is missing in Redis can
 * be found by comparing it with the tables.  So whatever the settings allow,
 * the last of the space is not used for it.
 */
#include "postgres.h"

#include <sys/statvfs.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "postmaster/bgwriter.h"
#include "worker/disk.h"

/* The disk is nearly full when so much of it, or max_wal_size, is left. */
#define LEFT_PERCENT	10

uint64
hc_disk_allowance(void)
{
	struct statvfs disk;
	uint64		reserve;

	if (statvfs(XLOGDIR, &disk) != 0)
		return PG_UINT64_MAX;
	reserve = (uint64) disk.f_blocks * disk.f_frsize / 100 * LEFT_PERCENT;
	reserve = Min(reserve, (uint64) max_wal_size_mb * 1024 * 1024);
	if ((uint64) disk.f_bavail * disk.f_frsize >= reserve)
		return PG_UINT64_MAX;
	return reserve;
}

void
hc_disk_clean(void)
{
	RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE);
}
