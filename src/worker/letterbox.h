/*
 * letterbox.h
 *	  The table hybrid_cache.dead_letter.
 *
 * Everything here is done in a transaction of the caller, and raises what reading
 * and writing a table raises.
 */
#ifndef HC_LETTERBOX_H
#define HC_LETTERBOX_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "mapping/op.h"
#include "storage/itemptr.h"
#include "utils/relcache.h"

/* The columns of the table. */
#define Anum_letter_id			1
#define Anum_letter_relation	2
#define Anum_letter_mapping		3
#define Anum_letter_op			4
#define Anum_letter_key			5
#define Anum_letter_member		6
#define Anum_letter_error		7
#define Anum_letter_sqlstate	8
#define Anum_letter_lsn			9
#define Anum_letter_attempts	10
#define Anum_letter_since		11
#define Anum_letter_at			12
#define Anum_letter_entry		13
#define Anum_letter_payload		14
#define Natts_letter			14

/* The op of a row that could not be rendered. */
#define HC_LETTER_RENDER	"render"

#define HC_LETTER_PRIMARY_KEY	"dead_letter_pkey"

/* What a letter says. */
typedef struct HcLetter
{
	Oid			relid;			/* or InvalidOid */
	const char *mapping;		/* NULL: it is to be found out */
	const char *op;
	HcBytes		key;
	const HcBytes *member;		/* or NULL */
	const HcBytes *event;		/* encoded; NULL: it is about an entry */
	const char *message;
	int			sqlstate;		/* ERRCODE_* */
	XLogRecPtr	lsn;
} HcLetter;

typedef struct HcLetterbox HcLetterbox;

/*
 * Opens the table for letters; it lives in the current memory context, which must
 * last until it is closed.  NULL if the table is not there, or if somebody has
 * locked the whole of it, who is waited for a second at most.
 */
extern HcLetterbox *hc_letterbox_open(void);
extern void hc_letterbox_close(HcLetterbox *box);

/*
 * Puts a letter in, instead of an older one about the same entry; false if there
 * was one, so that there are not more of them now.  Each event has its own.  Needs a snapshot; leaves memory
 * in the current memory context.
 */
extern bool hc_letterbox_put(HcLetterbox *box, const HcLetter *letter);

extern int64 hc_letterbox_count(HcLetterbox *box);

/* Deletes the n letters with the smallest ids; returns how many it could. */
extern uint64 hc_letterbox_delete_oldest(HcLetterbox *box, int64 n);

/*
 * Deletes those of a mapping that are older and about rows that could not be
 * rendered, since those rows have been rendered.  Waits for nobody.
 */
extern void hc_letterbox_forget(Oid relid, const char *mapping, TimestampTz before);

/*
 * Deletes a letter with the current transaction, without waiting; false if
 * somebody else is doing something with it.
 */
extern bool hc_letterbox_delete(Relation rel, ItemPointer tid);

/* An index of the table by its name; InvalidOid if somebody dropped it. */
extern Oid	hc_letterbox_index(Relation rel, const char *name);

#endif							/* HC_LETTERBOX_H */
