/*
 * arguments.c
 *	  The words of a Redis command, made from values of this database.
 *
 * Redis knows bytes only.  Text is UTF-8 there, whatever encoding the database
 * has, so that all clients read the same; a SQL_ASCII database does not know
 * what its bytes mean, and they pass unchanged.
 */
#include "postgres.h"

#include "common/shortest_dec.h"
#include "compat.h"
#include "encoding.h"
#include "lib/stringinfo.h"
#include "redis/arguments.h"
#include "redis/beside.h"
#include "settings.h"
#include "utils/builtins.h"

void
hc_arguments_begin(HcArguments *args, const char *command)
{
	args->command = command;
	args->n = 0;
	args->size = 8;
	args->data = palloc(args->size * sizeof(*args->data));
	args->len = palloc(args->size * sizeof(*args->len));
	if (command != NULL)
		hc_arguments_add_literal(args, command);
}

void
hc_arguments_add(HcArguments *args, const char *data, size_t len)
{
	if (args->n == args->size)
	{
		args->size *= 2;
		args->data = repalloc(args->data, args->size * sizeof(*args->data));
		args->len = repalloc(args->len, args->size * sizeof(*args->len));
	}
	args->data[args->n] = data;
	args->len[args->n] = len;
	args->n++;
}

void
hc_arguments_add_literal(HcArguments *args, const char *word)
{
	hc_arguments_add(args, word, strlen(word));
}

void
hc_arguments_add_text(HcArguments *args, const text *value)
{
	size_t		len = VARSIZE_ANY_EXHDR(value);
	char	   *data = hc_encoding_to_redis(VARDATA_ANY(value), &len);

	hc_arguments_add(args, data, len);
}

void
hc_arguments_add_key(HcArguments *args, const text *key)
{
	size_t		prefix_len = strlen(hc_key_prefix);
	size_t		len = prefix_len + VARSIZE_ANY_EXHDR(key);
	char	   *data;

	if (prefix_len == 0)
	{
		hc_arguments_add_text(args, key);
		return;
	}
	data = palloc(len + 1);
	memcpy(data, hc_key_prefix, prefix_len);
	memcpy(data + prefix_len, VARDATA_ANY(key), len - prefix_len);
	data[len] = '\0';
	data = hc_encoding_to_redis(data, &len);
	hc_arguments_add(args, data, len);
}

void
hc_arguments_add_beside(HcArguments *args, const char *what, const text *key)
{
	StringInfoData name;
	int			last = args->n;

	hc_arguments_add_key(args, key);
	initStringInfo(&name);
	hc_beside_key(&name, what, args->data[last], args->len[last]);
	args->data[last] = name.data;
	args->len[last] = name.len;
}

void
hc_arguments_add_integer(HcArguments *args, int64 value)
{
	hc_arguments_add_literal(args, psprintf(INT64_FORMAT, value));
}

void
hc_arguments_add_double(HcArguments *args, double value)
{
	char	   *word = palloc(DOUBLE_SHORTEST_DECIMAL_LEN);

	double_to_shortest_decimal_buf(value, word);
	hc_arguments_add_literal(args, word);
}
