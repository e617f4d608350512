/*
 * progress.h
 *	  How far the keeper's run is, for others to see, and whether it is to end.
 *
 * The functions but read() and cancel() are for the keeper alone; none of them
 * raises, allocates or takes a lock, so all may be called anywhere.
 */
#ifndef HC_PROGRESS_H
#define HC_PROGRESS_H

#include "datatype/timestamp.h"
#include "keeper/run.h"
#include "port/atomics.h"

struct HcDatabase;

#define HC_PROGRESS_TEXT	128

/* A run as others see it. */
typedef struct HcProgressRow
{
	uint64		number;			/* of the run, from 1 on; 0: no run */
	Oid			mapping;
	HcRunKind	kind;
	char		reason[HC_PROGRESS_TEXT];	/* why there is this run */
	char		phase[HC_PROGRESS_TEXT];	/* what it is doing ... */
	uint64		rows_done;		/* ... and how far this is */
	uint64		rows_estimated; /* 0: not known */
	HcRunCounts counts;
	TimestampTz started;
	TimestampTz phase_started;
} HcProgressRow;

/* In shared memory: of the keeper of a database. */
typedef struct HcProgress
{
	pg_atomic_uint32 changes;	/* odd while row is being changed */
	HcProgressRow row;			/* written by the keeper, read as in read() */
	pg_atomic_uint64 cancelled; /* the number of a run that is to end */
} HcProgress;

/*
 * reason() says why the next run is; begin() is when it begins (again: nothing
 * happens), and end() when it is over, however that is.  Outside of a run the
 * others do nothing.
 */
extern void hc_progress_reason(const char *reason);
extern void hc_progress_begin(struct HcDatabase *db, Oid mapping, HcRunKind kind);
extern void hc_progress_end(void);

/* The reason of the run, or of the next one if there is none; never NULL. */
extern const char *hc_progress_get_reason(void);

/*
 * The run does something else now, for which it expects so many rows; 0: it is
 * not known.  phase is shown to users, as in "comparing rows".
 */
extern void hc_progress_phase(const char *phase, uint64 rows_estimated);

/* So many rows more. */
extern void hc_progress_add(uint64 rows);

/* What the run has found up to now, in all. */
extern void hc_progress_counts(const HcRunCounts *counts);

/* Is this run to end?  To be asked between chunks and at pauses. */
extern bool hc_progress_cancelled(void);

/* Makes it one without a run: the keeper has just started, or is about to end. */
extern void hc_progress_init(HcProgress *progress);
extern void hc_progress_reset(struct HcDatabase *db);

/* For everybody: the run that there is; false if there is none. */
extern bool hc_progress_read(struct HcDatabase *db, HcProgressRow *row);

/* That run is to end, unless it has ended. */
extern void hc_progress_cancel(struct HcDatabase *db, uint64 number);

#endif							/* HC_PROGRESS_H */
