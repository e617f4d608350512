/*
 * handler.h
 *	  Calls the handler of a consumer.
 */
#ifndef HC_HANDLER_H
#define HC_HANDLER_H

#include "inbound/dead_message.h"
#include "inbound/inlet.h"

typedef enum HcHandled
{
	HC_HANDLED_DONE,			/* and committed, with the position */
	HC_HANDLED_NOT,				/* the consumer is being changed, or was */
	HC_HANDLED_REFUSED,			/* a message failed */
	HC_HANDLED_LATER			/* no message is to blame: try again later */
} HcHandled;

/*
 * Calls the handler for each of these messages, with the rights of the consumer's
 * role, in one transaction that also moves the position.  In *error is what went
 * wrong, for FreeErrorData(); NULL if nothing did.
 */
extern HcHandled hc_handler_run(HcInlet *inlet, const HcMessage *messages, int n,
								ErrorData **error);

/* The same for a dead message, which is dead no more then. */
extern HcHandled hc_handler_retry(HcInlet *inlet, const HcDeadMessage *message,
								  ErrorData **error);

/* Raises if the role may not call the handler. */
extern void hc_handler_check(Oid handler, Oid role);

#endif							/* HC_HANDLER_H */
