/*
 * buffer.h
 *	  The ops that this transaction captured and did not write yet.
 */
#ifndef HC_BUFFER_H
#define HC_BUFFER_H

#include "mapping/op.h"

/*
 * Adds an op to the transaction's change record.  The op is copied.  It is
 * undone with the current (sub)transaction.  Raises when it cannot be written.
 */
extern void hc_buffer_append(const HcOp *op);

/*
 * This transaction makes or drops a mapping: its change record says so, even if
 * it has no ops, to whoever reads the WAL.
 */
extern void hc_buffer_announce(void);

/* Does the current transaction have ops that are not committed? */
extern bool hc_buffer_pending(void);

/* Registers the transaction callbacks; called once, from _PG_init. */
extern void hc_buffer_init(void);

#endif							/* HC_BUFFER_H */
