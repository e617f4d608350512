/*
 * apply.h
 *	  Sends a batch to Redis and looks at every reply.
 */
#ifndef HC_APPLY_H
#define HC_APPLY_H

#include "redis/connection.h"
#include "redis/reply.h"
#include "worker/batch.h"

typedef enum HcApplyResult
{
	HC_APPLY_PENDING,			/* replies are still owed */
	HC_APPLY_DONE,				/* applied, and the watermark was as expected */
	HC_APPLY_LOST,				/* applied, but the watermark was gone before */
	HC_APPLY_AGAIN,				/* nothing was applied: compiled anew, send it again */
	HC_APPLY_FOREIGN,			/* applied over a watermark that is not ours */
	HC_APPLY_UNSURE				/* applied, but for ops with an unclear error */
} HcApplyResult;

/* One batch on its way. */
typedef struct HcApply
{
	HcConnection *conn;
	HcBatch    *batch;			/* NULL: only the watermark is asked for */
	const char *expected;		/* the watermark that must be there now; NULL:
								 * none */
	bool		in_flight;
	TimestampTz deadline;
	int			n_replies;		/* that have come */
	bool		queue_error;	/* a command was refused while queueing */
	char		found[HC_WATERMARK_SIZE];	/* UNSURE, FOREIGN: what was there */
	char		problem[256];	/* UNSURE: what Redis said */
} HcApply;

/*
 * Sends MULTI, the batch, SET key text GET, EXEC without waiting for anything.
 * The batch must be compiled; an empty one moves the watermark only.  With
 * batch and text NULL the watermark is only compared.
 */
extern void hc_apply_send(HcApply *apply, HcConnection *conn, HcBatch *batch,
						  const char *key, const char *text,
						  const char *expected);

/*
 * Takes the replies that have come, without waiting.  Raises 08006, 08P01 and,
 * for a refusal that is not about single ops, what it is about; nothing of the
 * batch is applied then, or it is not known.
 */
extern HcApplyResult hc_apply_poll(HcApply *apply);

#endif							/* HC_APPLY_H */
