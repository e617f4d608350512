/*
 * compare.c
 *	  Does Redis hold what the rows of a table say it should?
 *
 * What entries should be (expected.c) becomes questions (question.c), whose
 * answers (answer.c) become findings.  Commands leave and answers are compared
 * while more rows are added, so Redis works while rows are rendered, and nothing
 * of the answers is kept.
 *
 * What the first answers leave open is asked in a second round: whether a key
 * that is no string is nothing or something else.
 */
#include "postgres.h"

#include "keeper/answer.h"
#include "keeper/compare.h"
#include "keeper/expected.h"
#include "keeper/question.h"

/* An entry is not missed for this last part of its life; clocks differ. */
#define EXPIRY_GRACE_MS		1000

struct HcCompare
{
	HcExpected	expected;
	HcQuestions questions;
	HcAnswers	answers;
};

HcCompare *
hc_compare_create(HcConnection *conn, HcCompareExpiry expiry)
{
	HcCompare  *compare = palloc(sizeof(HcCompare));

	hc_expected_init(&compare->expected);
	hc_question_init(&compare->questions, &compare->expected, expiry);
	hc_answer_init(&compare->answers, conn, &compare->expected, &compare->questions);
	return compare;
}

void
hc_compare_add(HcCompare *compare, const HcOp *op)
{
	int			n_questions = compare->questions.n;

	if (compare->expected.n == 0)
		hc_answer_listen(&compare->answers);
	hc_question_add(&compare->questions, op);
	hc_expected_add(&compare->expected, op);
	hc_question_add_expiry(&compare->questions, op);
	if (compare->questions.n > n_questions)
		(void) hc_answer_read(&compare->answers);
}

bool
hc_compare_is_full(const HcCompare *compare)
{
	return compare->expected.ops.len >= HC_EXPECTED_BYTES ||
		compare->expected.n >= HC_EXPECTED_ENTRIES;
}

/* Or is the absent entry right, since its time is over? */
static bool
may_be_missed(const HcOp *op, int64 now)
{
	/* by the clock of the worker that makes it fire, which is this one */
	if (op->kind == HC_OP_TIMER)
		return op->x > now;
	return op->expires_at == 0 || op->expires_at > now + EXPIRY_GRACE_MS;
}

static void
report(const HcExpected *expected, HcCompareFound found, void *arg)
{
	int64		now = hc_expected_now();
	int			i;

	for (i = 0; i < expected->n; i++)
	{
		HcOp		op;

		switch (hc_expected_finding(expected, i))
		{
			case HC_FINDING_MISSING:
				hc_expected_get(expected, i, &op);
				if (may_be_missed(&op, now))
					found(&op, HC_VERDICT_MISSING, arg);
				break;
			case HC_FINDING_STALE:
				hc_expected_get(expected, i, &op);
				found(&op, HC_VERDICT_STALE, arg);
				break;
			case HC_FINDING_CONFLICTING:
				hc_expected_get(expected, i, &op);
				found(&op, HC_VERDICT_CONFLICTING, arg);
				break;
			case HC_FINDING_EQUAL:
			case HC_FINDING_NO_STRING:
				break;
		}
	}
}

void
hc_compare_finish(HcCompare *compare, HcCompareFound found, void *arg)
{
	HcQuestions *questions = &compare->questions;

	if (compare->expected.n == 0)
		return;
	hc_question_close(questions);
	hc_answer_await(&compare->answers);

	/* mostly, none of those that are no strings is anything */
	hc_question_add_any(questions);
	hc_answer_await(&compare->answers);
	hc_question_add_types(questions);
	hc_answer_await(&compare->answers);

	hc_question_add_ttls(questions);
	hc_answer_await(&compare->answers);

	hc_answer_reset(&compare->answers);
	hc_answer_stop(&compare->answers);
	report(&compare->expected, found, arg);
	compare->expected.n = 0;
}
