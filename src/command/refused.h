/*
 * refused.h
 *	  The commands that redis_command() does not pass on.
 */
#ifndef HC_REFUSED_H
#define HC_REFUSED_H

#include "functions/arguments.h"

/*
 * Raises 0A000 for a command that blocks, or that would change what the
 * session's connection is to the next call.
 */
extern void hc_refused_check(const HcArguments *args);

#endif							/* HC_REFUSED_H */
