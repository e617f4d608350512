/*
 * batch.c
 *	  Collects ops and keeps the last one of each entry.
 *
 * An op is put into RESP at once, in two parts (its key; its arguments), and
 * its record in the slot array points there.  So the payload that it came from
 * can go away, and a command is made by copying parts (wire.c).
 *
 * An entry is a key, or a key and a member.  Of each entry only the last op
 * lives.  An op on a whole key ends the members that the batch has of that key,
 * so that among the living a whole-key op always comes before the members of
 * its key, and any other order does not matter: within MULTI nobody sees it.
 *
 * Within one transaction the version rule of op.h comes first (chain.c).
 *
 * Events stay as they are, one command each.  That within MULTI nobody sees the
 * order is not true of a command, which may read what the ops before it have
 * made, or change it.  So what comes after its transaction is a segment of its
 * own, with tables that begin anew.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/float.h"
#include "utils/memutils.h"
#include "worker/batch.h"
#include "worker/chain.h"
#include "worker/event_slot.h"
#include "worker/letter.h"
#include "worker/state_slot.h"
#include "worker/wire.h"

size_t		hc_batch_longest = SIZE_MAX;

/* What Redis would say. */
static const char too_long[] =
"ERR string exceeds maximum allowed size (proto-max-bulk-len)";

typedef struct KeyElement
{
	int			slot;			/* hash key: a slot with the bytes */
	int			entry;			/* index into key_entries */
	char		status;
} KeyElement;

typedef struct MemberElement
{
	int			slot;			/* hash key: a slot with the bytes */
	int			last;			/* the last op of this entry */
	char		status;
} MemberElement;

static inline bool
same_key(HcBatch *batch, int a, int b)
{
	HcSlot	   *left = &batch->slots[a];
	HcSlot	   *right = &batch->slots[b];

	return left->key_hash == right->key_hash &&
		left->key_len == right->key_len &&
		memcmp(batch->text.data + left->key, batch->text.data + right->key,
			   left->key_len) == 0;
}

static inline bool
same_member(HcBatch *batch, int a, int b)
{
	HcSlot	   *left = &batch->slots[a];
	HcSlot	   *right = &batch->slots[b];

	return left->hash == right->hash &&
		left->member_len == right->member_len &&
		memcmp(batch->text.data + left->member,
			   batch->text.data + right->member, left->member_len) == 0 &&
		same_key(batch, a, b);
}

#define SH_PREFIX		keys
#define SH_ELEMENT_TYPE	KeyElement
#define SH_KEY_TYPE		int
#define SH_KEY			slot
#define SH_HASH_KEY(tb, key)	(((HcBatch *) (tb)->private_data)->slots[key].key_hash)
#define SH_EQUAL(tb, a, b)		same_key((HcBatch *) (tb)->private_data, a, b)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define SH_PREFIX		members
#define SH_ELEMENT_TYPE	MemberElement
#define SH_KEY_TYPE		int
#define SH_KEY			slot
#define SH_HASH_KEY(tb, key)	(((HcBatch *) (tb)->private_data)->slots[key].hash)
#define SH_EQUAL(tb, a, b)		same_member((HcBatch *) (tb)->private_data, a, b)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* The ops that follow are not put together with those before. */
static void
begin_segment(HcBatch *batch)
{
	HcSegment  *segment;

	if (batch->n_segments == batch->max_segments)
	{
		batch->max_segments *= 2;
		batch->segments = repalloc_huge(batch->segments,
										batch->max_segments * sizeof(HcSegment));
	}

	/* of a large segment the tables would be slow to empty */
	if (batch->keys != NULL)
	{
		keys_destroy(batch->keys);
		members_destroy(batch->members);
	}
	batch->keys = keys_create(batch->context, 16, batch);
	batch->members = members_create(batch->context, 16, batch);

	segment = &batch->segments[batch->n_segments++];
	segment->first_key = batch->n_keys;
	segment->first_event = batch->n_events;
	batch->last_key = -1;
	batch->has_command = false;
}

HcBatch *
hc_batch_create(void)
{
	HcBatch    *batch = palloc0(sizeof(HcBatch));

	batch->context = AllocSetContextCreate(CurrentMemoryContext,
										   "hybrid_cache batch",
										   ALLOCSET_DEFAULT_SIZES);
	hc_batch_reset(batch);
	return batch;
}

