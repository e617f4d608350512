/*
 * many.h
 *	  SQL functions that take an array, of any length.
 */
#ifndef HC_MANY_H
#define HC_MANY_H

#include "redis/arguments.h"
#include "redis/reply.h"
#include "utils/array.h"

/* How the elements of an array become words of commands. */
typedef struct HcMany
{
	FunctionCallInfo fcinfo;
	const HcArguments *head;	/* the words that each command begins with */
	int			parameter;		/* its argument that is the array: text[] or
								 * bytea[], ... */
	int			scores;			/* ... or 0, or another one, double precision[] of
								 * the same length, whose elements come before
								 * those of the first */
	bool		keys;			/* the elements are keys */
	int			group;			/* so many elements belong together */
} HcMany;

/* The reply to a command with n of the elements, which is not an error. */
typedef void (*HcManyTake) (const redisReply *reply, int n, void *arg);

/*
 * Sends commands, as many as the elements need, and has their replies taken in
 * order, in a memory context that is reset after each.  Without elements nothing
 * is sent.  Raises 22004 for a null in the array, 22023 for one that has no
 * groups or not as many scores as elements, before anything is sent, and what
 * Redis answers; then commands may have been executed.
 */
extern void hc_many_run(const HcMany *many, HcManyTake take, void *arg);

/*
 * Whole functions whose first argument is a key and the second an array, or
 * whose first argument is an array of keys.  They return the sum of the replies.
 */
extern Datum hc_many_elements(FunctionCallInfo fcinfo, const char *command);
extern Datum hc_many_keys(FunctionCallInfo fcinfo, const char *command);

/* An HcManyTake: adds an integer reply to the int64 at arg. */
extern void hc_many_add(const redisReply *reply, int n, void *arg);

#endif							/* HC_MANY_H */
