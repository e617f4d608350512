/*
 * window.h
 *	  Windows: for which entries a change record of the keeper counts.
 *
 * The keeper writes what it reads from a table into the WAL, and meanwhile
 * others go on changing rows.  So it first writes a marker.  From there on the
 * sync worker remembers the entries that transactions touch, and of the
 * keeper's records, which name the marker's window, it takes only the others:
 * those were last written before the keeper took its snapshots.
 */
#ifndef HC_WINDOW_H
#define HC_WINDOW_H

#include "shmem.h"
#include "worker/batch.h"

/*
 * The sync worker's side.  It lives in the memory context in which it was
 * created, and so as long as the feed that it belongs to: who reads the WAL anew
 * knows only the windows whose markers it meets.
 */
typedef struct HcWindow HcWindow;

extern HcWindow *hc_window_create(void);

/*
 * A marker was met: a window that was open is forgotten.  And its last record was
 * met: it is over, if it is the one that is open.
 */
extern void hc_window_open(HcWindow *window, uint64 id);
extern void hc_window_close(HcWindow *window, uint64 id);

/* Are the entries touched in this window all known? */
extern bool hc_window_is_known(const HcWindow *window, uint64 id);

/* Remembers the entries of the ops in the batch from first on, if any is open. */
extern void hc_window_touch(HcWindow *window, HcBatch *batch, int first);

/* Was the op's entry touched since the marker? */
extern bool hc_window_is_touched(const HcWindow *window, const HcOp *op);

/*
 * Tells the keeper what became of a record of the window: how many of its ops
 * were taken, for each HcFound, or NULL if that could not be.  Returns false if
 * the keeper does not wait for this record (any more).
 */
extern bool hc_window_report(HcWindow *window, uint64 id, uint64 number,
							 const uint64 *taken);

/* The keeper's side: a new window, whose marker it is to write. */
extern uint64 hc_window_new(void);

/* Is it the one that the keeper has made last? */
extern bool hc_window_is_newest(uint64 id);

/* So many transactions can name one window. */
#define HC_WINDOW_RECORDS	(1 << 20)

/*
 * To be called before a record is written, and once it is applied.  taken (of
 * HC_NUM_FOUND) is how many of its ops were, if the outcome is HC_WINDOW_TAKEN.
 */
extern void hc_window_expect(HcDatabase *db, uint64 id, uint64 number);
extern HcWindowOutcome hc_window_outcome(HcDatabase *db, uint64 *taken);

#endif							/* HC_WINDOW_H */
