/*
 * purge.c
 *	  hybrid_cache.purge(): the entries that a dropped mapping left in Redis.
 *
 * Redis is searched by the session (worker/search.h), with the types that the
 * columns had, but nothing is removed from here: the removals become ops of this
 * transaction, since the sync worker is the only writer of entries and keeps
 * them in order with everything else.  What a living mapping could have written
 * is left alone.
 */
#include "postgres.h"

#include "capture/buffer.h"
#include "capture/ledger.h"
#include "capture/shape.h"
#include "fmgr.h"
#include "funcapi.h"
#include "functions/session.h"
#include "functions/status.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/search.h"

#define NATTS		2

PG_FUNCTION_INFO_V1(hybrid_cache_purge);

typedef struct Found
{
	HcBytes		key;
	HcBytes		member;			/* data is NULL for a whole key */
} Found;

typedef struct Search
{
	HcShape		shape;
	MemoryContext context;		/* of the results */
	Found	   *found;
	int			n_found;
	int			max_found;
} Search;

static const char *
leftover_type(const char *column, void *arg)
{
	return hc_leftover_type(arg, column);
}

/*
 * The shapes of the living mappings that write into Redis.  Raises if one of
 * them has the leftover's entries.
 */
static List *
live_shapes(const HcLeftover *leftover, const HcClaim *claim)
{
	List	   *shapes = NIL;
	ListCell   *lc;

	foreach(lc, hc_catalog_database())
	{
		HcTrigger  *trigger = lfirst(lc);
		HcClaim		live;
		HcShape    *shape;

		if (!hc_check_trigger_claim(&live, trigger) || live.type == NULL)
			continue;
		if (strcmp(leftover->prefix, hc_key_prefix) == 0 &&
			hc_check_overlap(claim, &live))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the entries of leftover %lld now belong to mapping \"%s\" of table \"%s\"",
							(long long) leftover->id, trigger->name,
							get_rel_name(trigger->relid)),
					 errdetail("Their key templates are \"%s\" and \"%s\".",
							   leftover->key,
							   hc_catalog_option(trigger, HC_OPTION_KEY)),
					 errhint("To forget the leftover: DELETE FROM hybrid_cache.leftover WHERE id = %lld.",
							 (long long) leftover->id)));
		shape = palloc(sizeof(HcShape));
		if (hc_shape_of_trigger(shape, trigger))
			shapes = lappend(shapes, shape);
	}
	return shapes;
}

/* Keeps what was found, but for what cannot be shown as text. */
static void
keep(HcBytes key, const HcBytes *member, void *arg)
{
	Search	   *search = arg;
	MemoryContext old;

	if (hc_bytes_text(key) == NULL ||
		(member != NULL && hc_bytes_text(*member) == NULL))
		return;

	old = MemoryContextSwitchTo(search->context);
	if (search->n_found == search->max_found)
	{
		search->max_found = Max(1024, search->max_found * 2);
		search->found = search->found == NULL
			? palloc(search->max_found * sizeof(Found))
			: repalloc_huge(search->found, search->max_found * sizeof(Found));
	}
	search->found[search->n_found].key = hc_bytes_copy(search->context, key);
	search->found[search->n_found].member.data = NULL;
	search->found[search->n_found].member.len = 0;
	if (member != NULL)
		search->found[search->n_found].member = hc_bytes_copy(search->context, *member);
	search->n_found++;
	MemoryContextSwitchTo(old);
}

static const redisReply *
ask(int argc, const char *const *argv, const size_t *argvlen, void *arg)
{
	HcArguments args;
	int			i;

	hc_arguments_begin(&args, argv[0]);
	for (i = 1; i < argc; i++)
		hc_arguments_add(&args, argv[i], argvlen[i]);
	return hc_session_command(&args);
}

static int
compare_bytes(HcBytes a, HcBytes b)
{
	int			result = memcmp(a.data, b.data, Min(a.len, b.len));

	if (result != 0)
		return result;
	return a.len < b.len ? -1 : a.len > b.len ? 1 : 0;
}

static int
compare_found(const void *a, const void *b)
{
	const Found *found_a = a;
	const Found *found_b = b;
	int			result = compare_bytes(found_a->key, found_b->key);

	if (result != 0 || found_a->member.data == NULL)
		return result;
	return compare_bytes(found_a->member, found_b->member);
}

/* Removes with this transaction. */
static void
capture_removals(const Search *search)
{
	int			i;

	for (i = 0; i < search->n_found; i++)
	{
		HcOp		op = {.kind = hc_shape_removal(&search->shape)};

		/* no row version: such a removal always counts */
		op.version.relation = InvalidOid;
		op.key = search->found[i].key;
		if (hc_op_has_member(op.kind))
			op.member = search->found[i].member;
		hc_buffer_append(&op);
	}
}

static void
return_found(FunctionCallInfo fcinfo, Search *search)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	for (i = 0; i < search->n_found; i++)
	{
		Datum		values[NATTS] = {0};
		bool		nulls[NATTS] = {false, true};

		CHECK_FOR_INTERRUPTS();
		values[0] = PointerGetDatum(hc_bytes_text(search->found[i].key));
		if (search->found[i].member.data != NULL)
		{
			values[1] = PointerGetDatum(hc_bytes_text(search->found[i].member));
			nulls[1] = false;
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

/* purge(id, dry_run): the entries, removed at commit unless dry_run. */
Datum
hybrid_cache_purge(PG_FUNCTION_ARGS)
{
	bool		dry_run = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	HcLeftover *leftover;
	HcClaim		claim;
	Search		search = {0};
	HcSearch   *scan;
	int			kept = 0;
	int			i;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of hybrid_cache.purge() must not be null", "id")));

	/* no mapping may come to claim the entries while they are removed */
	if (!dry_run)
		hc_check_lock();
	leftover = hc_leftover_get(PG_GETARG_INT64(0));
	if (leftover == NULL ||
		!hc_check_claim(&claim, leftover->kind, leftover->key, leftover->member))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("leftover %lld does not exist", (long long) PG_GETARG_INT64(0)),
				 errhint("The table hybrid_cache.leftover lists the dropped mappings.")));

	/* what the mapping wrote last must be there to be found */
	if (!hc_status_wait(TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													hc_command_timeout)))
		ereport(dry_run ? WARNING : ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("Redis does not have everything that was committed yet"),
				 errdetail("Entries that are still to be written would not be found."),
				 errhint("See hybrid_cache.status, and try again.")));

	search.context = CurrentMemoryContext;
	hc_shape_make(&search.shape, &claim, leftover->prefix, leftover_type, leftover);
	scan = hc_search_create(&search.shape, live_shapes(leftover, &claim), ask, NULL);
	while (hc_search_step(scan, keep, &search))
		CHECK_FOR_INTERRUPTS();

	/* SCAN may return an element more than once */
	if (search.n_found > 0)
		qsort(search.found, search.n_found, sizeof(Found), compare_found);
	for (i = 0; i < search.n_found; i++)
	{
		if (kept == 0 || compare_found(&search.found[kept - 1], &search.found[i]) != 0)
			search.found[kept++] = search.found[i];
	}
	search.n_found = kept;

	if (!dry_run)
	{
		if (!hc_leftover_delete(leftover))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("leftover %lld was purged by another session",
							(long long) leftover->id)));
		capture_removals(&search);
	}
	return_found(fcinfo, &search);
	return (Datum) 0;
}
