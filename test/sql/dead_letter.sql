--
-- hybrid_cache.dead_letter and retry_dead_letter()
--
CREATE EXTENSION hybrid_cache;
CREATE ROLE regress_owner;
CREATE ROLE regress_other;
CREATE ROLE regress_reader IN ROLE pg_read_all_stats;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_owner, regress_other;
GRANT EXECUTE ON FUNCTION hybrid_cache.retry_dead_letter TO regress_owner, regress_other;
GRANT CREATE ON SCHEMA public TO regress_owner;
\set VERBOSITY terse
\pset null NULL

-- bad input
SELECT hybrid_cache.retry_dead_letter(NULL);
SELECT hybrid_cache.retry_dead_letter(1);
SELECT hybrid_cache.retry_dead_letter(-9223372036854775808);

-- every way to find the row: by an index on a column of the key or the member,
-- through the whole table, in partitions, by several mappings
CREATE TABLE plain (id int PRIMARY KEY, code text, day date, v text);
CREATE UNIQUE INDEX ON plain (code);
CREATE TABLE part (id bigint, region text, v text) PARTITION BY LIST (region);
CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a');
CREATE TABLE part_b PARTITION OF part FOR VALUES IN ('b', 'c');
SELECT hybrid_cache.attach('plain', 'field', 'f', field => '{id}', value => 'v', name => 'by_id'),
	hybrid_cache.attach('plain', 'field', 'g', field => '{code}', value => 'v', name => 'by_code'),
	hybrid_cache.attach('plain', 'field', 'h:{day}', field => '{code}-{id}-x', value => 'v', name => 'by_both'),
	hybrid_cache.attach('plain', 'set', 's', member => '{day}:{v}', filter => 'id > 0', name => 'by_none'),
	hybrid_cache.attach('part', 'zset', 'z', member => '{region}{id}', score => 'id', name => 'parts');
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_set('f', '-'), redis_set('g', '-'), redis_set('h:2026-01-02', '-'),
	redis_set('s', '-'), redis_set('z', '-');
INSERT INTO plain VALUES (1, 'one', '2026-01-02', 'v1'), (2, 'two-2', '2026-01-02', 'v2'), (3, NULL, '2026-01-02', 'v3');
INSERT INTO part VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z');
SELECT hybrid_cache.wait_for_sync('60s');
SELECT relation, mapping, op, key, member, error, sqlstate, attempts FROM hybrid_cache.dead_letter
ORDER BY key, member COLLATE "C";

-- while they wait: rows change, go, and go to another partition
UPDATE plain SET v = v || '!' WHERE id = 1;
DELETE FROM plain WHERE id = 2;
DELETE FROM part WHERE id = 3;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_del('f', 'g', 'h:2026-01-02', 's', 'z');
-- what is there of a row that is gone, or was another
SELECT redis_command('HSET', 'f', '2', 'v2'), redis_command('SADD', 's', '2026-01-02:v1'),
	redis_command('ZADD', 'z', '3', 'c3');
SELECT bool_and(hybrid_cache.retry_dead_letter(id)) FROM hybrid_cache.dead_letter;
SELECT count(*) FROM hybrid_cache.dead_letter;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT * FROM redis_hgetall('f') ORDER BY 1;
SELECT * FROM redis_hgetall('g') ORDER BY 1;
SELECT * FROM redis_hgetall('h:2026-01-02') ORDER BY 1;
SELECT redis_command('SMEMBERS', 's') @> '["2026-01-02:v1!", "2026-01-02:v3"]' AS has,
	redis_command('SCARD', 's') AS number;
SELECT redis_command('ZRANGE', 'z', 0, -1);

-- text that can be read in more than one way
SELECT redis_set('g2', '-');
CREATE TABLE two (a text, b text, v text, PRIMARY KEY (a, b));
SELECT hybrid_cache.attach('two', 'field', 'g2', field => '{a}-{b}', value => 'v');
INSERT INTO two VALUES ('x', 'y-z', '1'), ('x-y', 'w', '2'), ('ü', '', '3');
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_del('g2');
SELECT member, hybrid_cache.retry_dead_letter(id) FROM hybrid_cache.dead_letter ORDER BY member COLLATE "C";
SELECT hybrid_cache.wait_for_sync('60s');
SELECT * FROM redis_hgetall('g2') ORDER BY field COLLATE "C";

