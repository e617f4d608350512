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
#include "worker/wire.h"

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
 * false if there is no such set; then the version is of before the transaction.
 */
static bool
take_back(HcBatch *batch, int *last, const HcVersion *ended, bool *over)
{
	int		   *link;

	for (link = last; is_own_set(batch, *link); link = &batch->slots[*link].older)
	{
		HcSlot	   *set = &batch->slots[*link];

		if (!hc_op_ends(ended, &set->version))
			continue;
		set->dead = true;
		*over = set->over;
		*link = set->older;
		if (link == last && *last >= 0)
			batch->slots[*last].dead = false;
		return true;
	}
	*over = true;
	return false;
}

/* Does the end of a version leave nothing to do in Redis? */
static bool
is_void(HcBatch *batch, int *last, const HcOp *op)
{
	bool		taken;
	bool		over;

	if (!hc_op_is_removal(op->kind) || !OidIsValid(op->version.relation))
		return false;
	taken = take_back(batch, last, &op->version, &over);
	if (!is_own_set(batch, *last))
		return taken && !over;
	if (over)
		batch->slots[*last].over = true;
	return true;
}

/* Makes the op the last one of its entry. */
static void
put(HcBatch *batch, int *last, int index, const HcOp *op)
{
	HcSlot	   *slot = &batch->slots[index];
	HcVersion	replaced;

	if (!hc_op_is_removal(op->kind) && hc_op_replaced(op, &replaced))
		(void) take_back(batch, last, &replaced, &slot->over);
	if (*last >= 0)
		batch->slots[*last].dead = true;
	slot->older = *last;
	*last = index;
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

void
hc_batch_add(HcBatch *batch, const HcOp *op)
{
	int			index = batch->n_slots;
	HcSlot	   *slot;
	HcKeyEntry *key;
	int		   *last;

	if (batch->n_slots == batch->max_slots)
	{
		batch->max_slots *= 2;
		batch->slots = repalloc_huge(batch->slots,
									 batch->max_slots * sizeof(HcSlot));
	}
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

	if (is_void(batch, last, op))
	{
		/* neither table can point to it: the entry was known before */
		batch->text.len = slot->start;
		return;
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
