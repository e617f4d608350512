/*
 * variadic.h
 *	  The words of a command that is given whole, as VARIADIC "any".
 */
#ifndef HC_VARIADIC_H
#define HC_VARIADIC_H

#include "redis/arguments.h"

/*
 * Makes the words of all arguments of a function that takes VARIADIC "any" and
 * nothing else, of any types.  Raises 22004 for a null, 22023 if there is no
 * command in the first one.  function is for messages.
 */
extern void hc_variadic_read(HcArguments *args, FunctionCallInfo fcinfo,
							 const char *function);

#endif							/* HC_VARIADIC_H */
