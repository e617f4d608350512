/*
 * op.h
 *	  An op: one change of one entry in Redis, complete in itself.
 *
 * Capture encodes ops into change records, the sync worker decodes them and
 * applies them.  Keys, members and values are UTF-8 (or the raw bytes of a
 * SQL_ASCII database), never NUL-terminated.
 */
#ifndef HC_OP_H
#define HC_OP_H

#include "lib/stringinfo.h"
#include "storage/itemptr.h"

/* The values are part of the WAL format: never renumber. */
typedef enum HcOpKind
{
	HC_OP_SET = 1,				/* SET key value [PXAT expires_at] */
	HC_OP_HASH = 2,				/* the whole hash at key is exactly these fields */
	HC_OP_UNLINK = 3,			/* UNLINK key */
	HC_OP_HSET = 4,				/* HSET key member value */
	HC_OP_HDEL = 5,				/* HDEL key member */
	HC_OP_GEOADD = 6,			/* GEOADD key x y member */
	HC_OP_ZADD = 7,				/* ZADD key x member */
	HC_OP_ZREM = 8,				/* ZREM key member (geo and zset) */
	HC_OP_SADD = 9,				/* SADD key member */
	HC_OP_SREM = 10				/* SREM key member */
} HcOpKind;

#define HC_OP_KIND_LAST	HC_OP_SREM

typedef struct HcBytes
{
	const char *data;
	size_t		len;
} HcBytes;

/*
 * Which version of a row an op comes from (a set) or ends (a removal).
 *
 * Within one transaction several rows can have the same entry for a while: one
 * takes it over before the other leaves it (UPDATE t SET id = id + 1 on a
 * deferrable key), or only visits it.  So a removal takes back the set of the
 * version that it ends, and what remains holds: the last set that was not taken
 * back; if there is none, the removal of a version that was there before the
 * transaction; and if there is none either, nothing has happened to the entry.
 * relation is InvalidOid for ops that belong to no row version (invalidate):
 * such a removal takes back everything.
 *
 * A version that another one followed before its set could be captured (a user's
 * trigger came first) is said to have arrived.  Its end, which was captured
 * before that, is then no end of what was there before the transaction.
 *
 * A transaction that rewrites a table (CLUSTER, ALTER TABLE) gives the rows new
 * tids.  storage tells whether two tids can be compared.
 */
typedef struct HcVersion
{
	Oid			relation;
	Oid			storage;		/* file node; InvalidOid: as it was before the
								 * transaction */
	ItemPointerData tid;
} HcVersion;

typedef struct HcOp
{
	HcOpKind	kind;
	HcVersion	version;
	bool		arrived;		/* removal: it is none, see HcVersion */
	ItemPointerData replaces;	/* set: the version of the row that had the same
								 * entry before; or invalid */
	HcBytes		key;
	HcBytes		member;			/* empty unless hc_op_has_member() */
	HcBytes		value;			/* SET, HSET: the value; HASH: see below */
	double		x;				/* longitude or score */
	double		y;				/* latitude */
	int64		expires_at;		/* SET, HASH: ms since 1970, 0 = never */
} HcOp;

/*
 * The value of HC_OP_HASH is a sequence of (field, value) pairs, each a length
 * (varint) and its bytes.  These two write and read it.  An empty sequence
 * means that there is no such key.
 */
extern void hc_op_hash_append(StringInfo buf, const char *data, size_t len);
extern bool hc_op_hash_next(HcBytes *rest, HcBytes *field, HcBytes *value);

extern bool hc_op_has_member(HcOpKind kind);
extern bool hc_op_is_removal(HcOpKind kind);

/* The removal that undoes a set of this kind (a removal: itself). */
extern HcOpKind hc_op_removal_of(HcOpKind kind);

/* Does the end of this version end the one that set the entry? */
extern bool hc_op_ends(const HcVersion *ended, const HcVersion *owner);

/* The version that a set replaces; false if there is none. */
extern bool hc_op_replaced(const HcOp *op, HcVersion *version);

/* Appends the op's encoding.  Allocates in buf's context only. */
extern void hc_op_encode(StringInfo buf, const HcOp *op);

/*
 * Decodes the op at *cursor (which ends at end) and moves the cursor behind
 * it.  false for anything that hc_op_encode() cannot have written; then *op
 * and *cursor are undefined.  Never reads past end, allocates nothing; the
 * HcBytes point into the input.
 */
extern bool hc_op_decode(const char **cursor, const char *end, HcOp *op);

/* Unsigned LEB128, for those who frame ops; get: false at a malformed end. */
extern void hc_varint_append(StringInfo buf, uint64 value);
extern bool hc_varint_get(const char **cursor, const char *end, uint64 *value);

#endif							/* HC_OP_H */
