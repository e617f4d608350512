/*
 * expected.c
 *	  What entries should be, and what was found out about each.
 *
 * The ops are kept encoded, one after another, in one buffer that is used again:
 * an allocation per entry would cost more than the comparison.
 */
#include "postgres.h"

#include "keeper/expected.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define UNIX_EPOCH_OFFSET_MS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000)

void
hc_expected_init(HcExpected *expected)
{
	expected->context = CurrentMemoryContext;
	initStringInfo(&expected->ops);
	expected->n = 0;
	expected->max = 1024;
	expected->entries = palloc(expected->max * sizeof(HcExpectedEntry));
}

void
hc_expected_add(HcExpected *expected, const HcOp *op)
{
	HcExpectedEntry *entry;

	if (expected->n == 0)
		hc_expected_reset_buffer(expected, &expected->ops);
	if (expected->n == expected->max)
	{
		expected->max *= 2;
		expected->entries = repalloc_huge(expected->entries,
										  expected->max * sizeof(HcExpectedEntry));
	}
	entry = &expected->entries[expected->n++];
	entry->op = expected->ops.len;
	entry->finding = HC_FINDING_EQUAL;
	entry->ask_ttl = false;
	hc_op_encode(&expected->ops, op);
}

void
hc_expected_get(const HcExpected *expected, int entry, HcOp *op)
{
	const char *cursor = expected->ops.data + expected->entries[entry].op;

	if (!hc_op_decode(&cursor, expected->ops.data + expected->ops.len, op))
		elog(ERROR, "an op cannot be read back");
}

HcFinding
hc_expected_finding(const HcExpected *expected, int entry)
{
	return expected->entries[entry].finding;
}

void
hc_expected_set(HcExpected *expected, int entry, HcFinding finding)
{
	expected->entries[entry].finding = finding;
}

void
hc_expected_set_stale(HcExpected *expected, int entry)
{
	if (hc_expected_finding(expected, entry) == HC_FINDING_EQUAL)
		hc_expected_set(expected, entry, HC_FINDING_STALE);
}

void
hc_expected_reset_buffer(const HcExpected *expected, StringInfo buf)
{
	MemoryContext old;

	if (buf->maxlen <= 2 * HC_EXPECTED_BYTES)
	{
		resetStringInfo(buf);
		return;
	}
	pfree(buf->data);
	old = MemoryContextSwitchTo(expected->context);
	initStringInfo(buf);
	MemoryContextSwitchTo(old);
}

int64
hc_expected_now(void)
{
	return GetCurrentTimestamp() / 1000 + UNIX_EPOCH_OFFSET_MS;
}
