/* links: src/worker/watermark.c */
/*
 * fuzz_watermark.c
 *	  The parser of the watermark, which anybody with access to Redis can write:
 *	  what it takes is written again as a text that means the same.
 */
#include "postgres.h"

#include "worker/watermark.h"

#define SYSTEM		UINT64CONST(7710374211971786691)
#define DATABASE	16384

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	static const char own[] = "1 7710374211971786691 16384 ";
	char	   *text = palloc(size + sizeof(own));
	HcWatermark mark;
	HcWatermark again;
	char		buf[HC_WATERMARK_SIZE];

	(void) hc_watermark_parse((const char *) data, size, SYSTEM, DATABASE, &mark);

	/* give it what it would hardly guess */
	memcpy(text, own, sizeof(own) - 1);
	memcpy(text + sizeof(own) - 1, data, size);
	if (!hc_watermark_parse(text, sizeof(own) - 1 + size, SYSTEM, DATABASE, &mark))
		return 0;
	if (mark.system != SYSTEM || mark.database != DATABASE ||
		mark.restart > mark.applied)
		abort();
	hc_watermark_format(&mark, buf);
	if (!hc_watermark_parse(buf, strlen(buf), SYSTEM, DATABASE, &again) ||
		again.timeline != mark.timeline || again.applied != mark.applied ||
		again.cut != mark.cut || again.ops_done != mark.ops_done ||
		again.restart != mark.restart)
		abort();
	return 0;
}
