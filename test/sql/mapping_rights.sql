--
-- whoever changes a row, and in whatever session: its entry is the same, and
-- the mapping's expressions run as the table's owner
--
\set SHOW_CONTEXT never
CREATE EXTENSION hybrid_cache;
CREATE ROLE regress_owner;
CREATE ROLE regress_writer;
CREATE SCHEMA owned AUTHORIZATION regress_owner;
CREATE SCHEMA private AUTHORIZATION regress_owner;
GRANT USAGE ON SCHEMA owned, hybrid_cache TO regress_owner;
GRANT USAGE ON SCHEMA owned TO regress_writer;
GRANT CREATE ON SCHEMA public TO regress_writer;
GRANT EXECUTE ON FUNCTION hybrid_cache.attach, hybrid_cache.detach, hybrid_cache.write_through TO regress_owner;
GRANT SELECT ON hybrid_cache.mapping TO regress_owner;
GRANT EXECUTE ON FUNCTION hybrid_cache.mapping_list TO regress_owner;

-- the writer may neither see nor call the functions of the expressions
SET ROLE regress_owner;
CREATE TABLE owned.t (id int PRIMARY KEY, name text, day date, at timestamptz);
GRANT ALL ON owned.t TO regress_writer;
CREATE FUNCTION private.low(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN lower($1) || '!'; END $$;
CREATE FUNCTION private.who(text) RETURNS text STABLE LANGUAGE sql AS $$
	SELECT format('%s %s %s', current_user, current_setting('search_path'), current_setting('TimeZone'))
$$;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA private FROM PUBLIC;
SELECT hybrid_cache.attach('owned.t', 'string', 'low:{id}', value => 'private.low(name)', name => 'low');
SELECT hybrid_cache.attach('owned.t', 'string', 'who:{id}', value => 'private.who(name)', name => 'who');

-- constants are those of the session that writes the definition
SET DateStyle = 'SQL, DMY';
SET TimeZone = 'Asia/Tokyo';
SET IntervalStyle = 'sql_standard';
SELECT hybrid_cache.attach('owned.t', 'string', 'const:{id}', name => 'const', value =>
	$$concat_ws(' ', day - '02/03/2024'::date, at - '02/03/2024 00:00'::timestamptz, '-1-2 -3 +4:05'::interval)$$);
RESET DateStyle;
RESET TimeZone;
RESET IntervalStyle;
SELECT options ->> 'value' AS value FROM hybrid_cache.mapping WHERE name = 'const';
-- in a trigger written by hand they are those of no session
SET TimeZone = 'Asia/Tokyo';
CREATE TRIGGER hand AFTER INSERT OR UPDATE OR DELETE ON owned.t FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('string', 'key=hand:{id}', 'value=at - ''2024-03-02 00:00''::timestamptz');
RESET TimeZone;
RESET ROLE;

SET ROLE regress_writer;
CREATE FUNCTION public.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'hijacked'::text $$;
CREATE FUNCTION public.concat(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'hijacked'::text $$;
CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = public.concat);
\c -
SET SESSION AUTHORIZATION regress_writer;
CREATE FUNCTION pg_temp.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'hijacked'::text $$;
CREATE TEMP TABLE t (id int);
SET search_path = pg_temp, public, pg_catalog;
SET TimeZone = 'America/New_York';
SET DateStyle = 'German';
SET IntervalStyle = 'iso_8601';
INSERT INTO owned.t VALUES (1, 'ONE', '3.3.2024', '2024-03-03 00:00:00+00');
RESET ALL;
INSERT INTO owned.t VALUES (2, 'ONE', '2024-03-03', '2024-03-03 00:00:00+00');
SELECT private.low('ONE');
RESET SESSION AUTHORIZATION;
SELECT hybrid_cache.wait_for_sync('30s');
SELECT id, redis_get('low:' || id) AS low, redis_get('who:' || id) AS who FROM owned.t;
SELECT id, redis_get('const:' || id) AS const, redis_get('hand:' || id) AS hand FROM owned.t;

-- what the owner may not do, a superuser's change does not do for him
SET ROLE regress_owner;
CREATE FUNCTION private.rise(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', 'none', false);
	RETURN current_user;
END $$;
SELECT hybrid_cache.attach('owned.t', 'string', 'rise:{id}', value => 'private.rise(name)', name => 'rise', populate => false);
RESET ROLE;
INSERT INTO owned.t VALUES (3);
SELECT hybrid_cache.detach('owned.t', 'rise', purge => false);

-- row security hides no row from a mapping
SET ROLE regress_owner;
CREATE TABLE owned.r (id int PRIMARY KEY, tenant text);
INSERT INTO owned.r VALUES (1, 'a'), (2, 'b');
ALTER TABLE owned.r ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON owned.r USING (tenant = 'a');
GRANT ALL ON owned.r TO regress_writer;
SELECT hybrid_cache.attach('owned.r', 'set', 'tenants', member => '{tenant}');
RESET ROLE;
DO $$
BEGIN
	WHILE EXISTS (SELECT FROM hybrid_cache.progress) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
SELECT hybrid_cache.wait_for_sync('30s');
SELECT redis_command('SISMEMBER', 'tenants', 'a') AS a, redis_command('SISMEMBER', 'tenants', 'b') AS b;
SET ROLE regress_writer;
DELETE FROM owned.r;
RESET ROLE;
SELECT hybrid_cache.wait_for_sync('30s');
SELECT redis_command('SMEMBERS', 'tenants');
SET ROLE regress_writer;
TRUNCATE owned.r;
RESET ROLE;
SELECT hybrid_cache.wait_for_sync('30s');
SELECT redis_command('SMEMBERS', 'tenants');

SET client_min_messages = error;
DROP EXTENSION hybrid_cache CASCADE;
DROP OWNED BY regress_owner, regress_writer CASCADE;

-- a schema that somebody has prepared for the extension
SET client_min_messages = notice;
CREATE SCHEMA hybrid_cache AUTHORIZATION regress_owner;
CREATE EXTENSION hybrid_cache;
ALTER SCHEMA hybrid_cache OWNER TO CURRENT_USER;
CREATE EXTENSION hybrid_cache SCHEMA hybrid_cache;
SELECT hybrid_cache.redis_ping();
DROP EXTENSION hybrid_cache;
DROP SCHEMA hybrid_cache;
DROP ROLE regress_owner, regress_writer;
