/*
 * session.h
 *	  The backend's own connection to Redis, kept between calls.
 */
#ifndef HC_SESSION_H
#define HC_SESSION_H

#include "nodes/pg_list.h"
#include "redis/arguments.h"
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

/*
 * The same, but NULL where Redis cannot be reached, does not answer in time or has
 * its data not ready.  *error is then what would have been raised: for
 * ReThrowError(), or to be forgotten.
 */
extern const redisReply *hc_session_try(const HcArguments *args, ErrorData **error);

/*
 * Several commands in one round trip: after begin(), commands are appended, and
 * next() returns the reply to the first that was not answered, or raises, like
 * hc_session_command(); next_any() also returns an error reply.  Each may take
 * hybrid_cache.command_timeout.  command is a name for messages, or NULL.
 */
extern void hc_session_begin(void);
extern void hc_session_append(const HcArguments *args);
extern const redisReply *hc_session_next(const char *command);
extern const redisReply *hc_session_next_any(const char *command);

/*
 * hc_session_command() and hc_session_try() for a script of src/lua: args are
 * its KEYS, n_keys of them, and its ARGV, begun without a command.  (The latter
 * returns error replies, too.)
 */
extern const redisReply *hc_session_script(const char *name,
										   const HcArguments *args, int n_keys);
extern const redisReply *hc_session_try_script(const char *name,
											   const HcArguments *args, int n_keys,
											   ErrorData **error);

/* hc_session_command() for a search of Redis: an HcSearchAsk (keeper/search.h). */
extern const redisReply *hc_session_search(int argc, const char *const *argv,
										   const size_t *argvlen, void *arg);

/*
 * Optimistic locking: after hc_session_watch(key), what is read by
 * hc_session_command() is still so when hc_session_execute() runs commands (a
 * list of HcArguments *) as one transaction; otherwise that returns NULL and
 * nothing has happened.  It returns the array of their replies, none of which is
 * an error, and ends all watches; NIL: nothing but that.
 */
extern void hc_session_watch(const char *key);
extern const redisReply *hc_session_execute(const List *commands);

/* The server that the last command went to, for messages. */
extern const char *hc_session_server(void);

#endif							/* HC_SESSION_H */
