/*
 * link.h
 *	  The socket to a Redis server, with hiredis at its end.
 *
 * It knows nothing of commands: connection.h does.  What fails is raised, with the
 * server's name, and marks the link as failed; it can only be closed then.
 */
#ifndef HC_LINK_H
#define HC_LINK_H

#include <hiredis/hiredis.h>

#include "compat.h"
#include "datatype/timestamp.h"
#include "redis/url.h"
#include "storage/latch.h"

/* All zero: closed.  It stays where it is while it is open. */
typedef struct HcLink
{
	redisContext *redis;		/* NULL before connecting */
	bool		has_fd;			/* ReleaseExternalFD() is due */
	WaitEventSet *wait;			/* NULL before the first hc_link_wait() */
	const char *name;			/* the address, without credentials */
	bool		opening;		/* errors are those of connecting, until whoever
								 * has opened it says that it can be used */
	int			sleeps;			/* so many waits sleep without looking first */
	bool		failed;			/* never to be used again */
	bool		too_deep;		/* an answer was refused for its nesting */
} HcLink;

/*
 * Connects until the deadline.  The name lives in the current memory context, as
 * long as the link.  Raises 08001; hc_link_close() is due in any case.
 */
extern void hc_link_open(HcLink *link, const HcUrl *url, TimestampTz deadline);

/* Also for a link that could not be opened.  Raises nothing. */
extern void hc_link_close(HcLink *link);

/*
 * Has hiredis build replies with these functions, which find privdata in their
 * task; NULL: as it does by itself, with a limit of their nesting.
 */
extern void hc_link_set_functions(HcLink *link,
								  redisReplyObjectFunctions *functions,
								  void *privdata);

/*
 * Waits for one of these events (WL_SOCKET_*) on the socket, or for anything that
 * is a reason to look again.  false: the deadline has passed.  Raises what
 * CHECK_FOR_INTERRUPTS() raises.
 */
extern bool hc_link_wait(HcLink *link, int events, TimestampTz deadline);

/*
 * To be called when something was sent and its answer is what comes next: the
 * server may run now, if it waits for this processor.
 */
extern void hc_link_yield(HcLink *link);

/* These raise: 08006, or 08001 while it is being opened, ... */
HC_NORETURN extern void hc_link_fail(HcLink *link, const char *problem);
HC_NORETURN extern void hc_link_time_out(HcLink *link);

/* ... and what hiredis has reported last: also 08P01 and 53200. */
HC_NORETURN extern void hc_link_fail_hiredis(HcLink *link);

#endif							/* HC_LINK_H */
