/*
 * slot.h
 *	  The physical replication slot that keeps the WAL which the sync worker of
 *	  a database has not applied yet.
 *
 * The process that has opened the slot owns it until it exits; it is released
 * by PostgreSQL then.
 */
#ifndef HC_SLOT_H
#define HC_SLOT_H

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"

/* A slot that was not found is made. */
typedef enum HcSlotOrigin
{
	HC_SLOT_FOUND,
	HC_SLOT_MISSING,
	HC_SLOT_INVALIDATED			/* by PostgreSQL; the log says so */
} HcSlotOrigin;

/*
 * Acquires the database's slot, or makes it.  Raises when there is none to be
 * had: wal_level, max_replication_slots, another process has it, somebody made
 * one of that name for something else.
 */
extern HcSlotOrigin hc_slot_open(Oid database);

/* From here on the WAL is kept. */
extern XLogRecPtr hc_slot_restart(void);

/* WAL before lsn is not needed any more.  Does nothing if lsn is not later. */
extern void hc_slot_advance(XLogRecPtr lsn);

/*
 * The same for the slot of any database, unless a process uses it; returns
 * whether it was moved, by a whole segment at least.  The caller has no slot
 * open.
 */
extern bool hc_slot_advance_unused(Oid database, XLogRecPtr lsn);

/*
 * Makes sure that WAL from lsn on is there and stays: moves the slot back if it
 * has to.  false if that WAL is gone, and the slot is as before.
 */
extern bool hc_slot_reserve(XLogRecPtr lsn);

/*
 * Drops the database's slot; false if there is none or if another process has
 * it.  The caller may have it open.
 */
extern bool hc_slot_drop(Oid database);

/* The databases (list of Oid) for which there are slots of ours. */
extern List *hc_slot_databases(void);

#endif							/* HC_SLOT_H */
