/*
 * event_slot.h
 *	  Events in a batch: the arguments of their commands, and how they are kept
 *	  when Redis refuses them.
 */
#ifndef HC_EVENT_SLOT_H
#define HC_EVENT_SLOT_H

#include "worker/batch.h"

/*
 * Writes the arguments of an event at the end of the batch's text, with the
 * position of its commit where it belongs, and describes them in the slot,
 * which has kind and lsn already.
 */
extern void hc_event_slot_write(StringInfo text, HcSlot *slot, const HcOp *op);

/* Appends the command of an event to the batch's wire. */
extern void hc_event_slot_append(HcBatch *batch, const HcSlot *slot);

/* Is a word of the event longer than Redis takes? */
extern bool hc_event_slot_is_too_long(const HcOp *op);

/* The name of its command for messages, palloc'd. */
extern char *hc_event_slot_verb(const HcBatch *batch, const HcSlot *slot);

/*
 * Appends the event as an op (hc_op_encode()) that has the position of the
 * commit in it, to be captured again.
 */
extern void hc_event_slot_encode(const HcBatch *batch, const HcSlot *slot,
								 StringInfo buf);

/*
 * Is the error reply about the event, for good?  queueing: it came before EXEC.
 */
extern bool hc_event_slot_is_guilty(const HcSlot *slot, const char *message,
									bool queueing);

#endif							/* HC_EVENT_SLOT_H */
