/*
 * bytes.c
 *	  What is in Redis as text of this database.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "compat.h"
#include "encoding.h"
#include "mapping/bytes.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

text *
hc_bytes_text(HcBytes bytes)
{
	int			encoding = GetDatabaseEncoding();
	size_t		size;
	unsigned char *buffer;

	if (!hc_encoding_is_text(bytes.data, bytes.len))
		return NULL;
	if (encoding == PG_SQL_ASCII || encoding == PG_UTF8)
		return cstring_to_text_with_len(bytes.data, (int) bytes.len);

	size = bytes.len * MAX_CONVERSION_GROWTH + 1;
	buffer = palloc(size);
	if (pg_do_encoding_conversion_buf(FindDefaultConversionProc(PG_UTF8, encoding),
									  PG_UTF8, encoding,
									  (unsigned char *) bytes.data,
									  (int) bytes.len, buffer, (int) size,
									  true) != (int) bytes.len)
		return NULL;
	return cstring_to_text((char *) buffer);
}

HcBytes
hc_bytes_encode(const text *value)
{
	HcBytes		bytes = {NULL, VARSIZE_ANY_EXHDR(value)};

	bytes.data = hc_encoding_to_redis(VARDATA_ANY(value), &bytes.len);
	return bytes;
}

bool
hc_bytes_equal(HcBytes a, HcBytes b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

HcBytes
hc_bytes_copy(MemoryContext context, HcBytes bytes)
{
	HcBytes		copy;

	copy.data = memcpy(MemoryContextAlloc(context, bytes.len + 1), bytes.data,
					   bytes.len);
	copy.len = bytes.len;
	return copy;
}
