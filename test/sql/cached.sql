--
-- hybrid_cache.cached(): results of queries in Redis
--
\set SHOW_CONTEXT never
\set VERBOSITY default
CREATE EXTENSION hybrid_cache;
-- how often a query has run; a sequence would give its transaction an xid
CREATE FUNCTION ran() RETURNS bigint VOLATILE LANGUAGE sql AS $$ SELECT redis_command('INCR', 'runs')::bigint $$;
CREATE TABLE item (id int PRIMARY KEY, town text, v numeric(6,2), at timestamptz);
INSERT INTO item SELECT i, 't' || i % 3, i / 2.0, '2024-01-01 12:00+00'::timestamptz + i * interval '1 d' FROM generate_series(1, 6) i;
SELECT hybrid_cache.attach('item', 'invalidate', 'items:{town}', name => 'town');
SELECT hybrid_cache.attach('item', 'invalidate', 'items', name => 'all');
SELECT hybrid_cache.wait_for_sync('30s');
CREATE VIEW redis AS
SELECT key, redis_get(key) AS value, redis_command('PTTL', key)::int > 0 AS expires,
	(SELECT string_agg(field, ' ' ORDER BY field) FROM redis_hgetall('hybrid_cache:cached:{' || key || '}')) AS known
FROM (VALUES ('items'), ('items:t1'), ('items:t2')) k(key);

-- found by a query, then in Redis
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*), ran() FROM item');
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*), ran() FROM item');
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT id, v, at, ran() FROM item WHERE town = $1 ORDER BY id DESC', 't1');
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT id, v, at, ran() FROM item WHERE town = $1 ORDER BY id DESC', 't1');
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT id, v, at, ran() FROM item WHERE town = $1 ORDER BY id DESC', VARIADIC ARRAY['t1']);
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*), ran() FROM item', VARIADIC '{}'::text[]);
SELECT * FROM redis;
SELECT redis_ttl('items') BETWEEN 3590 AND 3600 AS an_hour;

-- the same words mean another table with another search_path
CREATE SCHEMA other;
CREATE TABLE other.item (v text);
INSERT INTO other.item VALUES ('of the other tenant');
SELECT hybrid_cache.cached('tenant', '1 hour', 'SELECT count(*) FROM item');
SET search_path = other, public;
SELECT hybrid_cache.cached('tenant', '1 hour', 'SELECT count(*) FROM item');
RESET search_path;
SELECT hybrid_cache.cached('tenant', '1 hour', 'SELECT count(*) FROM item');
DROP TABLE other.item;
DROP SCHEMA other;

-- a change invalidates what it names, and nothing else
UPDATE item SET v = 100 WHERE id = 1;
SELECT hybrid_cache.wait_for_sync('30s');
SELECT * FROM redis;
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT id, v, ran() FROM item WHERE town = $1 ORDER BY id', 't1');
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT id, v, ran() FROM item WHERE town = $1 ORDER BY id', 't2');
UPDATE item SET v = 200 WHERE id = 2;
SELECT hybrid_cache.wait_for_sync('30s');
SELECT * FROM redis;
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT id, v, ran() FROM item WHERE town = $1 ORDER BY id', 't1');
TRUNCATE item;
SELECT hybrid_cache.wait_for_sync('30s');
SELECT * FROM redis;
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT id, v, ran() FROM item WHERE town = $1 ORDER BY id', 't1');

-- a result is taken for no other query, argument or type of it
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT $1 AS a, $2 AS b, ran()', 'x:y', 'z');
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT $1 AS a, $2 AS b, ran()', 'x', 'y:z');
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT $1 AS a, ran()', 'x:y:z');
SELECT hybrid_cache.cached('k:x', '1 hour', 'SELECT $1 AS a, ran()', 'y:z');
SELECT hybrid_cache.cached('k:x:y:z', '1 hour', 'SELECT 1 AS a, ran()');
SELECT hybrid_cache.cached('k:x:y:z', '1 hour', 'SELECT 1 AS a, ran()');
SELECT hybrid_cache.cached('n', '1 hour', 'SELECT $1 AS a, ran()', 1), hybrid_cache.cached('n', '1 hour', 'SELECT $1 AS a, ran()', '1');

