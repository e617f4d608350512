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
#include "miscadmin.h"
#include "replication/slot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/gap.h"
#include "worker/installation.h"
#include "worker/position.h"
#include "worker/slot.h"

/* Where the extension was created; invalid: not known yet. */
static XLogRecPtr created_lsn = InvalidXLogRecPtr;

/* WAL before this position cannot be read; invalid: all of the slot's can. */
static XLogRecPtr unreadable = InvalidXLogRecPtr;

/* The slot was missing; nothing is known yet of the WAL that it had kept. */
static bool slot_is_new = false;

/* Reads the row of hybrid_cache.installation, or makes one for this database. */
static void
read_installation(void)
{
	MemoryContext old = CurrentMemoryContext;
	HcInstallation installation;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	hc_installation_read(&installation);
	hc_gap_set_unsettled(installation.unsettled);
	if (installation.foreign != NULL)
	{
		const char *reason = installation.foreign;
		XLogRecPtr	here = GetXLogInsertRecPtr();
		FullTransactionId open = hc_gap_open_now();

		hc_installation_renew(&installation, here);
		hc_gap_owe_here(reason, open);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	created_lsn = installation.created_lsn;
}

void
hc_position_init(Oid database)
{
	HcSlotOrigin origin;

	if (XLogRecPtrIsInvalid(created_lsn))
		read_installation();

	origin = hc_slot_open(database);
	if (origin != HC_SLOT_FOUND && hc_slot_reserve(created_lsn))
		hc_slot_advance(created_lsn);
	if (origin == HC_SLOT_MISSING)
		slot_is_new = true;
}

void
hc_position_skip(XLogRecPtr lsn)
{
	XLogRecPtr	restart;

	if (MyReplicationSlot == NULL)
		return;
	restart = hc_slot_restart();

	/* what the slot keeps should be there: so the hole is in it, maybe larger */
	unreadable = (lsn < restart) ? restart : GetFlushRecPtr(NULL);
	hc_slot_advance(unreadable);
}

/*
 * Is everything that the watermark calls applied part of our own history?  If not,
 * *fork is the last position that both have, or invalid if that is not known.
 */
static bool
is_our_history(const HcWatermark *mark, TimeLineID timeline, XLogRecPtr flushed,
			   XLogRecPtr *fork)
{
	List	   *history;

	*fork = InvalidXLogRecPtr;
	if (mark->timeline == timeline)
		return mark->applied <= flushed && mark->cut <= flushed;
	history = readTimeLineHistory(timeline);
	if (!tliInHistory(mark->timeline, history))
		return false;
	*fork = tliSwitchPoint(mark->timeline, history, NULL);
	return mark->applied <= *fork && mark->cut <= *fork;
}

/*
 * Goes on at that position, since what is before it cannot be read or need not
 * be.
 */
static void
begin_at(HcWatermark *mark, XLogRecPtr lsn)
{
	memset(mark, 0, sizeof(*mark));
	mark->system = GetSystemIdentifier();
	mark->database = MyDatabaseId;
	mark->applied = mark->restart = lsn;
}

/*
 * Redis has what never happened here, and all that happened before the fork.
 * Events of before must not come again, and those of after must come.  A transaction
 * that was prepared before may end after: mostly it is open in the other history,
 * too.  false if the WAL is gone.
 */
static bool
begin_at_fork(HcWatermark *mark, XLogRecPtr fork)
{
	XLogRecPtr	applied = Min(mark->applied, fork);
	XLogRecPtr	restart;

	if (applied < created_lsn ||
		(!hc_slot_reserve(Min(mark->restart, applied)) && !hc_slot_reserve(applied)))
		return false;
	restart = Max(hc_slot_restart(), unreadable);
	if (restart > applied)
		return false;
	mark->applied = applied;
	mark->restart = restart;
	if (mark->cut > fork)
	{
		mark->cut = InvalidXLogRecPtr;
		mark->ops_done = 0;
	}
	return true;
}

/* The slot had to be made anew though Redis has a watermark. */
static void
report_new_slot(const char *gap)
{
	ereport(LOG,
			(errmsg("replication slot \"%s\" was dropped by somebody and has been made anew",
					NameStr(MyReplicationSlot->data.name)),
			 gap ? errdetail("WAL that it had kept is gone.") :
			 errdetail("The WAL that it had kept is still there, so nothing is missing."),
			 errhint("To do without the slot, drop the extension.")));
}

const char *
hc_position_find(Oid database, const char *stored, size_t len,
				 HcWatermark *mark)
{
	uint64		system = GetSystemIdentifier();
	const char *gap = NULL;
	TimeLineID	timeline;
	XLogRecPtr	flushed = GetFlushRecPtr(&timeline);
	XLogRecPtr	first = Max(hc_slot_restart(), unreadable);
	XLogRecPtr	fork;

	if (stored == NULL)
	{
		if (first != created_lsn)
			gap = "Redis has no watermark of this database.";
		begin_at(mark, first);
	}
	else if (!hc_watermark_parse(stored, len, system, database, mark))
	{
		gap = "The watermark in Redis cannot be read.";
		begin_at(mark, first);
	}
	else if (!is_our_history(mark, timeline, flushed, &fork))
	{
		gap = "The watermark in Redis is not of this server's history.";
		if (XLogRecPtrIsInvalid(fork) || !begin_at_fork(mark, fork))
			begin_at(mark, first);
	}
	else if (mark->applied < created_lsn)
	{
		/* what a former installation still had to do is no concern of ours */
		if (first != created_lsn)
			gap = "The WAL after the creation of the extension has been removed.";
		begin_at(mark, first);
	}
	else
	{
		if (mark->restart < unreadable)
			gap = "WAL after the watermark in Redis could not be read.";
		else if (!hc_slot_reserve(mark->restart))
			gap = "The WAL after the watermark in Redis has been removed.";
		if (slot_is_new)
			report_new_slot(gap);

		/* what is known to be applied stays so, though what was open is lost */
		if (gap != NULL && mark->applied < first)
			begin_at(mark, first);
		else if (gap != NULL)
			mark->restart = first;
	}
	slot_is_new = false;
	mark->timeline = timeline;
	return gap;
}
