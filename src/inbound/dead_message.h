/*
 * dead_message.h
 *	  The table hybrid_cache.dead_message: messages that no handler could take.
 *
 * It is used as hybrid_cache.consumer is, see inbound/roster.h.
 */
#ifndef HC_DEAD_MESSAGE_H
#define HC_DEAD_MESSAGE_H

#include "inbound/roster.h"

/* A message that somebody wants to be tried once more. */
typedef struct HcDeadMessage
{
	int64		id;				/* of the row */
	char	   *message;		/* its id in the stream */
	Jsonb	   *fields;
} HcDeadMessage;

/* Keeps a message that cannot be processed. */
extern void hc_dead_message_add(const HcConsumer *consumer,
								const HcMessage *message, Jsonb *fields,
								const char *sqlstate, const char *error,
								int attempts);

/*
 * Somebody wants one of a consumer, by its id in the stream, to be tried again;
 * false if there is no such message.
 */
extern bool hc_dead_message_ask(const HcConsumer *consumer,
								const char *message);

/* Those that are to be tried again, at most n. */
extern List *hc_dead_message_asked(const HcConsumer *consumer, int n);

/* One of them has been processed; or has failed once more. */
extern void hc_dead_message_remove(int64 id);
extern void hc_dead_message_refuse(int64 id, const char *sqlstate,
								   const char *error);

#endif							/* HC_DEAD_MESSAGE_H */
