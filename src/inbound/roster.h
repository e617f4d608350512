/*
 * roster.h
 *	  The table hybrid_cache.consumer.
 *
 * It is used with the rights of a superuser, whoever the current user is, and
 * whatever its search_path.  All functions need a transaction with an active
 * snapshot, and leave what they return in the current memory context.
 */
#ifndef HC_ROSTER_H
#define HC_ROSTER_H

#include "datatype/timestamp.h"
#include "inbound/message.h"
#include "nodes/pg_list.h"

/* A row of hybrid_cache.consumer. */
typedef struct HcConsumer
{
	int64		id;
	char	   *name;
	char	   *stream;			/* without hybrid_cache.key_prefix */
	char	   *handler;		/* as regprocedure reads it with an empty path */
	Oid			role;
	int			batch;
	int			max_attempts;
	bool		paused;
	bool		copied;			/* the row comes from another database ... */
	uint64		system;			/* ... namely this */
	Oid			database;
	HcMessageId position;		/* of the last message that is done */
	bool		has_digest;
	int64		digest;			/* ... and hc_message_digest() of it */
	int64		processed;
	int64		dead;
	int			attempts;		/* that the next message has failed */
	char	   *error;			/* NULL: the last attempt succeeded */
	char	   *sqlstate;
	TimestampTz error_at;
} HcConsumer;

/*
 * For background processes: a transaction with a snapshot.  end() commits, and
 * returns to a memory context.
 */
extern void hc_roster_begin(void);
extern void hc_roster_end(MemoryContext context);

/*
 * All consumers by name; or one, locked until the transaction ends, which waits for
 * a batch of it; NULL if there is none of that name.
 */
extern List *hc_roster_read(void);
extern HcConsumer *hc_roster_find(const char *name);

/* Runs it here? */
extern bool hc_roster_is_active(const HcConsumer *consumer);

/* Is there anything to do for a consumer process? */
extern bool hc_roster_has_work(void);

/*
 * The database that this one was before pg_upgrade, if there are consumers of it;
 * and makes them this one's.
 */
extern bool hc_roster_former(uint64 *system, Oid *database);
extern void hc_roster_adopt(uint64 system, Oid database);

/*
 * Adds it, or with an id changes it.  What the row says of errors is forgotten.
 */
extern void hc_roster_write(const HcConsumer *consumer);

/* Pauses, or lets it run here; removes it. */
extern void hc_roster_pause(int64 id, bool paused);
extern void hc_roster_drop(int64 id);

/*
 * Locks the row until the transaction ends; false if somebody else has it locked, or
 * if it does not say any more that this consumer is to go on at its position.
 */
extern bool hc_roster_lock(const HcConsumer *consumer);

/* n more messages are done, or were put aside, up to this position. */
extern void hc_roster_advance(int64 id, HcMessageId position,
							  const int64 *digest, int64 processed, int64 dead);

/* What has gone wrong; error NULL: nothing any more.  Not if the row is locked. */
extern void hc_roster_note(int64 id, int attempts, const char *sqlstate,
						   const char *error);

#endif							/* HC_ROSTER_H */
