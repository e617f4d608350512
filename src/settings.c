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
bool		hc_repair;
int			hc_reconcile_interval;
int			hc_reconcile_rate;
bool		hc_fallback;
int			hc_connect_timeout;
int			hc_command_timeout;
int			hc_atomic_ops;
int			hc_max_dead_letters;
bool		hc_synchronous;
int			hc_sync_timeout;
int			hc_wait_replicas;
int			hc_stale_ttl;
int			hc_lease_timeout;
int			hc_max_databases;
int			hc_wal_keep_size;
int			hc_max_wal_keep_size;

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
							   "It applies to the keys of mappings and of all functions that are not given whole commands. "
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

	DefineCustomBoolVariable("hybrid_cache.repair",
							 "Makes mappings equal to their tables again where they may differ.",
							 "The keeper process of the database does it. While it is off, hybrid_cache.mapping shows what is owed.",
							 &hc_repair,
							 true,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.reconcile_interval",
							"Sets the time after which a mapping is compared with its table again.",
							"What is known to be wrong is repaired at once. This finds what nobody knows of, "
							"such as keys that another client of Redis has changed. 0 means never.",
							&hc_reconcile_interval,
							3600, 0, INT_MAX,
							PGC_SUSET,
							GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.reconcile_rate",
							"Sets how many rows per second are compared with Redis at most.",
							"It holds for comparisons that are due by hybrid_cache.reconcile_interval or were asked for, "
							"not for repairs of what is known to be wrong. 0 means no limit.",
							&hc_reconcile_rate,
							20000, 0, INT_MAX,
							PGC_SUSET,
							0,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("hybrid_cache.fallback",
							 "Lets tables answer what Redis is asked for while Redis is down.",
							 "It concerns redis_geosearch() and its siblings on keys of mappings, and hybrid_cache.nearby(). "
							 "While it is off, they fail.",
							 &hc_fallback,
							 true,
							 PGC_USERSET,
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

	DefineCustomIntVariable("hybrid_cache.max_dead_letters",
							"Sets how many refused changes each database keeps in hybrid_cache.dead_letter.",
							"The oldest give way to new ones. They are counted all the same.",
							&hc_max_dead_letters,
							10000, 0, 1000000,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("hybrid_cache.synchronous",
							 "Lets COMMIT wait until Redis has the changes of the transaction.",
							 "It waits after the transaction has committed and released its locks. "
							 "When it cannot wait any longer it warns; the transaction stays committed, and its changes reach Redis later.",
							 &hc_synchronous,
							 false,
							 PGC_USERSET,
							 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.sync_timeout",
							"Sets the time for which hybrid_cache.synchronous lets COMMIT wait.",
							"While Redis is known to be down, COMMIT does not wait.",
							&hc_sync_timeout,
							1000, 1, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.wait_replicas",
							"Sets how many replicas of Redis must have the changes before hybrid_cache.synchronous lets COMMIT return.",
							"The sync worker asks Redis with WAIT, and only when somebody waits.",
							&hc_wait_replicas,
							0, 0, INT_MAX,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.stale_ttl",
							"Sets how long after its time hybrid_cache.cached() may return an old result while another session computes the new one.",
							"The results that a session stores are kept for so much longer. "
							"0 means never: the others wait.",
							&hc_stale_ttl,
							0, 0, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.lease_timeout",
							"Sets how long hybrid_cache.cached() waits for another session that computes the result.",
							"After that it runs the query itself. When it is a session of another server or another client of Redis, "
							"its right to store the result ends after the time that it has set.",
							&hc_lease_timeout,
							60000, 1, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.max_databases",
							"Sets how many databases of this server can have the extension at a time.",
							"Each takes a place in shared memory.",
							&hc_max_databases,
							64, 1, 10000,
							PGC_POSTMASTER,
							0,
							NULL, NULL, NULL);

	/* more than a Redis with appendfsync everysec loses, little on a disk */
	DefineCustomIntVariable("hybrid_cache.wal_keep_size",
							"Sets how much WAL is kept behind what Redis has.",
							"A Redis server that comes back without its last writes, after a failover or a restart, "
							"gets them again from this WAL; without it, all mappings must be compared with their tables.",
							&hc_wal_keep_size,
							64, 0, MAX_KILOBYTES,
							PGC_SIGHUP,
							GUC_UNIT_MB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("hybrid_cache.max_wal_keep_size",
							"Sets how much WAL is kept for Redis at most.",
							"When more would be needed, since Redis is away for long, WAL is given up, "
							"and all mappings must be compared with their tables. -1 means no limit.",
							&hc_max_wal_keep_size,
							-1, -1, MAX_KILOBYTES,
							PGC_SIGHUP,
							GUC_UNIT_MB,
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
