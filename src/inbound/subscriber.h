/*
 * subscriber.h
 *	  A connection to Redis that listens to channels, by patterns.
 */
#ifndef HC_SUBSCRIBER_H
#define HC_SUBSCRIBER_H

#include "mapping/op.h"
#include "nodes/pg_list.h"
#include "redis/connection.h"

typedef struct HcSubscriber HcSubscriber;

/* What somebody has published.  Lives as long as the reply it came in. */
typedef struct HcPublished
{
	HcBytes		pattern;		/* that matched */
	HcBytes		channel;
	HcBytes		message;
} HcPublished;

/*
 * Takes over the connection, which is good for nothing else from now on.  The
 * subscriber lives in a memory context of its own below the current one.
 */
extern HcSubscriber *hc_subscriber_create(HcConnection *conn);

/* Closes the connection.  sub may be NULL.  Raises nothing. */
extern void hc_subscriber_close(HcSubscriber *sub);

/*
 * These patterns, a list of HcBytes *, are wanted and no others.  What Redis has
 * refused is asked for again.  Nothing is sent yet.
 */
extern void hc_subscriber_want(HcSubscriber *sub, const List *patterns);

/* Has Redis answered everything? */
extern bool hc_subscriber_is_settled(const HcSubscriber *sub);

/* Has Redis confirmed this pattern? */
extern bool hc_subscriber_has(const HcSubscriber *sub, HcBytes pattern);

/*
 * Sends what is to be sent, and takes the next message if one has come; its reply
 * is freed with the current memory context.  Does not wait.  Raises what
 * hc_connection_poll() raises.
 */
extern bool hc_subscriber_next(HcSubscriber *sub, HcPublished *published);

/*
 * Waits until there may be something, the latch is set, or until the deadline, and
 * makes sure that the server is still there.  Serves interrupts.  Raises 08006 if
 * it does not answer.
 */
extern void hc_subscriber_wait(HcSubscriber *sub, TimestampTz deadline);

#endif							/* HC_SUBSCRIBER_H */
