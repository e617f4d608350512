/*
 * mark.h
 *	  What a hold in Redis carries while the transaction that took it is open.
 */
#ifndef HC_MARK_H
#define HC_MARK_H

#include "access/transam.h"
#include "access/xlogdefs.h"

/*
 * A mark names a transaction, or subtransaction, of this system: it can be asked
 * how that ended.  An xid that a crash has lost is given again; so the mark also
 * has where in the WAL the xid was used, and start tells one run of the server
 * from the next.
 */
typedef struct HcMark
{
	uint64		system;
	Oid			database;
	uint64		start;
	XLogRecPtr	lsn;			/* a crash that has lost this has lost the xid */
	FullTransactionId xid;
} HcMark;

#define HC_MARK_SIZE	112

typedef enum HcMarkState
{
	HC_MARK_OWN,				/* of the current transaction */
	HC_MARK_OPEN,				/* in progress, or prepared */
	HC_MARK_COMMITTED,
	HC_MARK_ABORTED				/* also: nothing is known of it any more */
} HcMarkState;

/*
 * The mark of the current (sub)transaction, which gets an xid.  When that aborts,
 * the sync worker is told; when it commits, the commit is durable as far as
 * synchronous_commit asks for it, although no row has changed.  text has
 * HC_MARK_SIZE bytes and is NUL-terminated.  To be called before anything is sent
 * that has the mark.
 */
extern void hc_mark_make(char *text);

/* false for what hc_mark_make() cannot have written. */
extern bool hc_mark_parse(const char *text, size_t len, HcMark *mark);

/* Was it made by this run of this server? */
extern bool hc_mark_is_recent(const HcMark *mark);

/*
 * How the transaction ended, for a mark of this system.  Where nobody has asked
 * in the run of the server that followed a crash, the xid may be that of another
 * transaction.  Needs no transaction.
 */
extern HcMarkState hc_mark_state(const HcMark *mark);

/* Registers the transaction callbacks; called once, from _PG_init. */
extern void hc_mark_init(void);

#endif							/* HC_MARK_H */