-- arguments are in the key as a mapping writes them
SET DateStyle = 'German';
SET TimeZone = 'Asia/Tokyo';
SET extra_float_digits = 0;
SELECT hybrid_cache.cached('types', '1 hour', 'SELECT $1 AS at, $2::date AS day, $3 AS f, $4 AS yes, $5 AS c, $6 AS net, $7 AS ref',
	'2024-01-02 03:04:05+09'::timestamptz, '2.1.2024'::date, 0.1::float8 + 0.2, true, 'x'::char(3), '10.0.0.1'::inet, '{00000000-0000-0000-0000-000000000001}'::uuid);
RESET ALL;
SELECT redis_exists('types:2024-01-01 18:04:05+00:2024-01-02:0.30000000000000004:true:x:10.0.0.1/32:00000000-0000-0000-0000-000000000001');

-- rows of all kinds
SELECT hybrid_cache.cached('rows', '1 hour', $$SELECT 1 AS a, NULL AS b, ARRAY[1, 2] AS c, '{"x": [1]}'::json AS d, 'NaN'::float8 AS e, '"quoted" ä' AS f, ROW(1, 'x') AS g$$);
SELECT hybrid_cache.cached('rows', '1 hour', $$SELECT 1 AS a, NULL AS b, ARRAY[1, 2] AS c, '{"x": [1]}'::json AS d, 'NaN'::float8 AS e, '"quoted" ä' AS f, ROW(1, 'x') AS g$$);
SELECT hybrid_cache.cached('none', '1 hour', 'SELECT 1 WHERE false'), redis_get('none');
SELECT hybrid_cache.cached('values', '1 hour', 'VALUES (1), (2)'), hybrid_cache.cached('with', '1 hour', 'WITH x AS (SELECT 1 AS a) TABLE x');
SELECT jsonb_array_length(hybrid_cache.cached('many', '1 hour', 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 25000) i')),
	jsonb_array_length(redis_get('many')::jsonb) AS stored;

-- one's own changes are seen, and nobody else sees them
INSERT INTO item VALUES (1, 't1', 1, '2024-01-01 12:00+00');
SELECT hybrid_cache.wait_for_sync('30s');
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*) FROM item');
BEGIN;
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*) FROM item');
INSERT INTO item VALUES (2, 't2', 2, '2024-01-01 12:00+00');
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*) FROM item');
ROLLBACK;
SELECT redis_get('items');
SELECT redis_del('items');
BEGIN;
SAVEPOINT a;
INSERT INTO item VALUES (2, 't2', 2, '2024-01-01 12:00+00');
ROLLBACK TO a;
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*) FROM item');
COMMIT;
SELECT redis_exists('items');
-- nor what a function of the query changes
CREATE FUNCTION insert_one() RETURNS int LANGUAGE sql AS 'INSERT INTO item VALUES (3, NULL) RETURNING id';
SELECT hybrid_cache.cached('wrote', '1 hour', 'SELECT insert_one()'), redis_exists('wrote', 'hybrid_cache:cached:{wrote}');
DELETE FROM item WHERE id = 3;
SELECT hybrid_cache.wait_for_sync('30s');

-- a transaction that keeps its snapshot reads, but stores nothing
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*) FROM item'), redis_exists('items', 'hybrid_cache:cached:{items}');
COMMIT;
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*), ran() > 0 AS ran FROM item');
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*), ran() > 0 AS ran FROM item');
COMMIT;

-- what a crash could take back is on disk before it is stored
SET synchronous_commit = off;
SELECT redis_del('items');
INSERT INTO item VALUES (4, 't1', 4, '2024-01-01 12:00+00');
SELECT pg_current_wal_insert_lsn() AS lsn \gset
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*) FROM item');
SELECT pg_current_wal_flush_lsn() >= :'lsn' OR pg_wal_lsn_diff(:'lsn', pg_current_wal_flush_lsn()) <= 40 AS flushed;
RESET synchronous_commit;
SELECT hybrid_cache.wait_for_sync('30s');

-- nested
CREATE FUNCTION deeper(n int) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN hybrid_cache.cached('deeper', '1 hour', 'SELECT CASE WHEN $1 > 0 THEN deeper($1 - 1) END AS d', n);
END $$;
SELECT deeper(10);
SELECT redis_command('KEYS', 'deeper:*') @> '["deeper:10", "deeper:5"]' AS stored;
SELECT hybrid_cache.cached('self', '1 hour', $$SELECT hybrid_cache.cached('self', '1 hour', 'SELECT 1 AS a') AS b$$);

