/*
 * recover.h
 *	  What a background process does after an error.
 */
#ifndef HC_RECOVER_H
#define HC_RECOVER_H

#include "utils/elog.h"

/*
 * In a PG_CATCH: ends whatever may be open, so that the process can go on, and
 * returns what was wrong, in the TopMemoryContext, which is then the current one.
 */
extern ErrorData *hc_recover_error(void);

/* Only ends what may be open. */
extern void hc_recover_abort(void);

/*
 * Is the error another one than the last time?  What repeats is logged once per
 * change of state, not once per attempt.  *told, in the TopMemoryContext, is
 * what was logged last, or NULL.
 */
extern bool hc_recover_is_news(char **told, const ErrorData *error);

/* All is well again: the next error is news. */
extern void hc_recover_forget(char **told);

#endif							/* HC_RECOVER_H */
