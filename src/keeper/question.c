/*
 * question.c
 *	  What Redis is asked about entries, in as few commands as possible.
 *
 * Neighbours that can be asked for by one command become one question, such as
 * MGET: Redis takes about as long for a command as for twenty keys of it.  What
 * Redis says about each key is a question of its own only where it must be.
 */
#include "postgres.h"

#include "keeper/question.h"
#include "utils/memutils.h"
#include "worker/timer.h"
#include "worker/wire.h"

/*
 * So many entries, or bytes that should come back, are asked for by one command:
 * Redis does nothing else meanwhile.
 */
#define QUESTION_ENTRIES	256
#define QUESTION_BYTES		(64 * 1024)

static const char *const verbs[] = {
	[HC_ASK_STRINGS] = "MGET",
	[HC_ASK_FIELDS] = "HMGET",
	[HC_ASK_SCORES] = "ZMSCORE",
	[HC_ASK_MEMBERS] = "SMISMEMBER",
	[HC_ASK_HASH] = "HMGET",
	[HC_ASK_LENGTH] = "HLEN",
	[HC_ASK_ABSENT] = "EXISTS",
	[HC_ASK_ANY] = "EXISTS",
	[HC_ASK_TYPE] = "TYPE",
	[HC_ASK_EXPIRETIME] = "PEXPIRETIME",
	[HC_ASK_TTL] = "PTTL"
};

void
hc_question_init(HcQuestions *questions, HcExpected *expected,
				 HcCompareExpiry expiry)
{
	memset(questions, 0, sizeof(*questions));
	questions->expected = expected;
	questions->expiry = expiry;
	questions->max = 64;
	questions->list = palloc(questions->max * sizeof(HcQuestion));
	initStringInfo(&questions->args);
	initStringInfo(&questions->wire);
}

static void
add_arg(HcQuestions *questions, HcBytes arg)
{
	hc_wire_append_bulk(&questions->args, arg.data, arg.len);
	questions->n_args++;
}

/* The key at which an entry is, which a timer has beside its stream. */
static void
add_key(HcQuestions *questions, const HcOp *op)
{
	StringInfoData name;
	HcBytes		key;

	if (op->kind != HC_OP_TIMER && op->kind != HC_OP_UNTIMER)
	{
		add_arg(questions, op->key);
		return;
	}
	initStringInfo(&name);
	hc_timer_key(&name, op->key);
	key.data = name.data;
	key.len = name.len;
	add_arg(questions, key);
	pfree(name.data);
}

/* The arguments become a command, about n entries from first on. */
static void
put_question(HcQuestions *questions, HcAsk ask, int first, int n)
{
	StringInfo	wire = &questions->wire;
	HcQuestion *question;

	if (questions->n == questions->max)
	{
		questions->max *= 2;
		questions->list = repalloc_huge(questions->list,
										questions->max * sizeof(HcQuestion));
	}
	question = &questions->list[questions->n++];
	question->ask = ask;
	question->first = first;
	question->n = n;

	hc_wire_append_array(wire, questions->n_args + 1);
	hc_wire_append_bulk(wire, verbs[ask], strlen(verbs[ask]));
	appendBinaryStringInfo(wire, questions->args.data, questions->args.len);
	questions->n_commands++;
	hc_expected_reset_buffer(questions->expected, &questions->args);
	questions->n_args = 0;
}

static void
ask_about_key(HcQuestions *questions, HcAsk ask, int entry)
{
	HcOp		op;

	hc_expected_get(questions->expected, entry, &op);
	add_arg(questions, op.key);
	put_question(questions, ask, entry, 1);
}

static bool
asks_expiry(const HcQuestions *questions, const HcOp *op)
{
	if (op->kind != HC_OP_SET && op->kind != HC_OP_HASH)
		return false;
	return questions->expiry == HC_COMPARE_SAME_EXPIRY ||
		(questions->expiry == HC_COMPARE_SOME_EXPIRY && op->expires_at != 0);
}

static void
ask_expiry(HcQuestions *questions, int entry)
{
	if (questions->no_expiretime)
		questions->expected->entries[entry].ask_ttl = true;
	else
		ask_about_key(questions, HC_ASK_EXPIRETIME, entry);
}

void
hc_question_close(HcQuestions *questions)
{
	HcExpected *expected = questions->expected;
	int			i;

	if (questions->n_args == 0)
		return;
	put_question(questions, questions->ask, questions->first,
				 expected->n - questions->first);
	if (questions->ask == HC_ASK_STRINGS && questions->expiry != HC_COMPARE_NO_EXPIRY)
	{
		for (i = questions->first; i < expected->n; i++)
		{
			HcOp		op;

			hc_expected_get(expected, i, &op);
			if (asks_expiry(questions, &op))
				ask_expiry(questions, i);
		}
	}
}

