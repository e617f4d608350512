/*
 * retention.c
 *	  How much WAL the replication slot keeps.
 *
 * A Redis that fails over, or restarts, comes back with an older watermark.  It
 * gets the rest again as long as the WAL is there, and nothing needs to be
 * compared; that is what the window behind the applied position is for.
 *
 * The limit is for the disk.  It is the same as PostgreSQL's
 * max_slot_wal_keep_size, but does not wait for a checkpoint, does not end the
 * worker, and says at once what follows from it.  Also without a limit the disk
 * is not filled.
 *
 * WAL that is given up here may be still there when it is needed; then nothing
 * is lost.  So a worker that is connected goes on reading, however far it is
 * behind: it may have read the WAL before the next checkpoint removes it.  If it
 * has not, it notices, and owes then.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "replication/slot.h"
#include "settings.h"
#include "worker/disk.h"
#include "worker/gap.h"
#include "worker/retention.h"
#include "worker/slot.h"

#define BYTES(mb)	((XLogRecPtr) (mb) * 1024 * 1024)

/* WAL was given up that is still needed: what was said, until it is not so. */
#define GAVE_UP_OPEN	0x01	/* changes of open transactions */
#define GAVE_UP_UNREAD	0x02	/* what the worker may read in time */
#define GAVE_UP_OWED	0x04	/* what counts as lost */

static int	gave_up = 0;

/*
 * WAL goes by whole segments.  And it can be read from the start of one, while
 * what is behind pg_switch_wal() in a segment is no WAL.
 */
static XLogRecPtr
segment_start(XLogRecPtr lsn)
{
	return lsn - XLogSegmentOffset(lsn, wal_segment_size);
}

/* Before this position nothing may be kept; *full: since the disk is. */
static XLogRecPtr
oldest_allowed(bool *full)
{
	XLogRecPtr	flushed = GetFlushRecPtr(NULL);
	uint64		most = hc_disk_allowance();

	*full = most != PG_UINT64_MAX;
	if (hc_max_wal_keep_size >= 0 && BYTES(hc_max_wal_keep_size) <= most)
	{
		most = BYTES(hc_max_wal_keep_size);
		*full = false;
	}
	return (flushed <= most) ? InvalidXLogRecPtr : segment_start(flushed - most);
}

/* Before this position nothing is needed, nor wanted. */
static XLogRecPtr
oldest_wanted(const HcWatermark *acked)
{
	int			keep = hc_wal_keep_size;

	/* what may be kept for an outage is not to be used up before */
	if (hc_max_wal_keep_size >= 0)
		keep = Min(keep, hc_max_wal_keep_size / 2);
	if (max_slot_wal_keep_size_mb >= 0)
		keep = Min(keep, max_slot_wal_keep_size_mb / 2);

	if (acked->applied <= BYTES(keep))
		return InvalidXLogRecPtr;
	return Min(acked->restart, segment_start(acked->applied - BYTES(keep)));
}

/*
 * Is only the watermark behind, which is written now and then while there is
 * nothing to apply?
 */
static bool
is_caught_up(HcPipeline *line, XLogRecPtr lsn)
{
	HcWatermark mark;

	if (line->conn == NULL || !hc_pipeline_is_idle(line))
		return false;
	hc_feed_watermark(line->feed, &mark);
	return mark.applied >= lsn;
}

/* WAL before that position is given up, though it may be needed. */
static void
give_up(const HcPipeline *line, XLogRecPtr before, bool full)
{
	int			what = (line->acked.applied >= before) ? GAVE_UP_OPEN :
		(line->conn != NULL && !full) ? GAVE_UP_UNREAD : GAVE_UP_OWED;

	if (gave_up & (what | GAVE_UP_OWED))
		return;
	gave_up |= what;
	if (what == GAVE_UP_OWED)
	{
		hc_gap_owe(full ? "The disk of pg_wal was nearly full, so no more WAL was kept for Redis." :
				   "Redis was further behind than hybrid_cache.max_wal_keep_size allows.");
		return;
	}
	ereport(LOG,
			(errmsg(what == GAVE_UP_OPEN ?
					"%s does not keep all changes of an open transaction" :
					"%s does not keep all changes that Redis has not got",
					MyBgworkerEntry->bgw_name),
			 what == GAVE_UP_UNREAD ?
			 errdetail("Redis is further behind than the %d MB of WAL that hybrid_cache.max_wal_keep_size allows. If WAL is removed before it is read, every mapping will be compared with its table.",
					   hc_max_wal_keep_size) :
			 full ? errdetail("The disk of pg_wal is nearly full. If its changes are needed again, every mapping will be compared with its table.") :
			 errdetail("The transaction is open since before the last %d MB of WAL, which is the limit hybrid_cache.max_wal_keep_size. If its changes are needed again, every mapping will be compared with its table.",
					   hc_max_wal_keep_size),
			 what == GAVE_UP_OPEN ?
			 errhint("Look for old transactions in pg_prepared_xacts and pg_stat_activity.") : 0));
}

void
hc_retention_limit_unused(Oid database)
{
	bool		full;

	if (!hc_slot_advance_unused(database, oldest_allowed(&full)))
		return;
	ereport((gave_up & GAVE_UP_OWED) ? DEBUG1 : LOG,
			(errmsg("the replication slot of database %u keeps no more WAL", database),
			 errdetail("No sync worker uses it. When one does, and misses WAL, every mapping will be compared with its table."),
			 full ? errhint("The disk of pg_wal is nearly full.") :
			 errhint("The limit is hybrid_cache.max_wal_keep_size.")));
	gave_up |= GAVE_UP_OWED;
	if (full)
		hc_disk_clean();
}

void
hc_retention_apply(HcPipeline *line)
{
	XLogRecPtr	restart;
	XLogRecPtr	allowed;
	XLogRecPtr	target;
	bool		full;

	if (MyReplicationSlot == NULL)
	{
		/* the worker is here and cannot even open it */
		hc_retention_limit_unused(MyDatabaseId);
		return;
	}
	restart = hc_slot_restart();
	allowed = oldest_allowed(&full);
	target = (line->conn != NULL) ? oldest_wanted(&line->acked) : InvalidXLogRecPtr;

	/* WAL goes by whole segments, and each move is an fsync */
	if (allowed > target &&
		allowed / wal_segment_size > restart / wal_segment_size &&
		!(allowed > line->acked.applied && is_caught_up(line, allowed)))
	{
		if (allowed > line->acked.restart)
			give_up(line, allowed, full);
		hc_slot_advance(allowed);
		if (full)
			hc_disk_clean();
		return;
	}
	if (line->conn != NULL && line->acked.restart >= allowed)
		gave_up = 0;
	if (target / wal_segment_size > restart / wal_segment_size)
		hc_slot_advance(target);
}
