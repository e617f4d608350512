/*
 * encoding.c
 *	  Text between this database and Redis.
 *
 * It is below all folders, since both what makes commands and what renders rows
 * need it, and neither knows of the other.
 */
#include "postgres.h"

#include "encoding.h"
#include "mb/pg_wchar.h"

char *
hc_encoding_to_redis(const char *data, size_t *len)
{
	char	   *result;

	if (GetDatabaseEncoding() == PG_SQL_ASCII || *len == 0)
		return unconstify(char *, data);
	result = pg_server_to_any(data, *len, PG_UTF8);
	if (result != data)
		*len = strlen(result);
	return result;
}

const char *
hc_encoding_string(const char *text)
{
	size_t		len = strlen(text);

	return hc_encoding_to_redis(text, &len);
}

bool
hc_encoding_is_text(const char *data, size_t len)
{
	return GetDatabaseEncoding() == PG_SQL_ASCII
		? memchr(data, '\0', len) == NULL
		: pg_verify_mbstr(PG_UTF8, data, len, true);
}
