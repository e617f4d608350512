/*
 * shmem.h
 *	  What the sessions of a database, its sync worker and the launcher share.
 *
 * Locking: hc_shared->lock guards which slot belongs to which database and the
 * non-atomic fields of a slot.  Atomics are read and written without it.  No
 * process-local pointer is kept here (a Latch * points into shared memory).
 */
#ifndef HC_SHMEM_H
#define HC_SHMEM_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "inbound/traffic.h"
#include "keeper/fill.h"
#include "keeper/progress.h"
#include "keeper/request.h"
#include "port/atomics.h"
#include "redis/breaker.h"
#include "role.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

/* What the counters of hybrid_cache.status count, since the server started. */
typedef enum HcCounter
{
	HC_COUNT_TRANSACTIONS,		/* applied by the worker */
	HC_COUNT_OPS,				/* applied by the worker */
	HC_COUNT_BATCHES,			/* MULTI ... EXEC that succeeded */
	HC_COUNT_REFUSED,			/* ops that Redis refused for good */
	HC_COUNT_DROPPED,			/* of these, letters that are not kept */
	HC_COUNT_RECONNECTS,
	HC_COUNT_OUT_OF_RANGE,		/* rows that Redis cannot hold, or that
								 * would have a key of ours */
	HC_COUNT_OVERSIZE,			/* values over Redis's limit */
	HC_COUNT_DAMAGED,			/* change records that do not decode */
	HC_COUNT_FALLBACKS,			/* reads that tables answered, Redis being down */
	HC_COUNT_READ_HITS,			/* get(): answered by Redis */
	HC_COUNT_READ_MISSES,		/* get(): Redis had nothing */
	HC_COUNT_READ_BYPASSES,		/* get(): Redis was not to be asked */
	HC_COUNT_FILLS,				/* keys that the keeper filled in */
	HC_NUM_COUNTERS
} HcCounter;

/* What became of a change record of the keeper; see worker/window.h. */
typedef enum HcWindowOutcome
{
	HC_WINDOW_PENDING,			/* the sync worker has not met it */
	HC_WINDOW_TAKEN,			/* it counts, once it is applied */
	HC_WINDOW_VOID,				/* the sync worker does not know its window */
	HC_WINDOW_OVERFLOWED		/* too much was touched in its window */
} HcWindowOutcome;

/* What the keeper has found; part of the WAL format: never renumber. */
typedef enum HcFound
{
	HC_FOUND_MISSING,			/* a row's entry is not there */
	HC_FOUND_STALE,				/* it holds something else */
	HC_FOUND_ORPHANED,			/* no row has the entry */
	HC_FOUND_CONFLICTING		/* the key is of another type */
} HcFound;

#define HC_NUM_FOUND	(HC_FOUND_CONFLICTING + 1)

/* What the keeper of a database shares: atomics but where it says more. */
typedef struct HcKeep
{
	pg_atomic_uint64 ticket;	/* of the record that the keeper waits for */
	pg_atomic_uint32 outcome;	/* HcWindowOutcome of it, and ... */
	pg_atomic_uint64 taken[HC_NUM_FOUND];	/* ... how many ops were taken */
	pg_atomic_uint64 purging;	/* the leftover that is being purged; 0: none ... */
	pg_atomic_uint64 purged;	/* ... and entries of it that were removed */
	HcProgress	progress;		/* see there */
	HcFill		fill;			/* see there */
	HcRequests	requests;		/* see there; guarded by hc_shared->lock */
} HcKeep;

typedef struct HcDatabase
{
	/* guarded by hc_shared->lock */
	Oid			database;		/* InvalidOid: this slot is free */
	pid_t		worker_pid;		/* 0: no sync worker runs */
	Latch	   *worker_latch;	/* of the sync worker, or NULL */
	TimestampTz aside_until;	/* no worker may connect before this time */
	bool		restart;		/* the worker left on purpose: start it again */
	char		last_error[256];	/* never with a password */
	TimestampTz last_error_at;	/* 0: none yet */

	/* atomics */
	pg_atomic_uint64 published; /* end of the last commit that has ops */
	pg_atomic_uint64 wanted;	/* someone waits for this position */
	pg_atomic_uint64 applied;	/* all that committed up to here is in Redis */
	pg_atomic_uint64 replicated;	/* the same for wait_replicas of its replicas */
	pg_atomic_uint32 connected; /* 1: the worker has a Redis that answers */
	pg_atomic_uint32 ours;		/* 1: this copy of the database was the one at
								 * work when the worker was last told */
	pg_atomic_uint32 failing;	/* 1: the worker's last turn ended in an error */
	pg_atomic_uint32 recheck;	/* 1: the worker must look again whether the
								 * extension is there and its settings hold */
	pg_atomic_uint32 marks_aborted; /* 1: holds of aborted transactions are to be
									 * looked for */
	pg_atomic_uint64 counters[HC_NUM_COUNTERS];
	ConditionVariable applied_cv;	/* broadcast when applied moves */

	HcBreaker	breaker;		/* of the Redis that the worker writes to */
	HcPost		posts[HC_NUM_ROLES];	/* see there */
	HcKeep		keep;
	HcTraffic	bridges[HC_TRAFFIC_BRIDGES];	/* see there */
} HcDatabase;

