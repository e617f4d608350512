/*
 * watermark.c
 *	  The text of the watermark: version, system identifier, database, timeline,
 *	  applied LSN, LSN and ops done of a transaction in pieces, restart LSN.
 *
 * It is plain text so that an administrator can read it with redis-cli, and of
 * constant size whatever the number of open transactions: instead of a list of
 * them it names the position from which all of them are read again.
 */
#include "postgres.h"

#include "worker/watermark.h"

#define FORMAT_VERSION	1

void
hc_watermark_key(const HcWatermark *mark, char *buf)
{
	snprintf(buf, HC_WATERMARK_SIZE, "hybrid_cache:watermark:" UINT64_FORMAT ":%u",
			 mark->system, mark->database);
}

void
hc_watermark_format(const HcWatermark *mark, char *buf)
{
	snprintf(buf, HC_WATERMARK_SIZE,
			 "%d " UINT64_FORMAT " %u %u %X/%X %X/%X " UINT64_FORMAT " %X/%X",
			 FORMAT_VERSION, mark->system, mark->database, mark->timeline,
			 LSN_FORMAT_ARGS(mark->applied), LSN_FORMAT_ARGS(mark->cut),
			 mark->ops_done, LSN_FORMAT_ARGS(mark->restart));
}

/* One number in the given base, and the separator behind it. */
static bool
get_number(const char **cursor, int base, char separator, uint64 max,
		   uint64 *value)
{
	char	   *end;

	/* strtoull() would also take blanks and signs */
	if (!isxdigit((unsigned char) **cursor))
		return false;
	errno = 0;
	*value = strtoull(*cursor, &end, base);
	if (errno != 0 || end == *cursor || *end != separator || *value > max)
		return false;
	*cursor = (separator == '\0') ? end : end + 1;
	return true;
}

static bool
get_lsn(const char **cursor, char separator, XLogRecPtr *lsn)
{
	uint64		high;
	uint64		low;

	if (!get_number(cursor, 16, '/', PG_UINT32_MAX, &high) ||
		!get_number(cursor, 16, separator, PG_UINT32_MAX, &low))
		return false;
	*lsn = high << 32 | low;
	return true;
}

bool
hc_watermark_parse(const char *text, size_t len, uint64 system, Oid database,
				   HcWatermark *mark)
{
	char		buf[HC_WATERMARK_SIZE];
	const char *cursor = buf;
	uint64		version;
	uint64		oid;
	uint64		timeline;

	if (len >= sizeof(buf) || memchr(text, '\0', len) != NULL)
		return false;
	memcpy(buf, text, len);
	buf[len] = '\0';

	if (!get_number(&cursor, 10, ' ', FORMAT_VERSION, &version) ||
		version != FORMAT_VERSION ||
		!get_number(&cursor, 10, ' ', PG_UINT64_MAX, &mark->system) ||
		!get_number(&cursor, 10, ' ', PG_UINT32_MAX, &oid) ||
		!get_number(&cursor, 10, ' ', PG_UINT32_MAX, &timeline) ||
		!get_lsn(&cursor, ' ', &mark->applied) ||
		!get_lsn(&cursor, ' ', &mark->cut) ||
		!get_number(&cursor, 10, ' ', PG_UINT64_MAX, &mark->ops_done) ||
		!get_lsn(&cursor, '\0', &mark->restart))
		return false;
	mark->database = (Oid) oid;
	mark->timeline = (TimeLineID) timeline;

	return mark->system == system && mark->database == database &&
		timeline > 0 &&
		!XLogRecPtrIsInvalid(mark->applied) &&
		!XLogRecPtrIsInvalid(mark->restart) &&
		mark->restart <= mark->applied &&
		(mark->cut > mark->applied || (mark->cut == 0 && mark->ops_done == 0));
}
