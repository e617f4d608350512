/*
 * check.h
 *	  What must hold for a trigger to be a mapping.
 */
#ifndef HC_CHECK_H
#define HC_CHECK_H

#include "capture/catalog.h"

/*
 * Can the current user make a mapping on this relation?  Raises 42809 (not a
 * table), 0A000 (temporary), 42501 (not its owner), 42P01 (no such relation).
 */
extern void hc_check_relation(Oid relid);

/*
 * The mapping of that name on a relation that hc_check_relation() has let pass.
 * Raises 42704 if there is none, 55000 if it is a partition's part of one: then
 * hint says what to do, NULL: to name the partitioned table.
 */
extern HcTrigger *hc_check_mapping(Oid relid, const char *name, const char *hint);

/*
 * Is the trigger a row trigger that sees every change, or the TRUNCATE trigger
 * beside one?  For events: is it any row trigger AFTER the changes that have
 * events?  Raises 42P17.
 */
extern void hc_check_shape(const HcTrigger *trigger);

/*
 * Is the definition right for the relation?  Raises what hc_options_parse() and
 * hc_mapping_compile() raise.  Records that the trigger depends on the columns,
 * functions and types that the definition names, so that PostgreSQL itself
 * refuses to drop or retype them.
 */
extern void hc_check_definition(const HcTrigger *trigger);

/*
 * Raises 42710 if another mapping's entries could be the same.  From here to
 * the end of the transaction nobody else can add a mapping to the database.
 */
extern void hc_check_conflicts(const HcTrigger *trigger);

/* The lock that hc_check_conflicts() takes, until the end of the transaction. */
extern void hc_check_lock(void);

/*
 * Instead of a type of Redis: a mapping of timers has entries beside the key, and
 * the stream at the key is not its own.
 */
#define HC_TYPE_TIMER	"timer"

/* What a mapping takes up in Redis. */
typedef struct HcClaim
{
	const char *type;			/* Redis's name of the key's type; NULL: any */
	HcTemplate *key;
	HcTemplate *member;			/* NULL: the whole key */
	bool		event;			/* it adds to what is there */
} HcClaim;

/*
 * The claim of a definition given as text; member may be NULL.  false if the
 * templates do not parse.
 */
extern bool hc_check_claim(HcClaim *claim, const char *kind, const char *key,
						   const char *member);

/* The same for a trigger. */
extern bool hc_check_trigger_claim(HcClaim *claim, const HcTrigger *trigger);

/* Can both claims be to the same entry? */
extern bool hc_check_overlap(const HcClaim *a, const HcClaim *b);

#endif							/* HC_CHECK_H */
