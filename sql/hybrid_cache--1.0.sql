/* sql/hybrid_cache--1.0.sql */

-- complain if the script is sourced in psql rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION hybrid_cache" to load this file. \quit

-- What manages mappings lives in the schema hybrid_cache, whatever schema the
-- extension is created in; redis_* live in the schema that was chosen.
DO $$
BEGIN
	IF to_regnamespace('hybrid_cache') IS NULL THEN
		CREATE SCHEMA hybrid_cache;
		COMMENT ON SCHEMA hybrid_cache IS
			'mappings of tables to Redis, and what manages them';
	ELSIF NOT (SELECT r.rolsuper FROM pg_catalog.pg_namespace n
			   JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
			   WHERE n.nspname OPERATOR(pg_catalog.=) 'hybrid_cache') THEN
		-- who owns a schema can put functions there, and drop what others put there
		RAISE EXCEPTION 'schema "hybrid_cache" exists and does not belong to a superuser'
			USING ERRCODE = 'insufficient_privilege',
				HINT = 'Drop the schema, or give it to a superuser with ALTER SCHEMA ... OWNER TO.';
	END IF;
END
$$;

-- those who may look at statistics find the view hybrid_cache.status there
GRANT USAGE ON SCHEMA hybrid_cache TO pg_read_all_stats;

----------------------------------------------------------------------------
-- tables
----------------------------------------------------------------------------

-- Of the sync worker: changes are applied from created_lsn on.  database and
-- system tell whether the row was copied with its database from somewhere else.
-- While transactions before unsettled_xid are open, everything must be compared
-- once more when they have ended, since WAL with their changes is gone.
CREATE TABLE hybrid_cache.installation (
	created_lsn pg_lsn NOT NULL,
	database oid NOT NULL,
	system bigint NOT NULL,
	unsettled_xid xid8,
	former_system bigint,
	former_database oid
);
REVOKE ALL ON hybrid_cache.installation FROM PUBLIC;
COMMENT ON TABLE hybrid_cache.installation IS
'where in the WAL the extension was created';
INSERT INTO hybrid_cache.installation
SELECT pg_catalog.pg_current_wal_insert_lsn(), d.oid, s.system_identifier
FROM pg_catalog.pg_database d, pg_catalog.pg_control_system() s
WHERE d.datname = pg_catalog.current_database();

-- They are written by the extension itself, below SQL.  Users need not see the
-- keys and conditions of everybody's mappings.

CREATE TABLE hybrid_cache.owed (
	mapping oid NOT NULL,
	reason text NOT NULL,
	since timestamptz NOT NULL,
	started timestamptz
);
REVOKE ALL ON hybrid_cache.owed FROM PUBLIC;
COMMENT ON TABLE hybrid_cache.owed IS
'mappings that must be compared with their tables, and why; started: the keeper is doing it';

-- It has one row, unless PostgreSQL has emptied all unlogged tables.
CREATE UNLOGGED TABLE hybrid_cache.unlogged (
	filled boolean NOT NULL
);
REVOKE ALL ON hybrid_cache.unlogged FROM PUBLIC;
COMMENT ON TABLE hybrid_cache.unlogged IS
'is empty after a crash, a promotion or a restored base backup, like every unlogged table';
INSERT INTO hybrid_cache.unlogged VALUES (true);

-- asked_at: the entries are being removed, by the system and database asked_in:
-- a copy of it that has the row as well does not go on with that.
CREATE TABLE hybrid_cache.leftover (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	relation text NOT NULL,
	mapping name NOT NULL,
	kind text NOT NULL,
	key text NOT NULL,
	member text,
	prefix text NOT NULL,
	types jsonb NOT NULL,
	arguments text[] NOT NULL,
	dropped_at timestamptz NOT NULL,
	asked_at timestamptz,
	asked_in text,
	force boolean NOT NULL,
	remaining bigint
);
REVOKE ALL ON hybrid_cache.leftover FROM PUBLIC;
COMMENT ON TABLE hybrid_cache.leftover IS
'dropped mappings whose entries are still in Redis; see hybrid_cache.purge()';

-- Written by the sync worker below SQL, too.  Not part of a dump: what it says
-- is about a Redis, not about the database.
CREATE TABLE hybrid_cache.dead_letter (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	relation regclass,
	mapping name,
	op text NOT NULL,
	key text NOT NULL,
	member text,
	error text NOT NULL,
	sqlstate text NOT NULL,
	lsn pg_lsn NOT NULL,
	attempts bigint NOT NULL,
	since timestamptz NOT NULL,
	at timestamptz NOT NULL,
	entry bigint NOT NULL,
	payload bytea
);
CREATE INDEX dead_letter_entry_idx ON hybrid_cache.dead_letter (entry);
REVOKE ALL ON hybrid_cache.dead_letter FROM PUBLIC;
-- keys, as in the errors of hybrid_cache.status, but no values
GRANT SELECT (id, relation, mapping, op, key, member, error, sqlstate, lsn,
	attempts, since, at, entry) ON hybrid_cache.dead_letter TO pg_read_all_stats;
COMMENT ON TABLE hybrid_cache.dead_letter IS
'changes that Redis refused for good; see hybrid_cache.retry_dead_letter()';

-- Written by the keeper below SQL: where it goes on if it is ended, and when it
-- was there last.  One row per mapping.
CREATE TABLE hybrid_cache.run (
	mapping oid NOT NULL,
	kind text NOT NULL,
	reason text NOT NULL,
	phase text NOT NULL,
	started timestamptz NOT NULL,
	ended timestamptz,
	full_started timestamptz,
	checked bigint NOT NULL,
	missing bigint NOT NULL,
	stale bigint NOT NULL,
	orphaned bigint NOT NULL,
	conflicting bigint NOT NULL,
	repaired bigint NOT NULL,
	failed bigint NOT NULL,
	mark timestamptz,
	populate boolean NOT NULL,
	definition bigint NOT NULL,
	first_xid bigint NOT NULL,
	relation oid NOT NULL,
	storage oid NOT NULL,
	position tid NOT NULL,
	blocks bigint NOT NULL,
	since bigint NOT NULL,
	young bigint NOT NULL,
	pass integer NOT NULL
) WITH (fillfactor = 50);
REVOKE ALL ON hybrid_cache.run FROM PUBLIC;
COMMENT ON TABLE hybrid_cache.run IS
'the last comparison of each mapping with its table: what it found, and where it goes on if it has not ended';

-- a restored database has the leftovers that the dumped one had
SELECT pg_catalog.pg_extension_config_dump('hybrid_cache.leftover', '');
SELECT pg_catalog.pg_extension_config_dump('hybrid_cache.leftover_id_seq', '');

----------------------------------------------------------------------------
-- trigger functions
----------------------------------------------------------------------------

CREATE FUNCTION hybrid_cache.write_through() RETURNS trigger
AS 'MODULE_PATHNAME', 'hybrid_cache_write_through' LANGUAGE C;
REVOKE ALL ON FUNCTION hybrid_cache.write_through() FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.write_through() IS
'trigger: the Redis entry of a row follows the row';

