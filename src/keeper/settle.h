/*
 * settle.h
 *	  A run: makes one mapping equal to its table.
 */
#ifndef HC_SETTLE_H
#define HC_SETTLE_H

#include "capture/capture.h"
#include "capture/catalog.h"
#include "keeper/chunk.h"
#include "keeper/compare.h"
#include "keeper/entries.h"
#include "keeper/run.h"
#include "redis/connection.h"
#include "shmem.h"

/* A mapping that is being made equal. */
typedef struct HcSettle
{
	HcDatabase *db;
	HcRunKind	kind;
	MemoryContext context;		/* of all below */
	MemoryContext chunk_context;	/* reset with each chunk */
	HcTrigger  *trigger;		/* as it was at the beginning */
	HcOptions	options;

	/* what is right */
	bool		may_be_absent;	/* a row's entry need not be there */
	bool		only_remove;	/* what is wrong is removed, since nobody knows
								 * until when it should be there */
	bool		populate;		/* neither holds: this run is to write all */
	bool		resumed;		/* it goes on where another keeper was */
	TimestampTz newer;			/* if not 0: only rows whose since column is not
								 * older are looked at */
	TimestampTz mark;			/* from there on they are new to the next run; 0: as
								 * before */

	bool		careful;		/* a row whose expressions raise is left out */
	bool		reading;		/* expressions are being evaluated */

	HcConnection *conn;
	HcCompare  *compare;		/* uses conn */
	HcChunk		chunk;			/* all records of the run go through it */
	struct HcFindings *findings;	/* of the chunk at hand */
	HcEntries  *entries;		/* that rows have, if all were read; or NULL */
	void	   *twice;			/* see twice.c */

	HcRunState	state;			/* as it is, or will be, in the table */
	TimestampTz paced_at;		/* see pace.c: when the work at hand began, ... */
	TimestampTz rest_until;		/* ... and what it costs */
	TimestampTz saved_at;
	uint64		saved_repaired; /* what it said then */
	char		problem[256];	/* why the first row was left out */
} HcSettle;

/*
 * Compares the rows of a mapping with Redis, makes good what differs, removes the
 * entries that no row has, and forgets what was owed when it began.  If the
 * mapping changes or vanishes meanwhile, it stops, and owes what it owed.  Opens
 * transactions of its own; blocks no writer.  *counts is what it has found, up to
 * where it came.  Raises whatever goes wrong.
 */
extern HcRunResult hc_settle_mapping(HcDatabase *db, Oid mapping,
									 HcRunKind kind, HcRunCounts *counts);

/* The run is done up to there: noted now and then, in a transaction of its own. */
extern void hc_settle_note(HcSettle *settle, HcRunPhase phase, const HcPass *pass);

/* Connects to Redis anew: what was being compared is forgotten. */
extern void hc_settle_reconnect(HcSettle *settle);

#endif							/* HC_SETTLE_H */
