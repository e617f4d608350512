/*
 * run.h
 *	  A run: one comparison of a mapping with its table, by the keeper.
 */
#ifndef HC_RUN_H
#define HC_RUN_H

#include "datatype/timestamp.h"
#include "storage/block.h"
#include "storage/itemptr.h"

typedef enum HcRunKind
{
	HC_RUN_REPAIR,				/* something is owed, at full speed */
	HC_RUN_RECONCILE,			/* now and then, or asked for; limited by
								 * hybrid_cache.reconcile_rate */
	HC_RUN_INCREMENTAL			/* the same for rows whose since column is new */
} HcRunKind;

typedef enum HcRunResult
{
	HC_RUN_DONE,
	HC_RUN_CHANGED,				/* the mapping is not what it was: all is for later */
	HC_RUN_CANCELLED
} HcRunResult;

/*
 * What a run has found.  Differences count that were there: not those of entries
 * that somebody changed meanwhile.
 */
typedef struct HcRunCounts
{
	uint64		checked;		/* entries of rows that were looked at */
	uint64		missing;
	uint64		stale;
	uint64		orphaned;		/* entries that no row has */
	uint64		conflicting;	/* keys of another type of Redis, rows that share
								 * an entry */
	uint64		repaired;		/* of these, written or removed */
	uint64		failed;			/* rows whose expressions raise */
} HcRunCounts;

/* Where a table is being read; see pass.c. */
typedef struct HcPass
{
	Oid			relid;
	Oid			storage;		/* it was not rewritten while it has this one;
								 * InvalidOid: nothing was read */
	ItemPointerData next;		/* everything before is done; invalid: nothing */
	BlockNumber n_blocks;		/* has all that the first snapshot sees */
	TransactionId since;		/* if valid, only versions that are not older count */
	TransactionId young;		/* everything older was visible to all chunks */
	int			number;			/* of the pass over the table, from 0 on */
	uint64		n_checked;		/* what it has added to the counts; not kept */
	uint64		n_failed;
} HcPass;

/* What a run is doing. */
typedef enum HcRunPhase
{
	HC_RUN_ROWS,				/* comparing the rows of tables, in order of their
								 * oids */
	HC_RUN_ORPHANS,				/* looking for entries that no row has */
	HC_RUN_OVER
} HcRunPhase;

/* The last run of a mapping, as the table hybrid_cache.run has it. */
typedef struct HcRunState
{
	Oid			mapping;
	HcRunKind	kind;
	char	   *reason;
	HcRunPhase	phase;
	bool		populate;		/* also entries that may be absent are written */
	int64		definition;		/* a hash of the mapping's */
	TimestampTz started;
	TimestampTz ended;			/* 0: it has not */
	TimestampTz full_started;	/* of the last one over the whole table that ended;
								 * 0: none */
	TimestampTz mark;			/* rows whose since column is older were looked at;
								 * 0: it is not known which */
	uint64		first_xid;		/* the next one when it began */
	HcPass		pass;			/* relid InvalidOid: no table was begun */
	HcRunCounts counts;
} HcRunState;

/*
 * In a transaction: reads the state of a mapping's last run, palloc'd; false if
 * there is none.  Replaces it.  Forgets it, and those of mappings that are gone.
 * The table is written below SQL, as the ledger is.
 */
extern bool hc_run_load(Oid mapping, HcRunState *state);
extern void hc_run_save(const HcRunState *state);
extern void hc_run_forget(Oid mapping);

/* In a transaction: a run that has not ended is not gone on with. */
extern void hc_run_give_up(Oid mapping);

extern const char *hc_run_kind_name(HcRunKind kind);

#endif							/* HC_RUN_H */
