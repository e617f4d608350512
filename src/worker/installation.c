/*
 * installation.c
 *	  The row of hybrid_cache.installation.
 *
 * The row is copied with its database by CREATE DATABASE ... TEMPLATE and by
 * pg_upgrade, and says then where it comes from.  It is renewed once, so that
 * what follows from that is reported once, not at each start.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/pg_lsn.h"
#include "utils/xid8.h"
#include "worker/installation.h"

static void
execute(const char *command, int nargs, Oid *types, Datum *values,
		const char *nulls)
{
	int			result = SPI_execute_with_args(command, nargs, types, values,
											   nulls, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", command,
			 SPI_result_code_string(result));
}

void
hc_installation_read(HcInstallation *installation)
{
	bool		isnull;
	Datum		value;
	HeapTuple	tuple;
	TupleDesc	desc;

	memset(installation, 0, sizeof(*installation));
	SPI_connect();
	execute("SELECT created_lsn, database, system, unsettled_xid,"
			" former_system, former_database"
			" FROM hybrid_cache.installation", 0, NULL, NULL, NULL);
	if (SPI_processed != 1)
	{
		installation->foreign = "The row of hybrid_cache.installation was missing.";
		SPI_finish();
		return;
	}

	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	value = SPI_getbinval(tuple, desc, 4, &isnull);
	if (!isnull)
		installation->unsettled = DatumGetFullTransactionId(value);
	installation->created_lsn = DatumGetLSN(SPI_getbinval(tuple, desc, 1, &isnull));
	installation->other_system =
		(uint64) DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull)) != GetSystemIdentifier();
	installation->former_system = (uint64) DatumGetInt64(SPI_getbinval(tuple, desc, 5, &isnull));
	installation->former_database = DatumGetObjectId(SPI_getbinval(tuple, desc, 6, &isnull));
	if (installation->other_system)
	{
		installation->former_system = (uint64) DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		installation->former_database = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
		installation->foreign = "The database comes from another system, as after pg_upgrade.";
	}
	else if (DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull)) != MyDatabaseId)
		installation->foreign = "The database is a copy of another one.";

	/* pg_resetwal can take the server back behind it */
	else if (installation->created_lsn > GetXLogInsertRecPtr())
		installation->foreign = "The WAL of the server has begun anew.";
	SPI_finish();
}

void
hc_installation_renew(HcInstallation *installation, XLogRecPtr created_lsn)
{
	Oid			types[5] = {LSNOID, OIDOID, INT8OID, INT8OID, OIDOID};
	Datum		values[5];
	uint64		former_system = installation->former_system;
	Oid			former_database = installation->former_database;
	const char *nulls = (former_system == 0) ? "   nn" : "     ";

	SPI_connect();
	if (installation->other_system)
		execute("DELETE FROM hybrid_cache.owed", 0, NULL, NULL, NULL);
	execute("DELETE FROM hybrid_cache.installation", 0, NULL, NULL, NULL);

	memset(installation, 0, sizeof(*installation));
	installation->created_lsn = created_lsn;
	installation->former_system = former_system;
	installation->former_database = former_database;
	values[0] = LSNGetDatum(created_lsn);
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	values[2] = Int64GetDatum((int64) GetSystemIdentifier());
	values[3] = Int64GetDatum((int64) former_system);
	values[4] = ObjectIdGetDatum(former_database);
	execute("INSERT INTO hybrid_cache.installation VALUES ($1, $2, $3, NULL, $4, $5)",
			5, types, values, nulls);
	SPI_finish();
}

void
hc_installation_set_unsettled(FullTransactionId unsettled)
{
	Oid			types[1] = {XID8OID};
	Datum		values[1];
	const char *nulls = FullTransactionIdIsValid(unsettled) ? " " : "n";

	values[0] = FullTransactionIdGetDatum(unsettled);
	SPI_connect();
	execute("UPDATE hybrid_cache.installation SET unsettled_xid = $1",
			1, types, values, nulls);
	SPI_finish();
}
