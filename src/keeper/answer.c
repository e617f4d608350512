/*
 * answer.c
 *	  What Redis answers, compared with what entries should be.
 *
 * hiredis builds each reply in memory before anybody can look at it, with an
 * allocation per element.  Whoever compares a million entries with what they
 * should be has no use for that.  So it is told to call the functions here for
 * each element: they compare it where it lies in the buffer, and keep nothing.
 * Only a finding changes.
 *
 * hiredis calls them when an element has come whole.  So an answer of any number
 * of elements takes no memory, but one string that somebody has made long under
 * one of our keys is in the buffer for a moment: 512 MB at most, if Redis is not
 * configured otherwise (proto-max-bulk-len), and of one such string at a time.
 * MGET and HMGET can not be asked for only the beginning of a value.
 *
 * The functions raise nothing, since hiredis does not expect that: what is wrong
 * is remembered, and raised when it has returned.
 */
#include "postgres.h"

#include <math.h>

#include "keeper/answer.h"
#include "miscadmin.h"
#include "redis/geohash.h"
#include "redis/reply.h"
#include "settings.h"
#include "utils/timestamp.h"

/* Answers until others (signals, the deadline, new rows) get their turn. */
#define ANSWERS_PER_TURN	1024

/* PTTL is right to this; it counts from a time that is not known exactly. */
#define TTL_TOLERANCE_MS	5000

static void *take_string(const redisReadTask *task, char *data, size_t len);
static void *take_array(const redisReadTask *task, HcReplyCount n);
static void *take_integer(const redisReadTask *task, long long number);
static void *take_nil(const redisReadTask *task);
static void free_nothing(void *reply);

/* What is missing here is of RESP3 only; end_answer() finds that out. */
static redisReplyObjectFunctions functions = {
	.createString = take_string,
	.createArray = take_array,
	.createInteger = take_integer,
	.createNil = take_nil,
	.freeObject = free_nothing
};

/* What hiredis believes to be each reply, since it wants one. */
static char taken;

void
hc_answer_init(HcAnswers *answers, HcConnection *conn, HcExpected *expected,
			   HcQuestions *questions)
{
	memset(answers, 0, sizeof(*answers));
	answers->conn = conn;
	answers->expected = expected;
	answers->questions = questions;
}

void
hc_answer_listen(HcAnswers *answers)
{
	hc_connection_set_functions(answers->conn, &functions, answers);
}

void
hc_answer_stop(HcAnswers *answers)
{
	hc_connection_set_functions(answers->conn, NULL, NULL);
}

/* hiredis has read an answer whole. */
static void
end_answer(HcAnswers *answers)
{
	if (!answers->whole)
		hc_connection_distrust(answers->conn);
	if (answers->error[0] != '\0')
	{
		redisReply	reply = {.type = REDIS_REPLY_ERROR};

		reply.str = answers->error;
		reply.len = strlen(answers->error);
		hc_reply_check(&reply, hc_connection_name(answers->conn));
	}
	answers->whole = false;
	answers->n++;
}

bool
hc_answer_read(HcAnswers *answers)
{
	uint64		before = hc_connection_received(answers->conn);
	int			i;

	hc_question_send(answers->questions, answers->conn);
	for (i = 0; i < ANSWERS_PER_TURN && answers->n < answers->questions->n; i++)
	{
		redisReply *reply;

		if (!hc_connection_poll(answers->conn, &reply))
			break;
		end_answer(answers);
	}
	return i > 0 || hc_connection_received(answers->conn) != before;
}

void
hc_answer_await(HcAnswers *answers)
{
	TimestampTz deadline = 0;

	while (answers->n < answers->questions->n)
	{
		CHECK_FOR_INTERRUPTS();
		if (hc_answer_read(answers) || deadline == 0)
			deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   hc_command_timeout);
		else if (!hc_connection_wait(answers->conn, deadline))
			hc_connection_time_out(answers->conn);
	}
}

void
hc_answer_reset(HcAnswers *answers)
{
	answers->n = 0;
	hc_question_reset(answers->questions);
}

/*
 * Answers that are no array, and the beginnings of those that are
 */

static const HcQuestion *
get_question(const HcAnswers *answers)
{
	return &answers->questions->list[answers->n];
}

static void *
refuse(HcAnswers *answers)
{
	hc_connection_refuse(answers->conn);
	return NULL;
}

/* An answer that is no array makes sense. */
static void *
complete(HcAnswers *answers)
{
	answers->whole = true;
	return &taken;
}

