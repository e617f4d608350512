/* links: src/mapping/op.c src/capture/record.c */
/*
 * fuzz_record.c
 *	  The decoder of change records: reads nothing outside its input, and what it
 *	  accepts encodes to something that decodes to the same.
 *
 * The WAL functions that the encoder calls are replaced by ones that collect
 * what it registers.
 */
#include "postgres.h"

#include "access/xloginsert.h"
#include "capture/record.h"
#include "replication/message.h"

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

Oid			MyDatabaseId = 1;
static StringInfoData written;

void
XLogBeginInsert(void)
{
	initStringInfo(&written);
}

void
#if PG_VERSION_NUM >= 180000
XLogRegisterData(const void *data, uint32 len)
#elif PG_VERSION_NUM >= 160000
XLogRegisterData(char *data, uint32 len)
#else
XLogRegisterData(char *data, int len)
#endif
{
	appendBinaryStringInfo(&written, data, len);
}

void
XLogSetRecordFlags(uint8 flags)
{
}

XLogRecPtr
XLogInsert(RmgrId rmid, uint8 info)
{
	return 1;
}

static void
check_same(const HcBytes *a, const HcBytes *b)
{
	if (a->len != b->len || (a->len > 0 && memcmp(a->data, b->data, a->len) != 0))
		abort();
}

/* Decodes the ops of a record, re-encodes them and compares. */
static void
check_ops(const HcRecord *record)
{
	const char *cursor = record->ops;
	uint64		n;
	HcOp		op;

	for (n = 0; n < record->n_ops && hc_op_decode(&cursor, record->end, &op); n++)
	{
		StringInfoData buf;
		const char *again;
		HcOp		copy;

		initStringInfo(&buf);
		hc_op_encode(&buf, &op);
		again = buf.data;
		if (!hc_op_decode(&again, buf.data + buf.len, &copy) ||
			again != buf.data + buf.len || copy.kind != op.kind ||
			copy.version.relation != op.version.relation ||
			copy.maxlen != op.maxlen || copy.lsn_at != op.lsn_at)
			abort();
		check_same(&op.key, &copy.key);
		check_same(&op.member, &copy.member);
		check_same(&op.value, &copy.value);
		pfree(buf.data);
	}
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	HcRecord	record;
	HcRecord	copy;
	HcRecord	walk;
	HcOpRange	ranges[64];
	HcOpRange	range;
	uint64		n = 0;
	size_t		head = SizeOfLogicalMessage + sizeof("hybrid_cache\0v1");

	if (!hc_record_decode((const char *) data, size, &record))
		return 0;
	check_ops(&record);

	walk = record;
	while (n < lengthof(ranges) && hc_record_next_range(&walk, &range))
		ranges[n++] = range;
	if (n < record.n_ranges)
		return 0;				/* more than this test keeps */

	(void) hc_record_write(&record, ranges);
	if (!hc_record_decode(written.data + head, written.len - head, &copy))
		abort();
	if (copy.xid != record.xid || copy.closing != record.closing ||
		copy.late != record.late || copy.first_op != record.first_op ||
		copy.n_ops != record.n_ops || copy.n_before != record.n_before ||
		copy.n_ranges != record.n_ranges ||
		copy.window != record.window || copy.mapping != record.mapping ||
		copy.marker != record.marker || copy.number != record.number ||
		copy.found != record.found || copy.last != record.last ||
		copy.dry != record.dry ||
		copy.end - copy.ops != record.end - record.ops)
		abort();
	pfree(written.data);
	return 0;
}
