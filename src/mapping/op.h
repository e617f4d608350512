/*
 * op.h
 *	  An op: one change of one entry in Redis, or one event; complete in itself.
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
	HC_OP_SREM = 10,			/* SREM key member */

	/* events, see hc_op_is_event() */
	HC_OP_XADD = 11,			/* XADD key [MAXLEN ~ maxlen] * pairs */
	HC_OP_PUBLISH = 12,			/* PUBLISH key value */
	HC_OP_RPUSH = 13,			/* RPUSH key value */
	HC_OP_LPUSH = 14,			/* LPUSH key value */
	HC_OP_COMMAND = 15,			/* any command; key: what it is about, or empty */

	/* state again: a pending event of the stream key, see timer.h */
	HC_OP_TIMER = 16,			/* member is due at x, ms since 1970 */
	HC_OP_UNTIMER = 17			/* member is not due */
} HcOpKind;

#define HC_OP_KIND_LAST	HC_OP_UNTIMER

/* The value of HcOp.lsn_at that stands for nowhere. */
#define HC_OP_NO_LSN	(-1)

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
	bool		arrived;		/* removal: it is none, see HcVersion; TIMER: see
								 * below */
	bool		kept;			/* TIMER: see below */
	ItemPointerData replaces;	/* set: the version of the row that had the same
								 * entry before; or invalid */
	HcBytes		key;
	HcBytes		member;			/* empty unless hc_op_has_member() */
	HcBytes		value;			/* SET, HSET, PUBLISH, RPUSH, LPUSH: the value;
								 * HASH, XADD, COMMAND: see below */
	double		x;				/* longitude, score or time */
	double		y;				/* latitude */
	int64		expires_at;		/* SET, HASH: ms since 1970, 0 = never */
	int64		maxlen;			/* XADD: about how long the stream may be, 0 =
								 * no limit */
	int64		lsn_at;			/* events but COMMAND: where the commit position
								 * goes, see below, or HC_OP_NO_LSN */
} HcOp;

/*
 * A timer that has fired is gone, and must not come back because its row is
 * changed in other columns.  Such a change adds nothing, but for one of a version
 * that its own transaction has made: what becomes of the row then comes from that
 * version, which may not have been captured.  That TIMER is kept: it says at which
 * time the member is due if it still is, or if another TIMER of the transaction
 * has said that it is.  Where that one was not captured, since the version had
 * been replaced, a TIMER that has arrived comes instead, which says no more than
 * that.
 */

/*
 * An event happens; it says nothing about what an entry is.  So it belongs to no
 * entry and no row version, nothing replaces it or takes it back but the rollback
 * of a (sub)transaction, and to apply it twice is an error.  Its version has the
 * table that it comes from, if any, for messages.
 *
 * The position of a commit is not known when its events are captured.  The sync
 * worker writes it as %X/%X: with XADD as the value of the pair with the number
 * lsn_at (from 0), instead of what is there; with PUBLISH, RPUSH and LPUSH in
 * front of the byte lsn_at of the value.
 */
extern bool hc_op_is_event(HcOpKind kind);

/*
 * The value of HC_OP_HASH is a sequence of (field, value) pairs, each a length
 * (varint) and its bytes.  These two write and read it.  An empty sequence
 * means that there is no such key.  HC_OP_XADD has one or more such pairs.
 */
extern void hc_op_hash_append(StringInfo buf, const char *data, size_t len);
extern bool hc_op_hash_next(HcBytes *rest, HcBytes *field, HcBytes *value);

/*
 * The value of HC_OP_COMMAND is its words, one or more, written by
 * hc_op_hash_append() as well.  false at the end or if damaged.
 */
extern bool hc_op_word_next(HcBytes *rest, HcBytes *word);

extern bool hc_op_has_member(HcOpKind kind);
extern bool hc_op_is_removal(HcOpKind kind);

/* The removal that undoes a set of this kind (a removal: itself). */
extern HcOpKind hc_op_removal_of(HcOpKind kind);

/* Does the end of this version end the one that set the entry? */
extern bool hc_op_ends(const HcVersion *ended, const HcVersion *owner);

/* The version that a set replaces; false if there is none. */
extern bool hc_op_replaced(const HcOp *op, HcVersion *version);

/*
 * Keys that begin with this are the extension's own, so no row has one: whoever may
 * write rows would write into holds, locks and the worker's own records.
 */
#define HC_OWN_KEYS		"hybrid_cache:"

extern bool hc_op_is_own_key(HcBytes key);

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
