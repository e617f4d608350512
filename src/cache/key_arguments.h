/*
 * key_arguments.h
 *	  The arguments of a function that are the columns of a mapping's key.
 */
#ifndef HC_KEY_ARGUMENTS_H
#define HC_KEY_ARGUMENTS_H

#include "cache/readable.h"
#include "fmgr.h"

typedef struct HcKeyArguments HcKeyArguments;

/*
 * Finds out how the call's arguments from first on, which are VARIADIC "any",
 * become values of the key's columns.  Raises 42883 for a wrong number of them,
 * 42804 for a type that cannot.  Lives in the current memory context, for calls of
 * the same expression.
 */
extern HcKeyArguments *hc_key_arguments_create(const HcReadable *readable,
											   FunctionCallInfo fcinfo, int first);

/*
 * The values, in the order of readable->keys, in the current memory context.
 * false: one is NULL, or no value of the column can be equal to it.  Raises what
 * reading and casting them raises.
 */
extern bool hc_key_arguments_read(HcKeyArguments *arguments,
								  FunctionCallInfo fcinfo, Datum *values);

#endif							/* HC_KEY_ARGUMENTS_H */
