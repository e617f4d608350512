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
	entry bigint NOT NULL
);
CREATE INDEX dead_letter_entry_idx ON hybrid_cache.dead_letter (entry);
REVOKE ALL ON hybrid_cache.dead_letter FROM PUBLIC;
-- keys, as in the errors of hybrid_cache.status
GRANT SELECT ON hybrid_cache.dead_letter TO pg_read_all_stats;
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
	identity text DEFAULT NULL,
	name name DEFAULT NULL, populate boolean DEFAULT NULL,
	replace boolean DEFAULT false, always boolean DEFAULT false)
RETURNS name
AS 'MODULE_PATHNAME', 'hybrid_cache_attach' LANGUAGE C VOLATILE;
REVOKE ALL ON FUNCTION hybrid_cache.attach(
	regclass, text, text, text, text, text, text, text, text, text, text, text,
	interval, text, text, text, text, text, name, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION hybrid_cache.attach(
	regclass, text, text, text, text, text, text, text, text, text, text, text,
	interval, text, text, text, text, text, name, boolean, boolean, boolean) IS
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
-- Redis commands (command/command.c, search/geosearch.c)
----------------------------------------------------------------------------

-- They speak to Redis with the rights of hybrid_cache.redis_url, past all
-- privileges and row security of tables: who may is for the owner to say.

CREATE FUNCTION @extschema@.redis_command(VARIADIC arguments "any")
RETURNS jsonb
AS 'MODULE_PATHNAME', 'hybrid_cache_command'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_command(VARIADIC "any") FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_command(VARIADIC "any") IS
'run any Redis command that does not block; keys are taken as they are, without hybrid_cache.key_prefix';

CREATE FUNCTION @extschema@.redis_ping()
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_ping'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_ping() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_ping() IS
'PONG if Redis answers';

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

CREATE FUNCTION @extschema@.redis_set(
	key text, value text,
	ex bigint DEFAULT NULL, px bigint DEFAULT NULL,
	nx boolean DEFAULT false, xx boolean DEFAULT false,
	keepttl boolean DEFAULT false)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_set'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_set(text, text, bigint, bigint, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_set(text, text, bigint, bigint, boolean, boolean, boolean) IS
'set a key at once, whether the transaction commits or not; false if nx or xx prevented it; ex in seconds, px in milliseconds';

CREATE FUNCTION @extschema@.redis_del(VARIADIC keys text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_del'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_del(VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_del(VARIADIC text[]) IS
'remove keys at once, whether the transaction commits or not; how many there were';

CREATE FUNCTION @extschema@.redis_exists(VARIADIC keys text[])
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_exists'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_exists(VARIADIC text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_exists(VARIADIC text[]) IS
'how many of the keys exist';

CREATE FUNCTION @extschema@.redis_expire(key text, seconds bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'hybrid_cache_expire'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_expire(text, bigint) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_expire(text, bigint) IS
'let a key expire after some seconds; false if there is no such key';

CREATE FUNCTION @extschema@.redis_ttl(key text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'hybrid_cache_ttl'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_ttl(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_ttl(text) IS
'the seconds until a key expires, -1 if it does not, -2 if there is no such key';

CREATE FUNCTION @extschema@.redis_hget(key text, field text)
RETURNS text
AS 'MODULE_PATHNAME', 'hybrid_cache_hget'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_hget(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hget(text, text) IS
'a field of the hash at a key, null if there is none';

CREATE FUNCTION @extschema@.redis_hgetall(key text)
RETURNS TABLE (field text, value text)
AS 'MODULE_PATHNAME', 'hybrid_cache_hgetall'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 20;
REVOKE ALL ON FUNCTION @extschema@.redis_hgetall(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_hgetall(text) IS
'all fields of the hash at a key';

CREATE FUNCTION @extschema@.redis_zscore(key text, member text)
RETURNS double precision
AS 'MODULE_PATHNAME', 'hybrid_cache_zscore'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED COST 1000;
REVOKE ALL ON FUNCTION @extschema@.redis_zscore(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.redis_zscore(text, text) IS
'the score of a member of the sorted set at a key, null if there is none';

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
