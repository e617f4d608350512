/*
 * lease.h
 *	  Which session of this server computes which cached value.
 */
#ifndef HC_LEASE_H
#define HC_LEASE_H

#define HC_LEASE_TOKEN_SIZE	64

typedef enum HcLeaseHolder
{
	HC_LEASE_FOREIGN,			/* not a session of this server */
	HC_LEASE_AT_WORK,
	HC_LEASE_GONE				/* a session that has ended it, or has ended */
} HcLeaseHolder;

/* Asks for shared memory; called once, from _PG_init. */
extern void hc_lease_init(void);

/*
 * Makes a token for a lease and announces that this session holds it, until
 * hc_lease_end().  To be called before anybody else can learn the token.  They are
 * nested; false: too deeply, or this process cannot have any.  A caller has to
 * end it also when an error is raised; the end of the process does it as well.
 */
extern bool hc_lease_begin(char *token);
extern void hc_lease_end(void);

/* How many this session has announced. */
extern int	hc_lease_depth(void);

/* Whose token is it? */
extern HcLeaseHolder hc_lease_look(const char *token);

/*
 * Waits until a session that is at work ends the lease, or until the time is over.
 * Interrupts are served.
 */
extern void hc_lease_wait(const char *token, long ms);

#endif							/* HC_LEASE_H */
