/*
 * reply.h
 *	  What Redis answered: every type and arity is checked before use, every
 *	  error reply has a SQLSTATE.
 */
#ifndef HC_REPLY_H
#define HC_REPLY_H

#include <hiredis/hiredis.h>

/* What an error reply says about the command that got it. */
typedef enum HcErrorClass
{
	HC_ERROR_OP,				/* this command can never succeed: WRONGTYPE,
								 * not a valid float, NOPERM on a key ... */
	HC_ERROR_AUTH,				/* NOAUTH, WRONGPASS */
	HC_ERROR_FULL,				/* OOM: only what frees memory is taken now */
	HC_ERROR_RETRY				/* anything else: wait and try again */
} HcErrorClass;

/* An error's text from its own code on: EXEC and scripts put words before it. */
extern const char *hc_reply_reason(const char *message);

extern HcErrorClass hc_reply_classify(const char *message);

/* The SQLSTATE of an error reply's text (ERRCODE_*). */
extern int	hc_reply_sqlstate(const char *message);

/* What a user can do about an error reply, as a sentence, or NULL. */
extern const char *hc_reply_hint(const char *message);

/*
 * An error reply's text for a message: valid in the server's encoding, of
 * limited length, without the name of the Redis user.  palloc'd.
 */
extern char *hc_reply_clean(const char *message);

/*
 * Raises if the reply is an error: its SQLSTATE, Redis's own words as detail.
 * server is hc_connection_name() for the message.
 */
extern void hc_reply_check(const redisReply *reply, const char *server);

/* These raise 08P01 unless the reply (already checked) has that form. */
extern long long hc_reply_integer(const redisReply *reply);
extern const redisReply *hc_reply_array(const redisReply *reply, size_t elements);

/* The same for an array of any length, ... */
#define HC_REPLY_ANY_LENGTH	((size_t) -1)

/* ... for a string or status, of reply->len bytes at reply->str, ... */
extern const redisReply *hc_reply_string(const redisReply *reply);

/* ... and for a string that is a number, such as a score or a distance. */
extern double hc_reply_double(const redisReply *reply);

#endif							/* HC_REPLY_H */
