/* links: src/redis/url.c */
/*
 * fuzz_url.c
 *	  The parser of Redis URLs: any text is either an address, whose displayed
 *	  form leads to the same place without a secret, or has a problem that does
 *	  not quote it.
 */
#include "postgres.h"

#include "redis/url.h"

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

static void check_display(const HcUrl *url);
static bool same(const char *a, const char *b);
static void release(HcUrl *url);

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	char	   *text = pnstrdup((const char *) data, size);
	const char *problem = NULL;
	HcUrl		url;

	if (hc_url_parse(text, &url, &problem))
	{
		if (problem != NULL)
			abort();
		if ((url.path == NULL) == (url.host == NULL) || url.db < 0)
			abort();
		if (url.host != NULL && (url.port < 1 || url.port > 65535))
			abort();
		if (url.user != NULL && url.password == NULL)
			abort();
		check_display(&url);
	}
	else if (problem == NULL || problem[0] == '\0')
		abort();

	release(&url);
	pfree(text);
	return 0;
}

static void
check_display(const HcUrl *url)
{
	char	   *display = hc_url_display(url);
	const char *problem;
	HcUrl		again;

	/* Printable, and with no place for a user and a password. */
	for (const char *p = display; *p != '\0'; p++)
		if (*p <= ' ' || *p >= 0x7f || *p == '@')
			abort();

	if (!hc_url_parse(display, &again, &problem))
		abort();
	if (!same(url->path, again.path) || !same(url->host, again.host) ||
		url->port != again.port || url->db != again.db ||
		again.user != NULL || again.password != NULL)
		abort();
	release(&again);
	pfree(display);
}

static bool
same(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* A failed parse leaves what it had found so far. */
static void
release(HcUrl *url)
{
	if (url->path != NULL)
		pfree(url->path);
	if (url->host != NULL)
		pfree(url->host);
	if (url->user != NULL)
		pfree(url->user);
	if (url->password != NULL)
		pfree(url->password);
}
