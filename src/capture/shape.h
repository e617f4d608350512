/*
 * shape.h
 *	  What the entries of a mapping look like: which mapping has an entry?
 */
#ifndef HC_SHAPE_H
#define HC_SHAPE_H

#include "capture/check.h"
#include "mapping/match.h"
#include "mapping/op.h"

typedef struct HcShape
{
	const char *type;			/* as in HcClaim */
	HcTemplate *key_template;	/* with hybrid_cache.key_prefix */
	HcTemplate *member_template;	/* NULL: the whole key */
	HcMatcher  *key;
	HcMatcher  *member;			/* NULL: the whole key */
} HcShape;

/* The shape of a claim; the types of its columns come from lookup. */
extern void hc_shape_make(HcShape *shape, const HcClaim *claim,
						  const char *prefix, HcTypeLookup lookup, void *arg);

/*
 * The shape of a living mapping, with the columns' present types.  false if its
 * templates do not parse.
 */
extern bool hc_shape_of_trigger(HcShape *shape, const HcTrigger *trigger);

/*
 * The shapes of all mappings of the database that write entries, but for one
 * (InvalidOid: of all), as a list of HcShape *.
 */
extern List *hc_shape_others(Oid mapping);

/*
 * Could a row have rendered this?  member is NULL for a whole key.  Where one
 * side is a whole key and the other a part of one, the keys decide.
 */
extern bool hc_shape_matches(const HcShape *shape, HcBytes key,
							 const HcBytes *member);

/* Can nothing but a row of the mapping have made what matches? */
extern bool hc_shape_is_certain(const HcShape *shape);

/* A mapping that could have an entry. */
typedef struct HcCandidate
{
	const HcTrigger *mapping;	/* its root */
	HcShape		shape;
} HcCandidate;

/*
 * The mappings of a table or partition, InvalidOid: of the database, as a list
 * of HcCandidate *.  Not those of events, which have no entries.
 */
extern List *hc_shape_candidates(Oid relid);

/* The removal of an entry. */
extern HcOpKind hc_shape_removal(const HcShape *shape);

/* Those of them that could have exactly this entry. */
extern List *hc_shape_having(const List *candidates, HcBytes key,
							 const HcBytes *member);

#endif							/* HC_SHAPE_H */
