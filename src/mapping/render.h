/*
 * render.h
 *	  From a row to its entry in Redis.
 */
#ifndef HC_RENDER_H
#define HC_RENDER_H

#include "executor/tuptable.h"
#include "mapping/mapping.h"

/* The run-time state of a mapping: for one query, in one memory context. */
typedef struct HcRenderer HcRenderer;

typedef enum HcRendered
{
	HC_RENDERED_ENTRY,			/* the row has this entry */
	HC_RENDERED_NONE,			/* filtered out, or a NULL where it matters */
	HC_RENDERED_OUT_OF_RANGE,	/* Redis has no such place or score, or the key
								 * is one of ours */
	HC_RENDERED_OVERSIZE		/* longer than a Redis string can be; the op is
								 * the removal of the entry */
} HcRendered;

/*
 * Makes a renderer that lives as long as context, as must the mapping.  Plans
 * the expressions, as the table's owner.
 */
extern HcRenderer *hc_render_create(const HcMapping *mapping,
									MemoryContext context);

/* The kind of its mapping. */
extern HcKind hc_render_kind(const HcRenderer *renderer);

/*
 * Renders the row in slot (of the mapping's relation) into a set op, without
 * its version.  The bytes belong to the renderer and last until its second
 * next call, so that an old and a new row can be compared.  now is what ttl
 * counts from.  Raises what the mapping's expressions raise.
 */
extern HcRendered hc_render_entry(HcRenderer *renderer, TupleTableSlot *slot,
								  TimestampTz now, HcOp *op);

/*
 * The same, but only which entry the row has: the op is its removal, and a
 * value is only looked at for NULL.  (invalidate mappings: the same as entry.)
 */
extern HcRendered hc_render_identity(HcRenderer *renderer, TupleTableSlot *slot,
									 HcOp *op);

/*
 * The same, but only the key of the row, whatever its entry: a row of which
 * nothing but the columns of the key template is known.  The op has no more
 * than the key.  HC_RENDERED_NONE: one of the columns is NULL; HC_RENDERED_OUT_OF_RANGE: the
 * key is one of ours.
 */
extern HcRendered hc_render_key(HcRenderer *renderer, TupleTableSlot *slot,
								HcOp *op);

/*
 * The same for a row that cannot be rendered: which entry it would have, if it
 * had one, from its key and member alone; as its removal.
 */
extern HcRendered hc_render_place(HcRenderer *renderer, TupleTableSlot *slot,
								  HcOp *op);

#endif							/* HC_RENDER_H */
