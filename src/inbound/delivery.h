/*
 * delivery.h
 *	  What becomes of a consumer's messages: handled, tried again, put aside.
 */
#ifndef HC_DELIVERY_H
#define HC_DELIVERY_H

#include "inbound/inlet.h"
#include "redis/connection.h"

/*
 * Takes the next batch; true if there may be more.  Needs no transaction.  What fails
 * in a handler is dealt with; raises what reading the stream or writing the
 * consumer's row raises.
 */
extern bool hc_delivery_serve(HcInlet *inlet, HcConnection *conn);

/* It cannot read: that is noted in its row, and it is to be tried again later. */
extern void hc_delivery_fail(HcInlet *inlet, const ErrorData *error);

/* After a pause of ms that did not help, the next one. */
extern int	hc_delivery_pause(int ms);

#endif							/* HC_DELIVERY_H */
