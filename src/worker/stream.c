/*
 * stream.c
 *	  Walks through the change records of a committed transaction.
 *
 * It can be walked through more than once: records that were too large to keep
 * are read from the WAL again each time.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "worker/stream.h"

void
hc_stream_begin(HcStream *stream, HcReader *reader, HcTransaction *txn)
{
	memset(stream, 0, sizeof(*stream));
	stream->reader = reader;
	stream->txn = txn;
	stream->message = -1;
}

/* Is the op taken back?  Numbers come in ascending order, as the ranges are. */
static bool
is_taken_back(HcStream *stream, uint64 number)
{
	const HcTransaction *txn = stream->txn;

	while (stream->range < txn->n_ranges &&
		   txn->ranges[stream->range].to <= number)
		stream->range++;
	return stream->range < txn->n_ranges &&
		txn->ranges[stream->range].from <= number;
}

/* Goes to the next change record that has ops; false if there is none. */
static bool
next_record(HcStream *stream)
{
	while (stream->ops_left == 0)
	{
		if (stream->message + 1 >= stream->txn->n_messages)
			return false;
		CHECK_FOR_INTERRUPTS();
		hc_reader_fetch(stream->reader, stream->txn, ++stream->message,
						&stream->record);
		stream->ops_left = stream->record.n_ops;
		stream->cursor = stream->record.ops;
		stream->number = stream->record.first_op;
	}
	return true;
}

bool
hc_stream_next(HcStream *stream, HcOp *op, uint64 *number)
{
	while (next_record(stream))
	{
		if (!hc_op_decode(&stream->cursor, stream->record.end, op))
		{
			/* the reader reported the damage; the rest of the record is lost */
			stream->ops_left = 0;
			continue;
		}
		stream->ops_left--;
		*number = stream->number++;
		if (!is_taken_back(stream, *number))
			return true;
	}
	return false;
}
