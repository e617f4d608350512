/*
 * owner.c
 *	  Which database may write which keys of a Redis server that several share.
 *
 * Two databases with the same key template would overwrite each other's entries,
 * and neither would ever know.  So the one that comes first writes its name
 * beside the template, in Redis itself, since that is the one place that both
 * know.  The names of columns do not matter: what counts is that the keys can be
 * the same.
 *
 * The records are read and written as one: the hash is WATCHed before it is
 * read.  Who takes a template from another database removes that one's fence in
 * the same MULTI.  So its worker cannot write once more what it has in hand: it
 * connects again, and then sees here that the template is gone.
 *
 * When a mapping is made, the change record says so.  The worker looks here
 * before it applies that transaction, so it never writes an entry of a mapping
 * before it knows whose the template is.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "capture/ledger.h"
#include "capture/leftover.h"
#include "capture/shape.h"
#include "commands/dbcommands.h"
#include "encoding.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "redis/reply.h"
#include "settings.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/installation.h"
#include "worker/owner.h"
#include "worker/wire.h"

/* Times that somebody else may change the records meanwhile. */
#define MAX_ATTEMPTS	20

/* What a mapping owes once its template has come back. */
#define OWED_RETURNED	"was owned by another database"

/* A record in Redis. */
typedef struct Record
{
	const redisReply *field;
	bool		valid;			/* the value is an owner */
	bool		ours;
	bool		dead;			/* the owner exists no more */
	uint64		system;
	Oid			database;
} Record;

/* A mapping that may not be written, in a memory context of its own. */
typedef struct Foreign
{
	MemoryContext context;
	HcOwned		owned;
	bool		seen;			/* by the current look */
} Foreign;

bool		hc_owner_any_foreign = false;

static List *foreigners = NIL;	/* Foreign *, in TopMemoryContext */

void
hc_owner_format(uint64 system, Oid database, char *buf)
{
	snprintf(buf, HC_OWNER_TEXT_SIZE, UINT64_FORMAT " %u", system, database);
}

bool
hc_owner_parse(const char *text, size_t len, uint64 *system, Oid *database)
{
	char		buf[HC_OWNER_TEXT_SIZE];
	char		again[HC_OWNER_TEXT_SIZE];
	char	   *space;

	if (len >= sizeof(buf) || memchr(text, '\0', len) != NULL)
		return false;
	memcpy(buf, text, len);
	buf[len] = '\0';
	space = strchr(buf, ' ');
	if (space == NULL)
		return false;
	*system = strtoull(buf, NULL, 10);
	*database = (Oid) strtoul(space + 1, NULL, 10);
	hc_owner_format(*system, *database, again);
	return strcmp(buf, again) == 0;
}

char *
hc_owner_describe(uint64 system, Oid database)
{
	char	   *name = system == GetSystemIdentifier() ?
		get_database_name(database) : NULL;

	if (name != NULL)
		return psprintf("database \"%s\"", name);
	return psprintf("database %u of system " UINT64_FORMAT, database, system);
}

char *
hc_owner_field(const HcTemplate *tmpl)
{
	StringInfoData field;
	int			i;

	initStringInfo(&field);
	for (i = 0; i < tmpl->n_parts; i++)
	{
		const char *p = tmpl->parts[i].text;

		if (tmpl->parts[i].is_column)
		{
			appendStringInfoString(&field, "{}");
			continue;
		}
		for (p = hc_encoding_string(p); *p != '\0'; p++)
		{
			if (*p == '{' || *p == '}')
				appendStringInfoChar(&field, *p);
			appendStringInfoChar(&field, *p);
		}
	}
	return field.data;
}

