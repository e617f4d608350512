/*
 * role.c
 *	  The processes that a database has beside its sync worker.
 *
 * They differ in what they do, not in how they come and go.  So that is here once,
 * and in the launcher, and a further role is a line in this table.
 *
 * Locking: see role.h; a latch may be set without the lock, see shmem.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "role.h"
#include "shmem.h"
#include "storage/ipc.h"

static const struct
{
	const char *function;
	const char *name;
}			roles[HC_NUM_ROLES] =
{
	[HC_ROLE_KEEPER] = {"hc_keeper_main", "keeper"},
	[HC_ROLE_CONSUMER] = {"hc_consumer_main", "consumer"},
	[HC_ROLE_BRIDGE] = {"hc_bridge_main", "bridge"},
};

/* The roles that the transaction has called, as bits. */
static uint32 called = 0;

const char *
hc_role_function(HcRole role)
{
	return roles[role].function;
}

const char *
hc_role_name(HcRole role)
{
	return roles[role].name;
}

void
hc_role_init(HcPost *post)
{
	pg_atomic_init_u32(&post->wanted, 0);
	pg_atomic_init_u32(&post->recheck, 0);
}

static void
wake(HcPost *post)
{
	Latch	   *latch = *(Latch *volatile *) &post->latch;

	if (latch != NULL)
		SetLatch(latch);
}

void
hc_role_wake(HcDatabase *db)
{
	int			i;

	for (i = 0; i < HC_NUM_ROLES; i++)
		wake(&db->posts[i]);
}

void
hc_role_call(HcRole role)
{
	HcDatabase *db = hc_shmem_mine();

	/* without a slot there is no worker, which would look when it starts */
	if (db == NULL)
		return;
	pg_atomic_write_u32(&db->posts[role].wanted, 1);
	wake(&db->posts[role]);
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	if (hc_shared->launcher_latch != NULL)
		SetLatch(hc_shared->launcher_latch);
	LWLockRelease(hc_shared->lock);
}

void
hc_role_call_at_commit(HcRole role)
{
	called |= (uint32) 1 << role;
}

static void
end_of_transaction(XactEvent event, void *arg)
{
	int			i;

	if (called == 0)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			for (i = 0; i < HC_NUM_ROLES; i++)
			{
				if (called & ((uint32) 1 << i))
					hc_role_call((HcRole) i);
			}
			called = 0;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			called = 0;
			break;
		default:
			break;
	}
}

void
hc_role_register(void)
{
	RegisterXactCallback(end_of_transaction, NULL);
}

bool
hc_role_is_taken(HcRole role)
{
	HcDatabase *db = hc_shmem_mine();
	bool		taken;

	if (db == NULL)
		return false;
	LWLockAcquire(hc_shared->lock, LW_SHARED);
	taken = db->posts[role].pid != 0;
	LWLockRelease(hc_shared->lock);
	return taken;
}

/* The process is gone, however it ended. */
static void
post_exit(int code, Datum arg)
{
	HcPost	   *post = (HcPost *) DatumGetPointer(arg);

	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	if (post->pid == MyProcPid)
	{
		post->pid = 0;
		post->latch = NULL;
	}
	if (hc_shared->launcher_latch != NULL)
		SetLatch(hc_shared->launcher_latch);
	LWLockRelease(hc_shared->lock);
}

HcDatabase *
hc_role_take(HcRole role, Oid database)
{
	HcDatabase *db = hc_shmem_find(database);
	HcPost	   *post;

	if (db == NULL)
		return NULL;
	post = &db->posts[role];
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	if (db->database != database || post->pid != 0)
	{
		LWLockRelease(hc_shared->lock);
		return NULL;
	}
	post->pid = MyProcPid;
	post->latch = MyLatch;
	post->left = false;
	pg_atomic_write_u32(&post->recheck, 0);
	LWLockRelease(hc_shared->lock);
	if (hc_shmem_is_outdated())
		pg_atomic_write_u32(&post->recheck, 1);

	before_shmem_exit(post_exit, PointerGetDatum(post));
	return db;
}

void
hc_role_leave(HcDatabase *db, HcRole role, bool unfinished)
{
	if (unfinished)
		pg_atomic_write_u32(&db->posts[role].wanted, 1);
	LWLockAcquire(hc_shared->lock, LW_EXCLUSIVE);
	db->posts[role].left = true;
	LWLockRelease(hc_shared->lock);
}
