/*
 * georedis.c
 *	  A geo index, searched in Redis.
 *
 * Redis keeps 52 bits of a position, so it is asked for a radius a little larger,
 * and for a few more members than are wanted.  From each member the columns of its
 * template are read back, and one query fetches the rows that have them; the rows
 * say where they are.  If too many of them are somewhere else by now, or are not
 * what the caller wants, Redis is asked for twice as many.
 */
#include "postgres.h"

#include <math.h>

#include "common/hashfn.h"
#include "compat.h"
#include "mapping/bytes.h"
#include "miscadmin.h"
#include "search/geoquery.h"
#include "search/georedis.h"
#include "search/readback.h"
#include "search/rowplan.h"
#include "shmem.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/*
 * How far the distance that Redis measures can be from that of the row, in metres:
 * half the diagonal of a cell is 0.33, EDGE is 0.11 both ways, and at the other
 * end of the world arithmetic loses about 0.3.
 */
#define MARGIN			1.0

/* The last position before the edge that Redis can search around, in degrees. */
#define EDGE			1e-6

/* So many more members are asked for than rows are wanted. */
#define SPARE_MEMBERS	8

/* A member that Redis was asked about. */
typedef struct Member
{
	HcBytes		bytes;			/* hash key */
	int			step;			/* of the search in which it was found */
	char		status;			/* of simplehash */
} Member;

static inline uint32
hash_member(HcBytes bytes)
{
	return hash_bytes((const unsigned char *) bytes.data, (int) bytes.len);
}

#define SH_PREFIX			members
#define SH_ELEMENT_TYPE		Member
#define SH_KEY_TYPE			HcBytes
#define SH_KEY				bytes
#define SH_HASH_KEY(tb, key)	hash_member(key)
#define SH_EQUAL(tb, a, b)	hc_bytes_equal(a, b)
#define SH_SCOPE			static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct Search
{
	HcGeoTable *table;
	const HcGeoArea *area;
	HcReadback *readback;
	char	   *query;			/* that fetches rows by their members */
	members_hash *members;
	int			step;			/* how often Redis was asked */
	HcGeoRows  *rows;
} Search;

static bool is_complete(const HcGeoArea *area);
static const redisReply *ask(const Search *search, int64 wanted);
static bool read_members(Search *search, const redisReply *reply);
static char *make_query(const HcGeoTable *table, const HcReadback *readback,
						const char *filter);
static void fetch_rows(Search *search, Datum **values, int n_members);
static void take_row(Datum item, void *arg);

HcGeoRows *
hc_georedis_search(HcGeoTable *table, const HcGeoArea *area, int count,
				   const char *filter)
{
	Relation	rel = table->rel;
	Search		search = {0};
	int64		wanted = 0;

	if (!is_complete(area))
		return NULL;
	search.readback = hc_readback_create(rel, table->shape.member_template,
										 table->shape.member);
	if (search.readback == NULL)
		return NULL;
	search.table = table;
	search.area = area;
	search.query = make_query(table, search.readback, filter);
	search.members = members_create(CurrentMemoryContext, 256, NULL);
	search.rows = hc_georows_begin(RelationGetForm(rel)->reltype, count, false);
	if (count > 0)
		wanted = (int64) count * (filter != NULL ? 2 : 1) + SPARE_MEMBERS;

	for (;;)
	{
		const redisReply *reply = ask(&search, wanted);
		double		last;

		if (reply == NULL || !read_members(&search, reply))
		{
			hc_georows_end(search.rows);
			return NULL;
		}
		if (wanted == 0 || (int64) reply->elements < wanted)
			return search.rows;

		/* what Redis did not tell is not nearer than this */
		last = hc_geoquery_read(reply->element[reply->elements - 1]).distance;
		if (hc_georows_within(search.rows, last - MARGIN) >= count)
			return search.rows;
		wanted *= 2;
	}
}

/*
 * Can Redis answer with all that is there?  It leaves out cells of its grid that it
 * takes to be too far away, and errs where a circle comes near a pole (see
 * nearest.c).
 */
static bool
is_complete(const HcGeoArea *area)
{
	double		radius = area->radius + MARGIN;
	double		reach = fabs(area->latitude) + radius / HC_METRES_PER_DEGREE;

	return reach < HC_MAX_REACH || radius > HC_SEARCHES_ALL;
}

