/*
 * process.h
 *	  A background process in a database, which is started again when it has ended.
 */
#ifndef HC_PROCESS_H
#define HC_PROCESS_H

#include "datatype/timestamp.h"
#include "postmaster/bgworker.h"

/* All zero: it was never started. */
typedef struct HcProcess
{
	BackgroundWorkerHandle *handle; /* NULL: we have started none */
	TimestampTz started_at;
	TimestampTz start_at;		/* not before */
	int			failures;		/* in a row */
	bool		refused;		/* there was no place for it */
} HcProcess;

/*
 * Starts it: function is its main function, type what it is called, name the
 * database's.  false if the server has no place for it, which is said in the log,
 * hardly if quiet; then it is not to be tried again before start_at.
 */
extern bool hc_process_start(HcProcess *process, const char *function,
							 const char *type, Oid database, const char *name,
							 bool quiet, TimestampTz now);

/* Has it ended since it was started?  Then hc_process_end() is due. */
extern bool hc_process_has_ended(const HcProcess *process);

/*
 * It has ended: sets start_at, at once if it has lived long or meant to end, later
 * the more often it has failed.
 */
extern void hc_process_end(HcProcess *process, bool on_purpose, TimestampTz now);

#endif							/* HC_PROCESS_H */
