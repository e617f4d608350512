/*
 * settings.h
 *	  The settings hybrid_cache.*, as PostgreSQL's configuration keeps them.
 */
#ifndef HC_SETTINGS_H
#define HC_SETTINGS_H

/* NULL or empty: this database has no Redis, nothing is applied or read */
extern char *hc_redis_url;
/* put before every key of mappings, hybrid_cache.* and redis_*; never NULL */
extern char *hc_key_prefix;
/* off: triggers capture nothing, and their mappings owe a reconcile */
extern bool hc_enabled;
/* off: what is owed stays owed */
extern bool hc_repair;
/* seconds after which a mapping is compared again, 0: never; rows per second
 * of such a comparison, 0: no limit */
extern int	hc_reconcile_interval;
extern int	hc_reconcile_rate;
/* tables answer while Redis is down */
extern bool hc_fallback;
/* milliseconds */
extern int	hc_connect_timeout;
extern int	hc_command_timeout;
/* the most ops of one MULTI */
extern int	hc_atomic_ops;
extern int	hc_max_dead_letters;
/* a commit waits until Redis has it, for so many milliseconds at most */
extern bool hc_synchronous;
extern int	hc_sync_timeout;
/* ... and until so many replicas of it have it, too */
extern int	hc_wait_replicas;
/* milliseconds: how long cached results live on, and are waited for */
extern int	hc_stale_ttl;
extern int	hc_lease_timeout;
/* how many databases of this cluster can have the extension */
extern int	hc_max_databases;
/* MB of WAL behind what Redis has; MB kept for Redis at most, -1: no limit */
extern int	hc_wal_keep_size;
extern int	hc_max_wal_keep_size;

/* Defines all settings; called once, from _PG_init. */
extern void hc_settings_init(void);

#endif							/* HC_SETTINGS_H */
