/*
 * record.h
 *	  The change record: ops of one transaction, as one WAL record.
 *
 * A transaction writes one closing record, and before it a piece each time its
 * buffer is full.  Ops are numbered through the whole transaction; the closing
 * record names the ranges that savepoints took back after they were written.
 *
 * Records of the keeper name a window (worker/window.h): a marker, which opens
 * it, and then any number of transactions with ops that count only for entries
 * which nobody touched since.  Each record of those says what its ops were found
 * to be, so that what is taken can be counted.
 */
#ifndef HC_RECORD_H
#define HC_RECORD_H

#include "access/xlogdefs.h"
#include "access/xlogreader.h"
#include "mapping/op.h"
#include "shmem.h"

typedef struct HcOpRange
{
	uint64		from;			/* the first op taken back */
	uint64		to;				/* the first that is not */
} HcOpRange;

typedef struct HcRecord
{
	TransactionId xid;			/* top-level transaction */
	bool		closing;		/* the transaction's last but for late ones */
	bool		late;			/* written after the closing record */
	bool		mapped;			/* the transaction made or dropped a mapping */
	uint64		first_op;		/* number of the first op in here */
	uint64		n_ops;
	uint64		n_before;		/* records this transaction wrote before */
	uint64		window;			/* of the keeper; 0: an ordinary transaction */
	Oid			mapping;		/* with a window: which mapping it is for */
	uint64		number;			/* with a window: of the transaction in it */
	HcFound		found;			/* with a window: what the ops are for */
	bool		marker;			/* the window begins with this transaction */
	bool		last;			/* it ends with this one */
	bool		dry;			/* with a window: only to be counted */
	uint64		n_ranges;		/* of taken-back ops; only if closing */
	const char *ranges;			/* encoded; see hc_record_next_range() */
	const char *ranges_end;
	const char *ops;			/* n_ops encoded ops ... */
	const char *end;			/* ... up to here */
} HcRecord;

/*
 * Writes the record into the WAL (not flushed) and returns its end.  ranges is
 * an array of record->n_ranges here; record->ranges is not looked at.  Needs a
 * transaction that may still write; raises what XLogInsert raises.
 */
extern XLogRecPtr hc_record_write(const HcRecord *record,
								  const HcOpRange *ranges);

/*
 * Is the record the reader stands at a change record of this database?  Then
 * *message and *len are its payload, inside the reader's memory.  A message
 * made by pg_logical_emit_message() is never one, whatever its prefix.
 */
extern bool hc_record_is_ours(XLogReaderState *reader, Oid database,
							  const char **message, size_t *len);

/*
 * Decodes a payload.  false if hc_record_write() cannot have written it.  The
 * result points into the payload.  Ops are only framed, not decoded.
 */
extern bool hc_record_decode(const char *message, size_t len, HcRecord *record);

/* The next taken-back range; false when there is none left or it is damaged. */
extern bool hc_record_next_range(HcRecord *record, HcOpRange *range);

#endif							/* HC_RECORD_H */
