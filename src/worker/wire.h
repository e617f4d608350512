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
 * Makes wire and commands of only those ops that some of the commands (a list of
 * their numbers) have now, not merged.
 */
extern void hc_wire_compile_again(HcBatch *batch, List *commands);

/* The Redis command of an op that is no HC_OP_COMMAND. */
extern const char *hc_wire_verb(HcOpKind kind);

/* Appends a RESP array header, the head of a bulk string, or a bulk string. */
extern void hc_wire_append_array(StringInfo buf, int n);
extern void hc_wire_append_length(StringInfo buf, size_t len);
extern void hc_wire_append_bulk(StringInfo buf, const char *data, size_t len);
extern void hc_wire_append_double(StringInfo buf, double value);
extern void hc_wire_append_int64(StringInfo buf, int64 value);

#endif							/* HC_WIRE_H */
