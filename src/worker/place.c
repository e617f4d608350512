/*
 * place.c
 *	  The databases of the server, as the launcher knows them.
 *
 * pg_database says which there are.  What a database leaves behind when it is
 * dropped, its slot of shared memory and its replication slot, is given back here,
 * since nobody can say so from inside.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "compat.h"
#include "shmem.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/place.h"
#include "worker/retention.h"
#include "worker/slot.h"

static HcPlace *find_place(List *places, Oid database);
static bool has_processes(const HcPlace *place);
static bool database_exists(Oid database);

void
hc_place_scan(List **places)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	ListCell   *cell;

	foreach(cell, *places)
		((HcPlace *) lfirst(cell))->seen = false;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		HcPlace    *place;

		if (!form->datallowconn || database_is_invalid_form(form))
			continue;
		place = find_place(*places, form->oid);
		if (place == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			place = palloc0(sizeof(HcPlace));
			place->database = form->oid;
			*places = lappend(*places, place);
			MemoryContextSwitchTo(old);
		}
		place->name = form->datname;
		place->seen = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();

	foreach(cell, *places)
	{
		HcPlace    *place = lfirst(cell);

		if (place->seen || has_processes(place))
			continue;
		hc_shmem_release(place->database);
		*places = foreach_delete_current(*places, cell);
		pfree(place);
	}
}

/*
 * A slot outlives its database, and would keep WAL for ever.  Where there is no
 * worker, nobody else minds the limits.
 */
void
hc_place_keep_slots(void)
{
	List	   *databases = hc_slot_databases();
	ListCell   *cell;

	foreach(cell, databases)
	{
		Oid			database = lfirst_oid(cell);

		if (database_exists(database))
			hc_retention_limit_unused(database);
		else if (hc_slot_drop(database))
			ereport(LOG,
					(errmsg("dropped the replication slot of database %u, which does not exist any more",
							database)));
	}
	list_free(databases);
}

static HcPlace *
find_place(List *places, Oid database)
{
	ListCell   *cell;

	foreach(cell, places)
	{
		HcPlace    *place = lfirst(cell);

		if (place->database == database)
			return place;
	}
	return NULL;
}

static bool
has_processes(const HcPlace *place)
{
	int			i;

	for (i = 0; i < HC_NUM_ROLES; i++)
	{
		if (place->roles[i].handle != NULL)
			return true;
	}
	return place->worker.handle != NULL;
}

/* Does pg_database have it, whether or not one may connect to it? */
static bool
database_exists(Oid database)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (!found &&
		   HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
		found = ((Form_pg_database) GETSTRUCT(tuple))->oid == database;
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return found;
}
