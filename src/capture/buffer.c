/*
 * buffer.c
 *	  The ops that this transaction captured and did not write yet.
 *
 * The order of things is that of async.c: ops are appended while statements
 * run, cut back when a subtransaction aborts, and written as one WAL record
 * before the transaction commits, which is the last moment when an error can
 * still abort it.  After the commit there is only the worker to be told.
 *
 * A buffer that grows over PIECE_SIZE is written early, so that memory stays
 * bounded; what a savepoint takes back of that is named in the closing record.
 *
 * Everything lives in TopTransactionContext, so that an abort at any point
 * leaves nothing behind but the pointer, which the callbacks reset.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "broken.h"
#include "capture/buffer.h"
#include "capture/record.h"
#include "capture/synchronous.h"
#include "shmem.h"
#include "utils/memutils.h"

#define PIECE_SIZE	(1024 * 1024)

/*
 * Where a subtransaction's ops begin.  Made with its first op, so that
 * subtransactions without changes cost nothing.
 */
typedef struct Mark
{
	int			nestlevel;		/* of the subtransaction */
	uint64		op;				/* number of its first op */
	int			offset;			/* of that op in the buffer; 0 if written */
	struct Mark *outer;
} Mark;

typedef struct OpBuffer
{
	StringInfoData ops;			/* encoded, not written yet */
	uint64		n_ops;			/* how many are in it */
	uint64		first_op;		/* number of the first of them */
	uint64		n_records;		/* already written */
	HcOpRange  *ranges;			/* written ops that savepoints took back */
	uint64		n_ranges;
	uint64		max_ranges;
	Mark	   *marks;			/* innermost first */
	bool		mapped;			/* a mapping was made or dropped */
} OpBuffer;

/* NULL: nothing captured in this transaction, and nothing to do at its end */
static OpBuffer *buffer = NULL;

/*
 * Our part before the commit is done.  Others may come after us and change
 * rows; what they capture is written at once.
 */
static bool closed = false;

static void
create_buffer(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	OpBuffer   *created = palloc0(sizeof(OpBuffer));

	initStringInfo(&created->ops);
	MemoryContextSwitchTo(old);
	buffer = created;
}

static void
write_record(bool closing)
{
	HcRecord	record = {0};

	/* a logical-message record needs the xid of whoever writes it */
	(void) GetCurrentTransactionId();
	record.xid = GetTopTransactionId();
	record.closing = closing;
	record.late = closed;
	record.mapped = buffer->mapped;
	record.first_op = buffer->first_op;
	record.n_ops = buffer->n_ops;
	record.n_before = buffer->n_records;
	record.n_ranges = closing ? buffer->n_ranges : 0;
	record.ops = buffer->ops.data;
	record.end = buffer->ops.data + buffer->ops.len;
	(void) hc_record_write(&record, buffer->ranges);

	buffer->n_records++;
	buffer->first_op += buffer->n_ops;
	buffer->n_ops = 0;

	/* one huge value must not keep its memory to the end */
	if (buffer->ops.maxlen > 4 * PIECE_SIZE)
	{
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		pfree(buffer->ops.data);
		initStringInfo(&buffer->ops);
		MemoryContextSwitchTo(old);
	}
	else
		resetStringInfo(&buffer->ops);
}

/* The current subtransaction begins here, unless it has begun before. */
static void
mark_subtransaction(void)
{
	int			nestlevel = GetCurrentTransactionNestLevel();
	Mark	   *mark;

	if (nestlevel == 1 ||
		(buffer->marks != NULL && buffer->marks->nestlevel == nestlevel))
		return;
	mark = MemoryContextAlloc(TopTransactionContext, sizeof(Mark));
	mark->nestlevel = nestlevel;
	mark->op = buffer->first_op + buffer->n_ops;
	mark->offset = buffer->ops.len;
	mark->outer = buffer->marks;
	buffer->marks = mark;
}

