/*
 * gap.c
 *	  Changes that may be missing in Redis and will not be read again.
 *
 * What is missing is not known, since only the WAL could tell, so every mapping
 * owes a comparison.  A comparison sees what is committed.  What was open when
 * the gap came is seen only by a second one: its change records may be lost,
 * while its commit record need not even say that there were any.  Waiting for
 * those transactions before the first comparison would not do, as one that is
 * prepared can stay open for weeks.
 */
#include "postgres.h"

#include "access/xact.h"
#include "capture/catalog.h"
#include "capture/ledger.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/gap.h"
#include "worker/installation.h"

/* Transactions before this one were open when the gap came; invalid: none. */
static FullTransactionId unsettled_xid;

/* The last reason that was logged; NULL: none since something worked. */
static char *told = NULL;

/*
 * Is a transaction before this one open, in whatever database?  A prepared one
 * is.
 */
static bool
is_open_before(FullTransactionId xid)
{
	FullTransactionId next = ReadNextFullTransactionId();
	TransactionId oldest = GetOldestActiveTransactionId();
	uint64		distance;

	/* none of those that are open can be 2^31 old; oldest may be after next */
	distance = (uint32) (XidFromFullTransactionId(next) - oldest);
	if (distance > PG_INT32_MAX)
		distance = 0;
	return U64FromFullTransactionId(next) - distance <
		U64FromFullTransactionId(xid);
}

static void
tell(const char *reason)
{
	if (told != NULL && strcmp(told, reason) == 0)
		return;
	if (told != NULL)
		pfree(told);
	told = MemoryContextStrdup(TopMemoryContext, reason);
	ereport(LOG,
			(errmsg("%s may have missed changes: every mapping must be compared with its table",
					MyBgworkerEntry->bgw_name),
			 errdetail_internal("%s", reason)));
}

FullTransactionId
hc_gap_open_now(void)
{
	FullTransactionId next = ReadNextFullTransactionId();

	return is_open_before(next) ? next : InvalidFullTransactionId;
}

void
hc_gap_owe_here(const char *reason, FullTransactionId open)
{
	tell(reason);
	if (FullTransactionIdIsValid(open))
	{
		hc_installation_set_unsettled(open);
		unsettled_xid = open;
	}
	hc_owed_all(reason);
}

void
hc_gap_owe(const char *reason)
{
	MemoryContext old = CurrentMemoryContext;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	hc_gap_owe_here(reason, hc_gap_open_now());
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

void
hc_gap_forget(void)
{
	if (told != NULL)
		pfree(told);
	told = NULL;
}

void
hc_gap_set_unsettled(FullTransactionId unsettled)
{
	unsettled_xid = unsettled;
}

void
hc_gap_look(void)
{
	static const char reason[] =
		"A transaction was open when WAL with its changes was given up, and has ended.";
	MemoryContext old = CurrentMemoryContext;

	if (!FullTransactionIdIsValid(unsettled_xid) ||
		is_open_before(unsettled_xid))
		return;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	tell(reason);
	hc_installation_set_unsettled(InvalidFullTransactionId);
	hc_owed_all(reason);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	unsettled_xid = InvalidFullTransactionId;
}

void
hc_gap_owe_lost(List *mappings)
{
	MemoryContext old = CurrentMemoryContext;
	ListCell   *lc;

	if (mappings == NIL)
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(lc, mappings)
	{
		if (hc_catalog_trigger(lfirst_oid(lc), NULL) != NULL)
			hc_owed_mark(lfirst_oid(lc), "A repair was lost.");
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	list_free(mappings);
}
