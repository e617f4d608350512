/*
 * command.c
 *	  redis_command(): any command, its answer as JSON.
 */
#include "postgres.h"

#include <ctype.h>

#include "command/json_reply.h"
#include "command/refused.h"
#include "command/variadic.h"
#include "fmgr.h"
#include "redis/arguments.h"
#include "session/session.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(hybrid_cache_command);

static const char *printable_name(const HcArguments *args);

/*
 * redis_command(VARIADIC "any") RETURNS jsonb
 */
Datum
hybrid_cache_command(PG_FUNCTION_ARGS)
{
	HcArguments args;

	hc_variadic_read(&args, fcinfo, "redis_command()");
	hc_refused_check(&args, "redis_command()");
	args.command = printable_name(&args);
	PG_RETURN_JSONB_P(hc_json_reply(hc_session_command(&args)));
}

/*
 * The command's name, or NULL for what looks like none: the whole command in
 * one string, most likely, with the user's data.
 */
static const char *
printable_name(const HcArguments *args)
{
	if (args->len[0] > 40)
		return NULL;
	for (size_t i = 0; i < args->len[0]; i++)
	{
		unsigned char c = (unsigned char) args->data[0][i];

		if (c >= 0x80 || (!isalnum(c) && strchr("._-", c) == NULL))
			return NULL;
	}
	return pnstrdup(args->data[0], args->len[0]);
}