void
hc_batch_reset(HcBatch *batch)
{
	MemoryContext context = batch->context;
	MemoryContext old;

	MemoryContextReset(context);
	memset(batch, 0, sizeof(HcBatch));
	batch->context = context;
	batch->first_due = get_float8_infinity();

	old = MemoryContextSwitchTo(context);
	initStringInfo(&batch->text);
	initStringInfo(&batch->wire);
	batch->max_slots = 16;
	batch->slots = palloc(batch->max_slots * sizeof(HcSlot));
	batch->max_keys = 16;
	batch->key_entries = palloc(batch->max_keys * sizeof(HcKeyEntry));
	batch->max_segments = 4;
	batch->segments = palloc(batch->max_segments * sizeof(HcSegment));
	begin_segment(batch);
	MemoryContextSwitchTo(old);
}

void
hc_batch_next_transaction(HcBatch *batch)
{
	batch->txn++;
	if (batch->has_command)
		begin_segment(batch);
}

/* Writes the op at the end of text and describes it in the slot. */
static void
write_op(HcBatch *batch, HcSlot *slot, const HcOp *op)
{
	StringInfo	text = &batch->text;

	memset(slot, 0, sizeof(*slot));
	slot->lsn = batch->commit_lsn;
	slot->kind = op->kind;
	slot->version = op->version;
	slot->txn = batch->txn;
	slot->next = -1;
	slot->older = -1;

	slot->start = text->len;
	hc_wire_append_bulk(text, op->key.data, op->key.len);
	slot->args = text->len;
	slot->key_len = op->key.len;
	slot->key = text->len - 2 - op->key.len;
	slot->key_hash = hash_bytes((const unsigned char *) op->key.data,
								op->key.len);
	slot->hash = slot->key_hash;

	if (hc_op_is_event(op->kind))
		hc_event_slot_write(text, slot, op);
	else
		hc_state_slot_write(text, slot, op);
	slot->end = text->len;
	if (op->kind == HC_OP_TIMER)
		batch->first_due = Min(batch->first_due, slot->due);

	if (hc_op_has_member(op->kind))
		slot->hash = hash_combine(slot->key_hash,
								  hash_bytes((const unsigned char *) op->member.data,
											 op->member.len));
}

/* The key entry of a slot, made if there is none; valid until the next call. */
static HcKeyEntry *
find_key(HcBatch *batch, int slot)
{
	KeyElement *element;
	HcKeyEntry *entry;
	bool		found;

	if (batch->last_key >= 0 &&
		same_key(batch, batch->key_entries[batch->last_key].slot, slot))
		return &batch->key_entries[batch->last_key];

	element = keys_insert(batch->keys, slot, &found);
	if (!found)
	{
		if (batch->n_keys == batch->max_keys)
		{
			batch->max_keys *= 2;
			batch->key_entries = repalloc_huge(batch->key_entries,
											   batch->max_keys * sizeof(HcKeyEntry));
		}
		element->entry = batch->n_keys++;
		entry = &batch->key_entries[element->entry];
		entry->slot = slot;
		entry->whole = entry->first = entry->last = -1;
		entry->kinds = 0;
	}
	batch->last_key = element->entry;
	return &batch->key_entries[element->entry];
}

/* Makes room for one more slot, and returns its index. */
static int
next_slot(HcBatch *batch)
{
	if (batch->n_slots == batch->max_slots)
	{
		batch->max_slots *= 2;
		batch->slots = repalloc_huge(batch->slots,
									 batch->max_slots * sizeof(HcSlot));
	}
	return batch->n_slots;
}

/* An op that tells of an arrival is not kept. */
static void
add_arrival(HcBatch *batch, const HcOp *op)
{
	int			index = next_slot(batch);
	int		   *last = NULL;

	write_op(batch, &batch->slots[index], op);
	if (hc_op_has_member(op->kind))
	{
		MemberElement *element = members_lookup(batch->members, index);

		if (element != NULL)
			last = &element->last;
	}
	else
	{
		KeyElement *element = keys_lookup(batch->keys, index);

		if (element != NULL)
			last = &batch->key_entries[element->entry].whole;
	}
	if (last != NULL)
		hc_chain_arrive(batch, last, op);
	batch->text.len = batch->slots[index].start;
}

/* The key begins anew: what its members were does not matter. */
static void
forget_members(HcBatch *batch, HcKeyEntry *key)
{
	int			i;

	for (i = key->first; i >= 0; i = batch->slots[i].next)
	{
		batch->slots[i].dead = true;
		members_lookup(batch->members, i)->last = -1;
	}
	key->first = key->last = -1;
	key->kinds = 0;
}

