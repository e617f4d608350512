/*
 * pace.h
 *	  How fast a run may go: hybrid_cache.reconcile_rate.
 */
#ifndef HC_PACE_H
#define HC_PACE_H

#include "keeper/settle.h"

/*
 * Runs from here on may go as fast as this, in rows per second, or as the setting,
 * if that is faster; 0: no limit; -1: as the setting.
 */
extern void hc_pace_limit(int rate);

/* So many rows a chunk of the run may have, that it is not too much at once. */
extern uint64 hc_pace_rows(const HcSettle *settle);

/*
 * Between chunks, outside of transactions: so many rows were dealt with.  Sleeps
 * until more may be, and does what else the keeper has to do meanwhile.
 */
extern void hc_pace_wait(HcSettle *settle, uint64 rows);

#endif							/* HC_PACE_H */