CREATE FUNCTION hybrid_cache.invalidate() RETURNS trigger
AS 'MODULE_PATHNAME', 'hybrid_cache_invalidate' LANGUAGE C;
REVOKE ALL ON FUNCTION hybrid_cache.invalidate() FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.invalidate() IS
'trigger: the Redis keys that a changed row names are unlinked';

CREATE FUNCTION hybrid_cache.emit() RETURNS trigger
AS 'MODULE_PATHNAME', 'hybrid_cache_emit' LANGUAGE C;
REVOKE ALL ON FUNCTION hybrid_cache.emit() FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.emit() IS
'trigger: a change of a row becomes an event in Redis';

----------------------------------------------------------------------------
-- mappings: attach, detach, purge (manage/attach.c, manage/purge.c,
-- manage/dead_letter.c)
----------------------------------------------------------------------------

-- Who may attach decides what leaves PostgreSQL: so nobody may until granted.

CREATE FUNCTION hybrid_cache.attach(
	relation regclass, kind text, key text DEFAULT NULL,
	member text DEFAULT NULL, field text DEFAULT NULL,
	value text DEFAULT NULL, columns text DEFAULT NULL,
	exclude text DEFAULT NULL, score text DEFAULT NULL,
	longitude text DEFAULT NULL, latitude text DEFAULT NULL,
	filter text DEFAULT NULL, ttl interval DEFAULT NULL,
	expires_at text DEFAULT NULL, orphans text DEFAULT NULL,
	missing text DEFAULT NULL, since text DEFAULT NULL,
	identity text DEFAULT NULL, channel text DEFAULT NULL,
	maxlen bigint DEFAULT NULL, push text DEFAULT NULL,
	operations text DEFAULT NULL,
	name name DEFAULT NULL, populate boolean DEFAULT NULL,
	replace boolean DEFAULT false, always boolean DEFAULT false)
