/*
 * refused.h
 *	  The commands that redis_command() and its like do not pass on.
 */
#ifndef HC_REFUSED_H
#define HC_REFUSED_H

#include "redis/arguments.h"

/*
 * Raises 0A000 for a command that blocks, or that would change what the
 * session's connection is to the next call.  function is for messages.
 */
extern void hc_refused_check(const HcArguments *args, const char *function);

/* The one of these commands that it is, in upper or lower case, or NULL. */
extern const char *hc_refused_find(const HcArguments *args,
								   const char *const *commands, int n);

#endif							/* HC_REFUSED_H */
