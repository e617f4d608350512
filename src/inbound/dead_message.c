/*
 * dead_message.c
 *	  The table hybrid_cache.dead_message: messages that no handler could take.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "inbound/dead_message.h"
#include "inbound/statement.h"
#include "utils/timestamp.h"

void
hc_dead_message_add(const HcConsumer *consumer, const HcMessage *message,
					Jsonb *fields, const char *sqlstate, const char *error,
					int attempts)
{
	HcStatement statement = {0};

	hc_statement_add_text(&statement, consumer->name);
	hc_statement_add_id(&statement, message->id);
	hc_statement_add(&statement, JSONBOID, JsonbPGetDatum(fields), fields == NULL);
	hc_statement_add(&statement, BYTEAARRAYOID,
					 fields == NULL ? PointerGetDatum(hc_message_raw(message)) : (Datum) 0,
					 fields != NULL);
	hc_statement_add_text(&statement, error);
	hc_statement_add_text(&statement, sqlstate);
	hc_statement_add(&statement, INT4OID, Int32GetDatum(attempts), false);
	hc_statement_add(&statement, TIMESTAMPTZOID,
					 TimestampTzGetDatum(GetCurrentTimestamp()), false);
	(void) hc_statement_run(&statement,
							"INSERT INTO hybrid_cache.dead_message (consumer, message, fields, raw,"
							" error, sqlstate, attempts, at, retry)"
							" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, false)");
}

List *
hc_dead_message_asked(const HcConsumer *consumer, int n)
{
	MemoryContext context = CurrentMemoryContext;
	HcStatement statement = {0};
	List	   *messages = NIL;
	uint64		found;
	uint64		i;

	hc_statement_add_text(&statement, consumer->name);
	hc_statement_add(&statement, INT4OID, Int32GetDatum(n), false);
	found = hc_statement_begin(&statement,
							   "SELECT id, message, fields FROM hybrid_cache.dead_message"
							   " WHERE consumer = $1::name AND retry AND fields IS NOT NULL"
							   " ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED");
	for (i = 0; i < found; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		HeapTuple	tuple = SPI_tuptable->vals[i];
		HcDeadMessage *message = palloc(sizeof(HcDeadMessage));
		bool		isnull;

		message->id = DatumGetInt64(hc_statement_value(tuple, 1, &isnull));
		message->message = hc_statement_text(tuple, 2);
		message->fields = DatumGetJsonbPCopy(hc_statement_value(tuple, 3, &isnull));
		messages = lappend(messages, message);
		MemoryContextSwitchTo(old);
	}
	hc_statement_end(&statement);
	return messages;
}

void
hc_dead_message_remove(int64 id)
{
	HcStatement statement = {0};

	hc_statement_add_integer(&statement, id);
	if (hc_statement_run(&statement,
						 "DELETE FROM hybrid_cache.dead_message WHERE id = $1") != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the dead message was deleted while its handler ran")));
}

void
hc_dead_message_refuse(int64 id, const char *sqlstate, const char *error)
{
	HcStatement statement = {0};

	hc_statement_add_integer(&statement, id);
	hc_statement_add_text(&statement, error);
	hc_statement_add_text(&statement, sqlstate);
	hc_statement_add(&statement, TIMESTAMPTZOID,
					 TimestampTzGetDatum(GetCurrentTimestamp()), false);
	(void) hc_statement_run(&statement,
							"UPDATE hybrid_cache.dead_message SET retry = false, error = $2,"
							" sqlstate = $3, at = $4, attempts = attempts + 1 WHERE id = $1");
}

bool
hc_dead_message_ask(const HcConsumer *consumer, const char *message)
{
	HcStatement statement = {0};

	hc_statement_add_text(&statement, consumer->name);
	hc_statement_add_text(&statement, message);
	return hc_statement_run(&statement,
							"UPDATE hybrid_cache.dead_message SET retry = true"
							" WHERE consumer = $1::name AND message = $2 AND fields IS NOT NULL") > 0;
}
