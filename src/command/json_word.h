/*
 * json_word.h
 *	  A scalar of a jsonb as a word of a Redis command.
 */
#ifndef HC_JSON_WORD_H
#define HC_JSON_WORD_H

#include "redis/arguments.h"
#include "utils/jsonb.h"

/*
 * Adds the word that ->> would show.  false: nothing was added, since the value is
 * null or no scalar.
 */
extern bool hc_json_word_add(HcArguments *args, JsonbValue *value);

#endif							/* HC_JSON_WORD_H */
