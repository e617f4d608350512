/*
 * ledger.h
 *	  What has to be remembered about mappings: the table hybrid_cache.owed (a
 *	  reconcile is owed, and why).
 */
#ifndef HC_LEDGER_H
#define HC_LEDGER_H

#include "capture/catalog.h"
#include "utils/relcache.h"

/*
 * The reason of a mapping that was not populated yet, or is to be again: its
 * entries are written also where an absent one is right.
 */
#define HC_OWED_POPULATE	"not populated"

/*
 * These are shown, but nothing is done about them by itself: the mapping's maker
 * did not want it populated; somebody has cancelled what was owed, and then the
 * reason follows.
 */
#define HC_OWED_UNPOPULATED	"not populated, as asked for"
#define HC_OWED_CANCELLED	"cancelled: "

/*
 * A table or sequence of the extension; InvalidOid if it does not exist
 * (any more).
 */
extern Oid	hc_ledger_oid(const char *name);

/* The same table, opened; NULL if it does not exist (any more). */
extern Relation hc_ledger_open(const char *name, LOCKMODE lockmode);

/* The keeper is to look what there is to do, when this transaction commits. */
extern void hc_ledger_call(void);

/*
 * For sessions that keep what follows from the table hybrid_cache.owed and from
 * which mappings there are: whenever one of them changes, the relation cache's
 * entry of that table is invalidated.  This tells of the latter.
 */
extern void hc_ledger_changed(void);

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
 * Nothing is to be done any more about what is owed now, though it stays owed.
 * false if nothing was to be done.
 */
extern bool hc_owed_cancel(Oid mapping);

/* Does it owe what nobody wants to be done? */
extern bool hc_owed_is_declined(Oid mapping);

/*
 * The mappings for which the keeper can do something now (a list of Oid): what
 * they owe is not known to be wanted, and they fire or are gone.  Waits for no
 * lock; while somebody keeps the table locked there is nothing to do.
 */
extern List *hc_owed_work(void);

/*
 * The keeper begins with a mapping, and, after it has called take() and its
 * transaction has committed, waits for those who may have found that the same
 * was owed already and so did not add it.  take() is false if all that there is was
 * taken before.  settle() forgets what there was at
 * take(), not what came since.
 */
extern bool hc_owed_take(Oid mapping);
extern void hc_owed_wait(void);
extern void hc_owed_settle(Oid mapping);

/* Has the keeper begun with it? */
extern bool hc_owed_is_taken(Oid mapping);

/*
 * Why a reconcile is owed, also by this command: a list of distinct char *, NIL
 * if none is.
 */
extern List *hc_owed_reasons(Oid mapping);

#endif							/* HC_LEDGER_H */
