/*
 * op.c
 *	  The encoding of ops in change records.
 *
 * An op is: kind (1 byte), flags (1 byte), then what the flags announce and
 * the kind has, lengths and numbers as LEB128.  The format is part of the WAL
 * and is read back only by the same major format (see record.c), so it is
 * compact rather than self-describing.  The decoder trusts nothing: it is
 * fuzzed, and links without a server.
 */
#include "postgres.h"

#include "mapping/op.h"

#define FLAG_VERSION	0x01	/* version follows */
#define FLAG_EXPIRES	0x02	/* expires_at follows */
#define FLAG_STORAGE	0x04	/* the version has a storage */
#define FLAG_REPLACES	0x08	/* the version replaces another one */
#define FLAG_ARRIVED	0x10	/* an op that only tells of a version */
#define FLAG_MAXLEN		0x20	/* maxlen follows */
#define FLAG_LSN		0x40	/* lsn_at follows */
#define FLAG_KEPT		0x80	/* TIMER: it is kept */
#define FLAGS_KNOWN \
	(FLAG_VERSION | FLAG_EXPIRES | FLAG_STORAGE | FLAG_REPLACES | \
	 FLAG_ARRIVED | FLAG_MAXLEN | FLAG_LSN | FLAG_KEPT)

/* What an op of each kind carries besides its key. */
typedef struct HcOpShape
{
	bool		has_member;
	bool		has_value;
	int			n_numbers;
	bool		can_expire;
	HcOpKind	removal;		/* 0: an event */
} HcOpShape;

static const HcOpShape shapes[HC_OP_KIND_LAST + 1] = {
	[HC_OP_SET] = {false, true, 0, true, HC_OP_UNLINK},
	[HC_OP_HASH] = {false, true, 0, true, HC_OP_UNLINK},
	[HC_OP_UNLINK] = {false, false, 0, false, HC_OP_UNLINK},
	[HC_OP_HSET] = {true, true, 0, false, HC_OP_HDEL},
	[HC_OP_HDEL] = {true, false, 0, false, HC_OP_HDEL},
	[HC_OP_GEOADD] = {true, false, 2, false, HC_OP_ZREM},
	[HC_OP_ZADD] = {true, false, 1, false, HC_OP_ZREM},
	[HC_OP_ZREM] = {true, false, 0, false, HC_OP_ZREM},
	[HC_OP_SADD] = {true, false, 0, false, HC_OP_SREM},
	[HC_OP_SREM] = {true, false, 0, false, HC_OP_SREM},
	[HC_OP_XADD] = {false, true, 0, false, 0},
	[HC_OP_PUBLISH] = {false, true, 0, false, 0},
	[HC_OP_RPUSH] = {false, true, 0, false, 0},
	[HC_OP_LPUSH] = {false, true, 0, false, 0},
	[HC_OP_COMMAND] = {false, true, 0, false, 0},
	[HC_OP_TIMER] = {true, false, 1, false, HC_OP_UNTIMER},
	[HC_OP_UNTIMER] = {true, false, 0, false, HC_OP_UNTIMER},
};

bool
hc_op_is_event(HcOpKind kind)
{
	return shapes[kind].removal == 0;
}

bool
hc_op_has_member(HcOpKind kind)
{
	return shapes[kind].has_member;
}

bool
hc_op_is_own_key(HcBytes key)
{
	return key.len >= strlen(HC_OWN_KEYS) &&
		memcmp(key.data, HC_OWN_KEYS, strlen(HC_OWN_KEYS)) == 0;
}

bool
hc_op_is_removal(HcOpKind kind)
{
	return shapes[kind].removal == kind;
}

HcOpKind
hc_op_removal_of(HcOpKind kind)
{
	return shapes[kind].removal;
}

/*
 * A table is rewritten only while nothing is pending, so each entry had one
 * owner then, and whoever ends it in the new storage is that owner.
 */
bool
hc_op_ends(const HcVersion *ended, const HcVersion *owner)
{
	return OidIsValid(ended->relation) &&
		ended->relation == owner->relation &&
		(ended->storage != owner->storage ||
		 memcmp(&ended->tid, &owner->tid, sizeof(owner->tid)) == 0);
}

bool
hc_op_replaced(const HcOp *op, HcVersion *version)
{
	*version = op->version;
	version->tid = op->replaces;
	return ItemPointerIsValid(&op->replaces);
}

void
hc_varint_append(StringInfo buf, uint64 value)
{
	char		bytes[10];
	int			n = 0;

	while (value >= 0x80)
	{
		bytes[n++] = (char) (value | 0x80);
		value >>= 7;
	}
	bytes[n++] = (char) value;
	appendBinaryStringInfo(buf, bytes, n);
}

