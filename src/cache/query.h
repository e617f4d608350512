/*
 * query.h
 *	  A query of the user's, its rows as one JSON array.
 */
#ifndef HC_QUERY_H
#define HC_QUERY_H

#include "utils/jsonb.h"

/*
 * Runs a SELECT with parameters $1 ... $n, none of which is NULL, as the current
 * user, with a snapshot that is taken now (in a transaction that keeps one: with
 * that).  The result is an array of objects, one per row, in the current memory
 * context.  Values are written as by to_jsonb(), times in UTC.  Raises 22023 for
 * anything but a query that only reads.  function: for messages.
 */
extern Jsonb *hc_query_run(const char *query, int n, Oid *types, Datum *values,
						   const char *function);

#endif							/* HC_QUERY_H */