RETURNS name
AS 'MODULE_PATHNAME', 'hybrid_cache_attach' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.attach(
	regclass, text, text, text, text, text, text, text, text, text, text, text,
	interval, text, text, text, text, text, text, bigint, text, text,
	name, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.attach(
	regclass, text, text, text, text, text, text, text, text, text, text, text,
	interval, text, text, text, text, text, text, bigint, text, text,
	name, boolean, boolean, boolean) IS
'keep what the rows of a table become in Redis equal to the table; returns the name of the mapping';

CREATE FUNCTION hybrid_cache.detach(
	relation regclass, name name, purge boolean DEFAULT true)
RETURNS void
AS 'MODULE_PATHNAME', 'hybrid_cache_detach' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.detach(regclass, name, boolean) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.detach(regclass, name, boolean) IS
'drop a mapping, and with purge have its entries in Redis removed';

CREATE FUNCTION hybrid_cache.purge(
	id bigint, dry_run boolean DEFAULT true, force boolean DEFAULT false,
	OUT key text, OUT member text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'hybrid_cache_purge' LANGUAGE C VOLATILE ROWS 1000;
REVOKE ALL ON FUNCTION hybrid_cache.purge(bigint, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.purge(bigint, boolean, boolean) IS
'list the entries in Redis of a dropped mapping (hybrid_cache.leftover), or with dry_run => false have them removed, with force all that look like them';

CREATE FUNCTION hybrid_cache.take_over(
	force boolean DEFAULT false, OUT key text, OUT owner text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'hybrid_cache_take_over'
LANGUAGE C VOLATILE STRICT ROWS 10;
REVOKE ALL ON FUNCTION hybrid_cache.take_over(boolean) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.take_over(boolean) IS
'write keys in Redis that belong to another database, or with force to one or a copy that is still alive; what was taken from whom';

CREATE FUNCTION hybrid_cache.retry_dead_letter(id bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_retry_dead_letter' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.retry_dead_letter(bigint) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.retry_dead_letter(bigint) IS
'send the entry of a refused change again, as its row is now, and delete the dead letter; false if there was nothing to send';

CREATE FUNCTION hybrid_cache.mapping_list(
	OUT relation regclass, OUT name name, OUT kind text, OUT options jsonb,
	OUT fires text, OUT state text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'hybrid_cache_mapping_list' LANGUAGE C STABLE STRICT ROWS 10;
REVOKE ALL ON FUNCTION hybrid_cache.mapping_list() FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.mapping_list() IS
'the rows of the view hybrid_cache.mapping';

CREATE VIEW hybrid_cache.mapping AS
SELECT relation, name, kind, options, fires, state
FROM hybrid_cache.mapping_list();
REVOKE ALL ON hybrid_cache.mapping FROM PUBLIC;
COMMENT ON VIEW hybrid_cache.mapping IS
'the mappings of this database, when they fire, and what keeps them from being equal to their tables';

----------------------------------------------------------------------------
-- equal again: populate, reconcile, cancel, orphans, progress
-- (manage/reconcile.c, manage/orphans.c)
----------------------------------------------------------------------------

CREATE FUNCTION hybrid_cache.populate(relation regclass, name name)
RETURNS void
AS 'MODULE_PATHNAME', 'hybrid_cache_populate' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.populate(regclass, name) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.populate(regclass, name) IS
'have the entries of all rows written to Redis in the background, once the transaction has committed';

CREATE FUNCTION hybrid_cache.reconcile(
	relation regclass, name name, "full" boolean DEFAULT true,
	OUT checked bigint, OUT missing bigint, OUT stale bigint,
	OUT orphaned bigint, OUT conflicting bigint, OUT repaired bigint,
	OUT duration interval)
AS 'MODULE_PATHNAME', 'hybrid_cache_reconcile' LANGUAGE C VOLATILE COST 100000;
REVOKE ALL ON FUNCTION hybrid_cache.reconcile(regclass, name, boolean) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.reconcile(regclass, name, boolean) IS
'compare the entries of a mapping with its table, repair what differs, and wait for that; what was found';

CREATE FUNCTION hybrid_cache.cancel(relation regclass, name name)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_cancel' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.cancel(regclass, name) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.cancel(regclass, name) IS
'end populating or reconciling a mapping, until it is asked for again; false if there was nothing to end';

CREATE FUNCTION hybrid_cache.orphans(
	relation regclass, name name, OUT key text, OUT member text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'hybrid_cache_orphans' LANGUAGE C VOLATILE COST 10000 ROWS 100;
REVOKE ALL ON FUNCTION hybrid_cache.orphans(regclass, name) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.orphans(regclass, name) IS
'the entries in Redis that look like those of a mapping, but belong to no row; nothing is removed';

CREATE FUNCTION hybrid_cache.progress_list(
	OUT relation regclass, OUT name name, OUT kind text, OUT reason text,
	OUT phase text, OUT rows_done bigint, OUT rows_estimated bigint,
	OUT rate bigint, OUT time_left interval, OUT missing bigint,
	OUT stale bigint, OUT orphaned bigint, OUT conflicting bigint,
	OUT repaired bigint, OUT started timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'hybrid_cache_progress_list'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 2;
REVOKE ALL ON FUNCTION hybrid_cache.progress_list() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hybrid_cache.progress_list() TO pg_read_all_stats;
COMMENT ON FUNCTION hybrid_cache.progress_list() IS
'the rows of the view hybrid_cache.progress';

CREATE VIEW hybrid_cache.progress AS
SELECT * FROM hybrid_cache.progress_list();
REVOKE ALL ON hybrid_cache.progress FROM PUBLIC;
GRANT SELECT ON hybrid_cache.progress TO pg_read_all_stats;
COMMENT ON VIEW hybrid_cache.progress IS
'mappings that are being compared with their tables, or wait for it: how far that is, and what was found';

----------------------------------------------------------------------------
-- read-through (cache/read_through.c)
----------------------------------------------------------------------------

-- It checks the caller's rights on the table itself, but what it asks Redis is
-- work for others, too: who may is for the owner to say.
CREATE FUNCTION hybrid_cache.get(relation regclass, name name, VARIADIC key "any")
RETURNS jsonb
AS 'MODULE_PATHNAME', 'hybrid_cache_read_through'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.get(regclass, name, VARIADIC "any") FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.get(regclass, name, VARIADIC "any") IS
'what a mapping has at a key, which is given by the columns of the key template: from Redis, or from the table where Redis has nothing or is down';

-- VARIADIC "any" wants one argument at least.
CREATE FUNCTION hybrid_cache.get(relation regclass, name name)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'hybrid_cache_read_through'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.get(regclass, name) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.get(regclass, name) IS
'the same for a mapping whose key template has no columns';

----------------------------------------------------------------------------
-- the worker: waiting and status (manage/status.c)
----------------------------------------------------------------------------

CREATE FUNCTION hybrid_cache.wait_for_sync(timeout interval DEFAULT '5s')
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_wait_for_sync'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
REVOKE ALL ON FUNCTION hybrid_cache.wait_for_sync(interval) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.wait_for_sync(interval) IS
'waits until everything committed before the call is in Redis; false if that takes longer than timeout';

-- Errors can quote keys of any database, so only those may look who may see
-- all statistics.
CREATE FUNCTION hybrid_cache.worker_status(
	OUT database name, OUT worker_pid int, OUT connected boolean,
	OUT down_since timestamptz, OUT waiting int,
	OUT published_lsn pg_lsn, OUT applied_lsn pg_lsn, OUT lag bigint,
	OUT transactions bigint, OUT ops bigint, OUT batches bigint,
	OUT refused bigint, OUT dropped_letters bigint, OUT failures bigint, OUT out_of_range bigint,
	OUT oversize bigint, OUT damaged bigint, OUT fallbacks bigint,
	OUT read_hits bigint, OUT read_misses bigint, OUT read_bypasses bigint, OUT fills bigint,
	OUT last_error text, OUT last_error_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'hybrid_cache_worker_status'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 4;
REVOKE ALL ON FUNCTION hybrid_cache.worker_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hybrid_cache.worker_status() TO pg_read_all_stats;
COMMENT ON FUNCTION hybrid_cache.worker_status() IS
'the rows of the view hybrid_cache.status';

CREATE VIEW hybrid_cache.status AS
SELECT * FROM hybrid_cache.worker_status();
REVOKE ALL ON hybrid_cache.status FROM PUBLIC;
GRANT SELECT ON hybrid_cache.status TO pg_read_all_stats;
COMMENT ON VIEW hybrid_cache.status IS
'how far the sync worker of each database is, and what it has counted since the server started';

----------------------------------------------------------------------------
-- Redis commands (command/command.c, pipeline.c, keys.c, strings.c, hashes.c,
-- sets.c, sorted_sets.c, lists.c, streams.c, scripting.c, mget.c, scan.c,
-- geosearch.c)
----------------------------------------------------------------------------

-- They speak to Redis with the rights of hybrid_cache.redis_url, past all
-- privileges and row security of tables: who may is for the owner to say.
--
-- What only reads is strict; what changes something refuses nulls.

CREATE FUNCTION @extschema@.redis_command(VARIADIC arguments "any")
RETURNS jsonb
AS 'MODULE_PATHNAME', 'hybrid_cache_command'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_command(VARIADIC "any") FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_command(VARIADIC "any") IS
'run any Redis command that does not block; keys are taken as they are, without hybrid_cache.key_prefix';

CREATE FUNCTION @extschema@.redis_pipeline(commands jsonb)
RETURNS SETOF jsonb
AS 'MODULE_PATHNAME', 'hybrid_cache_pipeline'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
REVOKE ALL ON FUNCTION @extschema@.redis_pipeline(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_pipeline(jsonb) IS
'run many commands, each an array of its words, in one round trip; their answers in order, an object with error and sqlstate for one that Redis refuses';

CREATE FUNCTION @extschema@.redis_ping()
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_ping'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_ping() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_ping() IS
'PONG if Redis answers';

CREATE FUNCTION @extschema@.redis_rows_support(internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'hybrid_cache_rows_support'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION @extschema@.redis_rows_support(internal) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_rows_support(internal) IS
'planner support: how many rows a command returns';

-- strings

CREATE FUNCTION @extschema@.redis_get(key text)
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_get'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_get(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_get(text) IS
'the string at a key, null if there is none';

CREATE FUNCTION @extschema@.redis_get_bytea(key text)
RETURNS bytea
AS 'MODULE_PATHNAME', 'hybrid_cache_get_bytea'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_get_bytea(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_get_bytea(text) IS
'the bytes at a key, null if there are none';

CREATE FUNCTION @extschema@.redis_mget(keys text[])
RETURNS TABLE (key text, value text)
AS 'MODULE_PATHNAME', 'hybrid_cache_mget'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 1000
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_mget(text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_mget(text[]) IS
'the strings at many keys, in their order, with null where there is none; a few round trips however many there are';

CREATE FUNCTION @extschema@.redis_mget_bytea(keys text[])
RETURNS TABLE (key text, value bytea)
AS 'MODULE_PATHNAME', 'hybrid_cache_mget'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 1000
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_mget_bytea(text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_mget_bytea(text[]) IS
'the bytes at many keys';

CREATE FUNCTION @extschema@.redis_set(
	key text, value text, ex bigint DEFAULT NULL, px bigint DEFAULT NULL,
	nx boolean DEFAULT false, xx boolean DEFAULT false,
	keepttl boolean DEFAULT false)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_set'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_set(text, text, bigint, bigint, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_set(text, text, bigint, bigint, boolean, boolean, boolean) IS
'set a key at once, whether the transaction commits or not; false if nx or xx prevented it; ex in seconds, px in milliseconds';

CREATE FUNCTION @extschema@.redis_set(
	key text, value bytea, ex bigint DEFAULT NULL, px bigint DEFAULT NULL,
	nx boolean DEFAULT false, xx boolean DEFAULT false,
	keepttl boolean DEFAULT false)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_set_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_set(text, bytea, bigint, bigint, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_set(text, bytea, bigint, bigint, boolean, boolean, boolean) IS
'set a key at once, whether the transaction commits or not; false if nx or xx prevented it; ex in seconds, px in milliseconds';

CREATE FUNCTION @extschema@.redis_getdel(key text)
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_getdel'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_getdel(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_getdel(text) IS
'the string at a key, which is removed; null if there is none';

CREATE FUNCTION @extschema@.redis_getdel_bytea(key text)
RETURNS bytea
AS 'MODULE_PATHNAME', 'hybrid_cache_getdel_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_getdel_bytea(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_getdel_bytea(text) IS
'the bytes at a key, which is removed; null if there are none';

CREATE FUNCTION @extschema@.redis_incrby(key text, increment bigint DEFAULT 1)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_incrby'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_incrby(text, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_incrby(text, bigint) IS
'add to the number at a key, which is 0 if there is none; the sum';

CREATE FUNCTION @extschema@.redis_incrbyfloat(key text, increment double precision)
RETURNS double precision
AS 'MODULE_PATHNAME', 'hybrid_cache_incrbyfloat'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_incrbyfloat(text, double precision) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_incrbyfloat(text, double precision) IS
'the same for a number with a fraction';

-- keys

CREATE FUNCTION @extschema@.redis_del(VARIADIC keys text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_del'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_del(VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_del(VARIADIC text[]) IS
'remove keys at once, whether the transaction commits or not; how many there were';

CREATE FUNCTION @extschema@.redis_unlink(VARIADIC keys text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_unlink'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_unlink(VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_unlink(VARIADIC text[]) IS
'the same, with the memory given back in the background';

CREATE FUNCTION @extschema@.redis_exists(VARIADIC keys text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_exists'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_exists(VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_exists(VARIADIC text[]) IS
'how many of the keys exist';

CREATE FUNCTION @extschema@.redis_expire(
	key text, seconds bigint, nx boolean DEFAULT false,
	xx boolean DEFAULT false, gt boolean DEFAULT false,
	lt boolean DEFAULT false)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_expire'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_expire(text, bigint, boolean, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_expire(text, bigint, boolean, boolean, boolean, boolean) IS
'let a key expire after some seconds; false if there is no such key, or an option (Redis 7) prevented it';

CREATE FUNCTION @extschema@.redis_ttl(key text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_ttl'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_ttl(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_ttl(text) IS
'the seconds until a key expires, -1 if it does not, -2 if there is no such key';

CREATE FUNCTION @extschema@.redis_type(key text)
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_type'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_type(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_type(text) IS
'what a key holds: string, hash, list, set, zset, stream, or none';

CREATE FUNCTION @extschema@.redis_scan(
	match text DEFAULT NULL, count bigint DEFAULT NULL,
	type text DEFAULT NULL)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'hybrid_cache_scan'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_scan(text, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_scan(text, bigint, text) IS
'all keys, or those that match a pattern or are of a type; one may come twice; count is how many Redis looks at in a round trip';

CREATE FUNCTION @extschema@.redis_scan_bytea(
	match text DEFAULT NULL, count bigint DEFAULT NULL,
	type text DEFAULT NULL)
RETURNS SETOF bytea
AS 'MODULE_PATHNAME', 'hybrid_cache_scan'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_scan_bytea(text, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_scan_bytea(text, bigint, text) IS
'all keys, or those that match a pattern or are of a type; one may come twice; count is how many Redis looks at in a round trip';

-- hashes

CREATE FUNCTION @extschema@.redis_hget(key text, field text)
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_hget'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_hget(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hget(text, text) IS
'a field of the hash at a key, null if there is none';

CREATE FUNCTION @extschema@.redis_hget_bytea(key text, field text)
RETURNS bytea
AS 'MODULE_PATHNAME', 'hybrid_cache_hget_bytea'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_hget_bytea(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hget_bytea(text, text) IS
'the bytes of a field of the hash at a key, null if there is none';

CREATE FUNCTION @extschema@.redis_hmget(key text, VARIADIC fields text[])
RETURNS TABLE (field text, value text)
AS 'MODULE_PATHNAME', 'hybrid_cache_hmget'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 10
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_hmget(text, VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hmget(text, VARIADIC text[]) IS
'some fields of the hash at a key, in their order, with null where there is none';

CREATE FUNCTION @extschema@.redis_hmget_bytea(key text, VARIADIC fields text[])
RETURNS TABLE (field text, value bytea)
AS 'MODULE_PATHNAME', 'hybrid_cache_hmget'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 10
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_hmget_bytea(text, VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hmget_bytea(text, VARIADIC text[]) IS
'the bytes of some fields of the hash at a key';

CREATE FUNCTION @extschema@.redis_hgetall(key text)
RETURNS TABLE (field text, value text)
AS 'MODULE_PATHNAME', 'hybrid_cache_hgetall'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 20;
REVOKE ALL ON FUNCTION @extschema@.redis_hgetall(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hgetall(text) IS
'all fields of the hash at a key';

CREATE FUNCTION @extschema@.redis_hgetall_bytea(key text)
RETURNS TABLE (field text, value bytea)
AS 'MODULE_PATHNAME', 'hybrid_cache_hgetall'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 20;
REVOKE ALL ON FUNCTION @extschema@.redis_hgetall_bytea(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hgetall_bytea(text) IS
'all fields of the hash at a key, with the bytes of their values';

CREATE FUNCTION @extschema@.redis_hset(key text, VARIADIC field_value text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_hset'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_hset(text, VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hset(text, VARIADIC text[]) IS
'set fields of the hash at a key: fields and values by turns; how many are new';

CREATE FUNCTION @extschema@.redis_hset(key text, field text, value bytea)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_hset_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_hset(text, text, bytea) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hset(text, text, bytea) IS
'set a field of the hash at a key to bytes; 1 if it is new';

CREATE FUNCTION @extschema@.redis_hdel(key text, VARIADIC fields text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_hdel'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_hdel(text, VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hdel(text, VARIADIC text[]) IS
'remove fields of the hash at a key; how many there were';

CREATE FUNCTION @extschema@.redis_hincrby(key text, field text, increment bigint DEFAULT 1)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_hincrby'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_hincrby(text, text, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hincrby(text, text, bigint) IS
'add to the number in a field of the hash at a key; the sum';

-- sets

CREATE FUNCTION @extschema@.redis_sadd(key text, VARIADIC members text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_sadd'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_sadd(text, VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_sadd(text, VARIADIC text[]) IS
'add members to the set at a key; how many are new';

CREATE FUNCTION @extschema@.redis_sadd(key text, VARIADIC members bytea[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_sadd'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_sadd(text, VARIADIC bytea[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_sadd(text, VARIADIC bytea[]) IS
'add members to the set at a key; how many are new';

CREATE FUNCTION @extschema@.redis_srem(key text, VARIADIC members text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_srem'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_srem(text, VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_srem(text, VARIADIC text[]) IS
'remove members of the set at a key; how many there were';

CREATE FUNCTION @extschema@.redis_srem(key text, VARIADIC members bytea[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_srem'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_srem(text, VARIADIC bytea[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_srem(text, VARIADIC bytea[]) IS
'remove members of the set at a key; how many there were';

CREATE FUNCTION @extschema@.redis_smembers(key text)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'hybrid_cache_smembers'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 100;
REVOKE ALL ON FUNCTION @extschema@.redis_smembers(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_smembers(text) IS
'the members of the set at a key';

CREATE FUNCTION @extschema@.redis_smembers_bytea(key text)
RETURNS SETOF bytea
AS 'MODULE_PATHNAME', 'hybrid_cache_smembers'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 100;
REVOKE ALL ON FUNCTION @extschema@.redis_smembers_bytea(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_smembers_bytea(text) IS
'the members of the set at a key, as bytes';

CREATE FUNCTION @extschema@.redis_sismember(key text, member text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_sismember'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_sismember(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_sismember(text, text) IS
'is it a member of the set at a key?';

CREATE FUNCTION @extschema@.redis_sismember(key text, member bytea)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_sismember_bytea'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_sismember(text, bytea) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_sismember(text, bytea) IS
'is it a member of the set at a key?';

-- sorted sets

CREATE FUNCTION @extschema@.redis_zadd(
	key text, score double precision, member text, nx boolean DEFAULT false,
	xx boolean DEFAULT false, gt boolean DEFAULT false,
	lt boolean DEFAULT false, ch boolean DEFAULT false)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_zadd'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_zadd(text, double precision, text, boolean, boolean, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_zadd(text, double precision, text, boolean, boolean, boolean, boolean, boolean) IS
'add a member to the sorted set at a key, or change its score; 1 if it is new, with ch also if it was changed';

CREATE FUNCTION @extschema@.redis_zadd_many(
	key text, scores double precision[], members text[],
	nx boolean DEFAULT false, xx boolean DEFAULT false,
	gt boolean DEFAULT false, lt boolean DEFAULT false,
	ch boolean DEFAULT false)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_zadd_many'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_zadd_many(text, double precision[], text[], boolean, boolean, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_zadd_many(text, double precision[], text[], boolean, boolean, boolean, boolean, boolean) IS
'the same for many members, each with its score; how many are new, with ch also those that were changed';

CREATE FUNCTION @extschema@.redis_zincrby(key text, increment double precision, member text)
RETURNS double precision
AS 'MODULE_PATHNAME', 'hybrid_cache_zincrby'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_zincrby(text, double precision, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_zincrby(text, double precision, text) IS
'add to the score of a member of the sorted set at a key; the sum';

CREATE FUNCTION @extschema@.redis_zrem(key text, VARIADIC members text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_zrem'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_zrem(text, VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_zrem(text, VARIADIC text[]) IS
'remove members of the sorted set at a key; how many there were';

CREATE FUNCTION @extschema@.redis_zscore(key text, member text)
RETURNS double precision
AS 'MODULE_PATHNAME', 'hybrid_cache_zscore'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_zscore(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_zscore(text, text) IS
'the score of a member of the sorted set at a key, null if there is none';

CREATE FUNCTION @extschema@.redis_zrank(key text, member text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_zrank'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_zrank(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_zrank(text, text) IS
'the place of a member in the sorted set at a key, from 0, by ascending score; null if there is none';

CREATE FUNCTION @extschema@.redis_zrange(key text, start bigint, stop bigint, rev boolean DEFAULT false)
RETURNS TABLE (member text, score double precision)
AS 'MODULE_PATHNAME', 'hybrid_cache_zrange'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 100
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_zrange(text, bigint, bigint, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_zrange(text, bigint, bigint, boolean) IS
'members of the sorted set at a key by their places, from 0 or, if negative, from the end; with rev the highest score first';

CREATE FUNCTION @extschema@.redis_zrangebyscore(
	key text, min text, max text, rev boolean DEFAULT false,
	"offset" bigint DEFAULT NULL, count bigint DEFAULT NULL)
RETURNS TABLE (member text, score double precision)
AS 'MODULE_PATHNAME', 'hybrid_cache_zrangebyscore'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
REVOKE ALL ON FUNCTION @extschema@.redis_zrangebyscore(text, text, text, boolean, bigint, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_zrangebyscore(text, text, text, boolean, bigint, bigint) IS
'members of the sorted set at a key by their scores; (1 excludes 1, and -inf and +inf are all; with rev the highest first';

CREATE FUNCTION @extschema@.redis_zrangebyscore(
	key text, min double precision, max double precision,
	rev boolean DEFAULT false, "offset" bigint DEFAULT NULL,
	count bigint DEFAULT NULL)
RETURNS TABLE (member text, score double precision)
AS 'MODULE_PATHNAME', 'hybrid_cache_zrangebyscore_double'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
REVOKE ALL ON FUNCTION @extschema@.redis_zrangebyscore(text, double precision, double precision, boolean, bigint, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_zrangebyscore(text, double precision, double precision, boolean, bigint, bigint) IS
'members of the sorted set at a key by their scores; with rev the highest first';

-- lists

CREATE FUNCTION @extschema@.redis_lpush(key text, VARIADIC elements text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_lpush'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_lpush(text, VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_lpush(text, VARIADIC text[]) IS
'add elements at the beginning of the list at a key, one after the other; its length';

CREATE FUNCTION @extschema@.redis_lpush(key text, VARIADIC elements bytea[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_lpush'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_lpush(text, VARIADIC bytea[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_lpush(text, VARIADIC bytea[]) IS
'add elements at the beginning of the list at a key, one after the other; its length';

CREATE FUNCTION @extschema@.redis_rpush(key text, VARIADIC elements text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_rpush'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_rpush(text, VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_rpush(text, VARIADIC text[]) IS
'add elements at the end of the list at a key, one after the other; its length';

CREATE FUNCTION @extschema@.redis_rpush(key text, VARIADIC elements bytea[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_rpush'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_rpush(text, VARIADIC bytea[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_rpush(text, VARIADIC bytea[]) IS
'add elements at the end of the list at a key, one after the other; its length';

CREATE FUNCTION @extschema@.redis_lpop(key text)
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_lpop'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_lpop(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_lpop(text) IS
'the first element of the list at a key, which is removed; null if there is none';

CREATE FUNCTION @extschema@.redis_lpop(key text, count bigint)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'hybrid_cache_lpop_many'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 10
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_lpop(text, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_lpop(text, bigint) IS
'the first elements of the list at a key, which are removed';

CREATE FUNCTION @extschema@.redis_lpop_bytea(key text)
RETURNS bytea
AS 'MODULE_PATHNAME', 'hybrid_cache_lpop_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_lpop_bytea(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_lpop_bytea(text) IS
'the first element of the list at a key as bytes, which is removed; null if there is none';

CREATE FUNCTION @extschema@.redis_lpop_bytea(key text, count bigint)
RETURNS SETOF bytea
AS 'MODULE_PATHNAME', 'hybrid_cache_lpop_many'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 10
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_lpop_bytea(text, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_lpop_bytea(text, bigint) IS
'the first elements of the list at a key as bytes, which are removed';

CREATE FUNCTION @extschema@.redis_rpop(key text)
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_rpop'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_rpop(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_rpop(text) IS
'the last element of the list at a key, which is removed; null if there is none';

CREATE FUNCTION @extschema@.redis_rpop(key text, count bigint)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'hybrid_cache_rpop_many'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 10
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_rpop(text, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_rpop(text, bigint) IS
'the last elements of the list at a key, which are removed';

CREATE FUNCTION @extschema@.redis_rpop_bytea(key text)
RETURNS bytea
AS 'MODULE_PATHNAME', 'hybrid_cache_rpop_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_rpop_bytea(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_rpop_bytea(text) IS
'the last element of the list at a key as bytes, which is removed; null if there is none';

CREATE FUNCTION @extschema@.redis_rpop_bytea(key text, count bigint)
RETURNS SETOF bytea
AS 'MODULE_PATHNAME', 'hybrid_cache_rpop_many'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 10
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_rpop_bytea(text, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_rpop_bytea(text, bigint) IS
'the last elements of the list at a key as bytes, which are removed';

CREATE FUNCTION @extschema@.redis_lrange(key text, start bigint, stop bigint)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'hybrid_cache_lrange'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 100
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_lrange(text, bigint, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_lrange(text, bigint, bigint) IS
'elements of the list at a key by their places, from 0 or, if negative, from the end';

CREATE FUNCTION @extschema@.redis_lrange_bytea(key text, start bigint, stop bigint)
RETURNS SETOF bytea
AS 'MODULE_PATHNAME', 'hybrid_cache_lrange'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 100
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_lrange_bytea(text, bigint, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_lrange_bytea(text, bigint, bigint) IS
'the same as bytes';

CREATE FUNCTION @extschema@.redis_llen(key text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_llen'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_llen(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_llen(text) IS
'the length of the list at a key';

-- streams

CREATE FUNCTION @extschema@.redis_xadd(key text, id text, VARIADIC field_value text[])
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_xadd'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_xadd(text, text, VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_xadd(text, text, VARIADIC text[]) IS
'add an entry to the stream at a key: fields and values by turns; its id, which Redis makes for *';

CREATE FUNCTION @extschema@.redis_xadd(
	key text, fields jsonb, maxlen bigint DEFAULT NULL, id text DEFAULT '*')
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_xadd_jsonb'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_xadd(text, jsonb, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_xadd(text, jsonb, bigint, text) IS
'the same with the fields of an object; with maxlen the oldest entries are removed, down to about so many';

CREATE FUNCTION @extschema@.redis_xrange(
	key text, start text DEFAULT '-', "end" text DEFAULT '+',
	count bigint DEFAULT NULL, rev boolean DEFAULT false)
RETURNS TABLE (id text, fields jsonb)
AS 'MODULE_PATHNAME', 'hybrid_cache_xrange'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100
SUPPORT @extschema@.redis_rows_support;
REVOKE ALL ON FUNCTION @extschema@.redis_xrange(text, text, text, bigint, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_xrange(text, text, text, bigint, boolean) IS
'entries of the stream at a key by their ids; with rev the newest first';

CREATE FUNCTION @extschema@.redis_xlen(key text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_xlen'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_xlen(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_xlen(text) IS
'the number of entries of the stream at a key';

-- messages and scripts

CREATE FUNCTION @extschema@.redis_publish(channel text, message text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_publish'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_publish(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_publish(text, text) IS
'send a message at once to those who listen on a channel; how many there were';

CREATE FUNCTION @extschema@.redis_publish(channel text, message bytea)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_publish_bytea'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_publish(text, bytea) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_publish(text, bytea) IS
'send a message at once to those who listen on a channel; how many there were';

CREATE FUNCTION @extschema@.redis_eval(script text, keys text[] DEFAULT '{}', args text[] DEFAULT '{}')
RETURNS jsonb
AS 'MODULE_PATHNAME', 'hybrid_cache_eval'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_eval(text, text[], text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_eval(text, text[], text[]) IS
'run a Lua script in Redis, with KEYS and ARGV';

-- geo indexes

-- Not strict, since count is null when it is not given.

CREATE FUNCTION @extschema@.redis_geosearch_support(internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'hybrid_cache_geosearch_support'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION @extschema@.redis_geosearch_support(internal) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_geosearch_support(internal) IS
'planner support: how many rows a search returns';

CREATE FUNCTION @extschema@.redis_geosearch(
	key text, longitude double precision, latitude double precision,
	radius double precision, unit text DEFAULT 'm',
	count integer DEFAULT NULL, sort text DEFAULT 'asc',
	any_match boolean DEFAULT false)
RETURNS TABLE (member text, distance double precision,
	longitude double precision, latitude double precision)
AS 'MODULE_PATHNAME', 'hybrid_cache_geosearch'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100
SUPPORT @extschema@.redis_geosearch_support;
REVOKE ALL ON FUNCTION @extschema@.redis_geosearch(text, double precision, double precision, double precision, text, integer, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_geosearch(text, double precision, double precision, double precision, text, integer, text, boolean) IS
'members of a geo index within a radius around a position, with their distance in the unit of the radius (m, km, ft, mi)';

CREATE FUNCTION @extschema@.redis_geosearch_member(
	key text, member text,
	radius double precision, unit text DEFAULT 'm',
	count integer DEFAULT NULL, sort text DEFAULT 'asc',
	any_match boolean DEFAULT false)
RETURNS TABLE (member text, distance double precision,
	longitude double precision, latitude double precision)
AS 'MODULE_PATHNAME', 'hybrid_cache_geosearch_member'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100
SUPPORT @extschema@.redis_geosearch_support;
REVOKE ALL ON FUNCTION @extschema@.redis_geosearch_member(text, text, double precision, text, integer, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_geosearch_member(text, text, double precision, text, integer, text, boolean) IS
'members of a geo index within a radius around one of them (itself included); none if it is not there';

CREATE FUNCTION @extschema@.redis_geosearch_box(
	key text, longitude double precision, latitude double precision,
	width double precision, height double precision, unit text DEFAULT 'm',
	count integer DEFAULT NULL, sort text DEFAULT 'asc',
	any_match boolean DEFAULT false)
RETURNS TABLE (member text, distance double precision,
	longitude double precision, latitude double precision)
AS 'MODULE_PATHNAME', 'hybrid_cache_geosearch_box'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100
SUPPORT @extschema@.redis_geosearch_support;
REVOKE ALL ON FUNCTION @extschema@.redis_geosearch_box(text, double precision, double precision, double precision, double precision, text, integer, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_geosearch_box(text, double precision, double precision, double precision, double precision, text, integer, text, boolean) IS
'members of a geo index within a box around a position';

----------------------------------------------------------------------------
-- rows near a position (search/nearby.c)
----------------------------------------------------------------------------

-- It reads tables with the rights of the caller, but asks Redis in between.

CREATE FUNCTION hybrid_cache.nearby_support(internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'hybrid_cache_nearby_support'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION hybrid_cache.nearby_support(internal) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.nearby_support(internal) IS
'planner support: how many rows are near';

CREATE FUNCTION hybrid_cache.nearby(
	base anyelement, longitude double precision, latitude double precision,
	radius double precision, unit text DEFAULT 'm',
	count integer DEFAULT NULL, filter text DEFAULT NULL,
	mapping name DEFAULT NULL, key text DEFAULT NULL)
RETURNS TABLE (item anyelement, distance double precision, source text)
AS 'MODULE_PATHNAME', 'hybrid_cache_nearby'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100
SUPPORT hybrid_cache.nearby_support;
REVOKE ALL ON FUNCTION hybrid_cache.nearby(anyelement, double precision, double precision, double precision, text, integer, text, name, text) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.nearby(anyelement, double precision, double precision, double precision, text, integer, text, name, text) IS
'rows of a table within a radius around a position, nearest first, with their distance in the unit of the radius (m, km, ft, mi); source: redis, or table where Redis cannot answer';

----------------------------------------------------------------------------
-- limits and locks (coordination/limits.c, coordination/locks.c)
----------------------------------------------------------------------------

-- Not strict: null would be taken for an answer.

CREATE FUNCTION hybrid_cache.rate_limit(
	key text, max integer, period interval,
	cost integer DEFAULT 1, on_error text DEFAULT 'allow')
RETURNS TABLE (allowed boolean, remaining integer, retry_after interval)
AS 'MODULE_PATHNAME', 'hybrid_cache_rate_limit'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 1;
REVOKE ALL ON FUNCTION hybrid_cache.rate_limit(text, integer, interval, integer, text) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.rate_limit(text, integer, interval, integer, text) IS
'takes cost from a budget of max that fills up again within period; on_error says what holds while Redis is down: allow, deny or error';

CREATE FUNCTION hybrid_cache.lock(resource text, ttl interval)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_lock'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.lock(text, interval) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.lock(text, interval) IS
'takes a lock for a time and returns its fencing token, which only grows; null if it is taken';

CREATE FUNCTION hybrid_cache.unlock(resource text, token bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_unlock'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.unlock(text, bigint) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.unlock(text, bigint) IS
'releases the lock that has this token; false if it has run out or is another''s';

CREATE FUNCTION hybrid_cache.extend_lock(resource text, token bigint, ttl interval)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_extend_lock'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.extend_lock(text, bigint, interval) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.extend_lock(text, bigint, interval) IS
'holds the lock that has this token for a time from now; false if it has run out or is another''s';

----------------------------------------------------------------------------
-- commands after the commit (command/on_commit.c)
----------------------------------------------------------------------------

-- Like redis_command() it reaches all of Redis.
CREATE FUNCTION @extschema@.redis_on_commit(VARIADIC arguments "any")
RETURNS void
AS 'MODULE_PATHNAME', 'hybrid_cache_on_commit' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION @extschema@.redis_on_commit(VARIADIC "any") FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_on_commit(VARIADIC "any") IS
'have a Redis command run once when the transaction has committed, after its changes and before those of later transactions; keys are taken as they are, without hybrid_cache.key_prefix';

----------------------------------------------------------------------------
-- holds (coordination/holds.c)
----------------------------------------------------------------------------

-- Not for PUBLIC: they write into Redis, under any key.

CREATE FUNCTION hybrid_cache.hold(
	key text, items text[], holder text, ttl interval,
	free text DEFAULT NULL, expired text DEFAULT NULL)
RETURNS TABLE (item text, value text)
AS 'MODULE_PATHNAME', 'hybrid_cache_hold'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000 ROWS 1;
REVOKE ALL ON FUNCTION hybrid_cache.hold(text, text[], text, interval, text, text) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.hold(text, text[], text, interval, text, text) IS
'holds several items for a time, all or nothing, unless the transaction is rolled back; no row: done, else what is in the way';

CREATE FUNCTION hybrid_cache.hold_or_fail(
	key text, items text[], holder text, ttl interval,
	free text DEFAULT NULL, expired text DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'hybrid_cache_hold_or_fail'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.hold_or_fail(text, text[], text, interval, text, text) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.hold_or_fail(text, text[], text, interval, text, text) IS
'hybrid_cache.hold() that raises lock_not_available when something is in the way';

CREATE FUNCTION hybrid_cache.confirm(key text, holder text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_confirm'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.confirm(text, text) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.confirm(text, text) IS
'what the holder holds stays taken when the transaction commits; false: it ran out or was taken';

CREATE FUNCTION hybrid_cache.release(key text, holder text)
RETURNS integer
AS 'MODULE_PATHNAME', 'hybrid_cache_release'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.release(text, text) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.release(text, text) IS
'releases what the holder holds at once, and what it has confirmed when the transaction commits; how many items';

CREATE FUNCTION hybrid_cache.extend_hold(key text, holder text, ttl interval)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_extend_hold'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.extend_hold(text, text, interval) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.extend_hold(text, text, interval) IS
'what the holder holds does not run out before that time; false: it holds nothing';

CREATE FUNCTION hybrid_cache.holds(key text)
RETURNS TABLE (item text, holder text, state text, expires_at timestamptz)
AS 'MODULE_PATHNAME', 'hybrid_cache_holds'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
REVOKE ALL ON FUNCTION hybrid_cache.holds(text) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.holds(text) IS
'items that are tentative (of an open transaction), held, confirming, or confirmed';

----------------------------------------------------------------------------
-- cached queries (cache/cached.c)
----------------------------------------------------------------------------

-- The query runs with the rights of the caller, but what is in Redis was found by
-- somebody else with theirs: who may is for the owner to say.
CREATE FUNCTION hybrid_cache.cached(key text, ttl interval, query text)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'hybrid_cache_cached'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.cached(text, interval, text) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.cached(text, interval, text) IS
'the rows of a query as an array of objects: from Redis, where key holds them, or from the query, which one session at a time runs';

CREATE FUNCTION hybrid_cache.cached(key text, ttl interval, query text, VARIADIC args "any")
RETURNS jsonb
AS 'MODULE_PATHNAME', 'hybrid_cache_cached'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000;
REVOKE ALL ON FUNCTION hybrid_cache.cached(text, interval, text, VARIADIC "any") FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.cached(text, interval, text, VARIADIC "any") IS
'the same for a query with parameters $1, $2 ..., which are also part of the key: key:arg1:arg2 ...';

----------------------------------------------------------------------------


----------------------------------------------------------------------------
-- bridges: messages of Redis as notifications (manage/bridge.c)
----------------------------------------------------------------------------

CREATE TABLE hybrid_cache.bridged (
	pattern text NOT NULL,
	channel text NOT NULL,
	with_channel boolean NOT NULL,
	PRIMARY KEY (pattern, channel)
);
REVOKE ALL ON hybrid_cache.bridged FROM PUBLIC;
COMMENT ON TABLE hybrid_cache.bridged IS
'which messages of Redis become notifications; see hybrid_cache.bridge()';
SELECT pg_catalog.pg_extension_config_dump('hybrid_cache.bridged', '');

CREATE FUNCTION hybrid_cache.bridge(
	pattern text, channel text, with_channel boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'hybrid_cache_bridge'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION hybrid_cache.bridge(text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.bridge(text, text, boolean) IS
'messages that are published in Redis on channels that match the pattern become notifications on a channel of PostgreSQL';

CREATE FUNCTION hybrid_cache.drop_bridge(pattern text, channel text)
RETURNS void
AS 'MODULE_PATHNAME', 'hybrid_cache_drop_bridge'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION hybrid_cache.drop_bridge(text, text) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.drop_bridge(text, text) IS
'ends what hybrid_cache.bridge() has begun';

CREATE FUNCTION hybrid_cache.bridge_list()
RETURNS TABLE (pattern text, channel text, with_channel boolean,
	subscribed_at timestamptz, last_at timestamptz,
	messages bigint, dropped bigint, interruptions bigint)
AS 'MODULE_PATHNAME', 'hybrid_cache_bridge_list'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;
REVOKE ALL ON FUNCTION hybrid_cache.bridge_list() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hybrid_cache.bridge_list() TO pg_read_all_stats;
COMMENT ON FUNCTION hybrid_cache.bridge_list() IS
'the rows of the view hybrid_cache.bridges';

CREATE VIEW hybrid_cache.bridges AS
SELECT * FROM hybrid_cache.bridge_list();
REVOKE ALL ON hybrid_cache.bridges FROM PUBLIC;
GRANT SELECT ON hybrid_cache.bridges TO pg_read_all_stats;
COMMENT ON VIEW hybrid_cache.bridges IS
'which messages of Redis become notifications, and how many did';

----------------------------------------------------------------------------
-- consumers: from Redis streams into tables (manage/consumers.c)
----------------------------------------------------------------------------

-- last_id is the last message that is done; it is written in the transactions of the handlers.
-- system and database tell whether the row was copied from somewhere else: then
-- the consumer waits until somebody resumes it.
CREATE TABLE hybrid_cache.consumer (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name name NOT NULL UNIQUE,
	stream text NOT NULL,
	handler text NOT NULL,
	role regrole NOT NULL,
	batch integer NOT NULL,
	max_attempts integer NOT NULL,
	paused boolean NOT NULL,
	system bigint NOT NULL,
	database oid NOT NULL,
	last_id text NOT NULL CHECK (last_id ~ '^[0-9]+-[0-9]+$'),
	digest bigint,
	processed bigint NOT NULL,
	dead bigint NOT NULL,
	attempts integer NOT NULL,
	error text,
	sqlstate text,
	error_at timestamptz
) WITH (fillfactor = 50);
REVOKE ALL ON hybrid_cache.consumer FROM PUBLIC;
COMMENT ON TABLE hybrid_cache.consumer IS
'who reads which Redis stream with which handler, and how far; see the view hybrid_cache.consumers';

-- What Redis has forgotten when it was acknowledged: so it is part of a dump.
CREATE TABLE hybrid_cache.dead_message (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	consumer name NOT NULL,
	message text NOT NULL,
	fields jsonb,
	raw bytea[],
	error text NOT NULL,
	sqlstate text NOT NULL,
	attempts integer NOT NULL,
	at timestamptz NOT NULL,
	retry boolean NOT NULL
);
CREATE INDEX dead_message_consumer_idx ON hybrid_cache.dead_message (consumer, message);
REVOKE ALL ON hybrid_cache.dead_message FROM PUBLIC;
COMMENT ON TABLE hybrid_cache.dead_message IS
'messages that their handler has refused; see hybrid_cache.retry_message()';

SELECT pg_catalog.pg_extension_config_dump('hybrid_cache.consumer', '');
SELECT pg_catalog.pg_extension_config_dump('hybrid_cache.consumer_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('hybrid_cache.dead_message', '');
SELECT pg_catalog.pg_extension_config_dump('hybrid_cache.dead_message_id_seq', '');

-- Who may consume has code run in the background, though with no other rights
-- than their own: so nobody may until granted.

CREATE FUNCTION hybrid_cache.consume(
	stream text, handler regprocedure, name name, batch integer DEFAULT 100,
	start text DEFAULT '0', max_attempts integer DEFAULT 3,
	replace boolean DEFAULT false)
RETURNS name
AS 'MODULE_PATHNAME', 'hybrid_cache_consume' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.consume(text, regprocedure, name, integer, text, integer, boolean) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.consume(text, regprocedure, name, integer, text, integer, boolean) IS
'have a function (id text, fields jsonb) called for each message of a Redis stream, in order, with the rights of the caller; returns the name';

CREATE FUNCTION hybrid_cache.pause_consumer(name name)
RETURNS void
AS 'MODULE_PATHNAME', 'hybrid_cache_pause_consumer' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.pause_consumer(name) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.pause_consumer(name) IS
'stop calling the handler of a consumer; waits until it does not run any more';

CREATE FUNCTION hybrid_cache.resume_consumer(name name)
RETURNS void
AS 'MODULE_PATHNAME', 'hybrid_cache_resume_consumer' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.resume_consumer(name) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.resume_consumer(name) IS
'let a consumer go on that is paused, or that was copied here with its database';

CREATE FUNCTION hybrid_cache.drop_consumer(name name)
RETURNS void
AS 'MODULE_PATHNAME', 'hybrid_cache_drop_consumer' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.drop_consumer(name) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.drop_consumer(name) IS
'remove a consumer and its consumer group in Redis; its dead messages stay';

CREATE FUNCTION hybrid_cache.retry_message(name name, message text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_retry_message' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.retry_message(name, text) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.retry_message(name, text) IS
'have the handler called once more with a dead message, in the background; false if there is no such message';

CREATE FUNCTION hybrid_cache.consumer_list(
	OUT name name, OUT stream text, OUT handler text, OUT role name,
	OUT state text, OUT last_id text, OUT lag bigint, OUT behind interval,
	OUT processed bigint, OUT dead bigint, OUT batch integer,
	OUT max_attempts integer, OUT attempts integer,
	OUT error text, OUT sqlstate text, OUT error_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'hybrid_cache_consumer_list'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 10000 ROWS 10;
REVOKE ALL ON FUNCTION hybrid_cache.consumer_list() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hybrid_cache.consumer_list() TO pg_read_all_stats;
COMMENT ON FUNCTION hybrid_cache.consumer_list() IS
'the rows of the view hybrid_cache.consumers';

CREATE VIEW hybrid_cache.consumers AS
SELECT * FROM hybrid_cache.consumer_list();
REVOKE ALL ON hybrid_cache.consumers FROM PUBLIC;
GRANT SELECT ON hybrid_cache.consumers TO pg_read_all_stats;
COMMENT ON VIEW hybrid_cache.consumers IS
'who reads which Redis stream with which handler, how far that is, and what is wrong';
