/*
 * mapping.h
 *	  A mapping: what the rows of one table become in Redis.
 *
 * A mapping is a trigger; the trigger's arguments are its whole definition.
 * hc_mapping_compile() turns them into an HcMapping for one relation (each
 * partition has its own, since column numbers differ).
 */
#ifndef HC_MAPPING_H
#define HC_MAPPING_H

#include "mapping/op.h"
#include "mapping/template.h"
#include "nodes/bitmapset.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"

typedef enum HcKind
{
	HC_KIND_STRING,
	HC_KIND_JSON,
	HC_KIND_HASH,
	HC_KIND_FIELD,
	HC_KIND_GEO,
	HC_KIND_ZSET,
	HC_KIND_SET,
	HC_KIND_TIMER,
	HC_KIND_INVALIDATE,
	HC_KIND_STREAM,
	HC_KIND_PUBLISH,
	HC_KIND_LIST
} HcKind;

/* The trigger functions of the extension. */
typedef enum HcFunction
{
	HC_FUNCTION_WRITE_THROUGH,
	HC_FUNCTION_INVALIDATE,
	HC_FUNCTION_EMIT
} HcFunction;

typedef enum HcOptionName
{
	HC_OPTION_KEY,
	HC_OPTION_MEMBER,
	HC_OPTION_FIELD,
	HC_OPTION_VALUE,
	HC_OPTION_COLUMNS,
	HC_OPTION_EXCLUDE,
	HC_OPTION_SCORE,
	HC_OPTION_LONGITUDE,
	HC_OPTION_LATITUDE,
	HC_OPTION_FILTER,
	HC_OPTION_TTL,
	HC_OPTION_EXPIRES_AT,
	HC_OPTION_ORPHANS,
	HC_OPTION_MISSING,
	HC_OPTION_SINCE,
	HC_OPTION_IDENTITY,
	HC_OPTION_CHANNEL,
	HC_OPTION_MAXLEN,
	HC_OPTION_PUSH,
	HC_OPTION_OPERATIONS,
	HC_NUM_OPTIONS
} HcOptionName;

/* A trigger's arguments, sorted out but not looked at. */
typedef struct HcOptions
{
	HcKind		kind;
	const char *values[HC_NUM_OPTIONS]; /* NULL: not given */
	int16		operations;		/* events: TRIGGER_TYPE_INSERT, _UPDATE, _DELETE */
	int64		maxlen;			/* stream: 0, or about how long it may be */
} HcOptions;

/* How a column or expression becomes bytes; see value.h. */
typedef struct HcExpression HcExpression;

typedef struct HcMapping
{
	Oid			relid;
	Oid			owner;			/* of the relation: expressions run as it */
	char	   *name;			/* of the trigger */
	HcOptions	options;

	HcTemplate *key;			/* publish: of the channel */
	List	   *key_values;		/* HcExpression * per column part of key */
	HcTemplate *member;			/* member or field; NULL if the kind has none */
	List	   *member_values;
	HcExpression *filter;		/* NULL: every row */
	HcExpression *value;		/* string, field; events: instead of the payload */
	HcExpression *x;			/* score or longitude */
	HcExpression *y;			/* latitude */
	HcExpression *expires_at;	/* also of a timer */
	int64		ttl;			/* ms; 0: none */
	AttrNumber	since;			/* the column, which is a time; 0: none */
	List	   *columns;		/* HcExpression * with names: json, hash, events
								 * without value= */

	Bitmapset  *identity_attrs; /* attnums that decide which entry there is */
	Bitmapset  *value_attrs;	/* attnums that decide what it holds */
	Bitmapset  *named_attrs;	/* attnums that the definition names */
	bool		whole_row;		/* columns= could be given and is not */
	bool		pinned;			/* rendering must pin the session's settings */
} HcMapping;

extern const char *hc_kind_name(HcKind kind);

/* The trigger function for a kind; unknown kinds: write_through. */
extern HcFunction hc_kind_function(const char *kind);

/* Is it a kind of emit: something that happens, not an entry? */
extern bool hc_kind_is_event(HcKind kind);

extern const char *hc_function_name(HcFunction function);
extern const char *hc_option_name(HcOptionName option);

/*
 * Sorts out the arguments of a trigger: args[0] is the kind (not of
 * invalidate), the others "option=value".  Raises 22023 for an unknown kind, an
 * unknown, repeated, missing or misplaced option.
 */
extern void hc_options_parse(HcFunction function, int nargs,
							 char *const *args, HcOptions *options);

/*
 * Compiles a mapping, allocating in the current context.  Raises for anything
 * that is wrong with it: 22023 (an option), 42703 (a column), 42P17 (an
 * expression that could not be kept equal), 42804 (its type), syntax errors.
 * The caller holds a lock on rel.  Runs no user-defined code.
 */
extern HcMapping *hc_mapping_compile(Relation rel, const char *name,
									 const HcOptions *options);

/*
 * The index that identity= names, whose columns tell rows apart; InvalidOid if
 * there is no such option.  Raises 22023 if it cannot do that.  For the relation
 * where the mapping was made: partitions have indexes of other names.  It does
 * not matter for capture, so a change of the index must not stop writes.
 */
extern Oid	hc_mapping_identity(Relation rel, const HcOptions *options);

/*
 * The mapping of a trigger that is firing, compiled once per process and kept
 * until something it depends on changes.  It stays valid until context is
 * reset.
 */
extern HcMapping *hc_mapping_get(Relation rel, const Trigger *trigger,
								 HcFunction function, MemoryContext context);

/* Registers the cache's invalidation callbacks; called once, from _PG_init. */
extern void hc_mapping_init(void);

#endif							/* HC_MAPPING_H */
