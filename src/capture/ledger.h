/*
 * ledger.h
 *	  What has to be remembered about mappings: the tables hybrid_cache.owed
 *	  (a reconcile is owed, and why) and hybrid_cache.leftover (the entries of a
 *	  dropped mapping are still in Redis).
 */
#ifndef HC_LEDGER_H
#define HC_LEDGER_H

#include "capture/catalog.h"
#include "utils/jsonb.h"

/* The reason of a mapping whose maker did not want it populated. */
#define HC_OWED_UNPOPULATED	"not populated, as asked for"

/*
 * A table or sequence of the extension; InvalidOid if it does not exist
 * (any more).
 */
extern Oid	hc_ledger_oid(const char *name);

/*
 * Remembers, with the current transaction, that the mapping has to be compared
 * with its table.  mapping is the root trigger's oid.  A reason that is known
 * already is not added.  Nothing happens where the extension is not installed.
 */
extern void hc_owed_mark(Oid mapping, const char *reason);

/* The same for every mapping of the database. */
extern void hc_owed_all(const char *reason);

/*
 * The reason that stands for: Redis has this mapping's key template from another
 * database, and nothing is written until that is over.
 */
#define HC_OWED_FOREIGN		"owned by another database"

/* This reason does not hold any more. */
extern void hc_owed_withdraw(Oid mapping, const char *reason);

/* Nothing is owed any more. */
extern void hc_owed_clear(Oid mapping);

/*
 * The mappings for which the keeper can do something now (a list of Oid): what
 * they owe is not known to be wanted, and they fire or are gone.  Waits for no
 * lock; while somebody keeps the table locked there is nothing to do.
 */
extern List *hc_owed_work(void);

/*
 * The keeper begins with a mapping, and, after it has called take() and its
 * transaction has committed, waits for those who may have found that the same
 * was owed already and so did not add it.  settle() forgets what there was at
 * take(), not what came since.
 */
extern void hc_owed_take(Oid mapping);
extern void hc_owed_wait(void);
extern void hc_owed_settle(Oid mapping);

/* Has the keeper begun with it? */
extern bool hc_owed_is_taken(Oid mapping);

/*
 * Why a reconcile is owed, also by this command: a list of distinct char *, NIL
 * if none is.
 */
extern List *hc_owed_reasons(Oid mapping);

/* A dropped mapping.  Everything is as text: the objects may be gone. */
typedef struct HcLeftover
{
	int64		id;
	char	   *kind;
	char	   *key;			/* template */
	char	   *member;			/* template of member or field; NULL if none */
	char	   *prefix;			/* hybrid_cache.key_prefix when it was dropped */
	Jsonb	   *types;			/* of the templates' columns, by their names */
	ItemPointerData tid;
} HcLeftover;

/*
 * Records that the mapping is gone and its entries stay.  Returns the id for
 * purge(), or 0 where the table does not exist (any more).  The relation must
 * still exist.
 */
extern int64 hc_leftover_record(const HcTrigger *trigger);

/* NULL if there is no such leftover. */
extern HcLeftover *hc_leftover_get(int64 id);

/* The type of a column of the templates, as format_type() wrote it, or NULL. */
extern const char *hc_leftover_type(const HcLeftover *leftover, const char *column);

/* false if another transaction has just done it. */
extern bool hc_leftover_delete(const HcLeftover *leftover);

/* Registers the transaction callback; called once, from _PG_init. */
extern void hc_ledger_init(void);

#endif							/* HC_LEDGER_H */
