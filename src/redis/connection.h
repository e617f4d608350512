/*
 * connection.h
 *	  One connection to a Redis server: non-blocking, interruptible, pipelined.
 *
 * Commands are appended, then their replies are read in the same order.  While
 * replies are owed the connection is "busy"; an error, a cancel or a timeout in
 * that state leaves it so, and hc_connection_usable() is then false: such a
 * connection must be closed, never used again, since Redis has no cancel and
 * the late reply would answer the next command.
 */
#ifndef HC_CONNECTION_H
#define HC_CONNECTION_H

#include <hiredis/hiredis.h>

#include "compat.h"
#include "datatype/timestamp.h"
#include "redis/url.h"

typedef struct HcConnection HcConnection;

/*
 * Connects, authenticates and selects the database within timeout_ms.  The
 * connection lives in TopMemoryContext until closed; url may go away.
 * Raises 08001 (unreachable), 28P01 (password), 42501, 08P01.  Interrupts are
 * served (CHECK_FOR_INTERRUPTS); whatever is raised, nothing leaks.
 */
extern HcConnection *hc_connection_open(const HcUrl *url, int timeout_ms);

/* Closes; conn may be NULL.  Raises nothing. */
extern void hc_connection_close(HcConnection *conn);

/* No reply is owed, nothing failed, and the peer has not closed (no I/O wait). */
extern bool hc_connection_usable(HcConnection *conn);

/* For messages, without credentials. */
extern const char *hc_connection_name(HcConnection *conn);

/* The socket, for those who wait on it and a latch together. */
extern pgsocket hc_connection_socket(HcConnection *conn);

/* Appends one command to the output; nothing is sent yet. */
extern void hc_connection_append(HcConnection *conn, int argc,
								 const char *const *argv,
								 const size_t *argvlen);

/*
 * Appends commands that are already in RESP, n_replies of them; copied, nothing
 * is sent yet.
 */
extern void hc_connection_append_raw(HcConnection *conn, const char *buf,
									 size_t len, int n_replies);

/*
 * Sends what can be sent and reads what has come, without waiting.  Returns
 * true with *reply set if a reply is complete (also an error reply: looking at
 * it is the caller's), false if none is yet.  Raises 08006 if the connection
 * is lost, 08P01 for what is not RESP.  The caller owns the reply:
 * freeReplyObject().
 */
extern bool hc_connection_poll(HcConnection *conn, redisReply **reply);

/* Is there output that the socket did not take yet? */
extern bool hc_connection_wants_write(HcConnection *conn);

/*
 * Waits for the next reply until deadline (08006 "timed out" then, with errcode
 * 57014 left to real cancels).  Serves interrupts.  The reply is freed when the
 * current memory context is reset or deleted; the caller never frees it.
 */
extern redisReply *hc_connection_reply(HcConnection *conn, TimestampTz deadline);

/*
 * From now on the server sends what nobody asks for: replies are not counted, and
 * the connection can only be closed in the end.
 */
extern void hc_connection_listen(HcConnection *conn);

/*
 * The same as poll(), for a reply that is freed when the current memory context is
 * reset or deleted; NULL: none is complete yet.
 */
extern redisReply *hc_connection_next(HcConnection *conn);

/* append + reply + hc_reply_check(): one command, one round trip. */
extern redisReply *hc_connection_command(HcConnection *conn, TimestampTz deadline,
										 int argc, const char *const *argv,
										 const size_t *argvlen);

/*
 * For those who look at replies while hiredis reads them and keep nothing:
 * replies are given to these functions, which find privdata in their task, and
 * poll() returns what they return.  They raise nothing; NULL makes poll() raise,
 * namely 08P01 after refuse(), which says that the reply makes no sense.  NULL
 * instead of functions: replies are built again.  To be called while no reply is
 * outstanding.
 */
extern void hc_connection_set_functions(HcConnection *conn,
										redisReplyObjectFunctions *functions,
										void *privdata);
extern void hc_connection_refuse(HcConnection *conn);

/* The same for a reply that poll() has returned. */
HC_NORETURN extern void hc_connection_distrust(HcConnection *conn);

/*
 * Waits until poll() may do more than last time, serving interrupts; false: not
 * until the deadline.
 */
extern bool hc_connection_wait(HcConnection *conn, TimestampTz deadline);

/* The bytes that have come so far: is the server silent, or a reply long? */
extern uint64 hc_connection_received(HcConnection *conn);

/* Raises what reply() raises at its deadline. */
HC_NORETURN extern void hc_connection_time_out(HcConnection *conn);

/*
 * Sends last words (in RESP) if they can go at once, and waits up to ms until the
 * server has read them and closed.  Raises nothing, serves no interrupts; the
 * connection can only be closed afterwards.
 */
extern void hc_connection_farewell(HcConnection *conn, const char *buf,
								   size_t len, int ms);

#endif							/* HC_CONNECTION_H */