List *
hc_owner_mappings(void)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, hc_shape_candidates(InvalidOid))
	{
		HcCandidate *candidate = lfirst(lc);
		HcOwned    *owned;

		if (candidate->mapping->function != HC_FUNCTION_WRITE_THROUGH)
			continue;
		owned = palloc(sizeof(HcOwned));
		owned->mapping = candidate->mapping->oid;
		owned->name = candidate->mapping->name;
		owned->table = get_rel_name(candidate->mapping->relid);
		owned->field = hc_owner_field(candidate->shape.key_template);
		owned->matcher = candidate->shape.key;
		result = lappend(result, owned);
	}

	/* until their entries are removed, nobody else is to write there */
	foreach(lc, hc_leftover_asked())
	{
		HcLeftover *leftover = lfirst(lc);
		HcOwned    *owned = palloc(sizeof(HcOwned));
		HcShape		shape;

		if (!hc_leftover_shape(leftover, &shape))
			continue;
		owned->mapping = InvalidOid;
		owned->name = leftover->mapping;
		owned->table = leftover->relation;
		owned->field = hc_owner_field(shape.key_template);
		owned->matcher = shape.key;
		result = lappend(result, owned);
	}
	return result;
}

static redisReply *
ask(HcConnection *conn, const char *verb, const char *key)
{
	const char *argv[2] = {verb, key};
	size_t		argvlen[2] = {strlen(verb), strlen(key)};

	return hc_connection_command(conn,
								 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															 hc_command_timeout),
								 2, argv, argvlen);
}

/* Watches the records and reads them: a list of Record *. */
static List *
read_records(HcConnection *conn)
{
	List	   *records = NIL;
	const redisReply *reply;
	size_t		i;

	(void) ask(conn, "WATCH", HC_OWNER_KEY);
	reply = hc_reply_array(ask(conn, "HGETALL", HC_OWNER_KEY),
						   HC_REPLY_ANY_LENGTH);
	for (i = 0; i + 1 < reply->elements; i += 2)
	{
		Record	   *record = palloc0(sizeof(Record));
		const redisReply *value = hc_reply_string(reply->element[i + 1]);

		record->field = hc_reply_string(reply->element[i]);
		record->valid = hc_owner_parse(value->str, value->len,
									   &record->system, &record->database);
		record->ours = record->valid && record->database == MyDatabaseId &&
			record->system == GetSystemIdentifier();
		records = lappend(records, record);
	}
	return records;
}

static bool
is_field(const redisReply *reply, const char *field)
{
	return reply->len == strlen(field) && memcmp(reply->str, field, reply->len) == 0;
}

/* The record of a template; NULL: there is none that is worth anything. */
static Record *
find_record(List *records, const char *field)
{
	ListCell   *lc;

	foreach(lc, records)
	{
		Record	   *record = lfirst(lc);

		if (record->valid && is_field(record->field, field))
			return record;
	}
	return NULL;
}

static bool
is_foreign(const Record *record)
{
	return record != NULL && !record->ours && !record->dead;
}

/*
 * A database that does not exist here any more has left its records behind.  The
 * lease tells whether it lives on elsewhere.
 */
static void
find_dead(List *records, HcFence *fence, HcConnection *conn)
{
	ListCell   *lc;

	foreach(lc, records)
	{
		Record	   *record = lfirst(lc);
		char		key[HC_FENCE_TEXT_SIZE];
		const redisReply *lease;

		if (!record->dead)
			continue;
		hc_fence_lease_key(record->system, record->database, key);
		lease = ask(conn, "GET", key);
		record->dead = lease->type == REDIS_REPLY_NIL ||
			(lease->type == REDIS_REPLY_STRING && is_field(lease, fence->incarnation));
	}
}

/*
 * Does the owner not exist any more?  It is what this database was before
 * pg_upgrade, or a database that was dropped.
 */
static bool
is_dead(const Record *record, const HcInstallation *installation)
{
	if (!record->valid || record->ours)
		return false;
	if (record->system != GetSystemIdentifier())
		return record->system == installation->former_system &&
			record->database == installation->former_database;
	return get_database_name(record->database) == NULL;
}

/*
 * What is in the catalogs: the mappings, and which owners do not exist any more.
 * After the records were read: a database that has one exists before.
 */
