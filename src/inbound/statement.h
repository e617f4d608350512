/*
 * statement.h
 *	  An SQL statement on a table of the extension, run with the rights of a
 *	  superuser and a search_path of its own.
 *
 * To be zeroed; then the arguments are added, in their order, and it is run once.
 * Needs a transaction with an active snapshot.
 */
#ifndef HC_STATEMENT_H
#define HC_STATEMENT_H

#include "executor/spi.h"
#include "inbound/message.h"

#define HC_STATEMENT_MAX_ARGUMENTS	16

typedef struct HcStatement
{
	int			n;
	Oid			types[HC_STATEMENT_MAX_ARGUMENTS];
	Datum		values[HC_STATEMENT_MAX_ARGUMENTS];
	char		nulls[HC_STATEMENT_MAX_ARGUMENTS];

	/* what begin() has changed */
	Oid			user;
	int			sec_context;
	int			nestlevel;
} HcStatement;

extern void hc_statement_add(HcStatement *statement, Oid type, Datum value,
							 bool isnull);
extern void hc_statement_add_integer(HcStatement *statement, int64 value);

/* NULL for null. */
extern void hc_statement_add_text(HcStatement *statement, const char *value);

/* As text. */
extern void hc_statement_add_id(HcStatement *statement, HcMessageId id);

/* Runs one that returns nothing; how many rows it was about. */
extern uint64 hc_statement_run(HcStatement *statement, const char *command);

/*
 * Runs one; how many rows there are.  Up to end() they are in SPI_tuptable, and the
 * current memory context is SPI's.  An error in between is undone by the end of the
 * (sub)transaction.
 */
extern uint64 hc_statement_begin(HcStatement *statement, const char *command);
extern void hc_statement_end(HcStatement *statement);

/* A column of a row, counted from 1; as text, NULL for null. */
extern Datum hc_statement_value(HeapTuple tuple, int column, bool *isnull);
extern char *hc_statement_text(HeapTuple tuple, int column);

#endif							/* HC_STATEMENT_H */
