--
-- hybrid_cache.get(): what a mapping has at a key, from Redis or the table
--
\set SHOW_CONTEXT never
\set VERBOSITY default
SELECT format('ALTER DATABASE %I SET hybrid_cache.repair = off', current_database()) \gexec
\c -
CREATE EXTENSION hybrid_cache;
CREATE VIEW counts AS
SELECT read_hits AS hits, read_misses AS misses, fallbacks, read_bypasses AS bypasses
FROM hybrid_cache.status WHERE database = current_database();

CREATE DOMAIN code AS varchar(3);
CREATE TABLE item (
	id int PRIMARY KEY, big bigint, small smallint, name text, code code, price numeric(8,2), day date, at timestamptz,
	ref uuid, town int, lng float8, lat float8, until timestamptz, on_sale boolean);
SELECT hybrid_cache.attach('item', 'string', 'str:{id}', value => 'name', name => 'str');
SELECT hybrid_cache.attach('item', 'string', 'sale:{id}', value => 'name', filter => 'on_sale', name => 'sale');
SELECT hybrid_cache.attach('item', 'string', 'until:{id}', value => 'name', expires_at => 'until', name => 'until');
SELECT hybrid_cache.attach('item', 'json', 'json:{big}', name => 'json');
SELECT hybrid_cache.attach('item', 'hash', 'hash:{code}', columns => 'name, price, until AS ends', name => 'hash');
SELECT hybrid_cache.attach('item', 'field', 'field:{town}', field => '{id}', value => 'price', name => 'field');
SELECT hybrid_cache.attach('item', 'geo', 'geo', member => '{id}', longitude => 'lng', latitude => 'lat', name => 'geo');
SELECT hybrid_cache.attach('item', 'zset', 'zset:{town}', member => 'i{id}', score => 'price', name => 'zset');
SELECT hybrid_cache.attach('item', 'zset', 'zset:{town}', member => 'x{id}', score => $$id * 'infinity'::float8$$, name => 'zset_x');
SELECT hybrid_cache.attach('item', 'set', 'set:{town}', member => '{name}', name => 'set');
SELECT hybrid_cache.attach('item', 'string', 'many:{day}:{price}:{ref}:{day}:{at}:{on_sale}', value => 'id', name => 'many');
SELECT hybrid_cache.attach('item', 'string', 'inf:{small}', value => 'id', name => 'inf');
SELECT hybrid_cache.attach('item', 'invalidate', 'page:{id}', name => 'page');
INSERT INTO item SELECT i, i * 10000000000, i, 'item ' || i || ' "ä"', 'c' || i, i / 3.0, '2024-02-29'::date + i,
	'2024-03-01 12:00:00+00'::timestamptz + i * interval '1 h', lpad(i::text, 32, '0')::uuid, i % 3, i * 1.5, i * -2.25,
	CASE i WHEN 1 THEN '2001-01-01'::timestamptz WHEN 2 THEN '2999-01-01' END, i <> 5
FROM generate_series(1, 8) i;
SELECT hybrid_cache.wait_for_sync('30s');