/* The entry has the next number. */
static void
ask_hash(HcQuestions *questions, const HcOp *op)
{
	int			entry = questions->expected->n;
	HcBytes		rest = op->value;
	HcBytes		field;
	HcBytes		value;

	add_arg(questions, op->key);
	while (hc_op_hash_next(&rest, &field, &value))
		add_arg(questions, field);
	if (op->value.len > 0)
	{
		put_question(questions, HC_ASK_HASH, entry, 1);
		add_arg(questions, op->key);
	}
	put_question(questions, HC_ASK_LENGTH, entry, 1);
}

/* An entry that shares its question with its neighbours, if it can. */
static void
ask_member(HcQuestions *questions, HcAsk ask, const HcOp *op)
{
	int			next = questions->expected->n;

	if (questions->n_args > 0)
	{
		HcOp		first;

		if (questions->ask != ask ||
			next - questions->first >= QUESTION_ENTRIES ||
			questions->bytes + questions->args.len >= QUESTION_BYTES)
			hc_question_close(questions);
		else if (ask != HC_ASK_STRINGS)
		{
			hc_expected_get(questions->expected, questions->first, &first);
			if (first.key.len != op->key.len ||
				memcmp(first.key.data, op->key.data, op->key.len) != 0)
				hc_question_close(questions);
		}
	}
	if (questions->n_args == 0)
	{
		questions->ask = ask;
		questions->first = next;
		questions->bytes = 0;
		if (ask != HC_ASK_STRINGS)
			add_key(questions, op);
	}
	add_arg(questions, ask == HC_ASK_STRINGS ? op->key : op->member);
	questions->bytes += op->value.len;
}

void
hc_question_add(HcQuestions *questions, const HcOp *op)
{
	switch (op->kind)
	{
		case HC_OP_SET:
			ask_member(questions, HC_ASK_STRINGS, op);
			return;
		case HC_OP_HSET:
		case HC_OP_HDEL:
			ask_member(questions, HC_ASK_FIELDS, op);
			return;
		case HC_OP_GEOADD:
		case HC_OP_ZADD:
		case HC_OP_ZREM:
		case HC_OP_TIMER:
		case HC_OP_UNTIMER:
			ask_member(questions, HC_ASK_SCORES, op);
			return;
		case HC_OP_SADD:
		case HC_OP_SREM:
			ask_member(questions, HC_ASK_MEMBERS, op);
			return;
		case HC_OP_HASH:
			hc_question_close(questions);
			ask_hash(questions, op);
			return;
		case HC_OP_UNLINK:
			hc_question_close(questions);
			add_arg(questions, op->key);
			put_question(questions, HC_ASK_ABSENT, questions->expected->n, 1);
			return;
		default:
			elog(ERROR, "op of kind %d is about no entry", (int) op->kind);
	}
}

void
hc_question_add_expiry(HcQuestions *questions, const HcOp *op)
{
	/* strings have their turn when their question is closed */
	if (op->kind == HC_OP_HASH && asks_expiry(questions, op))
		ask_expiry(questions, questions->expected->n - 1);
}

void
hc_question_add_any(HcQuestions *questions)
{
	HcExpected *expected = questions->expected;
	int			first = 0;
	int			i;

	for (i = 0; i < expected->n; i++)
	{
		HcOp		op;

		if (hc_expected_finding(expected, i) != HC_FINDING_NO_STRING)
			continue;
		if (questions->n_args == 0)
			first = i;
		hc_expected_get(expected, i, &op);
		add_arg(questions, op.key);
		if (questions->n_args == QUESTION_ENTRIES)
			put_question(questions, HC_ASK_ANY, first, i + 1 - first);
	}
	if (questions->n_args > 0)
		put_question(questions, HC_ASK_ANY, first, expected->n - first);
}

void
hc_question_add_types(HcQuestions *questions)
{
	int			i;

	for (i = 0; i < questions->expected->n; i++)
	{
		if (hc_expected_finding(questions->expected, i) == HC_FINDING_NO_STRING)
			ask_about_key(questions, HC_ASK_TYPE, i);
	}
}

void
hc_question_add_ttls(HcQuestions *questions)
{
	int			i;

	for (i = 0; i < questions->expected->n; i++)
	{
		if (questions->expected->entries[i].ask_ttl)
			ask_about_key(questions, HC_ASK_TTL, i);
	}
}

void
hc_question_send(HcQuestions *questions, HcConnection *conn)
{
	if (questions->n_commands == 0)
		return;
	hc_connection_append_raw(conn, questions->wire.data, questions->wire.len,
							 questions->n_commands);
	hc_expected_reset_buffer(questions->expected, &questions->wire);
	questions->n_commands = 0;
}

void
hc_question_reset(HcQuestions *questions)
{
	questions->n = 0;
}
