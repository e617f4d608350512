/*
 * mark.c
 *	  What a hold in Redis carries while the transaction that took it is open.
 *
 * Redis does what it is told at once, long before the transaction has ended.  So
 * what it holds for a transaction carries the transaction's xid, and everybody
 * who comes across it asks PostgreSQL how that ended, as for a row.  Nothing has
 * to happen at the end, which may be a crash.  That the sync worker is told about
 * an abort only makes it look at once.
 *
 * Locking: sessions set an atomic in the slot of their database.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "access/xlogrecovery.h"
#include "broken.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "shmem.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/xid8.h"
#include "worker/mark.h"

/* Marks of this transaction are not deeper than this; 0: there are none. */
static int	deepest = 0;

void
hc_mark_make(char *text)
{
	static FullTransactionId marked = {InvalidTransactionId};
	static XLogRecPtr lsn;
	FullTransactionId xid = GetCurrentFullTransactionId();

	deepest = Max(deepest, GetCurrentTransactionNestLevel());
	(void) hc_shmem_mine();		/* so that it is known at an abort */

	/*
	 * The record has the xid.  Having written it, the transaction also waits at
	 * its commit until that is on disk: it has promised something.
	 */
	if (!FullTransactionIdEquals(marked, xid))
	{
		XLogBeginInsert();
		lsn = XLogInsert(RM_XLOG_ID, XLOG_NOOP);
		marked = xid;
	}
	snprintf(text, HC_MARK_SIZE, UINT64_FORMAT ":%u:" UINT64_FORMAT ":" UINT64_FORMAT ":" UINT64_FORMAT,
			 GetSystemIdentifier(), MyDatabaseId, hc_shared->start, lsn,
			 U64FromFullTransactionId(xid));
	if (hc_breaks(HC_BREAK_MARK))
		strlcpy(text, "-", HC_MARK_SIZE);
}

/* A number and what follows it; false if it is none. */
static bool
next_number(const char **cursor, char delimiter, uint64 *number)
{
	char	   *end;

	if (**cursor < '0' || **cursor > '9')
		return false;
	errno = 0;
	*number = strtou64(*cursor, &end, 10);
	if (errno != 0 || *end != delimiter)
		return false;
	*cursor = end + 1;
	return true;
}

bool
hc_mark_parse(const char *text, size_t len, HcMark *mark)
{
	char		copy[HC_MARK_SIZE];
	const char *cursor = copy;
	uint64		database;
	uint64		xid;

	if (len >= sizeof(copy) || memchr(text, '\0', len) != NULL)
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (!next_number(&cursor, ':', &mark->system) ||
		!next_number(&cursor, ':', &database) || database > PG_UINT32_MAX ||
		!next_number(&cursor, ':', &mark->start) ||
		!next_number(&cursor, ':', &mark->lsn) ||
		!next_number(&cursor, '\0', &xid) ||
		!TransactionIdIsNormal((TransactionId) xid))
		return false;
	mark->database = (Oid) database;
	mark->xid = FullTransactionIdFromU64(xid);
	return true;
}

bool
hc_mark_is_recent(const HcMark *mark)
{
	return mark->system == GetSystemIdentifier() && mark->start == hc_shared->start;
}

HcMarkState
hc_mark_state(const HcMark *mark)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		status;
	char	   *word;

	/* the end of the recovery that this run of the server began with, if any */
	XLogRecPtr	recovered = GetXLogReplayRecPtr(NULL);

	/* lost in a crash, or by a backup or a failover: it has not been committed */
	if (!hc_mark_is_recent(mark) && mark->lsn > recovered && !XLogRecPtrIsInvalid(recovered))
		return HC_MARK_ABORTED;
	if (!FullTransactionIdPrecedes(mark->xid, ReadNextFullTransactionId()))
		return HC_MARK_ABORTED;
	if (TransactionIdIsCurrentTransactionId(XidFromFullTransactionId(mark->xid)))
		return HC_MARK_OWN;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = FullTransactionIdGetDatum(mark->xid);
	fcinfo->args[0].isnull = false;
	status = pg_xact_status(fcinfo);
	if (fcinfo->isnull)
		return HC_MARK_ABORTED;
	word = TextDatumGetCString(status);
	if (strcmp(word, "committed") == 0)
		return HC_MARK_COMMITTED;
	return strcmp(word, "aborted") == 0 ? HC_MARK_ABORTED : HC_MARK_OPEN;
}

/* No network, no allocation, no error. */
static void
tell_worker(void)
{
	HcDatabase *db = hc_shmem_mine();

	if (db == NULL)
		return;
	pg_atomic_write_u32(&db->marks_aborted, 1);
	hc_shmem_wake();
}

static void
subxact_callback(SubXactEvent event, SubTransactionId subid,
				 SubTransactionId parent, void *arg)
{
	int			level;

	if (deepest == 0)
		return;
	level = GetCurrentTransactionNestLevel();
	if (deepest < level)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		deepest = level - 1;
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		/* outside of it there may be some or not; this does not come twice */
		deepest = level - 1;
		tell_worker();
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_ABORT:
			if (deepest > 0)
				tell_worker();
			deepest = 0;
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			deepest = 0;
			break;
		default:
			break;
	}
}

void
hc_mark_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
