/*
 * status.h
 *	  How far the sync worker is.
 */
#ifndef HC_STATUS_H
#define HC_STATUS_H

#include "datatype/timestamp.h"

/*
 * Waits until everything that was committed before the call is in Redis; false
 * if it is not by deadline.  Serves interrupts.  Not for use during recovery.
 */
extern bool hc_status_wait(TimestampTz deadline);

#endif							/* HC_STATUS_H */
