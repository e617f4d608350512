/*
 * roster.c
 *	  The table hybrid_cache.consumer.
 *
 * It is written by SQL, not below it: a position is changed in the transaction of a
 * handler, next to sessions that pause or drop the consumer, and row locks are what
 * orders that.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "inbound/roster.h"
#include "inbound/statement.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define CONSUMER_COLUMNS \
	"id, name, stream, handler, role::oid, batch, max_attempts, paused," \
	" system, database, last_id, digest, processed, dead, attempts," \
	" error, sqlstate, error_at"

void
hc_roster_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
hc_roster_end(MemoryContext context)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* Reads a row of CONSUMER_COLUMNS. */
static HcConsumer *
read_row(HeapTuple tuple)
{
	HcConsumer *consumer = palloc0(sizeof(HcConsumer));
	char	   *position;
	bool		isnull;
	Datum		value;

	consumer->id = DatumGetInt64(hc_statement_value(tuple, 1, &isnull));
	consumer->name = hc_statement_text(tuple, 2);
	consumer->stream = hc_statement_text(tuple, 3);
	consumer->handler = hc_statement_text(tuple, 4);
	consumer->role = DatumGetObjectId(hc_statement_value(tuple, 5, &isnull));
	consumer->batch = DatumGetInt32(hc_statement_value(tuple, 6, &isnull));
	consumer->max_attempts = DatumGetInt32(hc_statement_value(tuple, 7, &isnull));
	consumer->paused = DatumGetBool(hc_statement_value(tuple, 8, &isnull));
	consumer->system = (uint64) DatumGetInt64(hc_statement_value(tuple, 9, &isnull));
	consumer->database = DatumGetObjectId(hc_statement_value(tuple, 10, &isnull));
	consumer->copied = consumer->system != GetSystemIdentifier() ||
		consumer->database != MyDatabaseId;
	position = hc_statement_text(tuple, 11);
	if (!hc_message_parse_id(position, &consumer->position))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("consumer \"%s\" has an invalid position: \"%s\"",
						consumer->name, position)));
	value = hc_statement_value(tuple, 12, &isnull);
	consumer->has_digest = !isnull;
	consumer->digest = isnull ? 0 : DatumGetInt64(value);
	consumer->processed = DatumGetInt64(hc_statement_value(tuple, 13, &isnull));
	consumer->dead = DatumGetInt64(hc_statement_value(tuple, 14, &isnull));
	consumer->attempts = DatumGetInt32(hc_statement_value(tuple, 15, &isnull));
	consumer->error = hc_statement_text(tuple, 16);
	consumer->sqlstate = hc_statement_text(tuple, 17);
	value = hc_statement_value(tuple, 18, &isnull);
	consumer->error_at = isnull ? 0 : DatumGetTimestampTz(value);
	return consumer;
}

static List *
read_rows(HcStatement *statement, const char *command)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *rows = NIL;
	uint64		n;
	uint64		i;

	n = hc_statement_begin(statement, command);
	for (i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		rows = lappend(rows, read_row(SPI_tuptable->vals[i]));
		MemoryContextSwitchTo(old);
	}
	hc_statement_end(statement);
	return rows;
}

List *
hc_roster_read(void)
{
	HcStatement statement = {0};

	return read_rows(&statement,
					 "SELECT " CONSUMER_COLUMNS " FROM hybrid_cache.consumer"
					 " ORDER BY name");
}

HcConsumer *
hc_roster_find(const char *name)
{
	HcStatement statement = {0};
	List	   *rows;

	hc_statement_add_text(&statement, name);
	rows = read_rows(&statement,
					 "SELECT " CONSUMER_COLUMNS " FROM hybrid_cache.consumer"
					 " WHERE name = $1::name FOR UPDATE");
	return rows == NIL ? NULL : linitial(rows);
}

bool
hc_roster_is_active(const HcConsumer *consumer)
{
	return !consumer->paused && !consumer->copied;
}