void
hc_buffer_append(const HcOp *op)
{
	if (buffer == NULL)
		create_buffer();
	mark_subtransaction();
	hc_op_encode(&buffer->ops, op);
	buffer->n_ops++;
	if (buffer->ops.len >= PIECE_SIZE || closed)
	{
		Mark	   *mark;

		write_record(false);
		/* the open subtransactions' ops are now written, as far as there are */
		for (mark = buffer->marks; mark != NULL; mark = mark->outer)
			mark->offset = 0;
	}
}

void
hc_buffer_announce(void)
{
	if (buffer == NULL)
		create_buffer();
	buffer->mapped = true;
}

bool
hc_buffer_pending(void)
{
	return buffer != NULL && buffer->first_op + buffer->n_ops > 0;
}

/* The ops [from, to) are written and must not be applied. */
static void
take_back(uint64 from, uint64 to)
{
	/* what an inner savepoint took back before is part of this range */
	while (buffer->n_ranges > 0 &&
		   buffer->ranges[buffer->n_ranges - 1].from >= from)
		buffer->n_ranges--;
	if (buffer->n_ranges > 0 && buffer->ranges[buffer->n_ranges - 1].to == from)
	{
		buffer->ranges[buffer->n_ranges - 1].to = to;
		return;
	}
	if (buffer->n_ranges == buffer->max_ranges)
	{
		uint64		max = Max(16, buffer->max_ranges * 2);

		if (buffer->ranges == NULL)
			buffer->ranges = MemoryContextAlloc(TopTransactionContext,
												max * sizeof(HcOpRange));
		else
			buffer->ranges = repalloc(buffer->ranges, max * sizeof(HcOpRange));
		buffer->max_ranges = max;
	}
	buffer->ranges[buffer->n_ranges].from = from;
	buffer->ranges[buffer->n_ranges].to = to;
	buffer->n_ranges++;
}

/* Each goes at once: a transaction can have millions of savepoints. */
static void
remove_innermost_mark(void)
{
	Mark	   *mark = buffer->marks;

	buffer->marks = mark->outer;
	pfree(mark);
}

/* Undoes all since the mark. */
static void
cut_back(const Mark *mark)
{
	if (mark->op < buffer->first_op)
		take_back(mark->op, buffer->first_op);
	buffer->ops.len = mark->offset;
	buffer->ops.data[mark->offset] = '\0';
	buffer->n_ops = mark->op < buffer->first_op ? 0 : mark->op - buffer->first_op;
}

static void
subxact_callback(SubXactEvent event, SubTransactionId subid,
				 SubTransactionId parent, void *arg)
{
	int			nestlevel;

	if (buffer == NULL || buffer->marks == NULL)
		return;
	nestlevel = GetCurrentTransactionNestLevel();
	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		Mark	   *mark = buffer->marks;

		if (mark->nestlevel < nestlevel)
			return;
		mark->nestlevel = nestlevel - 1;
		if (mark->nestlevel == 1 ||
			(mark->outer != NULL && mark->outer->nestlevel == mark->nestlevel))
			remove_innermost_mark();
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		/* this can come twice for the same one; then there is no mark left */
		while (buffer->marks != NULL && buffer->marks->nestlevel >= nestlevel)
		{
			if (!hc_breaks(HC_BREAK_SUBABORT))
				cut_back(buffer->marks);
			remove_innermost_mark();
		}
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (buffer != NULL &&
				(buffer->n_ops > 0 || buffer->n_records > 0 || buffer->mapped))
				write_record(true);
			if (hc_breaks(HC_BREAK_FLUSH))
				XLogFlush(XactLastRecEnd);
			closed = true;
			break;
		case XACT_EVENT_COMMIT:
			if (buffer != NULL && buffer->n_records > 0)
			{
				hc_synchronous_expect(XactLastCommitEnd);
				hc_shmem_publish(XactLastCommitEnd);
			}
			buffer = NULL;
			closed = false;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			buffer = NULL;
			closed = false;
			break;
		default:
			break;
	}
}

void
hc_buffer_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
