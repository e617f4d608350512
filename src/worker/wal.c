/*
 * wal.c
 *	  Where the WAL ends.
 *
 * GetXLogInsertRecPtr() says where the next record begins.  After a record that
 * fills its page that is behind the header of the next page, which is not written
 * before that record is: to flush up to there is an error, and to wait until
 * somebody has read so far may take as long as the server is idle.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "worker/wal.h"

XLogRecPtr
hc_wal_flush(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();
	uint32		offset = end % XLOG_BLCKSZ;

	if (offset == (XLogSegmentOffset(end, wal_segment_size) < XLOG_BLCKSZ
				   ? SizeOfXLogLongPHD : SizeOfXLogShortPHD))
		end -= offset;
	XLogFlush(end);
	return end;
}