/* An error instead of an answer: end_answer() raises what it leaves in there. */
static void *
take_error(HcAnswers *answers, const char *data, size_t len)
{
	const HcQuestion *question = get_question(answers);
	int			i;

	len = Min(len, sizeof(answers->error) - 1);
	memcpy(answers->error, data, len);
	answers->error[len] = '\0';
	if (strncmp(answers->error, "WRONGTYPE ", 10) == 0)
	{
		for (i = 0; i < question->n; i++)
			hc_expected_set(answers->expected, question->first + i,
							HC_FINDING_CONFLICTING);
		answers->error[0] = '\0';
	}
	else if (question->ask == HC_ASK_EXPIRETIME &&
			 strncmp(answers->error, "ERR unknown command", 19) == 0)
	{
		answers->questions->no_expiretime = true;
		answers->expected->entries[question->first].ask_ttl = true;
		answers->error[0] = '\0';
	}
	return complete(answers);
}

static void *
take_type(HcAnswers *answers, const char *data, size_t len)
{
	const HcQuestion *question = get_question(answers);

	if (question->ask != HC_ASK_TYPE)
		return refuse(answers);

	/* a string: it came since; whoever wrote it says what it is */
	if ((len == 4 && memcmp(data, "none", 4) == 0) ||
		(len == 6 && memcmp(data, "string", 6) == 0))
		hc_expected_set(answers->expected, question->first, HC_FINDING_MISSING);
	else
		hc_expected_set(answers->expected, question->first, HC_FINDING_CONFLICTING);
	return complete(answers);
}

/* When the key of an entry expires, as Redis says; -1: never, -2: no such key. */
static void
compare_expiry(HcAnswers *answers, int entry, int64 expires_at, int64 tolerance)
{
	HcOp		op;
	bool		same;

	if (expires_at == -2)
		return;					/* the value was asked for as well */
	hc_expected_get(answers->expected, entry, &op);
	if (answers->questions->expiry == HC_COMPARE_SOME_EXPIRY)
		same = expires_at >= 0;
	else if (expires_at < 0 || op.expires_at == 0)
		same = expires_at < 0 && op.expires_at == 0;
	else
		same = llabs(expires_at - op.expires_at) <= tolerance;
	if (!same)
		hc_expected_set_stale(answers->expected, entry);
}

/* Of the value of a hash. */
static int
count_fields(HcBytes rest)
{
	int			n = 0;
	HcBytes		field;
	HcBytes		value;

	while (hc_op_hash_next(&rest, &field, &value))
		n++;
	return n;
}

static void *
take_number(HcAnswers *answers, int64 number)
{
	const HcQuestion *question = get_question(answers);
	HcExpected *expected = answers->expected;
	int			entry = question->first;
	int			i;
	HcOp		op;

	switch (question->ask)
	{
		case HC_ASK_LENGTH:
			hc_expected_get(expected, entry, &op);
			if (number == count_fields(op.value))
				break;
			if (number == 0)
				hc_expected_set(expected, entry, HC_FINDING_MISSING);
			else
				hc_expected_set_stale(expected, entry);
			break;
		case HC_ASK_ABSENT:
			if (number != 0)
				hc_expected_set_stale(expected, entry);
			break;
		case HC_ASK_ANY:
			for (i = entry; number == 0 && i < entry + question->n; i++)
			{
				if (hc_expected_finding(expected, i) == HC_FINDING_NO_STRING)
					hc_expected_set(expected, i, HC_FINDING_MISSING);
			}
			break;
		case HC_ASK_EXPIRETIME:
			compare_expiry(answers, entry, number, 0);
			break;
		case HC_ASK_TTL:
			compare_expiry(answers, entry,
						   number < 0 ? number : hc_expected_now() + number,
						   TTL_TOLERANCE_MS);
			break;
		default:
			return refuse(answers);
	}
	return complete(answers);
}

static void *
take_array(const redisReadTask *task, HcReplyCount n)
{
	HcAnswers  *answers = task->privdata;
	const HcQuestion *question = get_question(answers);
	HcOp		op;

	if (task->parent != NULL)
		return refuse(answers);
	switch (question->ask)
	{
		case HC_ASK_STRINGS:
		case HC_ASK_FIELDS:
		case HC_ASK_SCORES:
		case HC_ASK_MEMBERS:
			answers->left = question->n;
			break;
		case HC_ASK_HASH:
			hc_expected_get(answers->expected, question->first, &op);
			answers->left = count_fields(op.value);
			answers->rest = op.value.data - answers->expected->ops.data;
			answers->end = answers->rest + op.value.len;
			break;
		default:
			return refuse(answers);
	}
	return n == (HcReplyCount) answers->left ? &taken : refuse(answers);
}

