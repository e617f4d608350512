/*
 * retry.h
 *	  When what has failed is tried again.
 */
#ifndef HC_RETRY_H
#define HC_RETRY_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/elog.h"

/* After a failure: wait this long, then twice as long, up to the most. */
#define HC_RETRY_FIRST_MS	1000
#define HC_RETRY_MOST_MS	60000

/* Something that is done again and again. */
typedef struct HcRetry
{
	int64		id;
	int			failures;		/* in a row */
	TimestampTz again_at;		/* not before */
	char	   *problem;		/* that was logged last, or NULL */
} HcRetry;

/* That of an id in a list of HcRetry *, made if there is none; they stay. */
extern HcRetry *hc_retry_find(List **list, int64 id);

/* It has failed: again_at is set.  Is the error news (recover.h)? */
extern bool hc_retry_failed(HcRetry *retry, const ErrorData *error);

/* It was done, and is not done again for so long. */
extern void hc_retry_succeeded(HcRetry *retry, int pause_ms);

/* It need not be done any more. */
extern void hc_retry_forget(List **list, int64 id);

#endif							/* HC_RETRY_H */