-- each kind; the same from Redis and from the table
CREATE VIEW reads AS
SELECT 1 AS n, hybrid_cache.get('item', 'str', 3)
UNION ALL SELECT 2, hybrid_cache.get('item', 'sale', 3)
UNION ALL SELECT 3, hybrid_cache.get('item', 'sale', 5)
UNION ALL SELECT 4, hybrid_cache.get('item', 'until', 1)
UNION ALL SELECT 5, hybrid_cache.get('item', 'until', 2)
UNION ALL SELECT 6, hybrid_cache.get('item', 'json', 30000000000)
UNION ALL SELECT 7, hybrid_cache.get('item', 'hash', 'c3')
UNION ALL SELECT 8, hybrid_cache.get('item', 'field', 1)
UNION ALL SELECT 9, hybrid_cache.get('item', 'geo')
UNION ALL SELECT 10, hybrid_cache.get('item', 'zset', 2)
UNION ALL SELECT 11, hybrid_cache.get('item', 'zset_x', 2)
UNION ALL SELECT 12, hybrid_cache.get('item', 'set', 0)
UNION ALL SELECT 13, hybrid_cache.get('item', 'many', '2024-03-02', 0.67, lpad('2', 32, '0')::uuid, '2024-03-01 14:00:00+00', true)
UNION ALL SELECT 14, hybrid_cache.get('item', 'str', 99)
UNION ALL SELECT 15, hybrid_cache.get('item', 'zset', 99);
CREATE TABLE redis AS SELECT * FROM reads;
SELECT * FROM counts;
SELECT n, get FROM redis WHERE n <> 9 ORDER BY n;
SELECT m AS member, get -> m AS position, abs((get -> m -> 'longitude')::float8 - lng) < 1e-5 AND abs((get -> m -> 'latitude')::float8 - lat) < 1e-5 AS near
FROM redis, jsonb_object_keys(get) m, item WHERE n = 9 AND item.id = m::int ORDER BY 1;
-- exactly what Redis says of the positions
SELECT count(*) FROM redis_geosearch('geo', 0, 0, 20000, 'km') s, redis r
WHERE n = 9 AND (get -> s.member -> 'longitude')::float8 = s.longitude AND (get -> s.member -> 'latitude')::float8 = s.latitude;
SET hybrid_cache.redis_url = 'redis://127.0.0.1:1';
CREATE TABLE fallback AS SELECT * FROM reads;
SET hybrid_cache.fallback = off;
SELECT hybrid_cache.get('item', 'str', 3);
RESET hybrid_cache.fallback;
RESET hybrid_cache.redis_url;
SELECT * FROM counts;
SELECT * FROM redis EXCEPT SELECT * FROM fallback;
SELECT redis_command('FLUSHALL');
CREATE TABLE miss AS SELECT * FROM reads;
SELECT * FROM counts;
SELECT * FROM redis EXCEPT SELECT * FROM miss;
-- sessions write dates and numbers in many ways
SET DateStyle = 'German';
SET TimeZone = 'Asia/Tokyo';
SET extra_float_digits = 0;
SELECT * FROM redis EXCEPT SELECT * FROM reads;
SELECT hybrid_cache.get('item', 'many', '3.3.2024', 1, '00000000000000000000000000000003', '2.3.2024 00:00', 'yes');
RESET ALL;
DROP TABLE redis, fallback, miss;
DROP VIEW reads;

-- back into Redis
UPDATE item SET name = name || '!', price = price + 1, lat = lat + 1, until = until + interval '1 y';
SELECT hybrid_cache.wait_for_sync('30s');
SELECT hybrid_cache.get('item', 'str', 3), hybrid_cache.get('item', 'hash', 'c2');
-- values: as literals, of other types, none
SELECT hybrid_cache.get('item', 'str', '3'), hybrid_cache.get('item', 'str', 3::smallint), hybrid_cache.get('item', 'str', 3::bigint),
	hybrid_cache.get('item', 'json', 10000000000::bigint) -> 'id' AS big, hybrid_cache.get('item', 'inf', 7) AS small,
	hybrid_cache.get('item', 'hash', 'c3'::char(2)) -> 'name' AS bpchar, hybrid_cache.get('item', 'hash', 'c3'::name) -> 'name' AS name,
	hybrid_cache.get('item', 'hash', 'c3'::code) -> 'name' AS domain;
SELECT hybrid_cache.get('item', 'str', NULL), hybrid_cache.get('item', 'str', 30000000000), hybrid_cache.get('item', 'hash', 'c3 and more'),
	hybrid_cache.get('item', 'many', '2024-03-03', NULL, NULL, NULL, true), hybrid_cache.get('item', 'many', '2024-03-02', 0.671, NULL, NULL, true);