/*
 * Elements of arrays
 */

/*
 * Which entry is the element about, and what is its op?  Of a hash, next_field()
 * has what is needed of that.
 */
static int
begin_element(HcAnswers *answers, const redisReadTask *task, HcOp *op)
{
	const HcQuestion *question = get_question(answers);
	int			entry = question->first;

	answers->whole = --answers->left == 0;
	if (question->ask == HC_ASK_HASH)
		return entry;
	entry += task->idx;
	hc_expected_get(answers->expected, entry, op);
	return entry;
}

/* What the next field of a hash should be. */
static HcBytes
next_field(HcAnswers *answers)
{
	HcBytes		rest;
	HcBytes		field;
	HcBytes		value = {0};

	/* take_array() has counted them */
	rest.data = answers->expected->ops.data + answers->rest;
	rest.len = answers->end - answers->rest;
	(void) hc_op_hash_next(&rest, &field, &value);
	answers->rest = rest.data - answers->expected->ops.data;
	return value;
}

static bool
is_same(HcBytes expected, const char *data, size_t len)
{
	return len == expected.len && (len == 0 || memcmp(data, expected.data, len) == 0);
}

/* The score of an entry; false if it is no number. */
static bool
compare_score(HcAnswers *answers, int entry, const HcOp *op,
			  const char *data, size_t len)
{
	char		text[64];
	char	   *end;
	double		score;

	if (len == 0 || len >= sizeof(text))
		return false;
	memcpy(text, data, len);
	text[len] = '\0';
	score = strtod(text, &end);
	if (end != text + len || isnan(score))
		return false;
	if (hc_op_is_removal(op->kind) ||
		score != (op->kind == HC_OP_GEOADD ? hc_geohash_score(op->x, op->y) : op->x))
		hc_expected_set_stale(answers->expected, entry);
	return true;
}

static void *
take_string(const redisReadTask *task, char *data, size_t len)
{
	HcAnswers  *answers = task->privdata;
	bool		same;
	int			entry;
	HcOp		op;

	if (task->parent == NULL)
	{
		switch (task->type)
		{
			case REDIS_REPLY_ERROR:
				return take_error(answers, data, len);
			case REDIS_REPLY_STATUS:
				return take_type(answers, data, len);
			default:
				return refuse(answers);
		}
	}
	if (task->type != REDIS_REPLY_STRING)
		return refuse(answers);

	entry = begin_element(answers, task, &op);
	switch (get_question(answers)->ask)
	{
		case HC_ASK_STRINGS:
		case HC_ASK_FIELDS:
			same = !hc_op_is_removal(op.kind) && is_same(op.value, data, len);
			break;
		case HC_ASK_HASH:
			same = is_same(next_field(answers), data, len);
			break;
		case HC_ASK_SCORES:
			return compare_score(answers, entry, &op, data, len) ? &taken : refuse(answers);
		default:
			return refuse(answers);
	}
	if (!same)
		hc_expected_set_stale(answers->expected, entry);
	return &taken;
}

/* Of an array: is it a member? */
static void *
take_integer(const redisReadTask *task, long long number)
{
	HcAnswers  *answers = task->privdata;
	int			entry;
	HcOp		op;

	if (task->parent == NULL)
		return take_number(answers, number);
	if (get_question(answers)->ask != HC_ASK_MEMBERS)
		return refuse(answers);

	entry = begin_element(answers, task, &op);
	if (hc_op_is_removal(op.kind))
	{
		if (number != 0)
			hc_expected_set_stale(answers->expected, entry);
	}
	else if (number == 0)
		hc_expected_set(answers->expected, entry, HC_FINDING_MISSING);
	return &taken;
}

static void *
take_nil(const redisReadTask *task)
{
	HcAnswers  *answers = task->privdata;
	int			entry;
	HcOp		op;

	if (task->parent == NULL)
		return refuse(answers);

	entry = begin_element(answers, task, &op);
	switch (get_question(answers)->ask)
	{
		case HC_ASK_STRINGS:
			hc_expected_set(answers->expected, entry, HC_FINDING_NO_STRING);
			break;
		case HC_ASK_FIELDS:
		case HC_ASK_SCORES:
			if (!hc_op_is_removal(op.kind))
				hc_expected_set(answers->expected, entry, HC_FINDING_MISSING);
			break;
		case HC_ASK_HASH:
			/* if there are no fields at all, HC_ASK_LENGTH finds out */
			(void) next_field(answers);
			hc_expected_set_stale(answers->expected, entry);
			break;
		default:
			return refuse(answers);
	}
	return &taken;
}

static void
free_nothing(void *reply)
{
}