/* Adds the op; returns its slot, or -1 if it is void. */
static int
add(HcBatch *batch, const HcOp *op)
{
	int			index = next_slot(batch);
	HcSlot	   *slot;
	HcKeyEntry *key;
	int		   *last;

	slot = &batch->slots[index];
	write_op(batch, slot, op);
	key = find_key(batch, index);
	batch->n_ops++;

	if (hc_op_has_member(op->kind))
	{
		MemberElement *element;
		bool		found;

		element = members_insert(batch->members, index, &found);
		if (!found)
			element->last = -1;
		last = &element->last;
	}
	else
		last = &key->whole;

	if (hc_chain_is_void(batch, last, index, op))
	{
		/* neither table can point to it: the entry was known before */
		batch->text.len = slot->start;
		return -1;
	}
	batch->n_slots++;
	hc_chain_put(batch, last, index, op);

	if (hc_op_has_member(op->kind))
	{
		if (key->last >= 0)
			batch->slots[key->last].next = index;
		else
			key->first = index;
		key->last = index;
		key->kinds |= 1 << op->kind;
	}
	else
		forget_members(batch, key);
	return index;
}

/* Adds the event; returns its slot. */
static int
add_event(HcBatch *batch, const HcOp *op)
{
	int			index = next_slot(batch);

	write_op(batch, &batch->slots[index], op);
	batch->n_slots++;
	batch->n_ops++;
	if (batch->n_events == batch->max_events)
	{
		MemoryContext old = MemoryContextSwitchTo(batch->context);

		batch->max_events = Max(16, 2 * batch->max_events);
		batch->events = batch->events == NULL ?
			palloc(batch->max_events * sizeof(int)) :
			repalloc_huge(batch->events, batch->max_events * sizeof(int));
		MemoryContextSwitchTo(old);
	}
	batch->events[batch->n_events++] = index;
	batch->has_command |= op->kind == HC_OP_COMMAND;
	return index;
}

/* Is a part of the value longer than Redis takes? */
static bool
is_too_long(const HcOp *op)
{
	HcBytes		rest = op->value;
	HcBytes		field;
	HcBytes		value;

	if (op->value.len <= hc_batch_longest || op->kind != HC_OP_HASH)
		return op->value.len > hc_batch_longest;
	while (hc_op_hash_next(&rest, &field, &value))
	{
		if (field.len > hc_batch_longest || value.len > hc_batch_longest)
			return true;
	}
	return false;
}

void
hc_batch_add(HcBatch *batch, const HcOp *op)
{
	HcOp		removal = *op;
	bool		nameless = op->key.len > hc_batch_longest ||
		op->member.len > hc_batch_longest;
	int			index;

	if (op->arrived)
	{
		add_arrival(batch, op);
		return;
	}
	if (hc_op_is_event(op->kind))
	{
		index = add_event(batch, op);
		if (hc_event_slot_is_too_long(op) && hc_batch_remove(batch, index))
			hc_letter_add(batch, index, too_long);
		return;
	}
	if (!nameless && !is_too_long(op))
	{
		(void) add(batch, op);
		return;
	}

	/* as capture does with what no Redis takes: it ends no version, it counts */
	removal.kind = hc_op_removal_of(op->kind);
	removal.version.relation = InvalidOid;
	ItemPointerSetInvalid(&removal.replaces);
	index = add(batch, &removal);
	if (nameless)
		(void) hc_batch_remove(batch, index);
	hc_letter_add(batch, index, too_long);
}

bool
hc_batch_entry(HcBatch *batch, int slot, HcOpKind *kind, HcBytes *key,
			   HcBytes *member)
{
	const HcSlot *s = &batch->slots[slot];

	*kind = s->kind;
	key->data = batch->text.data + s->key;
	key->len = s->key_len;
	member->data = batch->text.data + s->member;
	member->len = s->member_len;
	return !s->dead && !hc_op_is_event(s->kind);
}

bool
hc_batch_has_events(const HcBatch *batch)
{
	int			i;

	for (i = 0; i < batch->n_events; i++)
	{
		if (!batch->slots[batch->events[i]].dead)
			return true;
	}
	return false;
}

bool
hc_batch_remove(HcBatch *batch, int slot)
{
	if (batch->slots[slot].dead)
		return false;
	batch->slots[slot].dead = true;
	return true;
}

char *
hc_batch_key(HcBatch *batch, int slot)
{
	const HcSlot *s = &batch->slots[slot];

	return pnstrdup(batch->text.data + s->key, Min(s->key_len, 100));
}