static List *
read_catalogs(List *records)
{
	MemoryContext old = CurrentMemoryContext;
	HcInstallation installation = {0};
	List	   *mappings;
	ListCell   *lc;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());

	/* DROP EXTENSION is a reason to look, too */
	if (OidIsValid(hc_ledger_oid("installation")))
		hc_installation_read(&installation);
	MemoryContextSwitchTo(old);
	mappings = hc_owner_mappings();
	foreach(lc, records)
	{
		Record	   *record = lfirst(lc);

		record->dead = is_dead(record, &installation);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	return mappings;
}

static void
append_command(StringInfo wire, const char *verb, const char *key)
{
	hc_wire_append_array(wire, 2);
	hc_wire_append_bulk(wire, verb, strlen(verb));
	hc_wire_append_bulk(wire, key, strlen(key));
}

/* Writes the commands that make the records right; returns how many. */
static int
append_changes(StringInfo wire, List *records, List *mappings)
{
	char		value[HC_OWNER_TEXT_SIZE];
	int			n = 0;
	ListCell   *lc;

	hc_owner_format(GetSystemIdentifier(), MyDatabaseId, value);
	foreach(lc, mappings)
	{
		HcOwned    *owned = lfirst(lc);
		Record	   *record = find_record(records, owned->field);

		if (record != NULL && !record->dead)
			continue;
		hc_wire_append_array(wire, 4);
		hc_wire_append_bulk(wire, "HSET", 4);
		hc_wire_append_bulk(wire, HC_OWNER_KEY, strlen(HC_OWNER_KEY));
		hc_wire_append_bulk(wire, owned->field, strlen(owned->field));
		hc_wire_append_bulk(wire, value, strlen(value));
		n++;
		if (record != NULL)
		{
			char		key[HC_FENCE_TEXT_SIZE];

			hc_fence_key(record->system, record->database, key);
			append_command(wire, "DEL", key);
			hc_fence_lease_key(record->system, record->database, key);
			append_command(wire, "DEL", key);
			n += 2;
		}
	}
	foreach(lc, records)
	{
		Record	   *record = lfirst(lc);
		ListCell   *cell;

		if (!record->ours)
			continue;
		foreach(cell, mappings)
		{
			if (is_field(record->field, ((HcOwned *) lfirst(cell))->field))
				break;
		}
		if (cell != NULL)
			continue;
		hc_wire_append_array(wire, 3);
		hc_wire_append_bulk(wire, "HDEL", 4);
		hc_wire_append_bulk(wire, HC_OWNER_KEY, strlen(HC_OWNER_KEY));
		hc_wire_append_bulk(wire, record->field->str, record->field->len);
		n++;
	}
	return n;
}

/* The mapping may not be written: remember it. */
static void
add_foreign(const HcOwned *owned, const Record *record)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context;
	Foreign    *foreign;
	ListCell   *lc;

	foreach(lc, foreigners)
	{
		foreign = lfirst(lc);
		if (foreign->owned.mapping == owned->mapping &&
			strcmp(foreign->owned.field, owned->field) == 0)
		{
			foreign->seen = true;
			return;
		}
	}

	context = AllocSetContextCreate(TopMemoryContext, "hybrid_cache owner",
									ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	foreign = palloc0(sizeof(Foreign));
	foreign->context = context;
	foreign->owned.mapping = owned->mapping;
	foreign->owned.field = pstrdup(owned->field);
	foreign->owned.matcher = hc_match_copy(owned->matcher);
	foreign->seen = true;
	MemoryContextSwitchTo(TopMemoryContext);
	foreigners = lappend(foreigners, foreign);
	MemoryContextSwitchTo(old);

	ereport(LOG,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("%s does not write mapping \"%s\" of table \"%s\": its key template belongs to another database",
					MyBgworkerEntry->bgw_name, owned->name, owned->table),
			 errdetail("The template \"%s\" belongs to %s.", owned->field,
					   hc_owner_describe(record->system, record->database)),
			 errhint("Give one of them another hybrid_cache.key_prefix or hybrid_cache.redis_url.  To write these keys from here, call hybrid_cache.take_over().")));
}

