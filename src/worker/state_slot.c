/*
 * state_slot.c
 *	  Ops that say what an entry is, in a batch: the arguments of their commands.
 *
 * They follow the key, in the order of the command that wire.c makes of the op.
 */
#include "postgres.h"

#include "broken.h"
#include "redis/beside.h"
#include "worker/state_slot.h"
#include "worker/wire.h"

static void
append_member(StringInfo text, HcSlot *slot, HcBytes member)
{
	hc_wire_append_bulk(text, member.data, member.len);
	slot->member_len = member.len;
	slot->member = text->len - 2 - member.len;
	slot->n_args++;
}

/*
 * An invalidation also ends what src/lua/cached_get.lua has given to somebody who
 * computes a value for the key: that would not be true any more.
 */
static void
append_lease(StringInfo text, HcSlot *slot, HcBytes key)
{
	StringInfoData name;

	initStringInfo(&name);
	hc_beside_key(&name, HC_CACHED, key.data, key.len);
	hc_wire_append_bulk(text, name.data, name.len);
	slot->n_args++;
	pfree(name.data);
}

void
hc_state_slot_write(StringInfo text, HcSlot *slot, const HcOp *op)
{
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
			if (!OidIsValid(op->version.relation) && !hc_breaks(HC_BREAK_LEASE))
				append_lease(text, slot, op->key);
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
		case HC_OP_UNTIMER:
			append_member(text, slot, op->member);
			break;
		case HC_OP_TIMER:
			hc_wire_append_double(text, op->x);
			slot->n_args = 1;
			append_member(text, slot, op->member);
			slot->kept = op->kept;
			slot->due = op->x;
			break;
		case HC_OP_XADD:
		case HC_OP_PUBLISH:
		case HC_OP_RPUSH:
		case HC_OP_LPUSH:
		case HC_OP_COMMAND:
			Assert(false);		/* event_slot.c */
			break;
	}
}
