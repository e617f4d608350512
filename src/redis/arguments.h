/*
 * arguments.h
 *	  The words of a Redis command, made from values of this database.
 */
#ifndef HC_ARGUMENTS_H
#define HC_ARGUMENTS_H

#include "fmgr.h"

/* Everything lives in the memory context that was current at the beginning. */
typedef struct HcArguments
{
	const char *command;		/* its name for messages, or NULL */
	int			n;
	int			size;
	const char **data;			/* not NUL-terminated */
	size_t	   *len;
} HcArguments;

/*
 * The command is the first word.  It is NUL-terminated and stays where it is;
 * NULL: it will be added like any other word.
 */
extern void hc_arguments_begin(HcArguments *args, const char *command);

/* These add one word: bytes as they are (not copied), ... */
extern void hc_arguments_add(HcArguments *args, const char *data, size_t len);
extern void hc_arguments_add_literal(HcArguments *args, const char *word);

/* ... text, converted to UTF-8, and a key, with hybrid_cache.key_prefix, ... */
extern void hc_arguments_add_text(HcArguments *args, const text *value);
extern void hc_arguments_add_key(HcArguments *args, const text *key);

/* ... the name of a key of our own beside such a key (redis/beside.h), ... */
extern void hc_arguments_add_beside(HcArguments *args, const char *what,
									const text *key);

/* ... numbers, as Redis reads them. */
extern void hc_arguments_add_integer(HcArguments *args, int64 value);
extern void hc_arguments_add_double(HcArguments *args, double value);

#endif							/* HC_ARGUMENTS_H */
