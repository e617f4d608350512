--
-- transactions that are written in pieces: savepoints, key moves, huge values
--
CREATE EXTENSION hybrid_cache;
SET client_min_messages = warning;
CREATE TABLE l (id int PRIMARY KEY DEFERRABLE, v text);
SELECT hybrid_cache.attach('l', 'string', 'l:{id}', value => 'v');

-- how many rows are in Redis as they are in the table, and how many keys there are
CREATE FUNCTION compare(OUT rows bigint, OUT equal bigint, OUT keys bigint) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT hybrid_cache.wait_for_sync('60s') THEN
		RAISE 'the worker did not catch up';
	END IF;
	SELECT count(*), count(*) FILTER (WHERE redis_get('l:' || id) = v) INTO rows, equal FROM l;
	keys := jsonb_array_length(redis_command('KEYS', 'l:*'));
END
$$;

-- about 10 MB of ops
INSERT INTO l SELECT g, repeat(md5(g::text), 16) FROM generate_series(1, 20000) g;
SELECT * FROM compare();

BEGIN;
UPDATE l SET v = 'a' || v WHERE id <= 5000;
SAVEPOINT one;
UPDATE l SET v = 'b' || v WHERE id <= 10000;
SAVEPOINT two;
DELETE FROM l WHERE id > 15000;
ROLLBACK TO two;
UPDATE l SET v = 'c' || v WHERE id BETWEEN 9000 AND 12000;
ROLLBACK TO one;
UPDATE l SET v = 'd' || v WHERE id BETWEEN 4000 AND 8000;
SAVEPOINT three;
INSERT INTO l SELECT g, repeat(md5(g::text), 16) FROM generate_series(20001, 25000) g;
RELEASE three;
COMMIT;
SELECT * FROM compare();
SELECT left(redis_get('l:1'), 2), left(redis_get('l:4500'), 2), left(redis_get('l:9500'), 2), redis_exists('l:16000');

-- everything taken back
BEGIN;
SAVEPOINT a;
UPDATE l SET v = 'x' || v;
ROLLBACK TO a;
COMMIT;
SELECT * FROM compare();
BEGIN;
UPDATE l SET v = 'x' || v;
ROLLBACK;
SELECT * FROM compare();

-- key moves through more than one piece
UPDATE l SET id = id + 1;
SELECT * FROM compare();
UPDATE l SET id = id - 1;
SELECT * FROM compare();

-- prepared, in pieces
BEGIN;
UPDATE l SET v = 'p' || v;
PREPARE TRANSACTION 'hybrid_cache_large';
COMMIT PREPARED 'hybrid_cache_large';
SELECT * FROM compare();
SELECT left(redis_get('l:1'), 2);
DELETE FROM l;
SELECT * FROM compare();

-- longer than a Redis string can be: the entry goes, the commit goes on
INSERT INTO l VALUES (1, 'short');
SELECT * FROM compare();
SELECT oversize AS before FROM hybrid_cache.status \gset
RESET client_min_messages;
BEGIN;
UPDATE l SET v = 'shorter';
UPDATE l SET v = repeat('x', 512 * 1024 * 1024 + 1);
COMMIT;
SELECT length(v) FROM l;
SELECT hybrid_cache.wait_for_sync('60s'), redis_exists('l:1'), oversize - :before AS counted FROM hybrid_cache.status;
UPDATE l SET v = 'short again';
SELECT * FROM compare();
SET client_min_messages = warning;
SELECT hybrid_cache.detach('l', 'l_string');
DO $$ BEGIN WHILE EXISTS (SELECT FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
DROP TABLE l;
DROP FUNCTION compare();
DROP EXTENSION hybrid_cache;
