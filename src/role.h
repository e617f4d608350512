/*
 * role.h
 *	  The processes that a database has beside its sync worker, while there is
 *	  something for them to do: each has a role, and the database a post for it.
 *
 * The launcher starts one where it is wanted, the sync worker runs and Redis
 * answers.  When it fails, it is wanted still; when it finds nothing to do, it leaves.
 */
#ifndef HC_ROLE_H
#define HC_ROLE_H

#include "port/atomics.h"
#include "storage/latch.h"

struct HcDatabase;

typedef enum HcRole
{
	HC_ROLE_KEEPER,
	HC_ROLE_CONSUMER,
	HC_ROLE_BRIDGE
} HcRole;

#define HC_NUM_ROLES	(HC_ROLE_BRIDGE + 1)

/* In shared memory: a role in a database. */
typedef struct HcPost
{
	/* guarded by hc_shared->lock */
	pid_t		pid;			/* 0: no process has it */
	Latch	   *latch;
	bool		left;			/* the process ended on purpose */

	/* atomics */
	pg_atomic_uint32 wanted;	/* 1: there is something to do */
	pg_atomic_uint32 recheck;	/* 1: the process is to read its settings anew */
} HcPost;

/* The name of its main function, and what it is called. */
extern const char *hc_role_function(HcRole role);
extern const char *hc_role_name(HcRole role);

extern void hc_role_init(HcPost *post);

/*
 * There is something to do in MyDatabaseId: wakes the process, or has one started.
 * Called at commit, or when there is no transaction; raises nothing.
 */
extern void hc_role_call(HcRole role);

/* The same when the current transaction commits. */
extern void hc_role_call_at_commit(HcRole role);

/* Does a process of MyDatabaseId have that role? */
extern bool hc_role_is_taken(HcRole role);

/*
 * Gives this process the role until it exits; NULL if the database has no slot, or
 * another process still has the role.
 */
extern struct HcDatabase *hc_role_take(HcRole role, Oid database);

/*
 * It is about to leave on purpose: the launcher need not back off.  unfinished:
 * another one is to go on.
 */
extern void hc_role_leave(struct HcDatabase *db, HcRole role, bool unfinished);

/* Registers the transaction callback; called once, from _PG_init. */
extern void hc_role_register(void);

/* Wakes the processes of all roles.  Raises nothing. */
extern void hc_role_wake(struct HcDatabase *db);

#endif							/* HC_ROLE_H */
