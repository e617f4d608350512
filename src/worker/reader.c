/*
 * reader.c
 *	  Finds the changes of a database in the WAL and the order in which they
 *	  were committed.
 *
 * Only the WAL is asked: a change record is remembered under its transaction
 * until a commit or abort record ends it.  CLOG would not do, since a long
 * backlog outlives it, and neither would a list of open transactions, since
 * there is none of the past.  Only flushed WAL is read, so whatever comes out
 * of here survives a crash.
 *
 * The records of small transactions are kept in memory; beyond a budget only
 * their positions, and a second WAL reader gets them again at commit.
 */
#include "postgres.h"

#include "access/rmgr.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogutils.h"
#include "broken.h"
#include "catalog/pg_control.h"
#include "shmem.h"
#include "utils/memutils.h"
#include "worker/reader.h"

/* Payloads that are kept in memory, of all open transactions together. */
#define KEEP_BYTES		((Size) 16 * 1024 * 1024)

/* WAL that is read before the caller has a look at the rest of the world. */
#define TURN_BYTES		((XLogRecPtr) 4 * 1024 * 1024)

typedef struct HcWal
{
	XLogReaderState *state;
	ReadLocalXLogPageNoWaitPrivate end;
} HcWal;

typedef struct OpenEntry
{
	TransactionId xid;			/* hash key */
	HcTransaction *txn;
	char		status;
} OpenEntry;

#define SH_PREFIX		open
#define SH_ELEMENT_TYPE	OpenEntry
#define SH_KEY_TYPE		TransactionId
#define SH_KEY			xid
#define SH_HASH_KEY(tb, key)	murmurhash32(key)
#define SH_EQUAL(tb, a, b)		((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "common/hashfn.h"
#include "lib/simplehash.h"

struct HcReader
{
	MemoryContext context;
	Oid			database;
	XLogRecPtr	start;			/* to be searched for, until positioned */
	XLogRecPtr	skip;			/* commits that end here or before are no news */
	bool		positioned;
	HcWal		wal;			/* goes forward */
	HcWal		again;			/* reads single records; state NULL: unused */
	open_hash  *open;			/* by xid */
	dlist_head	in_order;		/* the same, oldest first record first */
	int			n_prepared;
	Size		kept;			/* bytes of payloads in memory */
};

static void
wal_open(HcWal *wal)
{
	wal->state = XLogReaderAllocate(wal_segment_size, NULL,
									XL_ROUTINE(.page_read = &read_local_xlog_page_no_wait,
											   .segment_open = &wal_segment_open,
											   .segment_close = &wal_segment_close),
									&wal->end);
	if (wal->state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while allocating a WAL reading processor.")));
}

/* The next record; false at the end of flushed WAL.  Raises if it is damaged. */
static bool
wal_next(HcWal *wal)
{
	char	   *message;

	wal->end.end_of_wal = false;
	if (XLogReadRecord(wal->state, &message) != NULL)
		return true;
	if (wal->end.end_of_wal)
		return false;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("could not read WAL at %X/%X",
					LSN_FORMAT_ARGS(wal->state->EndRecPtr)),
			 message ? errdetail_internal("%s", message) : 0));
	return false;				/* keep compiler quiet */
}

HcReader *
hc_reader_open(Oid database, XLogRecPtr start, XLogRecPtr skip)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache reader",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HcReader   *reader = palloc0(sizeof(HcReader));

	reader->context = context;
	reader->database = database;
	reader->start = start;
	reader->skip = skip;
	reader->open = open_create(context, 64, NULL);
	dlist_init(&reader->in_order);
	wal_open(&reader->wal);
	MemoryContextSwitchTo(old);
	return reader;
}

void
hc_reader_close(HcReader *reader)
{
	if (reader->wal.state != NULL)
		XLogReaderFree(reader->wal.state);
	if (reader->again.state != NULL)
		XLogReaderFree(reader->again.state);
	MemoryContextDelete(reader->context);
}

