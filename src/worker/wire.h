/*
 * wire.h
 *	  The commands of a batch: as few as possible, ready to be sent.
 */
#ifndef HC_WIRE_H
#define HC_WIRE_H

#include "worker/batch.h"

/* Makes wire and commands; again after hc_batch_remove() or a change of single. */
extern void hc_wire_compile(HcBatch *batch);

/*
 * Writes the ops of one command again, not merged.  *slots gets the op of each
 * command written.
 */
extern void hc_wire_compile_singly(HcBatch *batch, int command,
								   StringInfo wire, List **slots);

/* Appends a RESP array header or bulk string. */
extern void hc_wire_append_array(StringInfo buf, int n);
extern void hc_wire_append_bulk(StringInfo buf, const char *data, size_t len);
extern void hc_wire_append_double(StringInfo buf, double value);
extern void hc_wire_append_int64(StringInfo buf, int64 value);

#endif							/* HC_WIRE_H */
