/*
 * lease.c
 *	  Which session of this server computes which cached value.
 *
 * The lease itself is in Redis.  A session that fails in the middle of its query
 * cannot give it back: there is no network in error cleanup.  So each announces
 * its token in shared memory, where those who wait for it look, and are woken
 * from.  What is not announced any more has ended, however it did: a session that
 * is killed the hard way takes all of shared memory with it.
 *
 * Locking: a process alone writes the tokens of its place, which are atomics; the
 * others read them, and sleep on its condition variable.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "cache/lease.h"
#include "compat.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#define TABLE_NAME	"hybrid_cache leases"

/* A cached query can call a function that has one, and so on. */
#define MAX_DEPTH	8

typedef struct Place
{
	pg_atomic_uint64 numbers[MAX_DEPTH];	/* the last parts of tokens; 0: none */
	ConditionVariable ended;	/* broadcast when one of them is ended */
} Place;

/* Indexed by the place of the process in the table of processes. */
static Place *places = NULL;

static int	depth = 0;

/* Of the last lease; the first is random, so that no two lives of us meet. */
static uint64 last_number = 0;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static Size
table_size(void)
{
	return mul_size(MaxBackends, sizeof(Place));
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(table_size());
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	places = ShmemInitStruct(TABLE_NAME, table_size(), &found);
	if (!found)
	{
		int			i;
		int			j;

		for (i = 0; i < MaxBackends; i++)
		{
			for (j = 0; j < MAX_DEPTH; j++)
				pg_atomic_init_u64(&places[i].numbers[j], 0);
			ConditionVariableInit(&places[i].ended);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

void
hc_lease_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* The process ends in the middle of a query. */
static void
end_all(int code, Datum arg)
{
	while (depth > 0)
		hc_lease_end();
}

bool
hc_lease_begin(char *token)
{
	int			place = hc_compat_my_place();

	if (depth == MAX_DEPTH || place < 0 || place >= MaxBackends)
		return false;
	if (last_number == 0)
	{
		if (!pg_strong_random(&last_number, sizeof(last_number)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		before_shmem_exit(end_all, (Datum) 0);
	}
	last_number = Max(last_number + 1, 1);
	snprintf(token, HC_LEASE_TOKEN_SIZE, "%016llx.%d.%016llx",
			 (unsigned long long) GetSystemIdentifier(), place,
			 (unsigned long long) last_number);
	pg_atomic_write_u64(&places[place].numbers[depth++], last_number);
	return true;
}

void
hc_lease_end(void)
{
	Place	   *place = &places[hc_compat_my_place()];

	Assert(depth > 0);
	pg_atomic_write_u64(&place->numbers[--depth], 0);
	ConditionVariableBroadcast(&place->ended);
}

int
hc_lease_depth(void)
{
	return depth;
}

/* The place that a token names, or NULL if it is not of this server. */
static Place *
find_place(const char *token, uint64 *number)
{
	unsigned long long system;
	unsigned long long n;
	int			place;
	char		again[HC_LEASE_TOKEN_SIZE];

	if (sscanf(token, "%16llx.%d.%16llx", &system, &place, &n) != 3 ||
		system != GetSystemIdentifier())
		return NULL;

	/* not something that only begins like it */
	snprintf(again, sizeof(again), "%016llx.%d.%016llx", system, place, n);
	if (strcmp(again, token) != 0 || place < 0 || place >= MaxBackends)
		return NULL;
	*number = n;
	return &places[place];
}

static bool
is_announced(Place *place, uint64 number)
{
	int			i;

	for (i = 0; i < MAX_DEPTH; i++)
	{
		if (pg_atomic_read_u64(&place->numbers[i]) == number)
			return true;
	}
	return false;
}

HcLeaseHolder
hc_lease_look(const char *token)
{
	uint64		number;
	Place	   *place = find_place(token, &number);

	if (place == NULL)
		return HC_LEASE_FOREIGN;
	return is_announced(place, number) ? HC_LEASE_AT_WORK : HC_LEASE_GONE;
}

void
hc_lease_wait(const char *token, long ms)
{
	uint64		number;
	Place	   *place = find_place(token, &number);

	if (place == NULL)
		return;
	ConditionVariablePrepareToSleep(&place->ended);
	if (is_announced(place, number))
		(void) ConditionVariableTimedSleep(&place->ended, ms, HC_WAIT_WORKER);
	ConditionVariableCancelSleep();
	CHECK_FOR_INTERRUPTS();
}