/* What a worker that was just started found in its database. */
typedef enum HcProbe
{
	HC_PROBE_NONE,				/* it did not say yet */
	HC_PROBE_RUNNING,			/* the extension: it has claimed a slot */
	HC_PROBE_ABSENT,			/* no extension */
	HC_PROBE_FULL				/* the extension, but no free slot */
} HcProbe;

typedef struct HcShared
{
	LWLock	   *lock;
	uint64		start;			/* random; another one in each run of the server,
								 * also after a crash */
	pg_atomic_uint64 rechecks;	/* how often hc_shmem_recheck() was called */

	/* guarded by lock */
	Latch	   *launcher_latch; /* NULL: no launcher */
	bool		rescan;			/* a database got the extension */
	bool		scan;			/* a database came or went */
	bool		unserved;		/* a database without a slot has ops */
	Oid			probe_database; /* the launcher starts one worker at a time ... */
	HcProbe		probe;			/* ... and this is its answer */

	HcDatabase	databases[FLEXIBLE_ARRAY_MEMBER];	/* hc_max_databases */
} HcShared;

extern HcShared *hc_shared;

/* Installs the shared memory hooks; called once, from _PG_init. */
extern void hc_shmem_init(void);

/*
 * The slot of a database, or NULL when it has none (yet).  The pointer stays
 * valid, but the slot can pass on to another database when this one is
 * dropped; sessions connected to the database need not care.
 */
extern HcDatabase *hc_shmem_find(Oid database);

/* The slot of MyDatabaseId, remembered per process; NULL if there is none. */
extern HcDatabase *hc_shmem_mine(void);

/*
 * Called at commit, after the commit record is written: the worker is to apply
 * up to lsn.  Raises nothing, allocates nothing, never blocks on a heavy lock.
 */
extern void hc_shmem_publish(XLogRecPtr lsn);

/* Wakes the sync worker of MyDatabaseId, if there is one.  Raises nothing. */
extern void hc_shmem_wake(void);

/* Counts for MyDatabaseId; dropped silently where it has no slot. */
extern void hc_shmem_count(HcCounter counter, uint64 n);

/*
 * The launcher is to look for databases with the extension (CREATE EXTENSION);
 * just for databases that came or went; the worker of this database is to check extension and settings (DROP
 * EXTENSION, ALTER DATABASE ... SET).
 */
extern void hc_shmem_rescan(void);
extern void hc_shmem_scan(void);
extern void hc_shmem_recheck(Oid database);

/*
 * The workers of the database are to disconnect, and none is to connect before
 * until; 0 lets it come back at once.  For DROP DATABASE and its kin.
 */
extern void hc_shmem_step_aside(Oid database, TimestampTz until);

/*
 * For a background process: connects it to its database, with the settings that
 * this has.  If they change before the process is known as the database's, by
 * hc_shmem_claim() or hc_role_take(), nobody finds it to tell it; these ask
 * hc_shmem_is_outdated() and have it look again.
 */
extern void hc_shmem_connect(Oid database);
extern bool hc_shmem_is_outdated(void);

/*
 * For the sync worker: takes the slot of its database, or a free one, and makes
 * this process its worker until the process exits.  NULL when all slots are
 * taken, or when another worker is still there (*taken is then true).
 */
extern HcDatabase *hc_shmem_claim(Oid database, bool *taken);

/* Frees the slot of a database that lost the extension or vanished. */
extern void hc_shmem_release(Oid database);

/* The answer of a new worker to the launcher. */
extern void hc_shmem_answer(Oid database, HcProbe probe);

/* The worker is about to leave on purpose: the launcher need not back off. */
extern void hc_shmem_leave(HcDatabase *db);

/* May the database's worker be connected now? */
extern bool hc_shmem_is_aside(Oid database);

/* Notes an error of the worker for the view; message is cut to fit. */
extern void hc_shmem_set_error(HcDatabase *db, const char *message);

/* Raises *position to lsn if that is later. */
extern void hc_shmem_advance(pg_atomic_uint64 *position, XLogRecPtr lsn);

#endif							/* HC_SHMEM_H */
