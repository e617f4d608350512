/*
 * statement.c
 *	  An SQL statement on a table of the extension, run with the rights of a
 *	  superuser and a search_path of its own.
 *
 * Handlers run in the same transactions, and sessions call the functions that lead
 * here: so each statement takes both, and gives both back.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "inbound/statement.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

void
hc_statement_add(HcStatement *statement, Oid type, Datum value, bool isnull)
{
	Assert(statement->n < HC_STATEMENT_MAX_ARGUMENTS);
	statement->types[statement->n] = type;
	statement->values[statement->n] = value;
	statement->nulls[statement->n] = isnull ? 'n' : ' ';
	statement->n++;
}

void
hc_statement_add_integer(HcStatement *statement, int64 value)
{
	hc_statement_add(statement, INT8OID, Int64GetDatum(value), false);
}

void
hc_statement_add_text(HcStatement *statement, const char *value)
{
	hc_statement_add(statement, TEXTOID,
					 value == NULL ? (Datum) 0 : CStringGetTextDatum(value),
					 value == NULL);
}

void
hc_statement_add_id(HcStatement *statement, HcMessageId id)
{
	char		text[HC_MESSAGE_ID_SIZE];

	hc_message_format_id(id, text);
	hc_statement_add_text(statement, text);
}

uint64
hc_statement_begin(HcStatement *statement, const char *command)
{
	int			result;

	GetUserIdAndSecContext(&statement->user, &statement->sec_context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID,
						   statement->sec_context | SECURITY_LOCAL_USERID_CHANGE);
	statement->nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	result = SPI_execute_with_args(command, statement->n, statement->types,
								   statement->values, statement->nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", command,
			 SPI_result_code_string(result));
	return SPI_processed;
}

void
hc_statement_end(HcStatement *statement)
{
	SPI_finish();
	AtEOXact_GUC(true, statement->nestlevel);
	SetUserIdAndSecContext(statement->user, statement->sec_context);
}

uint64
hc_statement_run(HcStatement *statement, const char *command)
{
	uint64		n = hc_statement_begin(statement, command);

	hc_statement_end(statement);
	return n;
}

Datum
hc_statement_value(HeapTuple tuple, int column, bool *isnull)
{
	return SPI_getbinval(tuple, SPI_tuptable->tupdesc, column, isnull);
}

char *
hc_statement_text(HeapTuple tuple, int column)
{
	return SPI_getvalue(tuple, SPI_tuptable->tupdesc, column);
}
