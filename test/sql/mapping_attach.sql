--
-- attach() and detach(): what they create, name, populate and remove
--
CREATE EXTENSION hybrid_cache;
CREATE TABLE drivers (id int PRIMARY KEY, name text, status text, lng float8, lat float8);
INSERT INTO drivers VALUES (1, 'Ada', 'online', 13.4, 52.5), (2, 'Bob', 'offline', 2.35, 48.85);

-- the keys and strings of Redis, once the workers have caught up
CREATE FUNCTION redis() RETURNS TABLE (key text, value text) LANGUAGE plpgsql AS $$
BEGIN
	-- what is to be populated and removed, and what was committed
	WHILE EXISTS (SELECT FROM hybrid_cache.progress) OR
		EXISTS (SELECT FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	IF NOT hybrid_cache.wait_for_sync('30s') THEN
		RAISE 'the worker did not catch up';
	END IF;
	RETURN QUERY
	SELECT k, CASE WHEN redis_command('TYPE', k) #>> '{}' = 'string' THEN redis_get(k) END
	FROM jsonb_array_elements_text(redis_command('KEYS', '*')) k
	WHERE k NOT LIKE 'hybrid_cache:%' ORDER BY k COLLATE "C";
END
$$;
CREATE VIEW triggers AS
SELECT tgrelid::regclass AS table, tgname AS name,
	tgfoid::regproc || '(' || array_to_string((string_to_array(encode(tgargs, 'escape'), '\000'))[:tgnargs], ' | ') || ')' AS call,
	tgenabled AS enabled
FROM pg_trigger WHERE tgfoid::regproc::text LIKE 'hybrid_cache.%' ORDER BY 1, 2;

-- two triggers, expressions fully qualified
CREATE SCHEMA app;
CREATE FUNCTION app.is_online(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$ SELECT $1 = 'online' $$;
SET search_path = app, public;
SELECT hybrid_cache.attach('drivers', 'geo', 'drivers', member => '{id}',
	longitude => 'lng', latitude => 'lat', filter => 'is_online(status)');
RESET search_path;
SELECT * FROM triggers;
SELECT * FROM redis();
SELECT * FROM hybrid_cache.mapping;
SELECT redis_command('ZRANGE', 'drivers', '0', '-1');

-- populated, followed
SELECT hybrid_cache.attach('drivers', 'string', 'name:{id}', value => 'name');
SELECT * FROM redis();
UPDATE drivers SET name = 'Eve' WHERE id = 1;
DELETE FROM drivers WHERE id = 2;
SELECT * FROM redis();

-- populate: not with ttl, not when told so, and then it is owed
SELECT hybrid_cache.attach('drivers', 'string', 'soon:{id}', value => 'name', ttl => '1 hour', name => 'soon');
SELECT hybrid_cache.attach('drivers', 'string', 'lazy:{id}', value => 'name', populate => false, name => 'lazy');
SELECT hybrid_cache.attach('drivers', 'string', 'eager:{id}', value => 'name', ttl => '1 day', populate => true, name => 'eager');
SELECT * FROM redis();
SELECT name, options, state FROM hybrid_cache.mapping WHERE name IN ('soon', 'lazy', 'eager') ORDER BY name;
SELECT redis_ttl('eager:1') BETWEEN 86000 AND 86400 AS expires;
SET hybrid_cache.enabled = off;
SELECT hybrid_cache.attach('drivers', 'string', 'off:{id}', value => 'name', name => 'off');
RESET hybrid_cache.enabled;
SELECT * FROM redis() WHERE key LIKE 'off:%';
SELECT name, state FROM hybrid_cache.mapping WHERE name = 'off';

-- names: numbered, cut to length in whole characters, taken
SELECT hybrid_cache.attach('drivers', 'string', 'name2:{id}', value => 'name');
SELECT hybrid_cache.attach('drivers', 'string', 'name3:{id}', value => 'name');
CREATE TABLE "Zürich und ein sehr langer Name, der zu lang ist, um zu passen" (id int);
SELECT hybrid_cache.attach('"Zürich und ein sehr langer Name, der zu lang ist, um zu passen"', 'json', 'zürich:{id}');
SELECT hybrid_cache.attach('"Zürich und ein sehr langer Name, der zu lang ist, um zu passen"', 'json', 'zürich2:{id}');
SELECT name, octet_length(name::text) <= 63 AS fits FROM triggers WHERE "table"::text LIKE '%rich%';
SELECT hybrid_cache.attach('drivers', 'string', 'name4:{id}', value => 'name', name => 'lazy');
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER users_own BEFORE INSERT ON drivers FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT hybrid_cache.attach('drivers', 'string', 'name4:{id}', value => 'name', name => 'users_own', replace => true);

-- replace: the old entries go, the new ones come, in one transaction
SELECT hybrid_cache.attach('drivers', 'string', 'called:{id}', value => 'upper(name)', name => 'drivers_string', replace => true);
SELECT * FROM redis() WHERE key LIKE 'name:%' OR key LIKE 'called:%';
SELECT hybrid_cache.attach('drivers', 'string', 'called:{id}', value => 'lower(name)', replace => true);
SELECT * FROM redis() WHERE key LIKE 'called:%';
SELECT hybrid_cache.attach('drivers', 'hash', 'hash:{id}', replace => true);
SELECT * FROM redis() WHERE key LIKE 'hash:%';
SELECT * FROM hybrid_cache.leftover;

-- always
SELECT hybrid_cache.attach('drivers', 'set', 'ids', member => '{id}', always => true);
SELECT name, fires FROM hybrid_cache.mapping ORDER BY name;
SELECT name, enabled FROM triggers WHERE name LIKE 'drivers_set%';
SET session_replication_role = replica;
INSERT INTO drivers VALUES (7, 'replicated');
RESET session_replication_role;
SELECT key FROM redis() WHERE key = 'ids';
SELECT redis_command('SMEMBERS', 'ids');

-- every option finds its place
CREATE TABLE full_options (id int, a int, at timestamptz NOT NULL, "Mixed case" text);
CREATE UNIQUE INDEX full_options_at ON full_options (at);
SELECT hybrid_cache.attach('full_options', 'json', 'full:{id}', columns => 'id, a + 1 AS b, "Mixed case"',
	filter => 'a > 0', expires_at => $$at + interval '1 day'$$, orphans => 'report',
	missing => 'ignore', since => 'at', identity => 'full_options_at', name => 'all');
SELECT hybrid_cache.attach('full_options', 'hash', 'full:hash:{id}', exclude => 'a, "Mixed case"', ttl => '90 minutes', name => 'excluding');
SELECT hybrid_cache.attach('full_options', 'field', 'full:field', field => '{id}', value => 'a', name => 'f');
SELECT hybrid_cache.attach('full_options', 'zset', 'full:zset', member => '{id}', score => 'a', name => 'z');
SELECT hybrid_cache.attach('full_options', 'invalidate', 'full:cached:{id}', name => 'i');
SELECT name, kind, options FROM hybrid_cache.mapping WHERE relation = 'full_options'::regclass ORDER BY name;
SELECT hybrid_cache.attach('full_options', 'invalidate', 'x:{id}', populate => true);
-- the interval reads back whatever the session's style
SET intervalstyle = sql_standard;
SELECT hybrid_cache.attach('full_options', 'string', 'style:{id}', value => 'a', ttl => '1 day 02:03:04', name => 's');
SHOW intervalstyle;
RESET intervalstyle;
SELECT options FROM hybrid_cache.mapping WHERE name = 's';

-- detach: entries go with it, or stay and are remembered
SELECT hybrid_cache.detach('drivers', 'drivers_string');
SELECT hybrid_cache.detach('drivers', 'lazy', purge => false);
SELECT * FROM triggers WHERE name LIKE 'lazy%' OR name IN ('drivers_string', 'drivers_string_truncate');
SELECT * FROM redis() WHERE key LIKE 'called:%';
SELECT id, relation, mapping, kind, key, member, prefix, types, arguments FROM hybrid_cache.leftover;
SELECT hybrid_cache.detach('drivers', 'lazy');
SELECT hybrid_cache.detach('drivers', 'users_own');
SELECT hybrid_cache.detach(NULL, 'x');
SELECT hybrid_cache.detach('drivers', NULL);
-- also with capture off
SET hybrid_cache.enabled = off;
SELECT hybrid_cache.detach('drivers', 'off');
RESET hybrid_cache.enabled;
SELECT * FROM redis();
SELECT count(*) FROM hybrid_cache.leftover;
-- undone with its transaction
BEGIN;
SELECT hybrid_cache.detach('drivers', 'drivers_set');
ROLLBACK;
SELECT redis_command('SMEMBERS', 'ids') FROM hybrid_cache.wait_for_sync('30s');

-- a partitioned table with everything below it
CREATE TABLE parted (id int, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_2 (v text, id int);
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM (10) TO (20);
INSERT INTO parted VALUES (1, 'one'), (11, 'eleven');
SELECT hybrid_cache.attach('parted', 'string', 'parted:{id}', value => 'v');
SELECT * FROM redis() WHERE key LIKE 'parted:%';
SELECT name, state FROM hybrid_cache.mapping WHERE relation = 'parted'::regclass;
SELECT hybrid_cache.detach('parted_1', 'parted_string');
TRUNCATE parted_2;
SELECT * FROM redis() WHERE key LIKE 'parted:%';
SELECT hybrid_cache.detach('parted', 'parted_string');
SELECT * FROM redis() WHERE key LIKE 'parted:%';
SELECT * FROM triggers WHERE "table"::text LIKE 'parted%';

-- by an owner who may
CREATE ROLE regress_attacher;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_attacher;
CREATE TABLE owned (id int);
ALTER TABLE owned OWNER TO regress_attacher;
SET ROLE regress_attacher;
SELECT hybrid_cache.attach('owned', 'json', 'owned:{id}');
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hybrid_cache TO regress_attacher;
SET ROLE regress_attacher;
SELECT hybrid_cache.attach('owned', 'json', 'owned:{id}');
INSERT INTO owned VALUES (1);
SELECT hybrid_cache.detach('owned', 'owned_json');
RESET ROLE;
SELECT * FROM redis() WHERE key LIKE 'owned:%';
DROP TABLE owned;
DROP OWNED BY regress_attacher;
DROP ROLE regress_attacher;

DROP EXTENSION hybrid_cache;
SET client_min_messages = error;
DROP EXTENSION hybrid_cache CASCADE;
SELECT * FROM triggers;
