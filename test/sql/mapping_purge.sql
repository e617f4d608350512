--
-- purge(): finding and removing what dropped mappings left behind
--
CREATE EXTENSION hybrid_cache;
SET client_min_messages = error;

-- the keys in Redis, once what is asked for has been done
CREATE FUNCTION keys() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	-- what is to be populated and removed, and what was committed
	WHILE EXISTS (SELECT FROM hybrid_cache.progress) OR
		EXISTS (SELECT FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	IF NOT hybrid_cache.wait_for_sync('30s') THEN
		RAISE 'the worker did not catch up';
	END IF;
	RETURN QUERY SELECT k FROM jsonb_array_elements_text(redis_command('KEYS', '*')) k
	WHERE k NOT LIKE 'hybrid_cache:%' ORDER BY k COLLATE "C";
END
$$;
CREATE VIEW leftovers AS SELECT id, relation, mapping, kind, key, member, prefix, types, asked_at IS NOT NULL AS asked, remaining FROM hybrid_cache.leftover ORDER BY id;

-- keys: only what rows of these types can have rendered
CREATE TABLE t (id int, name text, u uuid, d date);
INSERT INTO t VALUES (1, 'one'), (-2, 'two*[?]'), (30, 'ümläut');
SELECT hybrid_cache.attach('t', 'string', 't:{id}', value => 'name', name => 'by_id');
SELECT hybrid_cache.attach('t', 'hash', 'h[*]:{name}', name => 'by_name');
SELECT * FROM keys();
SELECT redis_command('SET', 't:' || k, 'not ours') FROM unnest(ARRAY['1:more', 'x', '', '007', '-0', '2147483648', ' 5', '4']) k;
SELECT redis_command('SET', 't', 'not ours');
SELECT redis_command('SADD', 't:5', 'not of our type');
SELECT redis_command('HSET', 'hx:one', 'f', 'not ours');
DROP TRIGGER by_id ON t;
DROP TRIGGER by_name ON t;
SELECT * FROM leftovers;
SELECT * FROM hybrid_cache.purge(1);
SELECT * FROM hybrid_cache.purge(2);
SELECT count(*) FROM keys();
BEGIN;
SELECT * FROM hybrid_cache.purge(1, dry_run => false);
SELECT * FROM hybrid_cache.purge(1, dry_run => false);
SELECT * FROM leftovers;
COMMIT;
SELECT * FROM keys();
SELECT * FROM leftovers;
SELECT * FROM hybrid_cache.purge(1, dry_run => false);
-- undone with its transaction
BEGIN;
SELECT * FROM hybrid_cache.purge(2, dry_run => false);
ROLLBACK;
SELECT count(*) FROM keys() k WHERE k LIKE 'h[*]:%';
-- a template that can be read in more than one way: what a row names, whatever
-- became of the rest of it
SELECT redis_command('HSET', 'h[*]:foreign', 'f', 'not ours');
DELETE FROM t WHERE id = 1;
UPDATE t SET id = 31 WHERE id = 30;
SELECT * FROM hybrid_cache.purge(2, dry_run => false);
SELECT * FROM keys() k WHERE k LIKE 'h[*]:%';
SELECT * FROM leftovers;
SELECT * FROM hybrid_cache.purge(2);
-- ... and what no row names when somebody has looked at it
SELECT * FROM hybrid_cache.purge(2, dry_run => false, force => true);
SELECT * FROM keys();
SELECT * FROM leftovers;
SELECT redis_command('FLUSHDB');

-- members of one collection, and of many
CREATE TABLE m (id int PRIMARY KEY, grp uuid, score float8, lng float8 DEFAULT 1, lat float8 DEFAULT 2);
INSERT INTO m VALUES (1, '00000000-0000-0000-0000-000000000001', 1), (2, '00000000-0000-0000-0000-000000000002', 2);
SELECT hybrid_cache.attach('m', 'zset', 'z', member => 'm{id}', score => 'score', name => 'z');
SELECT hybrid_cache.attach('m', 'geo', 'z', member => 'geo{id}', longitude => 'lng', latitude => 'lat', name => 'g');
SELECT hybrid_cache.attach('m', 'set', 's:{grp}', member => '{id}', name => 's');
SELECT hybrid_cache.attach('m', 'field', 'f', field => '{id}', value => 'score', name => 'f');
SELECT * FROM keys();
SELECT redis_command('ZADD', 'z', '1', 'mx', '2', 'm3');
SELECT * FROM keys();
SELECT redis_command('SADD', 's:00000000-0000-0000-0000-000000000001', 'other', '3');
SELECT redis_command('SADD', 's:other', '3');
SELECT redis_command('HSET', 'f', 'x', '1');
DROP TABLE m;
SELECT * FROM leftovers WHERE relation = 'public.m';
SELECT l.mapping, p.* FROM hybrid_cache.leftover l, hybrid_cache.purge(l.id) p WHERE relation = 'public.m' ORDER BY 1, 2, 3;
SELECT count(p) FROM hybrid_cache.leftover l, hybrid_cache.purge(l.id, dry_run => false) p WHERE relation = 'public.m';
SELECT * FROM keys();
SELECT redis_command('ZRANGE', 'z', '0', '-1'), redis_command('SMEMBERS', 's:00000000-0000-0000-0000-000000000001'), redis_command('HKEYS', 'f');
SELECT redis_command('FLUSHDB');

-- more than one step of a SCAN
CREATE TABLE big (id bigint, d date);
INSERT INTO big SELECT g, DATE '2020-01-01' + g FROM generate_series(1, 5000) g;
SELECT hybrid_cache.attach('big', 'string', 'big:{d}:{id}', value => 'id', name => 'big');
SELECT hybrid_cache.attach('big', 'set', 'all', member => '{d}', name => 'set');
SELECT count(*) FROM keys();
SELECT hybrid_cache.detach('big', 'big', purge => false);
SELECT hybrid_cache.detach('big', 'set', purge => false);
SELECT redis_command('SADD', 'all', 'x');
SELECT mapping, count(*), (SELECT count(*) FROM hybrid_cache.purge(id, false)) FROM hybrid_cache.leftover l, hybrid_cache.purge(id) GROUP BY 1, id ORDER BY 1;
SELECT * FROM keys();
SELECT redis_command('SMEMBERS', 'all');
SELECT redis_command('FLUSHDB');

-- what lives is not touched
CREATE TABLE old (id int, v text);
CREATE TABLE new (id int, v text);
INSERT INTO old VALUES (1, 'one'), (2, 'two');
SELECT hybrid_cache.attach('old', 'string', 'k:{v}', value => 'id', name => 'old');
SELECT * FROM keys();
DROP TRIGGER old ON old;
INSERT INTO new VALUES (2, 'two');
SELECT hybrid_cache.attach('new', 'string', 'k:{v}', value => 'id', name => 'new');
SELECT * FROM keys();
SELECT id AS leftover FROM hybrid_cache.leftover \gset
SELECT * FROM hybrid_cache.purge(:leftover);
SELECT * FROM hybrid_cache.purge(:leftover, dry_run => false);
DROP TRIGGER new ON new;
DELETE FROM hybrid_cache.leftover WHERE id <> :leftover;
SELECT hybrid_cache.attach('new', 'string', 'k:t{v}', value => 'id', name => 'newer', populate => false);
SELECT * FROM hybrid_cache.purge(:leftover);
SELECT * FROM hybrid_cache.purge(:leftover, dry_run => false, force => true);
SELECT * FROM keys();
SELECT mapping, key, remaining FROM leftovers;
SELECT hybrid_cache.detach('new', 'newer');
SELECT * FROM keys();
SELECT mapping, key, remaining FROM leftovers;
DELETE FROM hybrid_cache.leftover;
SELECT redis_command('DEL', 'k:two');

-- the entries go to a mapping with the same template
CREATE TABLE heir (id int, v text);
INSERT INTO heir VALUES (1, 'first'), (2, 'second');
SELECT hybrid_cache.attach('heir', 'string', 'heir:{id}', value => 'v', name => 'one');
SELECT * FROM keys();
BEGIN;
SELECT hybrid_cache.detach('heir', 'one');
SELECT hybrid_cache.attach('heir', 'string', 'heir:{id}', value => 'v || id', filter => 'id <> 2', name => 'two', populate => false);
COMMIT;
SELECT k, redis_get(k) FROM keys() k;
SELECT * FROM leftovers;
SELECT hybrid_cache.detach('heir', 'two');
SELECT * FROM keys();

-- only the columns of the templates matter, and these as they were
CREATE TABLE late (id int, v text, w text, gone boolean);
INSERT INTO late SELECT i, 'v' || i, 'w', false FROM generate_series(1, 5) i;
SELECT hybrid_cache.attach('late', 'set', 'late', member => '{v}', filter => 'NOT gone', name => 'set');
SELECT hybrid_cache.attach('late', 'field', 'late:{id}', field => '{v}', value => 'w', name => 'field');
SELECT * FROM keys();
SELECT redis_command('SADD', 'late', 'v9'), redis_command('HSET', 'late:1', 'foreign', '1'), redis_command('HSET', 'late:6', 'v1', '1');
DROP TRIGGER set ON late;
DROP TRIGGER field ON late;
UPDATE late SET gone = true, w = NULL WHERE id = 1;
UPDATE late SET v = 'other' WHERE id = 2;
ALTER TABLE late DROP COLUMN gone, DROP COLUMN w;
SELECT count(p) FROM hybrid_cache.leftover l, hybrid_cache.purge(id, dry_run => false) p;
SELECT k, CASE WHEN k = 'late' THEN (SELECT jsonb_agg(e ORDER BY e) FROM jsonb_array_elements(redis_command('SMEMBERS', k)) e) ELSE redis_command('HKEYS', k) END FROM keys() k;
SELECT mapping, remaining FROM leftovers;
ALTER TABLE late DROP COLUMN v;
SELECT count(p) FROM hybrid_cache.leftover l, hybrid_cache.purge(id, dry_run => false) p;
SELECT count(*) FROM keys();
SELECT mapping, remaining FROM leftovers;
DROP TABLE late;
SELECT count(p) FROM hybrid_cache.leftover l, hybrid_cache.purge(id, dry_run => false, force => true) p;
SELECT * FROM keys();
SELECT * FROM leftovers;

-- the prefix that was in force
SET hybrid_cache.key_prefix = 'app:';
CREATE TABLE prefixed (id int);
SELECT hybrid_cache.attach('prefixed', 'json', '{id}', name => 'x');
INSERT INTO prefixed VALUES (1);
SELECT * FROM keys();
DROP TABLE prefixed;
RESET hybrid_cache.key_prefix;
SELECT redis_command('SET', '1', 'not ours');
SELECT prefix, p.* FROM hybrid_cache.leftover l, hybrid_cache.purge(l.id) p;
SELECT count(p) FROM hybrid_cache.leftover l, hybrid_cache.purge(l.id, dry_run => false) p;
SELECT * FROM keys();
-- ... also for what a row names
SET hybrid_cache.key_prefix = 'app:';
CREATE TABLE prefixed (v text);
SELECT hybrid_cache.attach('prefixed', 'json', 'k:{v}', name => 'x');
INSERT INTO prefixed VALUES ('one');
SELECT * FROM keys();
DROP TRIGGER x ON prefixed;
RESET hybrid_cache.key_prefix;
SELECT redis_command('SET', 'k:one', 'not ours');
SELECT count(p) FROM hybrid_cache.leftover l, hybrid_cache.purge(l.id, dry_run => false) p;
SELECT * FROM keys();
SELECT * FROM leftovers;

-- bad input
SELECT * FROM hybrid_cache.purge(NULL);
SELECT * FROM hybrid_cache.purge(12345);
SELECT * FROM hybrid_cache.purge(12345, dry_run => false);
BEGIN READ ONLY;
SELECT * FROM hybrid_cache.purge(1, dry_run => false);
ROLLBACK;
CREATE ROLE regress_purger;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_purger;
SET ROLE regress_purger;
SELECT * FROM hybrid_cache.purge(1);
RESET ROLE;
DROP OWNED BY regress_purger;
DROP ROLE regress_purger;
DROP EXTENSION hybrid_cache CASCADE;
