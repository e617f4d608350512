/*
 * pipeline.c
 *	  redis_pipeline(): many commands in one round trip.
 *
 * All of them are looked at before the first is sent, so that a mistake in one of
 * them does not leave half of them done.  What Redis refuses is part of the
 * result: the others were executed all the same.
 */
#include "postgres.h"

#include "command/json_reply.h"
#include "command/json_word.h"
#include "command/refused.h"
#include "compat.h"
#include "miscadmin.h"
#include "session/rows.h"
#include "session/session.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(hybrid_cache_pipeline);

#define FUNCTION_NAME	"redis_pipeline()"

/* Beyond so many, they are sent in several round trips. */
#define MAX_COMMANDS	10000
#define MAX_SENT		(4 * 1024 * 1024)

static JsonbContainer *get_list(FunctionCallInfo fcinfo);
static void check_all(JsonbContainer *list, int n, MemoryContext context);
static int	send_some(JsonbContainer *list, int from, int n, MemoryContext context);
static void read_command(HcArguments *args, JsonbContainer *list, int i);
static void add_word(HcArguments *args, JsonbValue *word, int command);
HC_NORETURN static void refuse_form(int command, const char *detail);

/*
 * redis_pipeline(commands jsonb) RETURNS SETOF jsonb
 */
Datum
hybrid_cache_pipeline(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rows = hc_rows_begin(fcinfo);
	JsonbContainer *list = get_list(fcinfo);
	int			n = JsonContainerSize(list);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache pipeline",
												  ALLOCSET_DEFAULT_SIZES);
	int			sent = 0;

	check_all(list, n, context);
	if (n > 0)
		hc_session_begin();
	for (int i = 0; i < n; i++)
	{
		MemoryContext old;
		Datum		value;
		bool		null = false;

		if (i == sent)
			sent += send_some(list, sent, n, context);
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(context);
		value = JsonbPGetDatum(hc_json_reply_or_error(hc_session_next_any(NULL)));
		hc_rows_put(rows, &value, &null);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	return (Datum) 0;
}

static JsonbContainer *
get_list(FunctionCallInfo fcinfo)
{
	Jsonb	   *commands;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"commands\" of " FUNCTION_NAME " must not be null")));
	commands = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_ARRAY(commands) || JB_ROOT_IS_SCALAR(commands))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"commands\" of " FUNCTION_NAME " must be a JSON array of commands"),
				 errhint("Each command is an array of its words: [[\"SET\", \"key\", \"value\"], [\"GET\", \"key\"]].")));
	return &commands->root;
}

static void
check_all(JsonbContainer *list, int n, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	for (int i = 0; i < n; i++)
	{
		HcArguments args;

		CHECK_FOR_INTERRUPTS();
		read_command(&args, list, i);
		hc_refused_check(&args, FUNCTION_NAME);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
}

/* Returns how many. */
static int
send_some(JsonbContainer *list, int from, int n, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	size_t		size = 0;
	int			i;

	for (i = from; i < n && i - from < MAX_COMMANDS && size < MAX_SENT; i++)
	{
		HcArguments args;

		read_command(&args, list, i);
		for (int j = 0; j < args.n; j++)
			size += args.len[j];
		hc_session_append(&args);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	return i - from;
}

/* Makes the words of a command, numbered from 0. */
static void
read_command(HcArguments *args, JsonbContainer *list, int i)
{
	JsonbValue *command = getIthJsonbValueFromContainer(list, i);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	word;

	if (command->type != jbvBinary || !JsonContainerIsArray(command->val.binary.data))
		refuse_form(i, "It is not an array of words.");
	hc_arguments_begin(args, NULL);
	iterator = JsonbIteratorInit(command->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &word, true)) != WJB_DONE)
		if (token == WJB_ELEM)
			add_word(args, &word, i);
	if (args->n == 0 || args->len[0] == 0)
		refuse_form(i, "It does not begin with the name of a command.");
}

static void
add_word(HcArguments *args, JsonbValue *word, int command)
{
	if (hc_json_word_add(args, word))
		return;
	if (word->type == jbvNull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("command %d of " FUNCTION_NAME " has a null", command + 1),
				 errdetail("Redis knows no null.")));
	refuse_form(command, "A word is a string, a number or a boolean.");
}

static void
refuse_form(int command, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("command %d of " FUNCTION_NAME " is not a command", command + 1),
			 errdetail_internal("%s", detail),
			 errhint("Each command is an array of its words, as in [\"SET\", \"key\", \"value\"].")));
}
