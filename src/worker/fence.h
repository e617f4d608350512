/*
 * fence.h
 *	  Who may write into a Redis server for this database: one connection of one
 *	  copy of it.
 */
#ifndef HC_FENCE_H
#define HC_FENCE_H

#include "lib/stringinfo.h"
#include "redis/connection.h"

/* Without a sign for this long, another copy of the database may take over. */
#define HC_LEASE_MS			10000

#define HC_FENCE_TEXT_SIZE	128

typedef struct HcFence
{
	char		key[HC_FENCE_TEXT_SIZE];
	char		lease_key[HC_FENCE_TEXT_SIZE];
	char		incarnation[HC_FENCE_TEXT_SIZE];	/* value of the lease */
	char		token[HC_FENCE_TEXT_SIZE];	/* value of the fence; empty: not taken */
	TimestampTz renew_at;		/* the lease is due then */
	bool		lapsed;			/* the lease has to be set anew */
} HcFence;

typedef enum HcFenceState
{
	HC_FENCE_OURS,
	HC_FENCE_GONE,				/* Redis lost it, or somebody withdrew it */
	HC_FENCE_TAKEN				/* somebody else has taken it */
} HcFenceState;

/* For the current database; not taken. */
extern void hc_fence_init(HcFence *fence);

/* The key of the lease of any database; buf has HC_FENCE_TEXT_SIZE bytes. */
extern void hc_fence_lease_key(uint64 system, Oid database, char *buf);

/* The same for its fence. */
extern void hc_fence_key(uint64 system, Oid database, char *buf);

/*
 * What tells this copy of the database from others: the same after a restart
 * of the server in the same data directory.  buf has HC_FENCE_TEXT_SIZE bytes.
 */
extern void hc_fence_incarnation(char *buf);

/*
 * Makes this connection the only one that can write.  What others have sent
 * before and what still arrives of it has no effect from then on.  Raises 55006
 * if another copy of the database is alive; then nothing was changed.
 */
extern void hc_fence_take(HcFence *fence, HcConnection *conn);

/*
 * What follows EXEC, so that the next MULTI is protected again: two commands.
 * The reply to the second goes to hc_fence_check().
 */
#define HC_FENCE_GUARDS		2
extern void hc_fence_append_guards(HcFence *fence, StringInfo wire);
extern HcFenceState hc_fence_check(HcFence *fence, const redisReply *reply);

/* Is it time to renew the lease? */
extern bool hc_fence_is_due(HcFence *fence);

/* One command that renews it, for a MULTI; its reply in that of EXEC. */
extern void hc_fence_append_renewal(HcFence *fence, StringInfo wire);
extern void hc_fence_renewed(HcFence *fence, const redisReply *reply);

/*
 * Runs commands (in RESP) as a MULTI and returns what EXEC replied, an array of
 * n_commands.  Raises 55006 if this is not allowed any more, and for an error
 * reply of a command what it is about.
 */
extern redisReply *hc_fence_run(HcFence *fence, HcConnection *conn,
								const StringInfo wire, int n_commands);

/* The same, but NULL if a key that was watched besides the fence has changed. */
extern redisReply *hc_fence_try(HcFence *fence, HcConnection *conn,
								const StringInfo wire, int n_commands);

/*
 * The same as run, for what may be refused without harm: error replies of commands
 * are the caller's to look at, and if Redis refuses the whole, the result is NULL
 * and *refusal what it says.
 */
extern redisReply *hc_fence_ask(HcFence *fence, HcConnection *conn,
								const StringInfo wire, int n_commands,
								const char **refusal);

/*
 * The last words on a connection: commands (in RESP) that run as a MULTI, if
 * that is still allowed; NULL: gives up the lease.  Raises nothing, waits only a
 * moment.  The connection can only be closed afterwards.
 */
extern void hc_fence_leave(HcFence *fence, HcConnection *conn,
						   const StringInfo wire);

/* Raises what hc_fence_check() found, unless it is ours. */
extern void hc_fence_require(HcFenceState state, HcConnection *conn);

#endif							/* HC_FENCE_H */