SELECT id, hybrid_cache.get('item', CASE WHEN id % 2 = 0 THEN 'str' ELSE 'inf' END, id::bigint) FROM item WHERE id < 5 ORDER BY 1;
PREPARE p(text) AS SELECT hybrid_cache.get('item', 'hash', $1) -> 'name';
EXECUTE p('c4');
-- VARIADIC
SELECT hybrid_cache.get('item', 'str', VARIADIC '{3}'::int[]), hybrid_cache.get('item', 'str', VARIADIC '{3}'::bigint[]),
	hybrid_cache.get('item', 'str', VARIADIC '{NULL}'::int[]), hybrid_cache.get('item', 'str', VARIADIC NULL::int[]),
	hybrid_cache.get('item', 'geo', VARIADIC '{}'::int[]) ? '8' AS geo;
SELECT hybrid_cache.get('item', 'str', VARIADIC '{3,4}'::int[]);

-- wrong calls
\set VERBOSITY default
SELECT hybrid_cache.get('item', 'str');
SELECT hybrid_cache.get('item', 'str', 1, 2);
SELECT hybrid_cache.get('item', 'geo', 1);
SELECT hybrid_cache.get('item', 'many', 1);
SELECT hybrid_cache.get('item', 'str', 'x');
SELECT hybrid_cache.get('item', 'str', 'x'::text);
SELECT hybrid_cache.get('item', 'str', 1.5);
SELECT hybrid_cache.get('item', 'hash', 3);
SELECT hybrid_cache.get('item', 'many', '2024-02-30', 0.67, lpad('2', 32, '0')::uuid, '2024-03-01 14:00:00+00', true);
SELECT hybrid_cache.get('item', 'str', VARIADIC '{a}'::text[]);
SELECT hybrid_cache.get('item', 'nothing', 1);
SELECT hybrid_cache.get('item', 'page', 1);
SELECT hybrid_cache.get('nothing', 'str', 1);
SELECT hybrid_cache.get('item', NULL, 1);
SELECT hybrid_cache.get(NULL, 'str', 1);
SELECT hybrid_cache.get('counts', 'str', 1);
\set VERBOSITY sqlstate
SELECT hybrid_cache.get('item_pkey', 'str', 1);
\set VERBOSITY default
SELECT hybrid_cache.get(0, 'str', 1);
DO $$ BEGIN PERFORM hybrid_cache.get('item', 'str', 1, 2); EXCEPTION WHEN undefined_function THEN RAISE NOTICE '42883'; END $$;
DO $$ BEGIN PERFORM hybrid_cache.get('item', 'str', 'x'::text); EXCEPTION WHEN datatype_mismatch THEN RAISE NOTICE '42804'; END $$;
DO $$ BEGIN PERFORM hybrid_cache.get('item', 'str', 'x'); EXCEPTION WHEN invalid_text_representation THEN RAISE NOTICE '22P02'; END $$;

-- what somebody else has written
SELECT redis_command('SET', 'json:10000000000', '{"not": json'), redis_command('SET', 'json:20000000000', '7'),
	redis_command('SET', 'str:1', '\xff00'::bytea), redis_command('DEL', 'str:2'), redis_command('RPUSH', 'str:2', 'a'),
	redis_command('DEL', 'geo'), redis_command('SET', 'geo', 'a'), redis_command('SADD', 'set:1', '\xff'::bytea),
	redis_command('SET', 'json:30000000000', repeat('[', 100000));
SELECT hybrid_cache.get('item', 'json', 10000000000) -> 'id' AS json;
SELECT hybrid_cache.get('item', 'json', 20000000000);
SELECT hybrid_cache.get('item', 'json', 30000000000) -> 'id' AS deep;
SELECT hybrid_cache.get('item', 'str', 1);
SELECT hybrid_cache.get('item', 'str', 2);
SELECT hybrid_cache.get('item', 'geo') ? '1' AS geo;
SELECT hybrid_cache.get('item', 'set', 1);
-- members of others in the same collection
SELECT redis_command('ZADD', 'zset:1', 1, 'x1', 2, 'y1', 3, 'i1a');
SELECT hybrid_cache.get('item', 'zset', 1), hybrid_cache.get('item', 'zset_x', 1);

-- values of a transaction that is not over: the table shows them, Redis does not
BEGIN;
UPDATE item SET name = 'mine' WHERE id IN (3, 4);
SELECT redis_del('str:4');
SELECT hybrid_cache.get('item', 'str', 3) AS committed, hybrid_cache.get('item', 'str', 4) AS own;
ROLLBACK;