-- after an error, the next one runs
SELECT hybrid_cache.cached('error', '1 hour', 'SELECT 1 / $1 AS x', 0);
DO $$
BEGIN
	FOR i IN 1 .. 3 LOOP
		BEGIN
			PERFORM hybrid_cache.cached('error', '1 hour', 'SELECT 1 / $1 AS x', 0);
		EXCEPTION WHEN division_by_zero THEN
			RAISE NOTICE 'failed';
		END;
	END LOOP;
END $$;
SELECT redis_hget('hybrid_cache:cached:{error:0}', 'holder') IS NOT NULL AS leased;
CREATE FUNCTION fails_once() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	IF redis_command('INCR', 'failures')::int = 1 THEN RAISE 'not yet'; END IF;
	RETURN 1;
END $$;
SELECT hybrid_cache.cached('once', '1 hour', 'SELECT fails_once()');
SELECT hybrid_cache.cached('once', '1 hour', 'SELECT fails_once()'), redis_get('once');

-- an old value, while it lasts
SET hybrid_cache.stale_ttl = '1h';
SELECT hybrid_cache.cached('stale', '50 ms', 'SELECT ran() > 0 AS ran'), redis_ttl('stale') > 3500 AS kept;
SELECT redis_command('HSET', 'hybrid_cache:cached:{stale}', 'until', (extract(epoch FROM now()) * 1000)::bigint - 60000,
	'holder', 'a client', 'for', redis_hget('hybrid_cache:cached:{stale}', 'of'), 'ends', '99999999999999') IS NOT NULL AS somebody_computes;
SELECT redis_set('stale', '["old"]', keepttl => true);
SELECT hybrid_cache.cached('stale', '50 ms', 'SELECT ran() > 0 AS ran');
-- no longer: it waits, as long as it may
SET hybrid_cache.stale_ttl = '30s';
SET hybrid_cache.lease_timeout = '20ms';
SELECT redis_get('runs')::int AS runs \gset
SELECT hybrid_cache.cached('stale', '50 ms', 'SELECT ran() > 0 AS ran');
SELECT redis_get('runs')::int - :runs AS runs, redis_hget('hybrid_cache:cached:{stale}', 'holder');
RESET hybrid_cache.stale_ttl;
RESET hybrid_cache.lease_timeout;
-- who computes something else is not waited for
SELECT redis_command('HSET', 'hybrid_cache:cached:{other}', 'holder', 'a client', 'for', 'else', 'ends', '99999999999999') IS NOT NULL AS somebody_computes;
SELECT hybrid_cache.cached('other', '1 hour', 'SELECT 1 AS a'), redis_exists('other');
-- a lease that has ended is taken over
SELECT redis_command('HSET', 'hybrid_cache:cached:{over}', 'holder', 'a client', 'for', 'else', 'ends', '1') IS NOT NULL AS somebody_computed;
SELECT hybrid_cache.cached('over', '1 hour', 'SELECT 1 AS a'), redis_exists('over');

-- the prefix of keys, and hash tags
SET hybrid_cache.key_prefix = 'app:';
SELECT hybrid_cache.cached('p', '1 hour', 'SELECT 1 AS a'), redis_exists('p'), redis_command('EXISTS', 'app:p', 'hybrid_cache:cached:{app:p}');
RESET hybrid_cache.key_prefix;
SELECT hybrid_cache.cached('a{tag}', '1 hour', 'SELECT 1 AS a', 'b'), redis_exists('a{tag}:b', 'hybrid_cache:cached:a{tag}:b');

-- Redis has forgotten the scripts
SELECT redis_command('SCRIPT', 'FLUSH');
SELECT hybrid_cache.cached('flushed', '1 hour', 'SELECT 1 AS a'), redis_get('flushed');
SELECT redis_command('SCRIPT', 'FLUSH');
SELECT hybrid_cache.cached('flushed', '1 hour', 'SELECT 1 AS a');

