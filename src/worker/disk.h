/*
 * disk.h
 *	  Whether there is room for more WAL.
 */
#ifndef HC_DISK_H
#define HC_DISK_H

/*
 * How much WAL may be kept for Redis, in bytes, as far as the disk of pg_wal is
 * concerned: as much as anybody likes (PG_UINT64_MAX) unless it is nearly full.
 */
extern uint64 hc_disk_allowance(void);

/* WAL is not kept any more for want of space: has it removed at once. */
extern void hc_disk_clean(void);

#endif							/* HC_DISK_H */