static HcTransaction *
find_open(HcReader *reader, TransactionId xid)
{
	OpenEntry  *entry = open_lookup(reader->open, xid);

	return entry ? entry->txn : NULL;
}

/* It is not open any more; the memory remains. */
static void
forget_open(HcReader *reader, HcTransaction *txn)
{
	open_delete(reader->open, txn->xid);
	dlist_delete(&txn->node);
	if (txn->prepared)
		reader->n_prepared--;
}

void
hc_reader_release(HcReader *reader, HcTransaction *txn)
{
	int			i;

	for (i = 0; i < txn->n_messages; i++)
	{
		if (txn->messages[i].payload != NULL)
		{
			reader->kept -= txn->messages[i].len;
			pfree(txn->messages[i].payload);
		}
	}
	pfree(txn->messages);
	if (txn->ranges != NULL)
		pfree(txn->ranges);
	pfree(txn);
}

static int
compare_ranges(const void *a, const void *b)
{
	const HcOpRange *left = a;
	const HcOpRange *right = b;

	if (left->from != right->from)
		return (left->from < right->from) ? -1 : 1;
	return 0;
}

/* Learns what of the transaction's ops was taken back. */
static void
add_ranges(HcReader *reader, HcTransaction *txn, HcRecord *record)
{
	HcOpRange	range;

	if (record->n_ranges == 0)
		return;
	if (txn->ranges != NULL)
	{
		pfree(txn->ranges);
		txn->n_ranges = 0;
	}
	txn->ranges = MemoryContextAllocHuge(reader->context,
										 record->n_ranges * sizeof(HcOpRange));
	while (hc_record_next_range(record, &range))
		txn->ranges[txn->n_ranges++] = range;
	qsort(txn->ranges, txn->n_ranges, sizeof(HcOpRange), compare_ranges);
}

/*
 * Looks which sorts of ops there are.  Most large transactions have only one,
 * and are then spared a closer look before they are cut into batches.
 */
static void
look_at_ops(HcTransaction *txn, const HcRecord *record)
{
	const char *cursor = record->ops;
	uint64		i;

	for (i = 0; i < record->n_ops; i++)
	{
		HcOp		op;

		if (txn->has_sets && txn->has_removals)
			return;
		if (!hc_op_decode(&cursor, record->end, &op))
		{
			txn->damaged = true;
			return;
		}
		if (hc_op_is_event(op.kind))
			continue;
		if (!hc_op_is_removal(op.kind))
			txn->has_sets = true;
		else if (OidIsValid(op.version.relation))
			txn->has_removals = true;
	}
}

static void
remember(HcReader *reader, const char *payload, size_t len)
{
	XLogRecPtr	lsn = reader->wal.state->ReadRecPtr;
	HcTransaction *txn;
	HcMessage  *message;
	HcRecord	record;

	if (!hc_record_decode(payload, len, &record))
	{
		hc_shmem_count(HC_COUNT_DAMAGED, 1);
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("change record at %X/%X cannot be decoded",
						LSN_FORMAT_ARGS(lsn))));
		return;
	}

	txn = find_open(reader, record.xid);
	if (txn == NULL)
	{
		OpenEntry  *entry;
		bool		found;

		txn = MemoryContextAllocZero(reader->context, sizeof(HcTransaction));
		txn->xid = record.xid;
		txn->first_lsn = lsn;
		txn->max_messages = 1;
		txn->messages = MemoryContextAlloc(reader->context, sizeof(HcMessage));
		entry = open_insert(reader->open, record.xid, &found);
		entry->txn = txn;
		dlist_push_tail(&reader->in_order, &txn->node);
	}
	if (record.n_before != (uint64) txn->n_messages)
		txn->damaged = true;
	txn->window = record.window;
	txn->window_mapping = record.mapping;
	txn->window_number = record.number;
	txn->marker = record.marker;
	txn->last |= record.last;
	if (txn->n_messages == txn->max_messages)
	{
		txn->max_messages *= 2;
		txn->messages = repalloc_huge(txn->messages,
									  txn->max_messages * sizeof(HcMessage));
	}

	message = &txn->messages[txn->n_messages++];
	message->lsn = lsn;
	message->len = len;
	message->payload = NULL;
	if (reader->kept + len <= KEEP_BYTES)
	{
		message->payload = MemoryContextAlloc(reader->context, len);
		memcpy(message->payload, payload, len);
		reader->kept += len;
	}

	txn->mapped |= record.mapped;
	txn->n_ops += record.n_ops;
	txn->n_bytes += len;
	look_at_ops(txn, &record);
	add_ranges(reader, txn, &record);
}

