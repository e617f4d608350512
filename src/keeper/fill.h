/*
 * fill.h
 *	  Filling in entries that readers have missed in Redis.
 *
 * A reader that found a row in its table but not in Redis asks for a fill, and
 * goes on.  The keeper then sends what the row is by that time, as it sends all
 * that it finds, so that no older value can come of it.
 */
#ifndef HC_FILL_H
#define HC_FILL_H

#include "datatype/timestamp.h"
#include "mapping/op.h"
#include "port/atomics.h"
#include "storage/spin.h"

struct HcDatabase;

/* So many keys can be waited for at a time, of this length at most. */
#define HC_FILL_REQUESTS	64
#define HC_FILL_KEY_SIZE	256

typedef enum HcFillState
{
	HC_FILL_FREE,
	HC_FILL_WAITING,			/* for the keeper */
	HC_FILL_TAKEN,				/* the keeper is at it */
	HC_FILL_DONE				/* at done_at; the place can be taken */
} HcFillState;

typedef struct HcFillRequest
{
	HcFillState state;
	Oid			mapping;
	uint64		hash;			/* of the key */
	TimestampTz done_at;
	uint16		len;
	char		key[HC_FILL_KEY_SIZE];
} HcFillRequest;

/* In shared memory: of a database. */
typedef struct HcFill
{
	pg_atomic_uint32 waiting;	/* requests that wait; written under mutex */
	slock_t		mutex;			/* guards the others */
	HcFillRequest requests[HC_FILL_REQUESTS];
} HcFill;

/* Makes it empty; gives what a keeper had taken, that is no more, to the next. */
extern void hc_fill_init(HcFill *fill);
extern void hc_fill_abandon(HcFill *fill);

/*
 * For readers: the mapping's key was not in Redis at the time of missed_at, and
 * there are rows that have it.  Asks for a fill, unless somebody has asked, or it
 * was filled since.  It is a wish: nothing happens if there are too many, or the
 * key is too long.  Raises nothing.
 */
extern void hc_fill_ask(Oid mapping, HcBytes key, TimestampTz missed_at);

/*
 * For the keeper: fills in what is waited for, outside of transactions.  To be
 * called between its other work and while it rests; costs nothing if nobody waits.
 * Errors do not get out, but those that end the process.
 */
extern void hc_keeper_serve(void);

/* Is somebody waiting? */
extern bool hc_fill_is_wanted(void);

#endif							/* HC_FILL_H */
