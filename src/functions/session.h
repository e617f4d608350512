/*
 * session.h
 *	  The backend's own connection to Redis, kept between calls.
 */
#ifndef HC_SESSION_H
#define HC_SESSION_H

#include "functions/arguments.h"
#include "redis/reply.h"

/*
 * Runs one command on the server of hybrid_cache.redis_url, within
 * hybrid_cache.command_timeout, and returns its reply, which is not an error
 * and lives in the current memory context.  Raises 55000 if there is no
 * server, and what hc_connection_open() and hc_connection_command() raise.
 */
extern const redisReply *hc_session_command(const HcArguments *args);

/* The same, but an error reply is returned like any other. */
extern const redisReply *hc_session_ask(const HcArguments *args);

/* The server that the last command went to, for messages. */
extern const char *hc_session_server(void);

#endif							/* HC_SESSION_H */
