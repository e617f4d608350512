/*
 * purge.c
 *	  hybrid_cache.purge(): the entries that a dropped mapping left in Redis.
 *
 * To list them, Redis is searched by the session (keeper/search.h), with the
 * types that the columns had.  What a living mapping could have written is left
 * out.  To remove them is only asked for here, and done by the keeper
 * (keeper/purge.h).
 */
#include "postgres.h"

#include "capture/leftover.h"
#include "fmgr.h"
#include "funcapi.h"
#include "keeper/search.h"
#include "manage/status.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "session/session.h"
#include "settings.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

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

/* The entries in Redis, into search. */
static void
find(HcLeftover *leftover, Search *search)
{
	HcSearch   *scan;
	int			kept = 0;
	int			i;

	/* what the mapping wrote last must be there to be found */
	if (!hc_status_wait(TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													hc_command_timeout)))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("Redis does not have everything that was committed yet"),
				 errdetail("Entries that are still to be written are not found."),
				 errhint("See hybrid_cache.status, and try again.")));

	search->context = CurrentMemoryContext;
	scan = hc_search_create(&search->shape, hc_shape_others(InvalidOid),
							hc_session_search, NULL);
	while (hc_search_step(scan, keep, search))
		CHECK_FOR_INTERRUPTS();

	/* SCAN may return an element more than once */
	if (search->n_found > 0)
		qsort(search->found, search->n_found, sizeof(Found), compare_found);
	for (i = 0; i < search->n_found; i++)
	{
		if (kept == 0 ||
			compare_found(&search->found[kept - 1], &search->found[i]) != 0)
			search->found[kept++] = search->found[i];
	}
	search->n_found = kept;
}

/* Raises if a living mapping has the leftover's entries. */
static void
refuse_heir(const HcLeftover *leftover)
{
	HcTrigger  *heir = hc_leftover_heir(leftover);

	if (heir == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the entries of leftover %lld now belong to mapping \"%s\" of table \"%s\"",
					(long long) leftover->id, heir->name,
					get_rel_name(heir->relid)),
			 errdetail("Their key templates are \"%s\" and \"%s\".",
					   leftover->key,
					   hc_catalog_option(heir, HC_OPTION_KEY)),
			 errhint("To forget the leftover: DELETE FROM hybrid_cache.leftover WHERE id = %lld.",
					 (long long) leftover->id)));
}

/* The keeper is to remove the entries, once this transaction has committed. */
static void
ask_for_removal(HcLeftover *leftover, bool force)
{
	if (leftover->asked && (leftover->force || !force))
		return;
	if (!hc_leftover_ask(leftover, force))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("leftover %lld was changed by another session meanwhile",
						(long long) leftover->id),
				 errhint("Try again.")));
	if (!hc_repair)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nothing is removed while hybrid_cache.repair is off")));
}

/*
 * purge(id, dry_run, force): the entries; or has them removed, with force also
 * those that only look like them, and returns nothing.
 */
Datum
hybrid_cache_purge(PG_FUNCTION_ARGS)
{
	bool		dry_run = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	bool		force = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	HcLeftover *leftover;
	Search		search = {0};

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of hybrid_cache.purge() must not be null", "id")));
	if (!dry_run)
		PreventCommandIfReadOnly("hybrid_cache.purge() with dry_run => false");

	leftover = hc_leftover_get(PG_GETARG_INT64(0));
	if (leftover == NULL || !hc_leftover_shape(leftover, &search.shape))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("leftover %lld does not exist", (long long) PG_GETARG_INT64(0)),
				 errhint("The table hybrid_cache.leftover lists the dropped mappings.")));
	refuse_heir(leftover);
	if (dry_run)
		find(leftover, &search);
	else
		ask_for_removal(leftover, force);
	return_found(fcinfo, &search);
	return (Datum) 0;
}