-- the table is locked against writers, and the letter is there until the commit
SELECT redis_del('f') IS NOT NULL AS deleted, redis_set('f', '-');
UPDATE plain SET v = 'locked' WHERE id = 1;
SELECT hybrid_cache.wait_for_sync('60s');
BEGIN;
SELECT seq_scan, idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'plain' \gset before_
SELECT hybrid_cache.retry_dead_letter(id) FROM hybrid_cache.dead_letter;
SELECT mode FROM pg_locks WHERE relation = 'plain'::regclass AND mode LIKE 'Share%';
SELECT seq_scan - :before_seq_scan AS seq_scan, idx_scan - :before_idx_scan AS idx_scan
FROM pg_stat_xact_user_tables WHERE relname = 'plain';
ROLLBACK;
SELECT count(*) FROM hybrid_cache.dead_letter;
BEGIN READ ONLY;
SELECT hybrid_cache.retry_dead_letter(id) FROM hybrid_cache.dead_letter;
ROLLBACK;
SET hybrid_cache.enabled = off;
SELECT hybrid_cache.retry_dead_letter(id) FROM hybrid_cache.dead_letter;
RESET hybrid_cache.enabled;

-- rights
SELECT id AS letter FROM hybrid_cache.dead_letter \gset
SET ROLE regress_other;
SELECT count(*) FROM hybrid_cache.dead_letter;
SELECT hybrid_cache.retry_dead_letter(:letter);
SET ROLE regress_reader;
SELECT count(*) FROM hybrid_cache.dead_letter;
DELETE FROM hybrid_cache.dead_letter;
SELECT hybrid_cache.retry_dead_letter(:letter);
RESET ROLE;
ALTER TABLE plain OWNER TO regress_owner;
-- row security does not hide the row
ALTER TABLE plain ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT redis_del('f');
SET ROLE regress_owner;
SELECT hybrid_cache.retry_dead_letter(:letter);
RESET ROLE;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_hget('f', '1');

-- the mapping is gone, the table is gone
SELECT redis_del('f') IS NOT NULL AS deleted, redis_set('f', '-');
UPDATE plain SET v = 'gone' WHERE id IN (1, 3);
SELECT hybrid_cache.wait_for_sync('60s');
SELECT member, op FROM hybrid_cache.dead_letter ORDER BY 1;
SELECT min(id) AS first, max(id) AS last FROM hybrid_cache.dead_letter \gset
SELECT hybrid_cache.detach('plain', 'by_id', false);
SELECT hybrid_cache.retry_dead_letter(:first);
DROP TABLE plain;
SET ROLE regress_owner;
SELECT hybrid_cache.retry_dead_letter(:last);
RESET ROLE;
SELECT hybrid_cache.retry_dead_letter(:last);
SELECT hybrid_cache.retry_dead_letter(:last);
SELECT count(*) FROM hybrid_cache.dead_letter;

-- what is only unlinked comes from no row
CREATE TABLE source (id int, page text);
SELECT hybrid_cache.attach('source', 'invalidate', 'page:{page}');
INSERT INTO hybrid_cache.dead_letter (op, key, error, sqlstate, lsn, attempts, since, at, entry)
VALUES ('UNLINK', 'page:7', '-', '42501', '0/1', 1, now(), now(), 0) RETURNING id AS letter \gset
SELECT redis_set('page:7', 'old'), hybrid_cache.retry_dead_letter(:letter);
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_get('page:7');
-- of a letter without a table nobody but a superuser
INSERT INTO hybrid_cache.dead_letter (op, key, error, sqlstate, lsn, attempts, since, at, entry)
VALUES ('SET', 'nobodys', '-', '42501', '0/1', 1, now(), now(), 0) RETURNING id AS letter \gset
SET ROLE regress_other;
SELECT hybrid_cache.retry_dead_letter(:letter);
RESET ROLE;
SELECT hybrid_cache.retry_dead_letter(:letter);

\set VERBOSITY default
DROP TABLE part, two, source CASCADE;
DROP EXTENSION hybrid_cache;
DROP OWNED BY regress_owner, regress_other, regress_reader;
DROP ROLE regress_owner, regress_other, regress_reader;
