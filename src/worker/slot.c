/*
 * slot.c
 *	  The physical replication slot of a sync worker.
 *
 * A physical slot keeps WAL and nothing else: no catalog rows are held back, no
 * wal_level=logical is asked for, and DROP DATABASE is not blocked by it.  It is
 * named after the database's OID, which outlives a rename.
 *
 * Locking: a slot's fields are changed under its spinlock by the process that
 * has acquired it, as PostgreSQL's own code does.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "compat.h"
#include "replication/slot.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "worker/slot.h"

#define SLOT_PREFIX		"hybrid_cache_"

static void
slot_name(Oid database, char *name)
{
	snprintf(name, NAMEDATALEN, SLOT_PREFIX "%u", database);
}

/* Is the slot at hand one that keeps WAL? */
static bool
is_valid(void)
{
	if (SlotIsLogical(MyReplicationSlot))
	{
		char	   *name = pstrdup(NameStr(MyReplicationSlot->data.name));

		ReplicationSlotRelease();
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("replication slot \"%s\" is a logical one", name),
				 errdetail("A physical slot of that name belongs to hybrid_cache."),
				 errhint("Drop it with pg_drop_replication_slot().")));
	}
	return !XLogRecPtrIsInvalid(hc_slot_restart()) &&
		!hc_compat_slot_is_invalidated(MyReplicationSlot);
}

HcSlotOrigin
hc_slot_open(Oid database)
{
	HcSlotOrigin origin = HC_SLOT_MISSING;
	char		name[NAMEDATALEN];

	slot_name(database, name);
	CheckSlotRequirements();

	if (MyReplicationSlot == NULL &&
		SearchNamedReplicationSlot(name, true) != NULL)
		hc_compat_slot_acquire(name);

	if (MyReplicationSlot != NULL)
	{
		if (is_valid())
			return HC_SLOT_FOUND;
		ereport(LOG,
				(errmsg("replication slot \"%s\" was invalidated by PostgreSQL and is made anew",
						name),
				 errhint("To let it keep more WAL while Redis is away, increase max_slot_wal_keep_size.")));
		hc_slot_drop(database);
		origin = HC_SLOT_INVALIDATED;
	}

	hc_compat_slot_create(name);
	ReplicationSlotReserveWal();
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
	return origin;
}

XLogRecPtr
hc_slot_restart(void)
{
	XLogRecPtr	lsn;

	SpinLockAcquire(&MyReplicationSlot->mutex);
	lsn = MyReplicationSlot->data.restart_lsn;
	SpinLockRelease(&MyReplicationSlot->mutex);
	return lsn;
}

static void
set_restart(XLogRecPtr lsn)
{
	SpinLockAcquire(&MyReplicationSlot->mutex);
	MyReplicationSlot->data.restart_lsn = lsn;
	SpinLockRelease(&MyReplicationSlot->mutex);
	ReplicationSlotMarkDirty();
	ReplicationSlotsComputeRequiredLSN();
}

void
hc_slot_advance(XLogRecPtr lsn)
{
	XLogRecPtr	old = hc_slot_restart();

	/* an invalidated slot stays so: only hc_slot_open() can make a new one */
	if (XLogRecPtrIsInvalid(old) || lsn <= old)
		return;
	set_restart(lsn);
	ReplicationSlotSave();
}

bool
hc_slot_advance_unused(Oid database, XLogRecPtr lsn)
{
	char		name[NAMEDATALEN];
	ReplicationSlot *slot;
	XLogRecPtr	old;
	pid_t		owner;

	slot_name(database, name);
	slot = SearchNamedReplicationSlot(name, true);
	if (slot == NULL)
		return false;
	SpinLockAcquire(&slot->mutex);
	owner = slot->active_pid;
	old = slot->data.restart_lsn;
	SpinLockRelease(&slot->mutex);
	if (owner != 0 || XLogRecPtrIsInvalid(old) ||
		lsn / wal_segment_size <= old / wal_segment_size)
		return false;

	hc_compat_slot_acquire(name);
	hc_slot_advance(lsn);
	ReplicationSlotRelease();
	return true;
}

/* Is the segment that holds lsn still there? */
static bool
segment_exists(XLogRecPtr lsn)
{
	TimeLineID	timeline;
	XLogSegNo	segno;
	char		path[MAXPGPATH];
	struct stat st;

	GetFlushRecPtr(&timeline);
	XLByteToSeg(lsn, segno, wal_segment_size);
	if (XLogGetLastRemovedSegno() >= segno)
		return false;

	/* the position may lie on an older timeline of ours */
	timeline = tliOfPointInHistory(lsn, readTimeLineHistory(timeline));
	XLogFilePath(path, timeline, segno, wal_segment_size);
	if (stat(path, &st) == 0)
		return true;

	/* the segment in which a timeline ends lives on under the next one */
	GetFlushRecPtr(&timeline);
	XLogFilePath(path, timeline, segno, wal_segment_size);
	return stat(path, &st) == 0;
}

bool
hc_slot_reserve(XLogRecPtr lsn)
{
	XLogRecPtr	old = hc_slot_restart();

	if (XLogRecPtrIsInvalid(old))
		return false;
	if (lsn >= old)
		return true;

	/*
	 * First reserve, then look: a checkpoint that computed what it may remove
	 * before we reserved has removed it by the time we look, or sees our
	 * position.  The lock keeps one from being in between.
	 */
	LWLockAcquire(ReplicationSlotAllocationLock, LW_EXCLUSIVE);
	set_restart(lsn);
	LWLockRelease(ReplicationSlotAllocationLock);
	if (!segment_exists(lsn))
	{
		set_restart(old);
		return false;
	}
	ReplicationSlotSave();
	return true;
}

bool
hc_slot_drop(Oid database)
{
	char		name[NAMEDATALEN];
	ReplicationSlot *slot;
	pid_t		owner;

	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();

	slot_name(database, name);
	slot = SearchNamedReplicationSlot(name, true);
	if (slot == NULL)
		return false;
	SpinLockAcquire(&slot->mutex);
	owner = slot->active_pid;
	SpinLockRelease(&slot->mutex);
	if (owner != 0)
		return false;
	ReplicationSlotDrop(name, true);
	return true;
}

List *
hc_slot_databases(void)
{
	List	   *databases = NIL;
	int			i;

	for (i = 0; i < max_replication_slots; i++)
	{
		NameData	name;
		char	   *end;
		unsigned long oid;

		if (!ReplicationSlotName(i, &name) ||
			strncmp(NameStr(name), SLOT_PREFIX, strlen(SLOT_PREFIX)) != 0)
			continue;
		oid = strtoul(NameStr(name) + strlen(SLOT_PREFIX), &end, 10);
		if (*end == '\0' && OidIsValid((Oid) oid))
			databases = lappend_oid(databases, (Oid) oid);
	}
	return databases;
}
