/*
 * settings.c
 *	  The settings hybrid_cache.*, as PostgreSQL's configuration keeps them.
 *
 * The check hook parses and never connects: settings are looked at where no
 * error may be raised and nobody may wait.
 */
#include "postgres.h"

#include <limits.h>

#include "redis/url.h"
#include "settings.h"
#include "utils/guc.h"

char	   *hc_redis_url;
char	   *hc_key_prefix;
bool		hc_enabled;
int			hc_connect_timeout;
int			hc_command_timeout;
int			hc_atomic_ops;
int			hc_max_databases;

static bool check_redis_url(char **newval, void **extra, GucSource source);

void
hc_settings_init(void)
{
	DefineCustomStringVariable("hybrid_cache.redis_url",
							   "Sets the Redis server that is kept equal to the tables of this database and read from SQL.",
							   "redis://[user[:password]@]host[:port][/db] or unix://[user[:password]@]/path[?db=N]; "
							   "special characters in user and password are percent-encoded. "
							   "Empty: this database has no Redis.",
							   &hc_redis_url,
							   "",
							   PGC_SUSET,
							   GUC_SUPERUSER_ONLY,
							   check_redis_url, NULL, NULL);

	DefineCustomStringVariable("hybrid_cache.key_prefix",
							   "Sets what is put before every key in Redis.",
							   "It applies to the keys of mappings and of all functions but redis_command(). "
							   "With it, several databases can share one Redis server.",
							   &hc_key_prefix,
							   "",
							   PGC_SUSET,
							   0,
							   NULL, NULL, NULL);

	DefineCustomBoolVariable("hybrid_cache.enabled",
							 "Captures changes of mapped tables.",
							 "While it is off, changes do not reach Redis, and the mappings they concern must be reconciled afterwards.",
							 &hc_enabled,
							 true,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.connect_timeout",
							"Sets the time within which a connection to Redis must be made.",
							"It includes logging in, so it also limits the wait for a server that accepts connections and never answers.",
							&hc_connect_timeout,
							1000, 1, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.command_timeout",
							"Sets the time within which Redis must have answered a command.",
							"After that the command fails and its connection is closed, since its answer could still come; "
							"Redis may have executed it.",
							&hc_command_timeout,
							5000, 1, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.atomic_ops",
							"Sets the most changes of one transaction that become visible in Redis together.",
							"Redis serves nobody else while it applies them. "
							"A transaction with more changes is applied in several steps.",
							&hc_atomic_ops,
							10000, 1, INT_MAX,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.max_databases",
							"Sets how many databases of this server can have the extension at a time.",
							"Each takes a place in shared memory.",
							&hc_max_databases,
							64, 1, 10000,
							PGC_POSTMASTER,
							0,
							NULL, NULL, NULL);

	MarkGUCPrefixReserved("hybrid_cache");
}

/*
 * PostgreSQL's own message for a refused value quotes it, and with it the
 * password.
 */
static bool
check_redis_url(char **newval, void **extra, GucSource source)
{
	HcUrl		url;
	const char *problem;

	if (*newval == NULL || **newval == '\0' ||
		hc_url_parse(*newval, &url, &problem))
		return true;

	GUC_check_errmsg("invalid value for parameter \"%s\"",
					 "hybrid_cache.redis_url");
	GUC_check_errdetail("%s", problem);
	GUC_check_errhint("Write it as redis://:password@host:6379/0 or unix:///path/to/redis.sock.");
	return false;
}
