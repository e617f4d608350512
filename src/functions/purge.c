/*
 * purge.c
 *	  hybrid_cache.purge(): the entries that a dropped mapping left in Redis.
 *
 * Redis is searched with SCAN by the session, but nothing is removed from here:
 * the removals become ops of this transaction, since the sync worker is the
 * only writer of entries and keeps them in order with everything else.
 *
 * A pattern of SCAN finds more than the template means, so what it finds is
 * matched again, with the types that the columns had.  What a living mapping
 * could have written is left alone.
 */
#include "postgres.h"

#include "capture/buffer.h"
#include "capture/check.h"
#include "capture/ledger.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "funcapi.h"
#include "functions/session.h"
#include "functions/status.h"
#include "mapping/match.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "redis/reply.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Redis's hint for how much one step of a SCAN looks at. */
#define SCAN_COUNT	"1000"

#define NATTS		2

PG_FUNCTION_INFO_V1(hybrid_cache_purge);

/* What a mapping's entries look like. */
typedef struct Shape
{
	HcTemplate *key_template;	/* with hybrid_cache.key_prefix */
	HcTemplate *member_template;	/* NULL: the whole key */
	HcMatcher  *key;
	HcMatcher  *member;
} Shape;

typedef struct Found
{
	HcBytes		key;
	HcBytes		member;			/* data is NULL for a whole key */
} Found;

typedef struct Search
{
	const char *type;			/* Redis's name of it */
	Shape		shape;
	List	   *others;			/* Shape *, of living mappings */
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

static const char *
live_type(const char *column, void *arg)
{
	Oid			relid = *(Oid *) arg;
	AttrNumber	attnum = get_attnum(relid, column);

	if (attnum == InvalidAttrNumber)
		return NULL;
	return format_type_be(getBaseType(get_atttype(relid, attnum)));
}

/* The template with literal text before it. */
static HcTemplate *
prefixed(const HcTemplate *tmpl, const char *prefix)
{
	HcTemplate *result = palloc(sizeof(HcTemplate));
	int			first = 0;

	result->parts = palloc((tmpl->n_parts + 1) * sizeof(HcTemplatePart));
	result->n_parts = 0;
	if (prefix[0] != '\0')
	{
		HcTemplatePart *part = &result->parts[result->n_parts++];

		part->is_column = false;
		part->text = pstrdup(prefix);
		if (!tmpl->parts[0].is_column)
		{
			part->text = psprintf("%s%s", prefix, tmpl->parts[0].text);
			first = 1;
		}
	}
	for (; first < tmpl->n_parts; first++)
		result->parts[result->n_parts++] = tmpl->parts[first];
	return result;
}

static void
make_shape(Shape *shape, const HcClaim *claim, const char *prefix,
		   HcTypeLookup lookup, void *arg)
{
	shape->key_template = prefixed(claim->key, prefix);
	shape->key = hc_match_compile(shape->key_template, lookup, arg);
	shape->member_template = claim->member;
	shape->member = claim->member != NULL
		? hc_match_compile(claim->member, lookup, arg) : NULL;
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
		Shape	   *shape;

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
		shape = palloc(sizeof(Shape));
		make_shape(shape, &live, hc_key_prefix, live_type, &trigger->relid);
		shapes = lappend(shapes, shape);
	}
	return shapes;
}

/* Is it text of the server's encoding?  What is not was not written by us. */
static bool
to_server(HcBytes bytes, text **result)
{
	int			encoding = GetDatabaseEncoding();

	*result = NULL;
	if (encoding == PG_SQL_ASCII)
	{
		if (memchr(bytes.data, '\0', bytes.len) != NULL)
			return false;
	}
	else if (!pg_verify_mbstr(PG_UTF8, bytes.data, (int) bytes.len, true))
		return false;
	else if (encoding != PG_UTF8)
	{
		size_t		size = bytes.len * MAX_CONVERSION_GROWTH + 1;
		unsigned char *buffer = palloc(size);
		int			done;

		done = pg_do_encoding_conversion_buf(FindDefaultConversionProc(PG_UTF8, encoding),
											 PG_UTF8, encoding,
											 (unsigned char *) bytes.data,
											 (int) bytes.len, buffer, (int) size, true);
		if (done != (int) bytes.len)
			return false;
		*result = cstring_to_text((char *) buffer);
		return true;
	}
	*result = cstring_to_text_with_len(bytes.data, (int) bytes.len);
	return true;
}