-- a mapping that does not fire, owes, or belongs to another database
CREATE TABLE before AS SELECT * FROM counts;
ALTER TABLE item DISABLE TRIGGER str;
UPDATE item SET name = 'unseen' WHERE id = 3;
SELECT redis_get('str:3'), hybrid_cache.get('item', 'str', 3);
SELECT c.hits - b.hits AS hits, c.bypasses - b.bypasses AS bypasses FROM counts c, before b;
ALTER TABLE item ENABLE TRIGGER str;
DELETE FROM item WHERE id > 4;
SELECT hybrid_cache.wait_for_sync('30s');
SELECT hybrid_cache.get('item', 'zset', 0);
SET hybrid_cache.enabled = off;
UPDATE item SET price = 77 WHERE id = 3;
RESET hybrid_cache.enabled;
SELECT state FROM hybrid_cache.mapping WHERE name = 'zset';
SELECT redis_zscore('zset:0', 'i3'), hybrid_cache.get('item', 'zset', 0);
SELECT c.hits - b.hits AS hits, c.bypasses - b.bypasses AS bypasses FROM counts c, before b;
DELETE FROM hybrid_cache.owed;
DISCARD ALL;
SELECT hybrid_cache.attach('item', 'set', 'evicted', member => '{id}', missing => 'ignore', name => 'evicted');
DELETE FROM hybrid_cache.owed;
\c -
INSERT INTO item (id) VALUES (11), (12);
SELECT hybrid_cache.wait_for_sync('30s');
SELECT redis_command('SREM', 'evicted', 11);
SELECT hybrid_cache.get('item', 'evicted');
INSERT INTO hybrid_cache.owed SELECT oid, 'owned by another database', now() FROM pg_trigger WHERE tgname = 'str';
\c -
SELECT redis_command('SET', 'str:1', 'of the other');
SELECT hybrid_cache.get('item', 'str', 1);
DELETE FROM hybrid_cache.owed;
\c -
SELECT hybrid_cache.get('item', 'str', 1);
DROP TABLE before;

-- keys that another mapping may have, and our own
CREATE TABLE word (w text PRIMARY KEY, v text);
SELECT hybrid_cache.attach('word', 'string', '{w}', value => 'v', name => 'word');
INSERT INTO word VALUES ('a', 'A'), ('str:1', 'not that');
SELECT hybrid_cache.wait_for_sync('30s');
CREATE TABLE secret (id int PRIMARY KEY, v text);
SELECT hybrid_cache.get('word', 'word', 'a'), hybrid_cache.get('word', 'word', 'b'), hybrid_cache.get('word', 'word', 'secret:1');
SELECT hybrid_cache.attach('secret', 'string', 'secret:{id}', value => 'v', name => 'secret');
INSERT INTO secret VALUES (1, 'secret');
SELECT hybrid_cache.wait_for_sync('30s');
SELECT redis_get('secret:1'), hybrid_cache.get('word', 'word', 'secret:1'), hybrid_cache.get('word', 'word', 'str:2'),
	hybrid_cache.get('word', 'word', 'a');
SELECT count(hybrid_cache.get('word', 'word', k)) FROM jsonb_array_elements_text(redis_command('KEYS', 'hybrid_cache:*')) k;
SET client_min_messages = error;
SELECT hybrid_cache.detach('word', 'word', purge => false);
RESET client_min_messages;

