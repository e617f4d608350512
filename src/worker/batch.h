/*
 * batch.h
 *	  Ops that go to Redis together, one per entry.
 */
#ifndef HC_BATCH_H
#define HC_BATCH_H

#include "mapping/op.h"
#include "nodes/pg_list.h"
#include "worker/watermark.h"

/* A command, and the ops that it carries: order[first] ... */
typedef struct HcCommand
{
	int			first;
	int			n_ops;
} HcCommand;

/* An op, for this folder only. */
typedef struct HcSlot
{
	XLogRecPtr	lsn;			/* its transaction's commit_lsn */
	uint32		hash;			/* of the entry */
	uint32		key_hash;
	uint32		txn;
	HcOpKind	kind;
	bool		dead;
	bool		expires;		/* SET: arguments contain PXAT */
	bool		trimmed;		/* XADD: arguments contain MAXLEN */
	HcVersion	version;
	size_t		start;			/* in text: the key as a bulk string ... */
	size_t		args;			/* ... the arguments behind it ... */
	size_t		end;			/* ... and their end */
	size_t		key;			/* in text: the bytes of the key */
	size_t		key_len;
	size_t		member;			/* in text: the bytes of the member */
	size_t		member_len;
	int			n_args;
	int			next;			/* the next member op of the same key, or -1 */
	int			older;			/* what holds for the entry without this op: an
								 * op, or -1 */
	bool		over;			/* set: if it is taken back, and no set of the
								 * transaction is left, the entry has to go ... */
	ItemPointerData origin;		/* ... since this version has ended */
	int64		expires_at;		/* HASH */
	bool		kept;			/* TIMER, see op.h */
	double		due;			/* TIMER */
} HcSlot;

/* An op that Redis refused for good. */
typedef struct HcRefusal
{
	int			slot;
	const char *message;		/* what Redis said */
} HcRefusal;

/* A key, for batch.c and wire.c only. */
typedef struct HcKeyEntry
{
	int			slot;			/* any op of the key, for its bytes */
	int			whole;			/* the last whole-key op, or -1 */
	int			first;			/* member ops, dead ones included, or -1 */
	int			last;
	uint32		kinds;			/* bits of HcOpKind among them */
} HcKeyEntry;

/*
 * Ops that are put together, and then the events that come with them; for
 * batch.c and wire.c only.
 */
typedef struct HcSegment
{
	int			first_key;		/* in key_entries, up to the next segment's */
	int			first_event;	/* in events, likewise */
} HcSegment;

typedef struct HcBatch
{
	MemoryContext context;		/* of all below; reset with the batch */

	/* for the caller */
	HcWatermark mark;			/* holds once the batch is applied */
	int			n_transactions; /* that end in this batch */
	int			n_ops;			/* added */
	bool		open;			/* a transaction has begun and not ended in it */
	bool		single;			/* compile each op into commands of its own */
	XLogRecPtr	commit_lsn;		/* of the transaction whose ops come next */
	double		first_due;		/* of its timers, at the earliest */

	/* what was added */
	StringInfoData text;		/* keys and arguments in RESP */
	HcSlot	   *slots;
	int			n_slots;
	int			max_slots;
	uint32		txn;			/* number of the current transaction */
	struct members_hash *members;
	struct keys_hash *keys;
	HcKeyEntry *key_entries;
	int			n_keys;
	int			max_keys;
	int			last_key;		/* the key of the op before, or -1 */
	int		   *events;			/* slots, in the order they came */
	int			n_events;
	int			max_events;
	HcSegment  *segments;
	int			n_segments;		/* one at least */
	int			max_segments;
	bool		has_command;	/* the last segment has an HC_OP_COMMAND */

	/* made by hc_wire_compile() */
	StringInfoData wire;		/* the commands in RESP */
	HcCommand  *commands;
	int			n_commands;
	int			max_commands;
	int		   *order;			/* slots */
	int			n_order;

	/* for letter.c */
	HcRefusal  *refusals;
	int			n_refusals;
	int			max_refusals;
	const char *refusal_text;	/* of the last one */
	uint64		n_unkept;		/* more refusals than can be kept */
} HcBatch;

/* The longest string that the Redis server at hand takes. */
extern size_t hc_batch_longest;

/* An empty batch, with a memory context below the current one. */
extern HcBatch *hc_batch_create(void);
extern void hc_batch_reset(HcBatch *batch);

/*
 * The ops that follow belong to another transaction.  They come together with
 * those before, unless there is an HC_OP_COMMAND among these, which may have to
 * do with what is in an entry.
 */
extern void hc_batch_next_transaction(HcBatch *batch);

/*
 * Adds an op, which is copied.  It replaces what it makes void.  Events come
 * after all that is no event, and in their order.  Where the value
 * is longer than hc_batch_longest, the entry is removed instead, since what it
 * holds is not true any more, and the op is refused.  So is an event.
 */
extern void hc_batch_add(HcBatch *batch, const HcOp *op);

/*
 * The entry that an op is about; false if the op does not count any more, or is
 * an event.
 */
extern bool hc_batch_entry(HcBatch *batch, int slot, HcOpKind *kind,
						   HcBytes *key, HcBytes *member);

/* Takes an op out; false if it was out already. */
extern bool hc_batch_remove(HcBatch *batch, int slot);

/* Is there an event that was not taken out? */
extern bool hc_batch_has_events(const HcBatch *batch);

/* The key of an op, for messages: palloc'd, cut if long. */
extern char *hc_batch_key(HcBatch *batch, int slot);

#endif							/* HC_BATCH_H */
