/*
 * event.h
 *	  From a change of a row to the event that says so.
 */
#ifndef HC_EVENT_H
#define HC_EVENT_H

#include "executor/tuptable.h"
#include "mapping/mapping.h"
#include "mapping/render.h"

/* The run-time state of a mapping of events: for one query, in one context. */
typedef struct HcEventRenderer HcEventRenderer;

/*
 * Makes a renderer that lives as long as context, as must the mapping.  Plans
 * the expressions, as the table's owner.  table is what events call the table,
 * in the server's encoding.
 */
extern HcEventRenderer *hc_event_create(const HcMapping *mapping, Relation rel,
										const char *table, MemoryContext context);

/*
 * Renders a change into an op without its version; old is NULL for INSERT, new
 * for DELETE.  The bytes belong to the renderer and last until its next call.
 * HC_RENDERED_NONE: the change has no event.  HC_RENDERED_OVERSIZE: it would be
 * longer than Redis takes; only the op's key is set.  Raises what the mapping's
 * expressions raise.
 */
extern HcRendered hc_event_render(HcEventRenderer *renderer, TupleTableSlot *old,
								  TupleTableSlot *new, HcOp *op);

#endif							/* HC_EVENT_H */