static void
drop(HcReader *reader, TransactionId xid)
{
	HcTransaction *txn = find_open(reader, xid);

	if (txn != NULL)
	{
		forget_open(reader, txn);
		hc_reader_release(reader, txn);
	}
}

/* The transaction has committed; NULL if that is no news to the caller. */
static HcTransaction *
finish(HcReader *reader, TransactionId xid)
{
	HcTransaction *txn = find_open(reader, xid);

	if (txn == NULL)
		return NULL;
	if (reader->wal.state->EndRecPtr <= reader->skip)
	{
		drop(reader, xid);
		return NULL;
	}
	forget_open(reader, txn);
	txn->commit_lsn = reader->wal.state->EndRecPtr;
	txn->restart_lsn = hc_reader_restart(reader);
	if (txn->damaged)
	{
		hc_shmem_count(HC_COUNT_DAMAGED, 1);
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("change records of transaction %u, which committed at %X/%X, are damaged or missing",
						xid, LSN_FORMAT_ARGS(txn->commit_lsn))));
	}
	return txn;
}

/*
 * The server has stopped or crashed before this record: whatever was open is
 * dead, though no abort record says so, unless it was prepared.
 */
static void
drop_dead(HcReader *reader)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &reader->in_order)
	{
		HcTransaction *txn = dlist_container(HcTransaction, node, iter.cur);

		if (!txn->prepared)
		{
			forget_open(reader, txn);
			hc_reader_release(reader, txn);
		}
	}
}

static HcTransaction *
read_xact(HcReader *reader)
{
	XLogReaderState *state = reader->wal.state;
	uint8		info = XLogRecGetInfo(state);
	TransactionId xid = XLogRecGetXid(state);

	switch (info & XLOG_XACT_OPMASK)
	{
		case XLOG_XACT_COMMIT:
			return finish(reader, xid);
		case XLOG_XACT_COMMIT_PREPARED:
			{
				xl_xact_parsed_commit parsed;

				ParseCommitRecord(info, (xl_xact_commit *) XLogRecGetData(state),
								  &parsed);
				return finish(reader, parsed.twophase_xid);
			}
		case XLOG_XACT_ABORT:
			drop(reader, xid);
			break;
		case XLOG_XACT_ABORT_PREPARED:
			{
				xl_xact_parsed_abort parsed;

				ParseAbortRecord(info, (xl_xact_abort *) XLogRecGetData(state),
								 &parsed);
				drop(reader, parsed.twophase_xid);
				break;
			}
		case XLOG_XACT_PREPARE:
			{
				HcTransaction *txn = find_open(reader, xid);

				if (txn != NULL && !txn->prepared)
				{
					txn->prepared = true;
					reader->n_prepared++;
				}
				break;
			}
		default:
			break;
	}
	return NULL;
}

