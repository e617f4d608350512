/*
 * position.c
 *	  Decides where in the WAL a sync worker goes on.
 *
 * Three things know about it: the watermark in Redis, the replication slot, and
 * hybrid_cache.installation, which remembers where CREATE EXTENSION was.  The
 * watermark is what counts, since it tells what this Redis really has.  Without
 * one everything is read that the slot still keeps; that is all there ever was
 * while the slot stands where the extension was created.
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "worker/position.h"
#include "worker/slot.h"

/* Where the extension was created; invalid if that was in another database. */
static XLogRecPtr created_lsn = InvalidXLogRecPtr;

/*
 * The row is copied with the database by CREATE DATABASE ... TEMPLATE and by
 * pg_upgrade, hence the comparison.
 */
static XLogRecPtr
read_created_lsn(void)
{
	XLogRecPtr	lsn = InvalidXLogRecPtr;
	MemoryContext old = CurrentMemoryContext;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (SPI_execute("SELECT i.created_lsn FROM hybrid_cache.installation i"
					" WHERE i.database = (SELECT d.oid FROM pg_catalog.pg_database d"
					"  WHERE d.datname = pg_catalog.current_database())"
					" AND i.system = (SELECT s.system_identifier"
					"  FROM pg_catalog.pg_control_system() s)",
					true, 1) == SPI_OK_SELECT && SPI_processed == 1)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			lsn = DatumGetLSN(value);
	}
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	return lsn;
}

void
hc_position_init(Oid database)
{
	bool		created;

	if (XLogRecPtrIsInvalid(created_lsn))
	{
		XLogRecPtr	lsn = read_created_lsn();

		/* a position of the future comes from another server's past */
		if (lsn <= GetXLogInsertRecPtr())
			created_lsn = lsn;
	}

	hc_slot_open(database, &created);
	if (created && !XLogRecPtrIsInvalid(created_lsn) &&
		hc_slot_reserve(created_lsn))
		hc_slot_advance(created_lsn);
}

/* Is everything that the watermark calls applied part of our own history? */
static bool
is_our_history(const HcWatermark *mark, TimeLineID timeline, XLogRecPtr flushed)
{
	List	   *history;
	XLogRecPtr	fork;

	if (mark->applied > flushed || mark->cut > flushed)
		return false;
	if (mark->timeline == timeline)
		return true;
	history = readTimeLineHistory(timeline);
	if (!tliInHistory(mark->timeline, history))
		return false;
	fork = tliSwitchPoint(mark->timeline, history, NULL);
	return mark->applied <= fork && mark->cut <= fork;
}

const char *
hc_position_find(Oid database, const char *stored, size_t len,
				 HcWatermark *mark)
{
	uint64		system = GetSystemIdentifier();
	const char *gap = NULL;
	TimeLineID	timeline;
	XLogRecPtr	flushed = GetFlushRecPtr(&timeline);

	if (stored == NULL)
	{
		if (hc_slot_restart() != created_lsn)
			gap = "Redis has no watermark of this database.";
	}
	else if (!hc_watermark_parse(stored, len, system, database, mark))
		gap = "The watermark in Redis cannot be read.";
	else if (!is_our_history(mark, timeline, flushed))
		gap = "The watermark in Redis is not of this server's history.";
	else if (mark->applied < created_lsn)
	{
		/* what a former installation still had to do is no concern of ours */
		if (hc_slot_restart() != created_lsn)
			gap = "The WAL after the creation of the extension has been removed.";
	}
	else if (!hc_slot_reserve(mark->restart))
		gap = "The WAL after the watermark in Redis has been removed.";
	else
	{
		mark->timeline = timeline;
		return NULL;
	}

	memset(mark, 0, sizeof(*mark));
	mark->system = system;
	mark->database = database;
	mark->timeline = timeline;
	mark->applied = mark->restart = hc_slot_restart();
	return gap;
}