static bool
matches(const Shape *shape, HcBytes key, const HcBytes *member)
{
	if (!hc_match(shape->key, key.data, key.len))
		return false;

	/* part of a key against a whole key: one would take the other along */
	if (shape->member == NULL || member == NULL)
		return true;
	return hc_match(shape->member, member->data, member->len);
}

static HcBytes
copy_bytes(HcBytes bytes)
{
	HcBytes		copy;

	copy.data = memcpy(palloc(bytes.len + 1), bytes.data, bytes.len);
	copy.len = bytes.len;
	return copy;
}

/* A candidate: keeps it if it is the leftover's and nobody else's. */
static void
consider(Search *search, HcBytes key, const HcBytes *member)
{
	MemoryContext old;
	ListCell   *lc;
	text	   *ignored;

	if (!matches(&search->shape, key, member) || !to_server(key, &ignored) ||
		(member != NULL && !to_server(*member, &ignored)))
		return;
	foreach(lc, search->others)
	{
		if (matches(lfirst(lc), key, member))
			return;
	}

	old = MemoryContextSwitchTo(search->context);
	if (search->n_found == search->max_found)
	{
		search->max_found = Max(1024, search->max_found * 2);
		search->found = search->found == NULL
			? palloc(search->max_found * sizeof(Found))
			: repalloc_huge(search->found, search->max_found * sizeof(Found));
	}
	search->found[search->n_found].key = copy_bytes(key);
	search->found[search->n_found].member.data = NULL;
	search->found[search->n_found].member.len = 0;
	if (member != NULL)
		search->found[search->n_found].member = copy_bytes(*member);
	search->n_found++;
	MemoryContextSwitchTo(old);
}

static HcBytes
reply_bytes(const redisReply *reply)
{
	HcBytes		bytes;

	if (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_STATUS)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("unexpected reply from Redis")));
	bytes.data = reply->str;
	bytes.len = reply->len;
	return bytes;
}

/* A template as the pattern of MATCH; the bytes live in the current context. */
static void
add_match(HcArguments *args, const HcTemplate *tmpl)
{
	char	   *glob = hc_template_glob(tmpl);
	size_t		len = strlen(glob);

	glob = hc_arguments_encode(glob, &len);
	hc_arguments_add_literal(args, "MATCH");
	hc_arguments_add(args, glob, len);
	hc_arguments_add_literal(args, "COUNT");
	hc_arguments_add_literal(args, SCAN_COUNT);
}

/*
 * One step of a SCAN of the keyspace (key NULL) or of a collection.  Returns
 * what was found; *cursor is "0" after the last step.  The cursor is copied
 * into context, everything else lives in the current one.
 */
static const redisReply *
scan_step(const char *command, const HcBytes *key, char **cursor,
		  const HcTemplate *tmpl, const char *type, MemoryContext context)
{
	HcArguments args;
	const redisReply *reply;
	HcBytes		next;

	hc_arguments_begin(&args, command);
	if (key != NULL)
		hc_arguments_add(&args, key->data, key->len);
	hc_arguments_add(&args, *cursor, strlen(*cursor));
	add_match(&args, tmpl);
	if (type != NULL)
	{
		hc_arguments_add_literal(&args, "TYPE");
		hc_arguments_add_literal(&args, type);
	}
	reply = hc_reply_array(hc_session_command(&args), 2);
	next = reply_bytes(reply->element[0]);
	*cursor = memcpy(MemoryContextAllocZero(context, next.len + 1), next.data, next.len);
	if (reply->element[1]->type != REDIS_REPLY_ARRAY)
		(void) hc_reply_array(reply->element[1], 0);
	return reply->element[1];
}