bool
hc_roster_has_work(void)
{
	HcStatement statement = {0};

	hc_statement_add_integer(&statement, (int64) GetSystemIdentifier());
	hc_statement_add(&statement, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	return hc_statement_run(&statement,
							"SELECT FROM hybrid_cache.consumer c WHERE NOT paused"
							" AND ((system = $1 AND database = $2) OR EXISTS"
							" (SELECT FROM hybrid_cache.installation i"
							" WHERE i.former_system = c.system AND i.former_database = c.database))"
							" LIMIT 1") > 0;
}

bool
hc_roster_former(uint64 *system, Oid *database)
{
	HcStatement statement = {0};
	bool		found;

	found = hc_statement_begin(&statement,
							   "SELECT i.former_system, i.former_database"
							   " FROM hybrid_cache.installation i"
							   " WHERE EXISTS (SELECT FROM hybrid_cache.consumer c"
							   " WHERE i.former_system = c.system AND i.former_database = c.database)") > 0;
	if (found)
	{
		HeapTuple	tuple = SPI_tuptable->vals[0];
		bool		isnull;

		*system = (uint64) DatumGetInt64(hc_statement_value(tuple, 1, &isnull));
		*database = DatumGetObjectId(hc_statement_value(tuple, 2, &isnull));
	}
	hc_statement_end(&statement);
	return found;
}

void
hc_roster_adopt(uint64 system, Oid database)
{
	HcStatement statement = {0};

	hc_statement_add_integer(&statement, (int64) system);
	hc_statement_add(&statement, OIDOID, ObjectIdGetDatum(database), false);
	hc_statement_add_integer(&statement, (int64) GetSystemIdentifier());
	hc_statement_add(&statement, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	(void) hc_statement_run(&statement,
							"UPDATE hybrid_cache.consumer SET system = $3, database = $4"
							" WHERE system = $1 AND database = $2");
}

void
hc_roster_write(const HcConsumer *consumer)
{
	HcStatement statement = {0};

	hc_statement_add_text(&statement, consumer->name);
	hc_statement_add_text(&statement, consumer->stream);
	hc_statement_add_text(&statement, consumer->handler);
	hc_statement_add(&statement, OIDOID, ObjectIdGetDatum(consumer->role), false);
	hc_statement_add(&statement, INT4OID, Int32GetDatum(consumer->batch), false);
	hc_statement_add(&statement, INT4OID, Int32GetDatum(consumer->max_attempts), false);
	hc_statement_add(&statement, BOOLOID, BoolGetDatum(consumer->paused), false);
	hc_statement_add_integer(&statement, (int64) GetSystemIdentifier());
	hc_statement_add(&statement, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	hc_statement_add_id(&statement, consumer->position);
	hc_statement_add(&statement, INT8OID, Int64GetDatum(consumer->digest),
					 !consumer->has_digest);
	if (consumer->id == 0)
	{
		(void) hc_statement_run(&statement,
								"INSERT INTO hybrid_cache.consumer (name, stream, handler, role,"
								" batch, max_attempts, paused, system, database, last_id,"
								" digest, processed, dead, attempts)"
								" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, 0, 0)");
		return;
	}
	hc_statement_add_integer(&statement, consumer->id);
	(void) hc_statement_run(&statement,
							"UPDATE hybrid_cache.consumer SET (name, stream, handler, role,"
							" batch, max_attempts, paused, system, database, last_id, digest,"
							" attempts, error, sqlstate, error_at) ="
							" ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, NULL, NULL, NULL)"
							" WHERE id = $12");
}

void
hc_roster_pause(int64 id, bool paused)
{
	HcStatement statement = {0};

	hc_statement_add_integer(&statement, id);
	if (paused)
	{
		(void) hc_statement_run(&statement,
								"UPDATE hybrid_cache.consumer SET paused = true WHERE id = $1");
		return;
	}
	hc_statement_add_integer(&statement, (int64) GetSystemIdentifier());
	hc_statement_add(&statement, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	(void) hc_statement_run(&statement,
							"UPDATE hybrid_cache.consumer"
							" SET paused = false, system = $2, database = $3, attempts = 0,"
							" error = NULL, sqlstate = NULL, error_at = NULL WHERE id = $1");
}

void
hc_roster_drop(int64 id)
{
	HcStatement statement = {0};

	hc_statement_add_integer(&statement, id);
	(void) hc_statement_run(&statement,
							"DELETE FROM hybrid_cache.consumer WHERE id = $1");
}

bool
hc_roster_lock(const HcConsumer *consumer)
{
	HcStatement statement = {0};

	hc_statement_add_integer(&statement, consumer->id);
	hc_statement_add_id(&statement, consumer->position);
	hc_statement_add_text(&statement, consumer->stream);
	hc_statement_add_text(&statement, consumer->handler);
	hc_statement_add(&statement, OIDOID, ObjectIdGetDatum(consumer->role), false);
	hc_statement_add_integer(&statement, (int64) GetSystemIdentifier());
	hc_statement_add(&statement, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	return hc_statement_run(&statement,
							"SELECT FROM hybrid_cache.consumer"
							" WHERE id = $1 AND NOT paused AND last_id = $2 AND stream = $3"
							" AND handler = $4 AND role::oid = $5 AND system = $6 AND database = $7"
							" FOR UPDATE SKIP LOCKED") > 0;
}

void
hc_roster_advance(int64 id, HcMessageId position, const int64 *digest,
				  int64 processed, int64 dead)
{
	HcStatement statement = {0};

	hc_statement_add_integer(&statement, id);
	hc_statement_add_id(&statement, position);
	hc_statement_add(&statement, INT8OID,
					 Int64GetDatum(digest != NULL ? *digest : 0), digest == NULL);
	hc_statement_add_integer(&statement, processed);
	hc_statement_add_integer(&statement, dead);
	if (hc_statement_run(&statement,
						 "UPDATE hybrid_cache.consumer SET last_id = $2, digest = $3,"
						 " processed = processed + $4, dead = dead + $5, attempts = 0,"
						 " error = NULL, sqlstate = NULL, error_at = NULL WHERE id = $1") != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the consumer was dropped while its handler ran")));
}

void
hc_roster_note(int64 id, int attempts, const char *sqlstate, const char *error)
{
	HcStatement statement = {0};

	hc_statement_add_integer(&statement, id);
	hc_statement_add(&statement, INT4OID, Int32GetDatum(attempts), false);
	hc_statement_add_text(&statement, error);
	hc_statement_add_text(&statement, sqlstate);
	hc_statement_add(&statement, TIMESTAMPTZOID,
					 TimestampTzGetDatum(GetCurrentTimestamp()), error == NULL);
	(void) hc_statement_run(&statement,
							"UPDATE hybrid_cache.consumer SET attempts = $2, error = $3,"
							" sqlstate = $4, error_at = $5 WHERE id ="
							" (SELECT id FROM hybrid_cache.consumer WHERE id = $1"
							" FOR UPDATE SKIP LOCKED)");
}
