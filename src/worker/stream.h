/*
 * stream.h
 *	  The ops of a committed transaction one after another, without those that
 *	  savepoints took back.
 */
#ifndef HC_STREAM_H
#define HC_STREAM_H

#include "worker/reader.h"

typedef struct HcStream
{
	HcReader   *reader;
	HcTransaction *txn;
	int			message;		/* the change record at hand, or -1 */
	HcRecord	record;
	uint64		ops_left;		/* in it */
	const char *cursor;
	uint64		number;			/* of the op at the cursor */
	int			range;			/* first taken-back range that is not passed */
} HcStream;

extern void hc_stream_begin(HcStream *stream, HcReader *reader,
							HcTransaction *txn);

/*
 * The next op and its number in the transaction; false at the end.  What the
 * op points to stays valid until the next call for this reader.
 */
extern bool hc_stream_next(HcStream *stream, HcOp *op, uint64 *number);

#endif							/* HC_STREAM_H */
