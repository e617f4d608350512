/*
 * refused.c
 *	  The commands that redis_command() and its like do not pass on.
 *
 * All calls of a session share one connection on which each command has one
 * answer.  What would break that is refused by name, since Redis would accept
 * it.  This guards the session against accidents; who may do what in Redis is
 * for its access lists to say.
 */
#include "postgres.h"

#include "command/refused.h"

typedef enum Reason
{
	BLOCKS,						/* does not answer until something happens */
	STREAMS,					/* answers more than once */
	STATE,						/* changes the connection */
	TRANSACTION					/* spans several calls */
} Reason;

typedef struct Refused
{
	const char *command;
	const char *subcommand;		/* NULL: any */
	Reason		reason;
} Refused;

static const Refused refused_commands[] = {
	{"BLMOVE", NULL, BLOCKS},
	{"BLMPOP", NULL, BLOCKS},
	{"BLPOP", NULL, BLOCKS},
	{"BRPOP", NULL, BLOCKS},
	{"BRPOPLPUSH", NULL, BLOCKS},
	{"BZMPOP", NULL, BLOCKS},
	{"BZPOPMAX", NULL, BLOCKS},
	{"BZPOPMIN", NULL, BLOCKS},
	{"DEBUG", "SLEEP", BLOCKS},
	{"WAIT", NULL, BLOCKS},
	{"WAITAOF", NULL, BLOCKS},

	{"MONITOR", NULL, STREAMS},
	{"PSUBSCRIBE", NULL, STREAMS},
	{"PSYNC", NULL, STREAMS},
	{"PUNSUBSCRIBE", NULL, STREAMS},
	{"REPLCONF", NULL, STREAMS},
	{"SSUBSCRIBE", NULL, STREAMS},
	{"SUBSCRIBE", NULL, STREAMS},
	{"SUNSUBSCRIBE", NULL, STREAMS},
	{"SYNC", NULL, STREAMS},
	{"UNSUBSCRIBE", NULL, STREAMS},

	{"ASKING", NULL, STATE},
	{"AUTH", NULL, STATE},
	{"CLIENT", "CACHING", STATE},
	{"CLIENT", "NO-EVICT", STATE},
	{"CLIENT", "NO-TOUCH", STATE},
	{"CLIENT", "REPLY", STATE},
	{"CLIENT", "TRACKING", STATE},
	{"HELLO", NULL, STATE},
	{"QUIT", NULL, STATE},
	{"READONLY", NULL, STATE},
	{"READWRITE", NULL, STATE},
	{"RESET", NULL, STATE},
	{"SCRIPT", "DEBUG", STATE},
	{"SELECT", NULL, STATE},

	{"DISCARD", NULL, TRANSACTION},
	{"EXEC", NULL, TRANSACTION},
	{"MULTI", NULL, TRANSACTION},
	{"UNWATCH", NULL, TRANSACTION},
	{"WATCH", NULL, TRANSACTION}
};

static bool is_word(const HcArguments *args, int i, const char *word);
static bool has_block(const HcArguments *args);
static void refuse(const char *function, const char *command,
				   const char *subcommand, Reason reason);

void
hc_refused_check(const HcArguments *args, const char *function)
{
	for (int i = 0; i < (int) lengthof(refused_commands); i++)
	{
		const Refused *refused = &refused_commands[i];

		if (is_word(args, 0, refused->command) &&
			(refused->subcommand == NULL ||
			 is_word(args, 1, refused->subcommand)))
			refuse(function, refused->command, refused->subcommand,
				   refused->reason);
	}
	if (has_block(args))
		refuse(function, is_word(args, 0, "XREAD") ? "XREAD" : "XREADGROUP",
			   "BLOCK", BLOCKS);
}

const char *
hc_refused_find(const HcArguments *args, const char *const *commands, int n)
{
	for (int i = 0; i < n; i++)
		if (is_word(args, 0, commands[i]))
			return commands[i];
	return NULL;
}

/* Is the argument this word, in upper or lower case? */
static bool
is_word(const HcArguments *args, int i, const char *word)
{
	return i < args->n && args->len[i] == strlen(word) &&
		pg_strncasecmp(args->data[i], word, args->len[i]) == 0;
}

/* XREAD and XREADGROUP block by an option, which comes before STREAMS. */
static bool
has_block(const HcArguments *args)
{
	int			i;

	if (!is_word(args, 0, "XREAD") && !is_word(args, 0, "XREADGROUP"))
		return false;
	for (i = 1; i < args->n && !is_word(args, i, "STREAMS"); i++)
	{
		if (is_word(args, i, "BLOCK"))
			return true;
		if (is_word(args, i, "GROUP"))
			i += 2;				/* its name and the consumer's can be any */
	}
	return false;
}

static void
refuse(const char *function, const char *command, const char *subcommand,
	   Reason reason)
{
	const char *hint = NULL;

	switch (reason)
	{
		case BLOCKS:
			hint = "It can wait for long, and other calls with it. Ask again from time to time instead, without blocking.";
			break;
		case STREAMS:
			hint = "It has more than one answer. Use a Redis client.";
			break;
		case STATE:
			hint = "The calls of a session share one connection, which hybrid_cache.redis_url describes.";
			break;
		case TRANSACTION:
			hint = "Each call is complete in itself. EVAL runs several commands at once.";
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s does not support %s%s%s", function, command,
					subcommand ? " " : "", subcommand ? subcommand : ""),
			 errhint("%s", hint)));
}