/* Looks through the members of one collection. */
static void
search_members(Search *search, HcBytes key)
{
	const char *command = strcmp(search->type, "hash") == 0 ? "HSCAN" :
		strcmp(search->type, "zset") == 0 ? "ZSCAN" : "SSCAN";
	int			stride = strcmp(search->type, "set") == 0 ? 1 : 2;
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext step = AllocSetContextCreate(outer, "hybrid_cache scan",
											   ALLOCSET_DEFAULT_SIZES);
	char	   *cursor = "0";

	do
	{
		const redisReply *members;
		size_t		i;

		MemoryContextReset(step);
		MemoryContextSwitchTo(step);
		members = scan_step(command, &key, &cursor, search->shape.member_template,
							NULL, outer);
		for (i = 0; i < members->elements; i += stride)
		{
			HcBytes		member = reply_bytes(members->element[i]);

			consider(search, key, &member);
		}
		MemoryContextSwitchTo(outer);
	} while (strcmp(cursor, "0") != 0);
	MemoryContextDelete(step);
}

/* A key of the right type that the pattern found. */
static void
search_key(Search *search, HcBytes key)
{
	if (search->shape.member == NULL)
		consider(search, key, NULL);
	else if (hc_match(search->shape.key, key.data, key.len))
		search_members(search, key);
}

/* A template without columns is one key: asking for it needs no SCAN. */
static void
search_one_key(Search *search)
{
	const char *text = search->shape.key_template->parts[0].text;
	HcBytes		key;
	HcArguments args;
	HcBytes		type;

	key.len = strlen(text);
	key.data = hc_arguments_encode(text, &key.len);
	hc_arguments_begin(&args, "TYPE");
	hc_arguments_add(&args, key.data, key.len);
	type = reply_bytes(hc_session_command(&args));
	if (type.len == strlen(search->type) &&
		memcmp(type.data, search->type, type.len) == 0)
		search_key(search, key);
}

static void
search_keys(Search *search)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext step = AllocSetContextCreate(outer, "hybrid_cache scan",
											   ALLOCSET_DEFAULT_SIZES);
	char	   *cursor = "0";

	do
	{
		const redisReply *keys;
		size_t		i;

		MemoryContextReset(step);
		MemoryContextSwitchTo(step);
		keys = scan_step("SCAN", NULL, &cursor, search->shape.key_template,
						 search->type, outer);
		for (i = 0; i < keys->elements; i++)
			search_key(search, reply_bytes(keys->element[i]));
		MemoryContextSwitchTo(outer);
	} while (strcmp(cursor, "0") != 0);
	MemoryContextDelete(step);
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

static HcOpKind
removal_kind(const Search *search)
{
	if (search->shape.member == NULL)
		return HC_OP_UNLINK;
	if (strcmp(search->type, "hash") == 0)
		return HC_OP_HDEL;
	return strcmp(search->type, "zset") == 0 ? HC_OP_ZREM : HC_OP_SREM;
}

/* Removes with this transaction. */
static void
capture_removals(const Search *search)
{
	int			i;

	for (i = 0; i < search->n_found; i++)
	{
		HcOp		op = {.kind = removal_kind(search)};

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
		text	   *value;

		CHECK_FOR_INTERRUPTS();
		(void) to_server(search->found[i].key, &value);
		values[0] = PointerGetDatum(value);
		if (search->found[i].member.data != NULL)
		{
			(void) to_server(search->found[i].member, &value);
			values[1] = PointerGetDatum(value);
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

	search.type = claim.type;
	search.context = CurrentMemoryContext;
	make_shape(&search.shape, &claim, leftover->prefix, leftover_type, leftover);
	search.others = live_shapes(leftover, &claim);
	if (search.shape.key_template->n_parts == 1 &&
		!search.shape.key_template->parts[0].is_column)
		search_one_key(&search);
	else
		search_keys(&search);

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
