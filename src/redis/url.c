/*
 * url.c
 *	  Reads the address of a Redis server.
 *
 * It is strict: a character that has a meaning in URLs and is left unencoded
 * in a password would otherwise move a part of the password into the host
 * name, and from there into messages.  Nothing here raises errors, so that it
 * serves setting hooks and links without a server (test/fuzz).
 */
#include "postgres.h"

#include <limits.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/stringinfo.h"
#include "redis/url.h"

#define DEFAULT_PORT	6379

/*
 * hiredis leaves the last byte of sun_path undefined, so the longest path that
 * it passes on unharmed is one shorter than the system allows.
 */
#define MAX_PATH_LENGTH	(sizeof(((struct sockaddr_un *) NULL)->sun_path) - 2)
#define MAX_HOST_LENGTH	255

static bool parse_tcp(const char *text, HcUrl *url, const char **problem);
static bool parse_unix(const char *text, HcUrl *url, const char **problem);
static bool parse_user(const char *begin, const char *end, HcUrl *url,
					   const char **problem);
static bool parse_host(const char *begin, const char *end, HcUrl *url,
					   const char **problem);
static bool parse_number(const char *begin, const char *end, int min, int max,
						 int *value);
static char *decode(const char *begin, const char *end, const char **problem);
static int	hex_digit(char c);
static bool is_host_name(const char *host);
static bool is_ipv6(const char *host);

bool
hc_url_parse(const char *text, HcUrl *url, const char **problem)
{
	memset(url, 0, sizeof(*url));

	if (pg_strncasecmp(text, "redis://", 8) == 0)
		return parse_tcp(text + 8, url, problem);
	if (pg_strncasecmp(text, "unix://", 7) == 0)
		return parse_unix(text + 7, url, problem);

	if (pg_strncasecmp(text, "rediss://", 9) == 0)
		*problem = "TLS (\"rediss://\") is not supported.";
	else
		*problem = "A Redis URL begins with \"redis://\" or \"unix://\".";
	return false;
}

char *
hc_url_display(const HcUrl *url)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (url->path != NULL)
	{
		appendStringInfoString(&buf, "unix://");
		for (const char *p = url->path; *p != '\0'; p++)
		{
			unsigned char c = (unsigned char) *p;

			if (c <= ' ' || c >= 0x7f || strchr("%?#@", c) != NULL)
				appendStringInfo(&buf, "%%%02X", c);
			else
				appendStringInfoChar(&buf, *p);
		}
		if (url->db != 0)
			appendStringInfo(&buf, "?db=%d", url->db);
		return buf.data;
	}

	appendStringInfoString(&buf, "redis://");
	if (strchr(url->host, ':') != NULL)
	{
		appendStringInfoChar(&buf, '[');
		for (const char *p = url->host; *p != '\0'; p++)
		{
			appendStringInfoChar(&buf, *p);
			if (*p == '%')
				appendStringInfoString(&buf, "25");
		}
		appendStringInfoChar(&buf, ']');
	}
	else
		appendStringInfoString(&buf, url->host);
	appendStringInfo(&buf, ":%d", url->port);
	if (url->db != 0)
		appendStringInfo(&buf, "/%d", url->db);
	return buf.data;
}

/* [user[:password]@]host[:port][/db] */
static bool
parse_tcp(const char *text, HcUrl *url, const char **problem)
{
	const char *end = text + strcspn(text, "/?#");
	const char *at = memchr(text, '@', end - text);
	const char *host = text;

	/*
	 * More than one @, or one behind the host, is a password with characters
	 * that should have been encoded.
	 */
	if (strchr(at ? at + 1 : end, '@') != NULL)
	{
		*problem = "The characters \"@\", \"/\", \"?\" and \"#\" in user and password must be percent-encoded.";
		return false;
	}

	if (at != NULL)
	{
		if (!parse_user(text, at, url, problem))
			return false;
		host = at + 1;
	}
	if (!parse_host(host, end, url, problem))
		return false;

	if (*end == '/' && end[1] != '\0' &&
		!parse_number(end + 1, end + strlen(end), 0, INT_MAX, &url->db))
	{
		*problem = "What follows the host must be \"/\" and the number of a database.";
		return false;
	}
	if (*end == '?' || *end == '#')
	{
		*problem = "A \"redis://\" URL has no part after \"?\" or \"#\".";
		return false;
	}
	return true;
}

