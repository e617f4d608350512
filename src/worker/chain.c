/*
 * chain.c
 *	  The ops of one entry in a batch, and which of them holds.
 *
 * Of the ops of one transaction on an entry it is not the last that holds, but what
 * the version rule of op.h says.  So the ops are chained, from the last one to what
 * would hold without it, and a set can be taken back when the version ends that it
 * comes from.
 */
#include "postgres.h"

#include "worker/chain.h"

/* Is the op a set by the current transaction? */
static bool
is_own_set(HcBatch *batch, int slot)
{
	return slot >= 0 && batch->slots[slot].txn == batch->txn &&
		!hc_op_is_removal(batch->slots[slot].kind);
}

/*
 * Takes back the set of a version that ends.  *last is the last op of the entry.
 * false if there is no such set; then the version is of before the transaction,
 * or its arrival will be told.  *over and *origin as in HcSlot.
 */
static bool
take_back(HcBatch *batch, int *last, const HcVersion *ended, bool *over,
		  ItemPointer origin)
{
	int		   *link;

	for (link = last; is_own_set(batch, *link); link = &batch->slots[*link].older)
	{
		HcSlot	   *set = &batch->slots[*link];

		if (!hc_op_ends(ended, &set->version))
			continue;
		set->dead = true;
		*over = set->over;
		*origin = set->origin;
		*link = set->older;
		if (link == last && *last >= 0)
			batch->slots[*last].dead = false;
		return true;
	}
	*over = true;
	*origin = ended->tid;
	return false;
}

/* Notes at one of the sets that hold that the entry has to go without them. */
static bool
note_end(HcBatch *batch, int last, ItemPointer origin)
{
	for (; is_own_set(batch, last); last = batch->slots[last].older)
	{
		HcSlot	   *set = &batch->slots[last];

		if (set->over)
			continue;
		set->over = true;
		set->origin = *origin;
		return true;
	}
	return false;
}

bool
hc_chain_is_void(HcBatch *batch, int *last, int index, const HcOp *op)
{
	HcSlot	   *slot = &batch->slots[index];
	bool		over;

	if (!hc_op_is_removal(op->kind) || !OidIsValid(op->version.relation))
		return false;
	(void) take_back(batch, last, &op->version, &over, &slot->version.tid);
	return !over ||
		(is_own_set(batch, *last) &&
		 note_end(batch, *last, &slot->version.tid));
}

/* The end of a version while sets hold comes below them. */
void
hc_chain_put(HcBatch *batch, int *last, int index, const HcOp *op)
{
	HcSlot	   *slot = &batch->slots[index];
	HcVersion	replaced;
	int		   *link = last;

	/* another one of the batch says when it is due */
	if (slot->kept && *last >= 0 && !hc_op_is_removal(batch->slots[*last].kind))
		slot->kept = batch->slots[*last].kept;
	if (!hc_op_is_removal(op->kind) && hc_op_replaced(op, &replaced))
		(void) take_back(batch, last, &replaced, &slot->over, &slot->origin);
	if (hc_op_is_removal(op->kind) && OidIsValid(op->version.relation))
	{
		while (is_own_set(batch, *link))
			link = &batch->slots[*link].older;
	}
	if (link != last)
		slot->dead = true;
	else if (*last >= 0)
		batch->slots[*last].dead = true;
	slot->older = *link;
	*link = index;
}

/*
 * A version had arrived whose end came before: that end was not of what was
 * there before the transaction.
 */
static void
undo_end(HcBatch *batch, int *last, const HcVersion *arrived)
{
	int		   *link;

	for (link = last; *link >= 0 && batch->slots[*link].txn == batch->txn;
		 link = &batch->slots[*link].older)
	{
		HcSlot	   *slot = &batch->slots[*link];

		if (slot->version.relation != arrived->relation ||
			slot->version.storage != arrived->storage)
			continue;
		if (!hc_op_is_removal(slot->kind))
		{
			if (!slot->over || !ItemPointerEquals(&slot->origin,
												  unconstify(ItemPointerData *, &arrived->tid)))
				continue;
			slot->over = false;
			return;
		}
		if (!ItemPointerEquals(&slot->version.tid,
							   unconstify(ItemPointerData *, &arrived->tid)))
			continue;
		slot->dead = true;
		*link = slot->older;
		if (link == last && *last >= 0)
			batch->slots[*last].dead = false;
		return;
	}
}

void
hc_chain_arrive(HcBatch *batch, int *last, const HcOp *op)
{
	if (hc_op_is_removal(op->kind))
		undo_end(batch, last, &op->version);
	else if (is_own_set(batch, *last))
		batch->slots[*last].kept = false;
}
