/*
 * apply.h
 *	  Sends a batch to Redis and looks at every reply.
 */
#ifndef HC_APPLY_H
#define HC_APPLY_H

#include "redis/connection.h"
#include "redis/reply.h"
#include "worker/batch.h"
#include "worker/fence.h"

typedef enum HcApplyResult
{
	HC_APPLY_PENDING,			/* replies are still owed */
	HC_APPLY_DONE,				/* applied, and the watermark was as expected */
	HC_APPLY_LOST,				/* applied, but the watermark was gone before */
	HC_APPLY_AGAIN,				/* compiled anew: send it again, over the
								 * watermark that expected names */
	HC_APPLY_FULL,				/* nothing was applied: Redis has no memory */
	HC_APPLY_FOREIGN,			/* applied over a watermark that is not ours */
	HC_APPLY_UNSURE,			/* applied, but for ops with an unclear error,
								 * which are no events */
	HC_APPLY_FENCED				/* not applied: this connection may not write
								 * any more */
} HcApplyResult;

/* One batch on its way. */
typedef struct HcApply
{
	HcConnection *conn;
	HcFence    *fence;
	HcBatch    *batch;			/* NULL: only the watermark is asked for */
	int			n_commands;		/* of the batch that were sent */
	const char *text;			/* the watermark that it writes */
	const char *expected;		/* the watermark that must be there now; NULL:
								 * none */
	bool		renewing;		/* the lease is renewed */
	bool		in_flight;
	TimestampTz deadline;
	int			n_replies;		/* that have come */
	bool		queue_error;	/* a command was refused while queueing */
	bool		full;			/* ... for want of memory */
	bool		unfinished;		/* applied, but for ops that have to be sent
								 * again */
	HcApplyResult result;		/* of EXEC, until the fence is looked at */
	HcFenceState state;			/* FENCED: why */
	char		found[HC_WATERMARK_SIZE];	/* UNSURE, FOREIGN: what was there */
	char		problem[256];	/* UNSURE: what Redis said */
} HcApply;

/*
 * Sends MULTI, the batch, SET key text GET, EXEC, and looks after the fence,
 * without waiting for anything.  The batch must be compiled; an empty one moves
 * the watermark only.  With batch and text NULL the watermark is only compared.
 * The texts must stay where they are.
 */
extern void hc_apply_send(HcApply *apply, HcConnection *conn, HcFence *fence,
						  HcBatch *batch, const char *key, const char *text,
						  const char *expected);

/*
 * Takes the replies that have come, without waiting.  Raises 08006, 08P01 and,
 * for a refusal that is not about single ops, what it is about; nothing of the
 * batch is applied then, or it is not known.
 */
extern HcApplyResult hc_apply_poll(HcApply *apply);

/* Is it sent for the ops that are left of a batch that is applied already? */
extern bool hc_apply_is_second(const HcApply *apply);

#endif							/* HC_APPLY_H */