/* In a transaction: notes in the ledger which mappings may not be written. */
static void
note_mapping(const HcOwned *owned, const Record *record)
{
	bool		known = false;
	ListCell   *lc;

	if (!OidIsValid(owned->mapping))
	{
		if (record != NULL)
			add_foreign(owned, record);
		return;
	}
	foreach(lc, hc_owed_reasons(owned->mapping))
		known = known || strcmp(lfirst(lc), HC_OWED_FOREIGN) == 0;
	if (record != NULL)
	{
		add_foreign(owned, record);
		if (!known)
			hc_owed_mark(owned->mapping, HC_OWED_FOREIGN);
	}
	else if (known)
	{
		hc_owed_mark(owned->mapping, OWED_RETURNED);
		hc_owed_withdraw(owned->mapping, HC_OWED_FOREIGN);
		ereport(LOG,
				(errmsg("%s writes mapping \"%s\" of table \"%s\" again",
						MyBgworkerEntry->bgw_name, owned->name, owned->table)));
	}
}

/*
 * A mapping that was dropped or redefined meanwhile may still have removals to come, which
 * are not to hit the other database's entries.
 */
static bool
still_foreign(const Foreign *foreign, List *records)
{
	Record	   *record = find_record(records, foreign->owned.field);

	return foreign->seen || is_foreign(record);
}

/* The records are as they should be: draws the conclusions. */
static void
conclude(List *records, List *mappings)
{
	MemoryContext old = CurrentMemoryContext;
	ListCell   *lc;

	foreach(lc, foreigners)
		((Foreign *) lfirst(lc))->seen = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(lc, mappings)
	{
		HcOwned    *owned = lfirst(lc);
		Record	   *record = find_record(records, owned->field);

		note_mapping(owned, is_foreign(record) ? record : NULL);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);

	foreach(lc, foreigners)
	{
		Foreign    *foreign = lfirst(lc);

		if (still_foreign(foreign, records))
			continue;
		foreigners = foreach_delete_current(foreigners, lc);
		MemoryContextDelete(foreign->context);
	}
	hc_owner_any_foreign = foreigners != NIL;
}

void
hc_owner_refresh(HcFence *fence, HcConnection *conn)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache owners",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	List	   *records;
	List	   *mappings;
	int			attempt = 0;

	for (;;)
	{
		StringInfoData wire;
		int			n;

		records = read_records(conn);
		mappings = read_catalogs(records);
		find_dead(records, fence, conn);
		initStringInfo(&wire);
		n = append_changes(&wire, records, mappings);

		/* also if there are none, since that ends the WATCH */
		if (hc_fence_try(fence, conn, &wire, n) != NULL)
			break;
		if (++attempt >= MAX_ATTEMPTS)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("key \"%s\" in Redis server \"%s\" changes all the time",
							HC_OWNER_KEY, hc_connection_name(conn))));
	}
	conclude(records, mappings);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

bool
hc_owner_is_other(HcConnection *conn, const char *field, uint64 *system,
				  Oid *database)
{
	const char *argv[3] = {"HGET", HC_OWNER_KEY, field};
	size_t		argvlen[3] = {strlen(argv[0]), strlen(argv[1]), strlen(argv[2])};
	const redisReply *reply =
	hc_connection_command(conn,
						  TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													  hc_command_timeout),
						  3, argv, argvlen);

	return reply->type == REDIS_REPLY_STRING &&
		hc_owner_parse(reply->str, reply->len, system, database) &&
		(*system != GetSystemIdentifier() || *database != MyDatabaseId);
}

bool
hc_owner_is_foreign(HcBytes key)
{
	ListCell   *lc;

	foreach(lc, foreigners)
	{
		if (hc_match(((Foreign *) lfirst(lc))->owned.matcher, key.data, key.len))
			return true;
	}
	return false;
}
