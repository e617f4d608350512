/*
 * entry.c
 *	  One row's entry, into the transaction's change record.
 */
#include "postgres.h"

#include "capture/buffer.h"
#include "capture/entry.h"
#include "compat.h"
#include "mb/pg_wchar.h"
#include "shmem.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* How much of a key a message shows. */
#define SHOWN_KEY	100

void
hc_entry_warn_oversize(const HcOp *op)
{
	char	   *key = pnstrdup(op->key.data, Min(op->key.len, SHOWN_KEY));

	hc_shmem_count(HC_COUNT_OVERSIZE, 1);
	ereport(WARNING,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("the value for Redis key \"%s\" is too long",
					pg_any_to_server(key, strlen(key), PG_UTF8)),
			 hc_op_is_event(op->kind)
			 ? errdetail("A Redis string holds at most 512 MB. The event is not sent; the change of the row goes on.")
			 : errdetail("A Redis string holds at most 512 MB. The entry is removed; the change of the row goes on.")));
	pfree(key);
}

HcRendered
hc_entry_render(HcRenderer *renderer, TupleTableSlot *slot, HcOp *op)
{
	HcRendered	rendered = hc_render_entry(renderer, slot,
										   GetCurrentTimestamp(), op);

	if (rendered == HC_RENDERED_OUT_OF_RANGE)
		hc_shmem_count(HC_COUNT_OUT_OF_RANGE, 1);
	else if (rendered == HC_RENDERED_OVERSIZE)
		hc_entry_warn_oversize(op);
	return rendered;
}

HcVersion
hc_entry_version(Relation rel, ItemPointer tid)
{
	HcVersion	version;

	version.relation = RelationGetRelid(rel);
	version.storage = hc_compat_new_storage(rel);
	version.tid = *tid;
	return version;
}

bool
hc_entry_set(HcRenderer *renderer, TupleTableSlot *slot, HcVersion version,
			 bool known)
{
	HcOp		op;
	HcRendered	rendered = hc_entry_render(renderer, slot, &op);

	if (rendered != HC_RENDERED_ENTRY && rendered != HC_RENDERED_OVERSIZE)
		return false;
	if (rendered == HC_RENDERED_ENTRY)
		op.version = version;
	if (rendered == HC_RENDERED_ENTRY && known)
		op.replaces = version.tid;
	hc_buffer_append(&op);
	return true;
}

static bool
append_identity(HcRenderer *renderer, TupleTableSlot *slot, HcVersion version,
				bool arrived)
{
	HcOp		op;

	if (hc_render_identity(renderer, slot, &op) != HC_RENDERED_ENTRY)
		return false;
	op.version = version;
	op.arrived = arrived;
	hc_buffer_append(&op);
	return true;
}

bool
hc_entry_remove(HcRenderer *renderer, TupleTableSlot *slot, HcVersion version)
{
	return append_identity(renderer, slot, version, false);
}

bool
hc_entry_arrive(HcRenderer *renderer, TupleTableSlot *slot, HcVersion version)
{
	return append_identity(renderer, slot, version, true);
}