-- partitions, inheritance, a type without equality, an expression that fails
CREATE TABLE parted (id int, region text, v text) PARTITION BY LIST (region);
CREATE TABLE parted_n PARTITION OF parted FOR VALUES IN ('n');
CREATE TABLE parted_s (v text, region text, id int);
ALTER TABLE parted ATTACH PARTITION parted_s FOR VALUES IN ('s');
SELECT hybrid_cache.attach('parted', 'json', 'parted:{id}', name => 'parted');
INSERT INTO parted VALUES (1, 'n', 'north'), (2, 's', 'south');
SELECT hybrid_cache.wait_for_sync('30s');
SELECT hybrid_cache.get('parted', 'parted', 1), hybrid_cache.get('parted', 'parted', 2);
ALTER TABLE parted_s DISABLE TRIGGER parted;
UPDATE parted SET v = 'unseen' WHERE id = 2;
SELECT redis_get('parted:2'), hybrid_cache.get('parted', 'parted', 2);
ALTER TABLE parted_s ENABLE TRIGGER parted;
UPDATE parted SET v = 'south' WHERE id = 2;
SELECT hybrid_cache.wait_for_sync('30s');
SELECT redis_del('parted:1', 'parted:2');
SELECT hybrid_cache.get('parted', 'parted', 1), hybrid_cache.get('parted', 'parted', 2);
SELECT hybrid_cache.get('parted_s', 'parted', 2);
CREATE TABLE parent (id int, place point, v text);
CREATE TABLE child () INHERITS (parent);
SELECT hybrid_cache.attach('parent', 'string', 'place:{place}', value => '10 / (id - 3)', name => 'place');
INSERT INTO parent VALUES (1, '(1,2)', 'parent');
INSERT INTO child VALUES (2, '(3,4)', 'child');
SELECT redis_command('FLUSHALL');
SELECT hybrid_cache.get('parent', 'place', '(1,2)'), hybrid_cache.get('parent', 'place', point(3, 4)), hybrid_cache.get('parent', 'place', point(1, 2));
SET hybrid_cache.enabled = off;
INSERT INTO parent VALUES (3, '(5,6)', 'fails');
RESET hybrid_cache.enabled;
SELECT hybrid_cache.get('parent', 'place', '(5,6)');

-- the caller's rights, on every path
CREATE ROLE regress_reader;
CREATE ROLE regress_other;
CREATE SCHEMA hidden;
CREATE TABLE hidden.acc (id int PRIMARY KEY, tenant text, v text, pin text);
SELECT hybrid_cache.attach('hidden.acc', 'string', 'acc:{id}', value => 'v', filter => 'tenant IS NOT NULL', name => 'acc');
SELECT hybrid_cache.attach('hidden.acc', 'json', 'accj:{id}', exclude => 'pin', name => 'accj');
INSERT INTO hidden.acc VALUES (1, 'regress_reader', 'mine', '1'), (2, 'regress_other', 'theirs', '2');
SELECT hybrid_cache.wait_for_sync('30s');
SELECT 'hidden.acc'::regclass::oid AS acc \gset
GRANT USAGE ON SCHEMA hybrid_cache TO regress_reader, regress_other;
SET ROLE regress_reader;
SELECT hybrid_cache.get(:acc, 'acc', 1);
RESET ROLE;
GRANT EXECUTE ON FUNCTION hybrid_cache.get(regclass, name, VARIADIC "any") TO regress_reader, regress_other;
SET ROLE regress_reader;
SELECT hybrid_cache.get(:acc, 'acc', 1);
RESET ROLE;
GRANT USAGE ON SCHEMA hidden TO regress_reader, regress_other;
SET ROLE regress_reader;
SELECT hybrid_cache.get('hidden.acc', 'acc', 1);
RESET ROLE;
GRANT SELECT (id, v) ON hidden.acc TO regress_reader;
SET ROLE regress_reader;
SELECT hybrid_cache.get('hidden.acc', 'acc', 1);
RESET ROLE;
GRANT SELECT (tenant) ON hidden.acc TO regress_reader;
SET ROLE regress_reader;
SELECT hybrid_cache.get('hidden.acc', 'acc', 1), hybrid_cache.get('hidden.acc', 'accj', 1);
RESET ROLE;
SELECT redis_del('acc:2', 'accj:1');
SET ROLE regress_reader;
SELECT hybrid_cache.get('hidden.acc', 'acc', 2), hybrid_cache.get('hidden.acc', 'accj', 1);
RESET ROLE;
REVOKE SELECT (tenant) ON hidden.acc FROM regress_reader;
SET ROLE regress_reader;
SELECT hybrid_cache.get('hidden.acc', 'acc', 2);
SELECT hybrid_cache.get('hidden.acc', 'accj', 1);
RESET ROLE;
-- row security
CREATE VIEW bypasses AS SELECT bypasses FROM counts;
GRANT SELECT ON bypasses TO PUBLIC;
GRANT SELECT ON hidden.acc TO regress_reader, regress_other;
ALTER TABLE hidden.acc ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON hidden.acc USING (tenant = current_user);
UPDATE hidden.acc SET v = v || '!';
SELECT hybrid_cache.wait_for_sync('30s');
SET ROLE regress_reader;
SELECT hybrid_cache.get('hidden.acc', 'acc', 1), hybrid_cache.get('hidden.acc', 'acc', 2), hybrid_cache.get('hidden.acc', 'accj', 2);
SET ROLE regress_other;
SELECT hybrid_cache.get('hidden.acc', 'acc', 1), hybrid_cache.get('hidden.acc', 'acc', 2), hybrid_cache.get('hidden.acc', 'accj', 2);
SET row_security = off;
SELECT hybrid_cache.get('hidden.acc', 'acc', 1);
RESET row_security;
RESET ROLE;
CREATE TABLE b AS SELECT * FROM counts;
SELECT hybrid_cache.get('hidden.acc', 'acc', 1), hybrid_cache.get('hidden.acc', 'acc', 2);
SELECT c.hits - b.hits AS hits, c.bypasses - b.bypasses AS bypasses FROM counts c, b;
-- the table's owner is subject to it, too, if that is forced; one expression, several users
ALTER TABLE hidden.acc OWNER TO regress_other;
ALTER TABLE hidden.acc FORCE ROW LEVEL SECURITY;
GRANT USAGE ON SCHEMA hidden TO regress_other;
DO $$
DECLARE
	u text;
