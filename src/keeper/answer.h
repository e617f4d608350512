/*
 * answer.h
 *	  What Redis answers, compared with what entries should be.
 */
#ifndef HC_ANSWER_H
#define HC_ANSWER_H

#include "keeper/question.h"

typedef struct HcAnswers
{
	HcConnection *conn;
	HcExpected *expected;
	HcQuestions *questions;
	int			n;				/* questions that were answered */

	/* the answer that is coming in */
	bool		whole;			/* nothing more is to come of it */
	int			left;			/* elements to come, if it is an array */
	size_t		rest;			/* of a hash: where in expected->ops the fields to
								 * come begin ... */
	size_t		end;			/* ... and end */
	char		error[1024];	/* what Redis refuses, as much as is told; or
								 * empty */
} HcAnswers;

/* None; allocates nothing. */
extern void hc_answer_init(HcAnswers *answers, HcConnection *conn,
						   HcExpected *expected, HcQuestions *questions);

/*
 * From listen() on the answers are given to this file as hiredis reads them, and
 * no reply can be read in another way; stop() ends that.  Both only while none is
 * outstanding.
 */
extern void hc_answer_listen(HcAnswers *answers);
extern void hc_answer_stop(HcAnswers *answers);

/*
 * Sends and reads what can be without waiting, up to a limit; what is found out
 * is set in expected.  Returns whether anything has come.  Raises what Redis
 * refuses, 08006 if the connection is lost, 08P01.
 */
extern bool hc_answer_read(HcAnswers *answers);

/*
 * Reads until all questions are answered, serving interrupts.  Raises also 08006
 * if Redis is silent for hybrid_cache.command_timeout.
 */
extern void hc_answer_await(HcAnswers *answers);

/* Forgets all answers; the questions are forgotten as well. */
extern void hc_answer_reset(HcAnswers *answers);

#endif							/* HC_ANSWER_H */
