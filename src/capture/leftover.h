/*
 * leftover.h
 *	  The table hybrid_cache.leftover: dropped mappings whose entries are still
 *	  in Redis, and which of them are being purged.
 */
#ifndef HC_LEFTOVER_H
#define HC_LEFTOVER_H

#include "capture/catalog.h"
#include "capture/shape.h"
#include "utils/jsonb.h"

/* A dropped mapping.  Everything is as text: the objects may be gone. */
typedef struct HcLeftover
{
	int64		id;
	char	   *relation;		/* its table, quoted and qualified */
	char	   *mapping;		/* its name */
	char	   *kind;
	char	   *key;			/* template */
	char	   *member;			/* template of member or field; NULL if none */
	char	   *prefix;			/* hybrid_cache.key_prefix when it was dropped */
	Jsonb	   *types;			/* of the templates' columns, by their names */
	bool		asked;			/* this database is to remove the entries ... */
	bool		force;			/* ... and all that looks like them */
	ItemPointerData tid;
} HcLeftover;

/*
 * Records that the mapping is gone and its entries stay; purge: until the keeper
 * has removed them.  Returns the id for hybrid_cache.purge(), or 0 where the
 * table does not exist (any more).  The relation must still exist.
 */
extern int64 hc_leftover_record(const HcTrigger *trigger, bool purge);

/* NULL if there is no such leftover. */
extern HcLeftover *hc_leftover_get(int64 id);

/*
 * Those whose entries this database is to remove: a list of HcLeftover *.  Waits
 * for no lock; while somebody keeps the table locked there are none.  What a
 * dump or a copy of the database brought along is none of them: it may be the
 * other database that goes on with it.
 */
extern List *hc_leftover_asked(void);

/*
 * Notes that the entries are to be removed, or that it is over, after which
 * so many entries remain that look like them.  false if another transaction has
 * just changed or deleted it.
 */
extern bool hc_leftover_ask(HcLeftover *leftover, bool force);
extern bool hc_leftover_give_up(HcLeftover *leftover, int64 remaining);

/* false if another transaction has just done it. */
extern bool hc_leftover_delete(const HcLeftover *leftover);

/* The table that has its name, and perhaps its rows; InvalidOid: there is none. */
extern Oid	hc_leftover_table(const HcLeftover *leftover);

/*
 * Called before a table is dropped: if it is hybrid_cache.leftover, warns of what
 * is not removed yet.
 */
extern void hc_leftover_warn(Oid relid);

/* What the entries look like; false if the templates do not parse. */
extern bool hc_leftover_shape(HcLeftover *leftover, HcShape *shape);

/*
 * The mapping to which the entries belong now, since it writes with the same
 * templates; NULL if there is none.
 */
extern HcTrigger *hc_leftover_heir(const HcLeftover *leftover);

#endif							/* HC_LEFTOVER_H */
