/*
 * document.h
 *	  What a mapping has at one key, as jsonb: the same from Redis and from rows.
 */
#ifndef HC_DOCUMENT_H
#define HC_DOCUMENT_H

#include "mapping/mapping.h"
#include "mapping/match.h"
#include "redis/arguments.h"
#include "redis/reply.h"
#include "utils/jsonb.h"

typedef struct HcDocument HcDocument;

/* Lives in the current memory context, as does what it becomes. */
extern HcDocument *hc_document_begin(HcKind kind);

/*
 * The command that reads the whole key, and its reply, which is not an error and
 * has to live as long as the document.  Only members that match count; NULL: all.
 * Raises class 22 for what is no text or no JSON, 08P01 for a reply that the
 * command cannot have.
 */
extern void hc_document_command(HcArguments *args, HcKind kind, HcBytes key);
extern void hc_document_add_reply(HcDocument *document, const redisReply *reply,
								  const HcMatcher *members);

/* The entry of a row; copied. */
extern void hc_document_add_op(HcDocument *document, const HcOp *op);

/* NULL: there is nothing at the key.  Raises 54000 for what no jsonb can hold. */
extern Jsonb *hc_document_end(HcDocument *document);

#endif							/* HC_DOCUMENT_H */