/* [user[:password]@]/path[?db=N] */
static bool
parse_unix(const char *text, HcUrl *url, const char **problem)
{
	const char *path = text + strcspn(text, "/?#");
	const char *end = path + strcspn(path, "?#");
	const char *at = memchr(text, '@', path - text);

	if (at != NULL)
	{
		if (!parse_user(text, at, url, problem))
			return false;
		text = at + 1;
	}
	if (text != path || *path != '/' || end - path < 2)
	{
		*problem = "After \"unix://\" comes the absolute path of a socket.";
		return false;
	}
	if (strchr(text, '@') != NULL)
	{
		*problem = "The character \"@\" in user, password and path must be percent-encoded.";
		return false;
	}

	url->path = decode(path, end, problem);
	if (url->path == NULL)
		return false;
	if (strlen(url->path) > MAX_PATH_LENGTH)
	{
		*problem = "The path of the socket is too long.";
		return false;
	}

	if (*end != '\0' &&
		(strncmp(end, "?db=", 4) != 0 ||
		 !parse_number(end + 4, end + strlen(end), 0, INT_MAX, &url->db)))
	{
		*problem = "What follows the path must be \"?db=\" and the number of a database.";
		return false;
	}
	return true;
}

/* [user]:[password], without the @ */
static bool
parse_user(const char *begin, const char *end, HcUrl *url, const char **problem)
{
	const char *colon = memchr(begin, ':', end - begin);

	/*
	 * Some clients take a lone word before the @ for the user, others for the
	 * password.
	 */
	if (colon == NULL)
	{
		*problem = "Before \"@\" a URL has \"user:password\" or \":password\".";
		return false;
	}

	if (colon > begin)
	{
		url->user = decode(begin, colon, problem);
		if (url->user == NULL)
			return false;
	}

	/* A user may have an empty password (nopass); without either: no AUTH. */
	if (colon + 1 < end || url->user != NULL)
	{
		url->password = decode(colon + 1, end, problem);
		if (url->password == NULL)
			return false;
	}
	return true;
}

/* host[:port] or [IPv6 address][:port] */
static bool
parse_host(const char *begin, const char *end, HcUrl *url, const char **problem)
{
	const char *port;

	if (begin < end && *begin == '[')
	{
		const char *close = memchr(begin, ']', end - begin);

		if (close == NULL || (close + 1 < end && close[1] != ':'))
		{
			*problem = "The brackets around the IPv6 address are not closed.";
			return false;
		}
		url->host = decode(begin + 1, close, problem);
		if (url->host == NULL)
			return false;
		if (!is_ipv6(url->host))
		{
			*problem = "What is in brackets is not an IPv6 address.";
			return false;
		}
		port = close + 1;
	}
	else
	{
		port = memchr(begin, ':', end - begin);
		if (port == NULL)
			port = end;
		else if (memchr(port + 1, ':', end - port - 1) != NULL)
		{
			*problem = "An IPv6 address must be in brackets.";
			return false;
		}
		url->host = decode(begin, port, problem);
		if (url->host == NULL)
			return false;
		if (!is_host_name(url->host))
		{
			*problem = "The host name is missing or has characters that no host name has.";
			return false;
		}
	}

	url->port = DEFAULT_PORT;
	if (port < end && !parse_number(port + 1, end, 1, 65535, &url->port))
	{
		*problem = "The port must be a number from 1 to 65535.";
		return false;
	}
	return true;
}

/* Digits only; false also when there are none. */
static bool
parse_number(const char *begin, const char *end, int min, int max, int *value)
{
	int64		number = 0;

	if (begin == end)
		return false;
	for (const char *p = begin; p < end; p++)
	{
		if (*p < '0' || *p > '9')
			return false;
		number = number * 10 + (*p - '0');
		if (number > max)
			return false;
	}
	if (number < min)
		return false;
	*value = (int) number;
	return true;
}

/* Undoes percent-encoding; NULL with *problem set if that is malformed. */
static char *
decode(const char *begin, const char *end, const char **problem)
{
	char	   *result = palloc(end - begin + 1);
	char	   *to = result;

	for (const char *p = begin; p < end; p++)
	{
		char		c = *p;

		if (c == '%')
		{
			if (end - p < 3 || hex_digit(p[1]) < 0 || hex_digit(p[2]) < 0)
			{
				*problem = "A \"%\" must be followed by two hexadecimal digits; \"%25\" stands for itself.";
				pfree(result);
				return NULL;
			}
			c = (char) (hex_digit(p[1]) * 16 + hex_digit(p[2]));
			if (c == '\0')
			{
				*problem = "A URL cannot contain a zero byte (\"%00\").";
				pfree(result);
				return NULL;
			}
			p += 2;
		}
		*to++ = c;
	}
	*to = '\0';
	return result;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool
is_host_name(const char *host)
{
	size_t		len = strlen(host);

	return len > 0 && len <= MAX_HOST_LENGTH &&
		strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			   "0123456789._-") == len;
}

/* Enough to keep strangers out of messages; the resolver checks the rest. */
static bool
is_ipv6(const char *host)
{
	size_t		address = strspn(host, "0123456789abcdefABCDEF:.");

	if (strchr(host, ':') == NULL || strlen(host) > MAX_HOST_LENGTH)
		return false;
	return host[address] == '\0' ||
		(host[address] == '%' && is_host_name(host + address + 1));
}
