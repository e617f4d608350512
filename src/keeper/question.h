/*
 * question.h
 *	  What Redis is asked about entries, in as few commands as possible.
 */
#ifndef HC_QUESTION_H
#define HC_QUESTION_H

#include "keeper/compare.h"
#include "keeper/expected.h"
#include "redis/connection.h"

typedef enum HcAsk
{
	HC_ASK_STRINGS,				/* MGET, an element per entry */
	HC_ASK_FIELDS,				/* HMGET, an element per entry */
	HC_ASK_SCORES,				/* ZMSCORE, an element per entry */
	HC_ASK_MEMBERS,				/* SMISMEMBER, an element per entry */
	HC_ASK_HASH,				/* HMGET of all fields of one entry */
	HC_ASK_LENGTH,				/* HLEN of one entry */
	HC_ASK_ABSENT,				/* EXISTS of one entry that should not be there */
	HC_ASK_ANY,					/* EXISTS of all that were no strings */
	HC_ASK_TYPE,				/* TYPE of one that was no string */
	HC_ASK_EXPIRETIME,			/* PEXPIRETIME of one entry */
	HC_ASK_TTL					/* PTTL of one entry */
} HcAsk;

/* A command that was sent, or will be. */
typedef struct HcQuestion
{
	HcAsk		ask;
	int			first;			/* entry; then all up to ... */
	int			n;				/* ... so many, if they are concerned */
} HcQuestion;

typedef struct HcQuestions
{
	HcExpected *expected;
	HcCompareExpiry expiry;
	bool		no_expiretime;	/* Redis is older than 7.0; set by answers */

	HcQuestion *list;
	int			n;
	int			max;

	/* the question that is being put together */
	StringInfoData args;		/* bulk strings */
	int			n_args;
	int			first;			/* entry of it; all after belong to it */
	HcAsk		ask;
	size_t		bytes;			/* that the answer should have */

	StringInfoData wire;		/* commands, not handed over yet */
	int			n_commands;
} HcQuestions;

/* None; in the current memory context. */
extern void hc_question_init(HcQuestions *questions, HcExpected *expected,
							 HcCompareExpiry expiry);

/*
 * Asks about an entry that is about to be added to those that are expected.  It
 * may share a command with those that follow, until close(), which has to come
 * before the following and before the answers are awaited.
 */
extern void hc_question_add(HcQuestions *questions, const HcOp *op);
extern void hc_question_close(HcQuestions *questions);

/* The same about the time at which it expires, when it was added. */
extern void hc_question_add_expiry(HcQuestions *questions, const HcOp *op);

/*
 * Those that earlier answers leave open: is any of the keys that are no strings
 * there, what is each of them, and how long do those live whose time of expiry
 * Redis could not say?
 */
extern void hc_question_add_any(HcQuestions *questions);
extern void hc_question_add_types(HcQuestions *questions);
extern void hc_question_add_ttls(HcQuestions *questions);

/* Hands the commands over to the connection. */
extern void hc_question_send(HcQuestions *questions, HcConnection *conn);

/* Forgets those that were answered, which are all. */
extern void hc_question_reset(HcQuestions *questions);

#endif							/* HC_QUESTION_H */
