/*
 * expected.h
 *	  What entries should be, and what was found out about each.
 */
#ifndef HC_EXPECTED_H
#define HC_EXPECTED_H

#include "mapping/op.h"

/* So many bytes of ops, or so many ops, are enough for once. */
#define HC_EXPECTED_BYTES		(8 * 1024 * 1024)
#define HC_EXPECTED_ENTRIES		(128 * 1024)

typedef enum HcFinding
{
	HC_FINDING_EQUAL,			/* at least, nothing else is known */
	HC_FINDING_MISSING,
	HC_FINDING_STALE,
	HC_FINDING_CONFLICTING,
	HC_FINDING_NO_STRING		/* there is nothing, or something else */
} HcFinding;

typedef struct HcExpectedEntry
{
	int			op;				/* where it is in ops */
	uint8		finding;		/* HcFinding */
	bool		ask_ttl;		/* Redis does not know PEXPIRETIME */
} HcExpectedEntry;

typedef struct HcExpected
{
	MemoryContext context;
	StringInfoData ops;			/* encoded, one after another */
	HcExpectedEntry *entries;
	int			n;
	int			max;
} HcExpected;

/* None; all memory is in the current context. */
extern void hc_expected_init(HcExpected *expected);

/*
 * Adds what an entry should be, as number n - 1.  The first one, which is when n
 * was set to 0, forgets those before.
 */
extern void hc_expected_add(HcExpected *expected, const HcOp *op);

/* The op of an entry; its bytes move when another is added. */
extern void hc_expected_get(const HcExpected *expected, int entry, HcOp *op);

extern HcFinding hc_expected_finding(const HcExpected *expected, int entry);
extern void hc_expected_set(HcExpected *expected, int entry, HcFinding finding);

/* It is stale, if nothing worse is known. */
extern void hc_expected_set_stale(HcExpected *expected, int entry);

/* Empties a buffer; one that a huge value has made huge is given back. */
extern void hc_expected_reset_buffer(const HcExpected *expected, StringInfo buf);

/* The time, as HcOp has it. */
extern int64 hc_expected_now(void);

#endif							/* HC_EXPECTED_H */
