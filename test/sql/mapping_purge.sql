--
-- purge(): finding and removing what dropped mappings left behind
--
CREATE EXTENSION hybrid_cache;
SET client_min_messages = error;

CREATE FUNCTION keys() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	IF NOT hybrid_cache.wait_for_sync('30s') THEN
		RAISE 'the worker did not catch up';
	END IF;
	RETURN QUERY SELECT k FROM jsonb_array_elements_text(redis_command('KEYS', '*')) k
	WHERE k NOT LIKE 'hybrid_cache:%' ORDER BY k COLLATE "C";
END
$$;
CREATE VIEW leftovers AS SELECT id, relation, mapping, kind, key, member, prefix, types FROM hybrid_cache.leftover ORDER BY id;

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
SELECT * FROM hybrid_cache.purge(1, dry_run => false);
SELECT * FROM keys();
SELECT * FROM leftovers;
SELECT * FROM hybrid_cache.purge(1, dry_run => false);
-- undone with its transaction
BEGIN;
SELECT count(*) FROM hybrid_cache.purge(2, dry_run => false);
ROLLBACK;
SELECT count(*) FROM keys() k WHERE k LIKE 'h[*]:%';
SELECT count(*) FROM hybrid_cache.purge(2, dry_run => false);
SELECT * FROM keys();
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
SELECT redis_command('SADD', 's:00000000-0000-0000-0000-000000000001', 'other', '3');
SELECT redis_command('SADD', 's:other', '3');
SELECT redis_command('HSET', 'f', 'x', '1');
DROP TABLE m;
SELECT * FROM leftovers WHERE relation = 'public.m';
SELECT l.mapping, p.* FROM hybrid_cache.leftover l, hybrid_cache.purge(l.id) p WHERE relation = 'public.m' ORDER BY 1, 2, 3;
SELECT l.mapping, count(p) FROM hybrid_cache.leftover l, hybrid_cache.purge(l.id, dry_run => false) p WHERE relation = 'public.m' GROUP BY 1 ORDER BY 1;
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
SELECT mapping, (SELECT count(*) FROM hybrid_cache.purge(id, false)) FROM hybrid_cache.leftover ORDER BY 1;
SELECT * FROM keys();
SELECT redis_command('SMEMBERS', 'all');
SELECT redis_command('FLUSHDB');

-- what lives is not touched
CREATE TABLE old (id int, v text);
CREATE TABLE new (id int, v text);
INSERT INTO old VALUES (1, 'one'), (2, 'two');
SELECT hybrid_cache.attach('old', 'string', 'k:{v}', value => 'id', name => 'old');
SELECT hybrid_cache.wait_for_sync('30s');
DROP TRIGGER old ON old;
INSERT INTO new VALUES (2, 'two');
SELECT hybrid_cache.attach('new', 'string', 'k:{v}', value => 'id', name => 'new');
SELECT id AS leftover FROM hybrid_cache.leftover \gset
SELECT * FROM hybrid_cache.purge(:leftover);
SELECT * FROM hybrid_cache.purge(:leftover, dry_run => false);
DROP TRIGGER new ON new;
DELETE FROM hybrid_cache.leftover WHERE id <> :leftover;
SELECT hybrid_cache.attach('new', 'string', 'k:t{v}', value => 'id', name => 'newer', populate => false);
SELECT * FROM hybrid_cache.purge(:leftover);
SELECT hybrid_cache.detach('new', 'newer');
SELECT * FROM hybrid_cache.purge(:leftover, dry_run => false);
SELECT * FROM keys();

-- the prefix that was in force
SET hybrid_cache.key_prefix = 'app:';
CREATE TABLE prefixed (id int);
INSERT INTO prefixed VALUES (1);
SELECT hybrid_cache.attach('prefixed', 'json', '{id}', name => 'x');
SELECT * FROM keys();
DROP TABLE prefixed;
RESET hybrid_cache.key_prefix;
SELECT redis_command('SET', '1', 'not ours');
SELECT prefix, p.* FROM hybrid_cache.leftover l, hybrid_cache.purge(l.id, dry_run => false) p;
SELECT * FROM keys();

-- bad input
SELECT * FROM hybrid_cache.purge(NULL);
SELECT * FROM hybrid_cache.purge(12345);
CREATE ROLE regress_purger;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_purger;
SET ROLE regress_purger;
SELECT * FROM hybrid_cache.purge(1);
RESET ROLE;
DROP OWNED BY regress_purger;
DROP ROLE regress_purger;
DROP EXTENSION hybrid_cache CASCADE;
