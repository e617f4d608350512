/*
 * bytes.h
 *	  The bytes of keys and members: compared, copied, as text of this database.
 */
#ifndef HC_BYTES_H
#define HC_BYTES_H

#include "mapping/op.h"

/*
 * A key or member in the server's encoding, palloc'd; NULL if it cannot be
 * written there, and so was not rendered here.  Raises nothing but out of memory.
 */
extern text *hc_bytes_text(HcBytes bytes);

/*
 * The other way round: text as Redis holds it.  The bytes may be those of value,
 * or palloc'd.
 */
extern HcBytes hc_bytes_encode(const text *value);

extern bool hc_bytes_equal(HcBytes a, HcBytes b);

/* A copy in that context. */
extern HcBytes hc_bytes_copy(MemoryContext context, HcBytes bytes);

#endif							/* HC_BYTES_H */