/* The transaction of a change record, for builds that do not wait for its end. */
static HcTransaction *
finish_early(HcReader *reader, const char *payload, size_t len)
{
	HcRecord	record;

	if ((hc_breaks(HC_BREAK_COMMIT) || hc_breaks(HC_BREAK_FLUSH)) &&
		hc_record_decode(payload, len, &record) &&
		(hc_breaks(HC_BREAK_COMMIT) ||
		 (record.closing && TransactionIdDidCommit(record.xid))))
		return finish(reader, record.xid);
	return NULL;
}

/* What the record at hand tells; a transaction if it ends one of ours. */
static HcTransaction *
read_record(HcReader *reader)
{
	XLogReaderState *state = reader->wal.state;
	const char *payload;
	size_t		len;

	switch (XLogRecGetRmid(state))
	{
		case RM_LOGICALMSG_ID:
			if (!hc_record_is_ours(state, reader->database, &payload, &len))
				break;
			remember(reader, payload, len);
			return finish_early(reader, payload, len);
		case RM_XACT_ID:
			return read_xact(reader);
		case RM_XLOG_ID:
			{
				uint8		info = XLogRecGetInfo(state) & ~XLR_INFO_MASK;

				if (info == XLOG_CHECKPOINT_SHUTDOWN ||
					info == XLOG_END_OF_RECOVERY)
					drop_dead(reader);
				break;
			}
		default:
			break;
	}
	return NULL;
}

/*
 * Positions may come from elsewhere (a slot that somebody advanced), so the
 * first record is searched for rather than expected.
 */
static bool
find_start(HcReader *reader)
{
	reader->wal.end.end_of_wal = false;
	if (!XLogRecPtrIsInvalid(XLogFindNextRecord(reader->wal.state, reader->start)))
	{
		reader->positioned = true;
		return true;
	}
	if (!reader->wal.end.end_of_wal)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not find a valid WAL record after %X/%X",
						LSN_FORMAT_ARGS(reader->start))));
	return false;
}

HcReadResult
hc_reader_next(HcReader *reader, HcTransaction **txn)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	HcReadResult result = HC_READ_MORE;
	XLogRecPtr	stop;

	if (!reader->positioned && !find_start(reader))
	{
		MemoryContextSwitchTo(old);
		return HC_READ_END;
	}

	stop = reader->wal.state->EndRecPtr + TURN_BYTES;
	while (reader->wal.state->EndRecPtr < stop)
	{
		if (!wal_next(&reader->wal))
		{
			result = HC_READ_END;
			break;
		}
		*txn = read_record(reader);
		if (*txn != NULL)
		{
			result = HC_READ_TRANSACTION;
			break;
		}
	}
	MemoryContextSwitchTo(old);
	return result;
}

void
hc_reader_fetch(HcReader *reader, HcTransaction *txn, int i, HcRecord *record)
{
	HcMessage  *message = &txn->messages[i];
	const char *payload = message->payload;
	size_t		len = message->len;

	if (payload == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(reader->context);

		if (reader->again.state == NULL)
			wal_open(&reader->again);
		XLogBeginRead(reader->again.state, message->lsn);
		if (!wal_next(&reader->again) ||
			!hc_record_is_ours(reader->again.state, reader->database,
							   &payload, &len))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("change record at %X/%X is not there any more",
							LSN_FORMAT_ARGS(message->lsn))));
		MemoryContextSwitchTo(old);
	}

	/* it was decoded once already */
	if (!hc_record_decode(payload, len, record))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("change record at %X/%X has changed",
						LSN_FORMAT_ARGS(message->lsn))));
}

XLogRecPtr
hc_reader_position(HcReader *reader)
{
	return reader->positioned ? reader->wal.state->EndRecPtr : reader->start;
}

XLogRecPtr
hc_reader_restart(HcReader *reader)
{
	if (dlist_is_empty(&reader->in_order))
		return hc_reader_position(reader);
	return dlist_head_element(HcTransaction, node, &reader->in_order)->first_lsn;
}

bool
hc_reader_must_poll(HcReader *reader)
{
	return reader->n_prepared > 0;
}