bool
hc_varint_get(const char **cursor, const char *end, uint64 *value)
{
	uint64		result = 0;
	int			shift;

	for (shift = 0; shift < 64 && *cursor < end; shift += 7)
	{
		uint8		byte = (uint8) *(*cursor)++;

		if (shift == 63 && byte > 1)
			return false;		/* more than 64 bits */
		result |= (uint64) (byte & 0x7f) << shift;
		if ((byte & 0x80) == 0)
		{
			*value = result;
			return true;
		}
	}
	return false;
}

static void
append_bytes(StringInfo buf, const char *data, size_t len)
{
	hc_varint_append(buf, len);
	appendBinaryStringInfo(buf, data, (int) len);
}

static bool
get_bytes(const char **cursor, const char *end, HcBytes *bytes)
{
	uint64		len;

	if (!hc_varint_get(cursor, end, &len) || len > (uint64) (end - *cursor))
		return false;
	bytes->data = *cursor;
	bytes->len = len;
	*cursor += len;
	return true;
}

static bool
get_fixed(const char **cursor, const char *end, void *value, size_t size)
{
	if (size > (size_t) (end - *cursor))
		return false;
	memcpy(value, *cursor, size);
	*cursor += size;
	return true;
}

void
hc_op_hash_append(StringInfo buf, const char *data, size_t len)
{
	append_bytes(buf, data, len);
}

/* Takes one pair off the front of *rest; false at its end or if damaged. */
bool
hc_op_hash_next(HcBytes *rest, HcBytes *field, HcBytes *value)
{
	const char *cursor = rest->data;
	const char *end = rest->data + rest->len;

	if (rest->len == 0 ||
		!get_bytes(&cursor, end, field) ||
		!get_bytes(&cursor, end, value))
		return false;
	rest->data = cursor;
	rest->len = end - cursor;
	return true;
}

bool
hc_op_word_next(HcBytes *rest, HcBytes *word)
{
	const char *cursor = rest->data;
	const char *end = rest->data + rest->len;

	if (rest->len == 0 || !get_bytes(&cursor, end, word))
		return false;
	rest->data = cursor;
	rest->len = end - cursor;
	return true;
}

/* Has an op of this kind a place for the commit position? */
static bool
can_have_lsn(HcOpKind kind)
{
	return hc_op_is_event(kind) && kind != HC_OP_COMMAND;
}

void
hc_op_encode(StringInfo buf, const HcOp *op)
{
	const HcOpShape *shape = &shapes[op->kind];
	uint8		flags = 0;

	if (OidIsValid(op->version.relation))
		flags |= FLAG_VERSION;
	if (OidIsValid(op->version.relation) && OidIsValid(op->version.storage))
		flags |= FLAG_STORAGE;
	if (OidIsValid(op->version.relation) && ItemPointerIsValid(&op->replaces))
		flags |= FLAG_REPLACES;
	if (shape->can_expire && op->expires_at != 0)
		flags |= FLAG_EXPIRES;
	if (op->arrived)
		flags |= FLAG_ARRIVED;
	if (op->kind == HC_OP_XADD && op->maxlen > 0)
		flags |= FLAG_MAXLEN;
	if (can_have_lsn(op->kind) && op->lsn_at != HC_OP_NO_LSN)
		flags |= FLAG_LSN;
	if (op->kept)
		flags |= FLAG_KEPT;

	appendStringInfoCharMacro(buf, (char) op->kind);
	appendStringInfoCharMacro(buf, (char) flags);
	if (flags & FLAG_VERSION)
	{
		hc_varint_append(buf, op->version.relation);
		appendBinaryStringInfo(buf, (const char *) &op->version.tid,
							   sizeof(op->version.tid));
	}
	if (flags & FLAG_STORAGE)
		hc_varint_append(buf, op->version.storage);
	if (flags & FLAG_REPLACES)
		appendBinaryStringInfo(buf, (const char *) &op->replaces,
							   sizeof(op->replaces));
	if (flags & FLAG_EXPIRES)
		appendBinaryStringInfo(buf, (const char *) &op->expires_at,
							   sizeof(op->expires_at));
	if (flags & FLAG_MAXLEN)
		hc_varint_append(buf, (uint64) op->maxlen);
	if (flags & FLAG_LSN)
		hc_varint_append(buf, (uint64) op->lsn_at);
	append_bytes(buf, op->key.data, op->key.len);
	if (shape->has_member)
		append_bytes(buf, op->member.data, op->member.len);
	if (shape->n_numbers > 0)
		appendBinaryStringInfo(buf, (const char *) &op->x, sizeof(op->x));
	if (shape->n_numbers > 1)
		appendBinaryStringInfo(buf, (const char *) &op->y, sizeof(op->y));
	if (shape->has_value)
		append_bytes(buf, op->value.data, op->value.len);
}

