/*
 * notifier.h
 *	  Messages of Redis as notifications of PostgreSQL.
 */
#ifndef HC_NOTIFIER_H
#define HC_NOTIFIER_H

#include "inbound/bridged.h"
#include "inbound/subscriber.h"
#include "inbound/traffic.h"

typedef struct HcNotifier HcNotifier;

/* It lives in the current memory context. */
extern HcNotifier *hc_notifier_create(void);

/* Adds a message, copied; traffic, which stays where it is, counts it, or is NULL. */
extern void hc_notifier_add(HcNotifier *notifier, const HcBridged *bridge,
							HcTraffic *traffic, const HcPublished *published);

extern bool hc_notifier_is_empty(const HcNotifier *notifier);
extern bool hc_notifier_is_full(const HcNotifier *notifier);

/*
 * Sends all, in as few transactions of its own as can be, and is empty then.  Drops
 * what cannot be a notification.  Raises what notifying raises, such as 54000 when
 * PostgreSQL's queue is full; what is not sent stays.
 */
extern void hc_notifier_deliver(HcNotifier *notifier);

#endif							/* HC_NOTIFIER_H */
