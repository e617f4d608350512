/*
 * reader.h
 *	  The committed transactions of a database that have ops, in commit order,
 *	  read from the WAL.
 */
#ifndef HC_READER_H
#define HC_READER_H

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "capture/record.h"
#include "lib/ilist.h"

typedef struct HcReader HcReader;

/* One change record of a transaction. */
typedef struct HcMessage
{
	XLogRecPtr	lsn;			/* where its WAL record starts */
	uint32		len;
	char	   *payload;		/* NULL: read it again when needed */
} HcMessage;

typedef struct HcTransaction
{
	TransactionId xid;
	dlist_node	node;			/* of the reader's list while it is open */
	bool		prepared;
	bool		damaged;		/* some of its records are missing */
	bool		mapped;			/* it made or dropped a mapping */
	uint64		window;			/* of the keeper; 0: not its transaction */
	Oid			window_mapping;
	uint64		window_number;	/* of the transaction in it */
	bool		marker;			/* the window begins here ... */
	bool		last;			/* ... or ends */
	bool		has_sets;		/* maybe: ops taken back count as well */
	bool		has_removals;	/* that name a row version; maybe as above */
	XLogRecPtr	first_lsn;		/* start of its first record */
	XLogRecPtr	commit_lsn;		/* end of its commit record */
	XLogRecPtr	restart_lsn;	/* once it is applied: read on from here */
	uint64		n_ops;			/* in its records, those taken back included */
	uint64		n_bytes;		/* of these records */
	int			n_messages;
	int			max_messages;
	HcMessage  *messages;
	int			n_ranges;		/* of taken-back ops, in ascending order */
	HcOpRange  *ranges;
} HcTransaction;

typedef enum HcReadResult
{
	HC_READ_TRANSACTION,		/* *txn is the next committed transaction */
	HC_READ_MORE,				/* there is more WAL, but look around first */
	HC_READ_END					/* nothing more is flushed now */
} HcReadResult;

/*
 * A reader of the changes of a database, from the first record at or after
 * start.  Transactions that committed at skip or before are left out.  Lives
 * in a memory context of its own, below the current one.
 */
extern HcReader *hc_reader_open(Oid database, XLogRecPtr start,
								XLogRecPtr skip);
extern void hc_reader_close(HcReader *reader);

/*
 * Reads on, a bounded amount of WAL per call.  The transaction belongs to the
 * caller until it gives it to hc_reader_release().  Raises what reading WAL
 * raises; 58P01 (undefined file) means that the WAL is gone.
 */
extern HcReadResult hc_reader_next(HcReader *reader, HcTransaction **txn);
extern void hc_reader_release(HcReader *reader, HcTransaction *txn);

/*
 * Decodes a change record of a transaction.  What *record points to stays
 * valid until the next call.
 */
extern void hc_reader_fetch(HcReader *reader, HcTransaction *txn, int message,
							HcRecord *record);

/* Everything that ends at or before this position was read. */
extern XLogRecPtr hc_reader_position(HcReader *reader);

/* Who goes on from hc_reader_position() must read from here. */
extern XLogRecPtr hc_reader_restart(HcReader *reader);

/* Are there open transactions with ops that can end without a sign to us? */
extern bool hc_reader_must_poll(HcReader *reader);

#endif							/* HC_READER_H */