-- somebody else's values
SELECT redis_command('LPUSH', 'list', 'x');
\set VERBOSITY sqlstate
SELECT hybrid_cache.cached('list', '1 hour', 'SELECT 1 AS a');
\set VERBOSITY default
SELECT redis_set('flushed', '{"not": "an array"}'), hybrid_cache.cached('flushed', '1 hour', 'SELECT 1 AS a');
SELECT redis_set('flushed', '1'), hybrid_cache.cached('flushed', '1 hour', 'SELECT 1 AS a');
SELECT redis_set('flushed', '[1'), hybrid_cache.cached('flushed', '1 hour', 'SELECT 1 AS a');
SELECT redis_set('flushed', ''), hybrid_cache.cached('flushed', '1 hour', 'SELECT 1 AS a');
SELECT redis_command('SET', 'flushed', '\xff'::bytea), hybrid_cache.cached('flushed', '1 hour', 'SELECT 1 AS a');
SELECT redis_set('unknown', '[]'), hybrid_cache.cached('unknown', '1 hour', 'SELECT 1 AS a'), redis_get('unknown');

-- Redis is away
SET hybrid_cache.redis_url = 'redis://127.0.0.1:1';
SELECT hybrid_cache.cached('flushed', '1 hour', 'SELECT 2 AS a');
SET hybrid_cache.fallback = off;
SELECT hybrid_cache.cached('flushed', '1 hour', 'SELECT 2 AS a');
RESET hybrid_cache.fallback;
RESET hybrid_cache.redis_url;

-- bad input
SELECT hybrid_cache.cached(NULL, '1 hour', 'SELECT 1');
SELECT hybrid_cache.cached('', '1 hour', 'SELECT 1');
SELECT hybrid_cache.cached('k', NULL, 'SELECT 1');
SELECT hybrid_cache.cached('k', '0', 'SELECT 1');
SELECT hybrid_cache.cached('k', '-1 s', 'SELECT 1');
SELECT hybrid_cache.cached('k', '2000 years', 'SELECT 1');
SELECT hybrid_cache.cached('k', '1 hour', NULL);
SELECT hybrid_cache.cached('k', '1 hour', '');
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT 1', NULL);
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT $1', 1, NULL::int);
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT $1', VARIADIC NULL::text[]);
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT $1', VARIADIC ARRAY['a', NULL]);
SELECT hybrid_cache.cached('k', '1 hour', '--');
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT 1; SELECT 2');
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT 1) x; DROP TABLE item; --');
SELECT hybrid_cache.cached('k', '1 hour', 'DELETE FROM item RETURNING id');
SELECT hybrid_cache.cached('k', '1 hour', 'WITH x AS (DELETE FROM item RETURNING id) SELECT * FROM x');
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT * FROM item FOR UPDATE');
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT 1 AS a INTO t');
SELECT hybrid_cache.cached('k', '1 hour', 'SHOW work_mem');
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT * FROM nowhere');
SELECT hybrid_cache.cached('k', '1 hour', 'SELECT $1');
SELECT count(*) FROM item;

-- rights: of the caller, for what is not in Redis
CREATE ROLE regress_reader;
SET ROLE regress_reader;
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*) FROM item');
RESET ROLE;
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*) FROM item');
GRANT USAGE ON SCHEMA hybrid_cache TO regress_reader;
GRANT EXECUTE ON FUNCTION hybrid_cache.cached(text, interval, text, VARIADIC "any"), hybrid_cache.cached(text, interval, text) TO regress_reader;
SET ROLE regress_reader;
SELECT hybrid_cache.cached('secret', '1 hour', 'SELECT count(*) FROM item');
SELECT hybrid_cache.cached('items', '1 hour', 'SELECT count(*) FROM item');
RESET ROLE;

-- where the WAL ends with a page, what is flushed is not the header of the next
DO $$
DECLARE
	before pg_lsn;
	overhead int;
	room int;
BEGIN
	FOR attempt IN 1 .. 1000 LOOP
		before := pg_current_wal_insert_lsn();
		EXIT WHEN (before - '0/0') % 8192 IN (24, 40);
		PERFORM pg_logical_emit_message(false, '', '');
		overhead := pg_current_wal_insert_lsn() - before;
		room := 8192 - (pg_current_wal_insert_lsn() - '0/0') % 8192 - overhead;
		IF overhead < 200 AND room BETWEEN 0 AND 150 THEN
			PERFORM pg_logical_emit_message(false, '', repeat('x', room));
		END IF;
	END LOOP;
END $$;
SELECT hybrid_cache.cached('page', '1 hour', 'SELECT 1 AS n');
SELECT redis_get('page');
DROP EXTENSION hybrid_cache CASCADE;
