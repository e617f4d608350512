/*
 * search.h
 *	  Finding a mapping's entries in Redis by its templates.
 */
#ifndef HC_SEARCH_H
#define HC_SEARCH_H

#include <hiredis/hiredis.h>

#include "capture/shape.h"

/*
 * Runs a command and returns its reply, which is not an error and lives in the
 * current context.
 */
typedef const redisReply *(*HcSearchAsk) (int argc, const char *const *argv,
										  const size_t *argvlen, void *arg);

/* An entry; member is NULL for a whole key.  The bytes stay until it returns. */
typedef void (*HcSearchFound) (HcBytes key, const HcBytes *member, void *arg);

typedef struct HcSearch HcSearch;

/*
 * A search for the entries of a shape, but for those that one of the shapes in
 * others could have as well.  Lives in a context of its own below the current
 * one.  Only this needs a transaction.
 */
extern HcSearch *hc_search_create(const HcShape *shape, List *others,
								  HcSearchAsk ask, void *arg);

/*
 * Asks Redis once, and calls found for what it answers; an entry can come more
 * than once.  false at the end.  Raises what ask and found raise.
 */
extern bool hc_search_step(HcSearch *search, HcSearchFound found, void *arg);

#endif							/* HC_SEARCH_H */
