/*
 * bridged.h
 *	  The table hybrid_cache.bridged: which messages of Redis become
 *	  notifications, on which channels.
 */
#ifndef HC_BRIDGED_H
#define HC_BRIDGED_H

#include "mapping/op.h"
#include "nodes/pg_list.h"

typedef struct HcBridged
{
	text	   *pattern;
	HcBytes		subject;		/* the pattern as Redis has it */
	char	   *channel;
	bool		with_channel;	/* the payload says where the message came from */
	uint64		id;				/* of its counters (inbound/traffic.h) */
} HcBridged;

/*
 * All bridges: HcBridged *, in the current context.  Needs a transaction.  *exists:
 * is there the table at all?
 */
extern List *hc_bridged_list(bool *exists);

/*
 * Adds one with the current transaction, or removes it.  false: it is there already,
 * or is not there.  Raises 0A000 if there is no table.
 */
extern bool hc_bridged_add(text *pattern, const char *channel, bool with_channel);
extern bool hc_bridged_remove(text *pattern, const char *channel);

#endif							/* HC_BRIDGED_H */
