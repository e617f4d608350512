/*
 * position.h
 *	  Where in the WAL a sync worker goes on.
 */
#ifndef HC_POSITION_H
#define HC_POSITION_H

#include "worker/watermark.h"

/*
 * Opens the database's replication slot, as hc_slot_open(), and makes it begin
 * where the extension was created if it is new.  Needs to be called before
 * hc_position_find(); opens transactions of its own, in one of which everything
 * is owed if this database is a copy of another one.
 */
extern void hc_position_init(Oid database);

/*
 * *mark is the position from which to go on when Redis has this watermark
 * (NULL: none), and WAL is kept from there on.  Returns NULL, or, if changes may
 * be missing in Redis that will not be read again, a sentence why.
 */
extern const char *hc_position_find(Oid database, const char *stored,
									size_t len, HcWatermark *mark);

/*
 * WAL at or after lsn cannot be read: hc_position_find() is to go on after it,
 * and calls that a gap.
 */
extern void hc_position_skip(XLogRecPtr lsn);

#endif							/* HC_POSITION_H */
