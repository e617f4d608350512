/*
 * owner.h
 *	  Which database may write which keys of a Redis server that several share.
 */
#ifndef HC_OWNER_H
#define HC_OWNER_H

#include "capture/catalog.h"
#include "mapping/match.h"
#include "redis/connection.h"
#include "worker/fence.h"

/*
 * A hash in Redis: its fields are key templates, with the prefix and without the
 * names of columns, and their values say to which database they belong.
 */
#define HC_OWNER_KEY		"hybrid_cache:owner"
#define HC_OWNER_TEXT_SIZE	64

/*
 * A mapping, or a dropped one that is being purged, and the field that its key
 * template is, in UTF-8.
 */
typedef struct HcOwned
{
	Oid			mapping;		/* InvalidOid: it is dropped */
	char	   *name;			/* of the mapping */
	char	   *table;
	char	   *field;
	HcMatcher  *matcher;		/* of its keys */
} HcOwned;

/*
 * The mappings of this database that write entries, and those whose entries it is
 * to remove: a list of HcOwned *.
 */
extern List *hc_owner_mappings(void);

/* The field of a template with its prefix; palloc'd.  Needs a transaction. */
extern char *hc_owner_field(const HcTemplate *tmpl);

/*
 * Does the field belong to another database, and to which?  Asks Redis; raises
 * what that raises.
 */
extern bool hc_owner_is_other(HcConnection *conn, const char *field,
							  uint64 *system, Oid *database);

/* The value for a database; buf has HC_OWNER_TEXT_SIZE bytes. */
extern void hc_owner_format(uint64 system, Oid database, char *buf);

/* false for what hc_owner_format() cannot have written. */
extern bool hc_owner_parse(const char *text, size_t len, uint64 *system,
						   Oid *database);

/* For messages: who that is. */
extern char *hc_owner_describe(uint64 system, Oid database);

/*
 * For the sync worker, with the fence taken and nothing in flight: makes the key
 * templates of this database its own, as far as they do not belong to another
 * one, and gives up those that it does not map any more.  Mappings that may not
 * be written owe a reconcile then, with the reason HC_OWED_FOREIGN.  Opens
 * transactions of its own.  Raises what hc_fence_run() raises.
 */
extern void hc_owner_refresh(HcFence *fence, HcConnection *conn);

/* Is there a mapping that may not be written? */
extern bool hc_owner_any_foreign;

/* Is it the key of such a mapping? */
extern bool hc_owner_is_foreign(HcBytes key);

#endif							/* HC_OWNER_H */
