/*
 * state_slot.h
 *	  Ops that say what an entry is, in a batch: the arguments of their commands.
 */
#ifndef HC_STATE_SLOT_H
#define HC_STATE_SLOT_H

#include "worker/batch.h"

/*
 * Writes the arguments of an op that is no event at the end of the batch's text,
 * and describes them in the slot, which has the kind already.
 */
extern void hc_state_slot_write(StringInfo text, HcSlot *slot, const HcOp *op);

#endif							/* HC_STATE_SLOT_H */
