/*
 * url.h
 *	  Where a Redis server is: redis://[user[:password]@]host[:port][/db] or
 *	  unix://[user[:password]@]/path[?db=N].
 */
#ifndef HC_URL_H
#define HC_URL_H

typedef struct HcUrl
{
	char	   *path;			/* unix socket, else NULL */
	char	   *host;			/* NULL for a unix socket; IPv6 without brackets */
	int			port;
	char	   *user;			/* NULL: AUTH with the password alone */
	char	   *password;		/* NULL: no AUTH */
	int			db;
} HcUrl;

/*
 * Parses text into *url, allocating in the current context.  On failure
 * returns false and sets *problem to a sentence that never quotes the input
 * (which may contain a password).  Raises nothing but out of memory.
 */
extern bool hc_url_parse(const char *text, HcUrl *url, const char **problem);

/*
 * For messages: the address without user and password, palloc'd.  It is again
 * a URL that hc_url_parse() takes.
 */
extern char *hc_url_display(const HcUrl *url);

#endif							/* HC_URL_H */
