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
 * Within one transaction the version rule of op.h comes first.  So the ops of
 * an entry are chained, and the last one can be taken back.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"
#include "worker/batch.h"
#include "worker/letter.h"
#include "worker/wire.h"

size_t		hc_batch_longest = SIZE_MAX;

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
	batch->last_key = -1;

	old = MemoryContextSwitchTo(context);
	initStringInfo(&batch->text);
	initStringInfo(&batch->wire);
	batch->max_slots = 16;
	batch->slots = palloc(batch->max_slots * sizeof(HcSlot));
	batch->max_keys = 16;
	batch->key_entries = palloc(batch->max_keys * sizeof(HcKeyEntry));
	batch->keys = keys_create(context, 16, batch);
	batch->members = members_create(context, 16, batch);
	MemoryContextSwitchTo(old);
}

void
hc_batch_next_transaction(HcBatch *batch)
{
	batch->txn++;
}

static void
append_member(StringInfo text, HcSlot *slot, HcBytes member)
{
	hc_wire_append_bulk(text, member.data, member.len);
	slot->member_len = member.len;
	slot->member = text->len - 2 - member.len;
	slot->n_args++;
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

	switch (op->kind)
	{
		case HC_OP_SET:
			hc_wire_append_bulk(text, op->value.data, op->value.len);
			slot->n_args = 1;
			if (op->expires_at != 0)
			{
				hc_wire_append_bulk(text, "PXAT", 4);
				hc_wire_append_int64(text, op->expires_at);
				slot->n_args = 3;
				slot->expires = true;
			}
			break;
		case HC_OP_HASH:
			{
				HcBytes		rest = op->value;
				HcBytes		field;
				HcBytes		value;

				while (hc_op_hash_next(&rest, &field, &value))
				{
					hc_wire_append_bulk(text, field.data, field.len);
					hc_wire_append_bulk(text, value.data, value.len);
					slot->n_args += 2;
				}
				slot->expires_at = op->expires_at;
				break;
			}
		case HC_OP_UNLINK:
			break;
		case HC_OP_HSET:
			append_member(text, slot, op->member);
			hc_wire_append_bulk(text, op->value.data, op->value.len);
			slot->n_args++;
			break;
		case HC_OP_GEOADD:
			hc_wire_append_double(text, op->x);
			hc_wire_append_double(text, op->y);
			slot->n_args = 2;
			append_member(text, slot, op->member);
			break;
		case HC_OP_ZADD:
			hc_wire_append_double(text, op->x);
			slot->n_args = 1;
			append_member(text, slot, op->member);
			break;
		case HC_OP_HDEL:
		case HC_OP_ZREM:
		case HC_OP_SADD:
		case HC_OP_SREM:
			append_member(text, slot, op->member);
			break;
	}
	slot->end = text->len;

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

/* Does the end of a version leave nothing to do in Redis, for now? */
static bool
is_void(HcBatch *batch, int *last, int index, const HcOp *op)
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

/*
 * Makes the op the last one of its entry; the end of a version while sets hold
 * comes below them.
 */
static void
put(HcBatch *batch, int *last, int index, const HcOp *op)
{
	HcSlot	   *slot = &batch->slots[index];
	HcVersion	replaced;
	int		   *link = last;

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
 * there before the transaction.  last as above.
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

/* The same for an op that says so.  It is not kept. */
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
		undo_end(batch, last, &op->version);
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

	if (is_void(batch, last, index, op))
	{
		/* neither table can point to it: the entry was known before */
		batch->text.len = slot->start;
		return -1;
	}
	batch->n_slots++;
	put(batch, last, index, op);

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
	hc_letter_add(batch, index,
				  "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
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
	return !s->dead;
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