BEGIN
	FOREACH u IN ARRAY ARRAY['regress_reader', 'regress_other', 'none', 'regress_reader'] LOOP
		PERFORM set_config('role', u, true);
		RAISE NOTICE '% reads % and %', u, hybrid_cache.get('hidden.acc', 'acc', 1), hybrid_cache.get('hidden.acc', 'acc', 2);
	END LOOP;
END
$$;

-- expressions run as the table's owner, values are read as the caller
CREATE FUNCTION hidden.who(text) RETURNS text STABLE LANGUAGE sql AS $$ SELECT format('%s %s', current_user, current_setting('search_path')) $$;
REVOKE EXECUTE ON FUNCTION hidden.who FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hidden.who TO regress_other;
CREATE TABLE hidden.who (id int PRIMARY KEY);
INSERT INTO hidden.who VALUES (1);
ALTER TABLE hidden.who OWNER TO regress_other;
GRANT SELECT ON hidden.who TO regress_reader;
SELECT hybrid_cache.attach('hidden.who', 'string', 'who:{id}', value => $$hidden.who('')$$, name => 'who', populate => false);
SET ROLE regress_reader;
SELECT hybrid_cache.get('hidden.who', 'who', 1);
RESET ROLE;

-- definitions that change under a session
SELECT hybrid_cache.get('secret', 'secret', 1);
SELECT hybrid_cache.attach('secret', 'string', 'secret2:{id}', value => 'upper(v)', name => 'secret', replace => true);
SELECT hybrid_cache.wait_for_sync('30s');
SELECT hybrid_cache.get('secret', 'secret', 1);
UPDATE secret SET v = 'new';
SELECT hybrid_cache.wait_for_sync('30s');
SELECT redis_get('secret2:1');
SELECT hybrid_cache.get('secret', 'secret', 1);
ALTER TABLE secret RENAME TO known;
SELECT hybrid_cache.get('known', 'secret', 1);
SELECT hybrid_cache.detach('known', 'secret');
SELECT hybrid_cache.get('known', 'secret', 1);

SET client_min_messages = error;
DROP EXTENSION hybrid_cache CASCADE;
DROP OWNED BY regress_reader, regress_other CASCADE;
DROP ROLE regress_reader, regress_other;
