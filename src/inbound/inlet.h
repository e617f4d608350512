/*
 * inlet.h
 *	  What a consumer process knows of one consumer: how it reads its stream.
 *
 * Where the messages are that are done, the consumer's row says.  The consumer
 * group in Redis follows it: it is for those who look at the stream.
 */
#ifndef HC_INLET_H
#define HC_INLET_H

#include "executor/spi.h"
#include "inbound/roster.h"
#include "redis/connection.h"

typedef struct HcInlet
{
	HcConsumer	row;			/* as it was read, with the position at hand */
	MemoryContext context;		/* of all this */

	bool		placed;			/* the group is where the position is */
	bool		absent;			/* there is no such stream */
	HcMessageId *done;			/* messages that are done, but not acknowledged */
	int			n_done;

	TimestampTz retry_at;		/* nothing is to be done before */
	int			retry_ms;
	bool		asked;			/* dead messages may be tried again */

	SPIPlanPtr	plan;			/* calls the handler; NULL: none yet ... */
	Oid			plan_handler;	/* ... which was this */
} HcInlet;

extern HcInlet *hc_inlet_create(const HcConsumer *row);
extern void hc_inlet_free(HcInlet *inlet);

/*
 * The next messages after the position, max at most, in the current memory context;
 * returns how many.  Acknowledges those that are done.  Needs no transaction; raises
 * what goes wrong with Redis, and for an error reply what that says.
 */
extern int	hc_inlet_read(HcInlet *inlet, HcConnection *conn, int max,
						  HcMessage **messages);

/* These messages are done: the row says so, and is committed. */
extern void hc_inlet_advance(HcInlet *inlet, const HcMessage *messages, int n);

/* What was read last was not all done: it is read again. */
extern void hc_inlet_reread(HcInlet *inlet);

/*
 * Sends a command that is answered when one of the streams (a list of HcInlet *)
 * has something new, or after ms milliseconds.  The reply says nothing else.
 */
extern void hc_inlet_listen(const List *inlets, HcConnection *conn, long ms);

#endif							/* HC_INLET_H */