/* Asks Redis for the nearest so many members, 0: all; NULL if it is down. */
static const redisReply *
ask(const Search *search, int64 wanted)
{
	HcGeoQuery	query = {0};
	ErrorData  *down;
	const redisReply *reply;

	query.key = search->table->key;
	query.area = *search->area;

	/* at the very edge, Redis does not look to one side of it */
	query.area.longitude = Min(query.area.longitude, HC_MAX_LONGITUDE - EDGE);
	query.area.latitude = Min(query.area.latitude, HC_MAX_LATITUDE - EDGE);
	query.area.radius += MARGIN;
	query.unit = "m";
	query.metres = 1;
	query.sort = HC_GEO_NEAREST_FIRST;
	query.count = (int) Min(wanted, PG_INT32_MAX);
	reply = hc_geoquery_ask(&query, &down);
	if (reply == NULL)
		hc_shmem_count(HC_COUNT_FALLBACKS, 1);
	return reply;
}

/*
 * Reads the rows of the members that were not known before.  false if a member
 * cannot be read back.
 */
static bool
read_members(Search *search, const redisReply *reply)
{
	int			n_columns = search->readback->n;
	Datum	  **values = palloc(sizeof(Datum *) * n_columns);
	Datum	   *row = palloc(sizeof(Datum) * n_columns);
	int			n = 0;
	size_t		i;
	int			column;

	search->step++;
	for (column = 0; column < n_columns; column++)
		values[column] = palloc_extended(sizeof(Datum) * Max(reply->elements, 1),
										 MCXT_ALLOC_HUGE);
	for (i = 0; i < reply->elements; i++)
	{
		const redisReply *name = hc_geoquery_read(reply->element[i]).member;
		HcBytes		bytes = {name->str, name->len};
		Member	   *member;
		bool		known;

		CHECK_FOR_INTERRUPTS();
		member = members_insert(search->members, bytes, &known);
		if (known)
			continue;
		member->step = search->step;
		switch (hc_readback_values(search->readback, bytes, row))
		{
			case HC_READ_NONE:
				continue;
			case HC_READ_AMBIGUOUS:
				return false;
			case HC_READ_VALUES:
				break;
		}
		for (column = 0; column < n_columns; column++)
			values[column][n] = row[column];
		n++;
	}
	if (n > 0)
		fetch_rows(search, values, n);
	return true;
}

/* The query for the rows of members, whose columns are in arrays $1, $2 ... */
static char *
make_query(const HcGeoTable *table, const HcReadback *readback,
		   const char *filter)
{
	Relation	rel = table->rel;
	const char *name = quote_identifier(RelationGetRelationName(rel));
	StringInfoData query;
	StringInfoData columns;
	StringInfoData arrays;
	int			i;

	initStringInfo(&query);
	initStringInfo(&columns);
	initStringInfo(&arrays);
	for (i = 0; i < readback->n; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel),
											  readback->attnums[i] - 1);

		appendStringInfo(&columns, "%s%s.%s", i > 0 ? ", " : "", name,
						 quote_identifier(NameStr(att->attname)));
		appendStringInfo(&arrays, "%spg_catalog.unnest($%d)", i > 0 ? ", " : "", i + 1);
	}
	hc_geotable_begin_query(table, &query);
	if (readback->n == 1)
		appendStringInfo(&query, "%s OPERATOR(pg_catalog.=) ANY ($1)", columns.data);
	else
		appendStringInfo(&query,
						 "ROW(%s) OPERATOR(pg_catalog.=) ANY (SELECT * FROM ROWS FROM (%s))",
						 columns.data, arrays.data);
	if (filter != NULL)
		appendStringInfo(&query, " AND (%s\n)", filter);
	return query.data;
}

/* Fetches the rows of members; values[column] has one value for each of them. */
static void
fetch_rows(Search *search, Datum **values, int n_members)
{
	const HcReadback *readback = search->readback;
	Oid		   *types = palloc(sizeof(Oid) * readback->n);
	ParamListInfo params = makeParamList(readback->n);
	int			i;

	for (i = 0; i < readback->n; i++)
	{
		int16		len;
		bool		byval;
		char		align;

		types[i] = get_array_type(readback->types[i]);
		get_typlenbyvalalign(readback->types[i], &len, &byval, &align);
		params->params[i].value =
			PointerGetDatum(construct_array(values[i], n_members, readback->types[i],
											len, byval, align));
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = types[i];
	}
	hc_rowplan_execute(search->query, readback->n, types, params, take_row, search);
}

/* Keeps a row that Redis has found, if it is one of these members. */
static void
take_row(Datum item, void *arg)
{
	Search	   *search = arg;
	HcGeoRow	row;
	Member	   *member;

	if (!hc_geotable_read(search->table, item, &row))
		return;

	/* every row is taken once, in the step in which its member was found */
	member = members_lookup(search->members, row.member);
	if (member != NULL && member->step == search->step &&
		hc_geoarea_contains(search->area, row.longitude, row.latitude, &row.distance))
		hc_georows_add(search->rows, &row);
}
