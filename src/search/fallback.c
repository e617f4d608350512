/*
 * fallback.c
 *	  What redis_geosearch() asks for, answered by tables while Redis is down.
 *
 * Whoever may ask Redis for a key may have what the mappings with this key put
 * there, so the tables are read as their owners, with the mappings' expressions,
 * in security-restricted operations.  Positions are those that Redis has, and
 * distances are cut where Redis cuts them: nobody should see from the answer
 * where it came from, but from the warning.
 */
#include "postgres.h"

#include <math.h>

#include "access/table.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "mapping/bytes.h"
#include "mapping/pin.h"
#include "miscadmin.h"
#include "search/fallback.h"
#include "search/geotable.h"
#include "shmem.h"
#include "utils/builtins.h"
#include "utils/rls.h"

/* An index that has the key, and its table. */
typedef struct Source
{
	HcGeoTable *table;
	Oid			owner;
} Source;

static bool warned;

/* The geo mappings that have the key. */
static List *
find_mappings(HcBytes key)
{
	List	   *mappings = NIL;
	ListCell   *lc;

	foreach(lc, hc_shape_candidates(InvalidOid))
	{
		HcCandidate *candidate = lfirst(lc);

		if (strcmp(hc_catalog_kind(candidate->mapping), hc_kind_name(HC_KIND_GEO)) == 0 &&
			hc_match(candidate->shape.key, key.data, key.len))
			mappings = lappend(mappings, unconstify(HcTrigger *, candidate->mapping));
	}
	return mappings;
}

/* Opens their tables; false if one of them does not show all rows to its owner. */
static bool
open_sources(List *mappings, HcBytes key, List **sources)
{
	ListCell   *lc;

	foreach(lc, mappings)
	{
		const HcTrigger *trigger = lfirst(lc);
		Relation	rel = try_table_open(trigger->relid, AccessShareLock);
		Source	   *source;

		if (rel == NULL)
			continue;

		/* it may have gone before there was a lock */
		trigger = hc_catalog_trigger(trigger->oid, NULL);
		if (trigger == NULL)
		{
			table_close(rel, AccessShareLock);
			continue;
		}
		source = palloc(sizeof(Source));
		source->owner = rel->rd_rel->relowner;
		source->table = hc_geotable_open(rel, trigger, key);
		source->table->as_owner = true;
		source->table->rounded = true;
		*sources = lappend(*sources, source);
		if (check_enable_rls(trigger->relid, source->owner, true) == RLS_ENABLED)
			return false;
	}
	return *sources != NIL;
}

static void
close_sources(List *sources)
{
	ListCell   *lc;

	foreach(lc, sources)
	{
		Source	   *source = lfirst(lc);
		Relation	rel = source->table->rel;

		hc_geotable_close(source->table);
		table_close(rel, NoLock);
	}
}

/* Where the member is; false if there is none. */
static bool
find_centre(HcBytes member, List *sources, HcGeoArea *area)
{
	ListCell   *lc;

	foreach(lc, sources)
	{
		Source	   *source = lfirst(lc);
		HcPin		pin;
		bool		found;

		hc_pin_begin(&pin, source->owner);
		found = hc_geotable_locate(source->table, member, &area->longitude,
								   &area->latitude);
		hc_pin_end(&pin);
		if (found)
			return true;
	}
	return false;
}

/* What all of them have. */
static HcGeoRows *
search_sources(const HcGeoQuery *query, const HcGeoArea *area, List *sources)
{
	bool		descending = query->sort == HC_GEO_NEAREST_LAST;
	HcGeoRows  *all = hc_georows_begin(InvalidOid, query->count, descending);
	ListCell   *lc;

	foreach(lc, sources)
	{
		Source	   *source = lfirst(lc);
		HcGeoRows  *rows;
		HcGeoRow	row;
		HcPin		pin;

		hc_pin_begin(&pin, source->owner);
		rows = hc_geotable_search(source->table, area, query->count, descending,
								  NULL, false);
		hc_pin_end(&pin);
		while (hc_georows_next(rows, &row))
		{
			CHECK_FOR_INTERRUPTS();
			hc_georows_add(all, &row);
		}
		hc_georows_end(rows);
	}
	return all;
}

static void
put_rows(ReturnSetInfo *rsinfo, HcGeoRows *rows, double unit)
{
	HcGeoRow	row;

	while (hc_georows_next(rows, &row))
	{
		Datum		values[4];
		bool		nulls[4] = {false, false, false, false};
		text	   *member = hc_bytes_text(row.member);

		CHECK_FOR_INTERRUPTS();
		if (member == NULL)
			continue;
		values[0] = PointerGetDatum(member);
		values[1] = Float8GetDatum(rint(row.distance / unit * 10000) / 10000);
		values[2] = Float8GetDatum(row.longitude);
		values[3] = Float8GetDatum(row.latitude);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		pfree(member);
	}
	hc_georows_end(rows);
}

static void
warn(const ErrorData *down)
{
	hc_shmem_count(HC_COUNT_FALLBACKS, 1);
	if (warned)
		return;
	warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("Redis is down, tables answer in its place"),
			 down->detail != NULL ? errdetail("%s", down->detail) :
			 errdetail("%s.", down->message),
			 errhint("This is said once per session. With hybrid_cache.fallback off there would be an error.")));
}

bool
hc_fallback_search(const HcGeoQuery *query, const ErrorData *down,
				   ReturnSetInfo *rsinfo)
{
	List	   *mappings = find_mappings(query->key);
	List	   *sources = NIL;
	HcGeoArea	area = query->area;
	bool		possible;

	if (mappings == NIL)
		return false;
	possible = open_sources(mappings, query->key, &sources);
	if (possible)
	{
		warn(down);
		area.radius *= query->metres;
		area.width *= query->metres;
		area.height *= query->metres;
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		if (query->member.data == NULL || find_centre(query->member, sources, &area))
			put_rows(rsinfo, search_sources(query, &area, sources), query->metres);
		if (SPI_finish() != SPI_OK_FINISH)
			elog(ERROR, "SPI_finish failed");
	}
	close_sources(sources);
	return possible;
}
