/*
 * record.c
 *	  Writing change records into the WAL and reading them back.
 *
 * A change record is a logical-message record (RM_LOGICALMSG_ID), which redo
 * ignores and wal_level=replica keeps.  It is not written by
 * LogLogicalMessage(): its prefix could be forged by any role that may call
 * pg_logical_emit_message().  Ours contains a NUL in the middle and its
 * prefix_size spans all of it, while SQL can only make strlen(prefix) + 1.
 *
 * The payload: flags (1 byte), top xid, first op, ops, records before, ranges,
 * each range as (from, length), if there is one the window, its mapping, the number
 * of the transaction in it and what was found, all LEB128; then the ops (op.c).
 */
#include "postgres.h"

#include "access/rmgr.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "capture/record.h"
#include "miscadmin.h"
#include "replication/message.h"

/* The version in it changes with the encoding of the payload or of the ops. */
static const char prefix[] = "hybrid_cache\0v1";

#define FLAG_CLOSING	0x01
#define FLAG_LATE		0x02
#define FLAG_WINDOW		0x04	/* a window follows */
#define FLAG_MARKER		0x08
#define FLAG_MAPPED		0x10
#define FLAG_LAST		0x20
#define FLAG_DRY		0x40
#define FLAGS_KNOWN \
	(FLAG_CLOSING | FLAG_LATE | FLAG_WINDOW | FLAG_MARKER | FLAG_MAPPED | \
	 FLAG_LAST | FLAG_DRY)

/* These mean nothing without a window. */
#define FLAGS_OF_WINDOW	(FLAG_MARKER | FLAG_LAST | FLAG_DRY)

XLogRecPtr
hc_record_write(const HcRecord *record, const HcOpRange *ranges)
{
	xl_logical_message header;
	StringInfoData head;
	uint8		flags = 0;
	uint64		i;
	XLogRecPtr	lsn;

	if (record->closing)
		flags |= FLAG_CLOSING;
	if (record->late)
		flags |= FLAG_LATE;
	if (record->window != 0)
		flags |= FLAG_WINDOW;
	if (record->marker)
		flags |= FLAG_MARKER;
	if (record->mapped)
		flags |= FLAG_MAPPED;
	if (record->last)
		flags |= FLAG_LAST;
	if (record->dry)
		flags |= FLAG_DRY;

	initStringInfo(&head);
	appendStringInfoChar(&head, (char) flags);
	hc_varint_append(&head, record->xid);
	hc_varint_append(&head, record->first_op);
	hc_varint_append(&head, record->n_ops);
	hc_varint_append(&head, record->n_before);
	hc_varint_append(&head, record->n_ranges);
	for (i = 0; i < record->n_ranges; i++)
	{
		hc_varint_append(&head, ranges[i].from);
		hc_varint_append(&head, ranges[i].to - ranges[i].from);
	}
	if (record->window != 0)
	{
		hc_varint_append(&head, record->window);
		hc_varint_append(&head, record->mapping);
		hc_varint_append(&head, record->number);
		hc_varint_append(&head, record->found);
	}

	/* the struct has padding, which must not carry memory into the WAL */
	memset(&header, 0, sizeof(header));
	header.dbId = MyDatabaseId;
	header.transactional = true;
	header.prefix_size = sizeof(prefix);
	header.message_size = head.len + (record->end - record->ops);

	XLogBeginInsert();
	XLogRegisterData((char *) &header, SizeOfLogicalMessage);
	XLogRegisterData(unconstify(char *, &prefix[0]), sizeof(prefix));
	XLogRegisterData(head.data, head.len);
	if (record->end > record->ops)
		XLogRegisterData(unconstify(char *, record->ops),
						 record->end - record->ops);
	XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
	lsn = XLogInsert(RM_LOGICALMSG_ID, XLOG_LOGICAL_MESSAGE);

	pfree(head.data);
	return lsn;
}

bool
hc_record_is_ours(XLogReaderState *reader, Oid database,
				  const char **message, size_t *len)
{
	xl_logical_message header;
	const char *data = XLogRecGetData(reader);
	size_t		size = XLogRecGetDataLen(reader);

	if (XLogRecGetRmid(reader) != RM_LOGICALMSG_ID ||
		(XLogRecGetInfo(reader) & ~XLR_INFO_MASK) != XLOG_LOGICAL_MESSAGE ||
		size < SizeOfLogicalMessage)
		return false;
	memcpy(&header, data, SizeOfLogicalMessage);
	data += SizeOfLogicalMessage;
	size -= SizeOfLogicalMessage;

	if (header.dbId != database ||
		header.prefix_size != sizeof(prefix) ||
		size < sizeof(prefix) ||
		header.message_size != size - sizeof(prefix) ||
		memcmp(data, prefix, sizeof(prefix)) != 0)
		return false;

	*message = data + sizeof(prefix);
	*len = header.message_size;
	return true;
}

bool
hc_record_decode(const char *message, size_t len, HcRecord *record)
{
	const char *cursor = message;
	const char *end = message + len;
	uint64		xid;
	uint64		i;
	uint8		flags;

	memset(record, 0, sizeof(*record));
	if (len < 1)
		return false;
	flags = (uint8) *cursor++;
	if ((flags & ~FLAGS_KNOWN) ||
		((flags & FLAGS_OF_WINDOW) && !(flags & FLAG_WINDOW)))
		return false;
	record->closing = (flags & FLAG_CLOSING) != 0;
	record->late = (flags & FLAG_LATE) != 0;
	record->marker = (flags & FLAG_MARKER) != 0;
	record->mapped = (flags & FLAG_MAPPED) != 0;
	record->last = (flags & FLAG_LAST) != 0;
	record->dry = (flags & FLAG_DRY) != 0;

	if (!hc_varint_get(&cursor, end, &xid) ||
		xid > PG_UINT32_MAX || !TransactionIdIsNormal((TransactionId) xid) ||
		!hc_varint_get(&cursor, end, &record->first_op) ||
		!hc_varint_get(&cursor, end, &record->n_ops) ||
		!hc_varint_get(&cursor, end, &record->n_before) ||
		!hc_varint_get(&cursor, end, &record->n_ranges))
		return false;
	record->xid = (TransactionId) xid;

	record->ranges = cursor;
	for (i = 0; i < record->n_ranges; i++)
	{
		uint64		from;
		uint64		length;

		if (!hc_varint_get(&cursor, end, &from) ||
			!hc_varint_get(&cursor, end, &length) ||
			from + length < from)
			return false;
	}
	record->ranges_end = cursor;
	if (flags & FLAG_WINDOW)
	{
		uint64		mapping;
		uint64		found;

		if (!hc_varint_get(&cursor, end, &record->window) ||
			record->window == 0 ||
			!hc_varint_get(&cursor, end, &mapping) || mapping > PG_UINT32_MAX ||
			!hc_varint_get(&cursor, end, &record->number) ||
			!hc_varint_get(&cursor, end, &found) || found >= HC_NUM_FOUND)
			return false;
		record->mapping = (Oid) mapping;
		record->found = (HcFound) found;
	}
	record->ops = cursor;
	record->end = end;
	return true;
}

bool
hc_record_next_range(HcRecord *record, HcOpRange *range)
{
	uint64		length;

	if (record->n_ranges == 0 ||
		!hc_varint_get(&record->ranges, record->ranges_end, &range->from) ||
		!hc_varint_get(&record->ranges, record->ranges_end, &length))
		return false;
	range->to = range->from + length;
	record->n_ranges--;
	return true;
}
