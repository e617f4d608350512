/*
 * readable.h
 *	  A mapping whose entries hybrid_cache.get() reads, kept by the session.
 */
#ifndef HC_READABLE_H
#define HC_READABLE_H

#include "access/tupdesc.h"
#include "executor/spi.h"
#include "mapping/mapping.h"
#include "mapping/match.h"

/* A column of the key template. */
typedef struct HcReadableKey
{
	char	   *name;
	AttrNumber	attnum;
	Oid			type;			/* below domains */
	int32		typmod;
	Oid			collation;
	Oid			equality;		/* operator; InvalidOid: the type has none */
} HcReadableKey;

typedef struct HcReadable
{
	Oid			trigger;
	HcMapping  *mapping;
	TupleDesc	desc;			/* of the table */
	bool		partitioned;
	Bitmapset  *attrs;			/* columns that the mapping reads */
	bool		shared;			/* rows share a key */
	HcMatcher  *members;		/* of the mapping in a shared key; else NULL */
	int			n_keys;
	HcReadableKey *keys;		/* in the order of get()'s arguments */
	SPIPlanPtr	plan;			/* the query for the rows of a key, or NULL */
} HcReadable;

/*
 * The mapping of that name of a table, which the caller has locked and opened.
 * Stays as it is until context is reset.  Raises 42704 if there is no such
 * mapping, 42809 if it has no values to read or belongs to a parent of the table.
 */
extern HcReadable *hc_readable_get(Relation rel, const char *name,
								   MemoryContext context);

/* Is it still what hc_readable_get() would return? */
extern bool hc_readable_is_valid(const HcReadable *readable);

/*
 * Can Redis be asked for the key?  Not where it may hold something that no row
 * of the mapping has, or only some of the rows.
 */
extern bool hc_readable_is_trusted(HcReadable *readable, HcBytes key);

/* Registers the invalidation callbacks; called once, from _PG_init. */
extern void hc_readable_init(void);

#endif							/* HC_READABLE_H */