/* The pairs of a value; -1 if they are not whole to its end. */
static int64
count_pairs(HcBytes value)
{
	HcBytes		field;
	HcBytes		content;
	int64		n = 0;

	for (; value.len > 0; n++)
	{
		if (!hc_op_hash_next(&value, &field, &content))
			return -1;
	}
	return n;
}

/* Is it one or more words to its end? */
static bool
words_are_sound(HcBytes value)
{
	HcBytes		word;

	do
	{
		if (!hc_op_word_next(&value, &word))
			return false;
	} while (value.len > 0);
	return true;
}

/* Is the value what an op of its kind has? */
static bool
value_is_sound(const HcOp *op)
{
	switch (op->kind)
	{
		case HC_OP_HASH:
			return count_pairs(op->value) >= 0;
		case HC_OP_XADD:
			{
				int64		n = count_pairs(op->value);

				return n > 0 && op->lsn_at < n;
			}
		case HC_OP_PUBLISH:
		case HC_OP_RPUSH:
		case HC_OP_LPUSH:
			return op->lsn_at == HC_OP_NO_LSN ||
				(uint64) op->lsn_at <= op->value.len;
		case HC_OP_COMMAND:
			return words_are_sound(op->value);
		default:
			return true;
	}
}

/* A number that is not negative. */
static bool
get_int64(const char **cursor, const char *end, int64 *value)
{
	uint64		read;

	if (!hc_varint_get(cursor, end, &read) || read > PG_INT64_MAX)
		return false;
	*value = (int64) read;
	return true;
}

bool
hc_op_decode(const char **cursor, const char *end, HcOp *op)
{
	const HcOpShape *shape;
	uint8		kind;
	uint8		flags;

	memset(op, 0, sizeof(*op));
	if (!get_fixed(cursor, end, &kind, 1) || !get_fixed(cursor, end, &flags, 1))
		return false;
	if (kind < HC_OP_SET || kind > HC_OP_KIND_LAST || (flags & ~FLAGS_KNOWN))
		return false;
	op->kind = (HcOpKind) kind;
	op->lsn_at = HC_OP_NO_LSN;
	shape = &shapes[kind];

	if (flags & FLAG_VERSION)
	{
		uint64		relation;

		if (!hc_varint_get(cursor, end, &relation) ||
			relation == InvalidOid || relation > PG_UINT32_MAX ||
			!get_fixed(cursor, end, &op->version.tid, sizeof(op->version.tid)))
			return false;
		op->version.relation = (Oid) relation;
	}
	if (flags & FLAG_STORAGE)
	{
		uint64		storage;

		if (!(flags & FLAG_VERSION) || !hc_varint_get(cursor, end, &storage) ||
			storage == InvalidOid || storage > PG_UINT32_MAX)
			return false;
		op->version.storage = (Oid) storage;
	}
	if (flags & FLAG_REPLACES)
	{
		if (!(flags & FLAG_VERSION) ||
			!get_fixed(cursor, end, &op->replaces, sizeof(op->replaces)) ||
			!ItemPointerIsValid(&op->replaces))
			return false;
	}
	if (flags & FLAG_ARRIVED)
	{
		if (!(flags & FLAG_VERSION) ||
			(!hc_op_is_removal(op->kind) && op->kind != HC_OP_TIMER))
			return false;
		op->arrived = true;
	}
	if (flags & FLAG_KEPT)
	{
		if (op->kind != HC_OP_TIMER)
			return false;
		op->kept = true;
	}
	if (flags & FLAG_EXPIRES)
	{
		if (!shape->can_expire ||
			!get_fixed(cursor, end, &op->expires_at, sizeof(op->expires_at)))
			return false;
	}
	if (flags & FLAG_MAXLEN)
	{
		if (op->kind != HC_OP_XADD ||
			!get_int64(cursor, end, &op->maxlen) || op->maxlen == 0)
			return false;
	}
	if (flags & FLAG_LSN)
	{
		if (!can_have_lsn(op->kind) || !get_int64(cursor, end, &op->lsn_at))
			return false;
	}
	if (!get_bytes(cursor, end, &op->key))
		return false;
	if (shape->has_member && !get_bytes(cursor, end, &op->member))
		return false;
	if (shape->n_numbers > 0 && !get_fixed(cursor, end, &op->x, sizeof(op->x)))
		return false;
	if (shape->n_numbers > 1 && !get_fixed(cursor, end, &op->y, sizeof(op->y)))
		return false;
	if (shape->has_value && !get_bytes(cursor, end, &op->value))
		return false;
	return value_is_sound(op);
}
