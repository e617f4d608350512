--
-- redis_on_commit(): commands that are run after the commit
--
CREATE EXTENSION hybrid_cache;
\pset null NULL
\set VERBOSITY terse
CREATE FUNCTION failure(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE, message, NULLIF(detail, ''), NULLIF(hint, ''));
END
$$;

-- nothing before the commit, all of it after
BEGIN;
SELECT redis_on_commit('INCR', 'n');
SELECT redis_on_commit('RPUSH', 'l', 1, 2.50, true, '2026-01-02'::date, '\x00ff'::bytea, 'ü');
SELECT redis_exists('n', 'l');
COMMIT;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_get('n'), redis_command('LRANGE', 'l', 0, 3), redis_command('LINDEX', 'l', 5);
SELECT redis_command('LPOS', 'l', '\x00ff'::bytea);

-- a statement is a transaction, words may be in an array, and in lower case
SELECT redis_on_commit(VARIADIC ARRAY['incrby', 'n', '10']);
SELECT redis_on_commit('SeT', 'empty', '');
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_get('n'), redis_get('empty');

-- never if it is rolled back, also only in part
BEGIN;
SELECT redis_on_commit('INCR', 'n');
ROLLBACK;
BEGIN;
SELECT redis_on_commit('INCRBY', 'n', 100);
SAVEPOINT a;
SELECT redis_on_commit('INCRBY', 'n', 1000);
SAVEPOINT b;
SELECT redis_on_commit('INCRBY', 'n', 10000);
RELEASE b;
ROLLBACK TO a;
SELECT redis_on_commit('INCRBY', 'n', 100000);
COMMIT;
DO $$
BEGIN
	BEGIN
		PERFORM redis_on_commit('SET', 'n', 'wrong');
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM redis_on_commit('INCRBY', 'n', 1000000);
	END;
END
$$;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_get('n');

-- of a large transaction, too: these ops do not fit into one change record
BEGIN;
SELECT count(redis_on_commit('RPUSH', 'large', i, repeat('x', 1000))) FROM generate_series(1, 2000) i;
SAVEPOINT a;
SELECT count(redis_on_commit('RPUSH', 'large', -i, repeat('x', 1000))) FROM generate_series(1, 3000) i;
ROLLBACK TO a;
SELECT count(redis_on_commit('RPUSH', 'large', i, repeat('x', 1000))) FROM generate_series(2001, 3000) i;
COMMIT;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_command('LLEN', 'large');
SELECT array_agg(DISTINCT value::int - n) AS offsets FROM (
	SELECT value, (row_number() OVER ())::int AS n
	FROM jsonb_array_elements_text(redis_command('LRANGE', 'large', 0, -1))
		WITH ORDINALITY e (value, i) WHERE i % 2 = 1 ORDER BY i) large;

-- in order with the changes of rows: they see their transaction's, and no later one's
CREATE TABLE item (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('item', 'string', 'item:{id}', value => 'v', name => 'item');
SELECT hybrid_cache.wait_for_sync('60s');
BEGIN;
SELECT redis_on_commit('EVAL', $$redis.call('RPUSH', KEYS[2], redis.call('GET', KEYS[1]) or '-')$$, 2, 'item:1', 'seen');
INSERT INTO item VALUES (1, 'first');
COMMIT;
BEGIN;
UPDATE item SET v = 'second';
SELECT redis_on_commit('EVAL', $$redis.call('RPUSH', KEYS[2], redis.call('GET', KEYS[1]) or '-')$$, 2, 'item:1', 'seen');
UPDATE item SET v = 'third';
COMMIT;
DELETE FROM item;
SELECT redis_on_commit('EVAL', $$redis.call('RPUSH', KEYS[2], redis.call('GET', KEYS[1]) or '-')$$, 2, 'item:1', 'seen');
INSERT INTO item VALUES (1, 'fourth');
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_command('LRANGE', 'seen', 0, -1), redis_get('item:1');

-- in a function, a trigger, a query
CREATE FUNCTION count_item() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM redis_on_commit('HINCRBY', 'items', TG_OP, 1);
	RETURN NULL;
END
$$;
CREATE TRIGGER count AFTER INSERT OR DELETE ON item FOR EACH ROW EXECUTE FUNCTION count_item();
INSERT INTO item SELECT i FROM generate_series(2, 11) i;
DELETE FROM item WHERE id > 8;
INSERT INTO item VALUES (1, 'double') ON CONFLICT DO NOTHING;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT * FROM redis_hgetall('items') ORDER BY field;

-- what is wrong with it
SELECT failure($$SELECT redis_on_commit(NULL)$$);
SELECT failure($$SELECT redis_on_commit('SET', 'k', NULL)$$);
SELECT failure($$SELECT redis_on_commit(VARIADIC NULL::text[])$$);
SELECT failure($$SELECT redis_on_commit(VARIADIC '{}'::text[])$$);
SELECT failure($$SELECT redis_on_commit(VARIADIC '{INCR,NULL}'::text[])$$);
SELECT failure($$SELECT redis_on_commit('')$$);
SELECT failure($$SELECT redis_on_commit()$$);
SELECT command, failure(format('SELECT redis_on_commit(VARIADIC %L::text[])', string_to_array(command, ' ')))
FROM unnest(ARRAY['BLPOP l 0', 'subscribe c', 'MULTI', 'EXEC', 'SELECT 1', 'CLIENT REPLY OFF', 'WAIT 0 0',
	'GET k', 'xread COUNT 1 STREAMS s 0', 'FLUSHALL', 'flushdb ASYNC', 'CONFIG SET maxmemory 1', 'CLIENT KILL ID 1']) command;
SELECT failure($$SELECT redis_on_commit(VARIADIC array_fill('x'::text, ARRAY[1100000]))$$);
SELECT failure($$SET hybrid_cache.enabled = off; SELECT redis_on_commit('INCR', 'n')$$);
BEGIN READ ONLY;
SELECT redis_on_commit('INCR', 'n');
ROLLBACK;

-- what Redis refuses becomes a dead letter, one for each; the others go on
SELECT redis_set('text', 'not a number');
BEGIN;
SELECT redis_on_commit('INCR', 'text');
SELECT redis_on_commit('INCR', 'text');
SELECT redis_on_commit('INCR', 'n');
SELECT redis_on_commit('NOSUCHCOMMAND', 'a', 'b');
SELECT redis_on_commit('INCR');
SELECT redis_on_commit('RPUSH', 'text', 'a', '', '\x00ff'::bytea);
SELECT redis_on_commit('EVAL', 'return redis.call("NOSUCHCOMMAND")', 0, 'x');
SELECT redis_on_commit('EVAL', 'return redis.call("INCR", KEYS[1])', 1, 'text');
UPDATE item SET v = 'beside' WHERE id = 1;
COMMIT;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_get('n'), redis_get('item:1');
SELECT relation, mapping, op, key, member, split_part(error, ' ', 1) AS error, sqlstate, attempts, payload IS NOT NULL AS kept
FROM hybrid_cache.dead_letter ORDER BY op, key, id;

-- those who see what was refused do not see what is in it
CREATE ROLE regress_reader IN ROLE pg_read_all_stats;
CREATE ROLE regress_other;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_reader, regress_other;
GRANT EXECUTE ON FUNCTION hybrid_cache.retry_dead_letter TO regress_other;
SET ROLE regress_reader;
SELECT count(key) FROM hybrid_cache.dead_letter;
SELECT payload FROM hybrid_cache.dead_letter;
RESET ROLE;

-- once more: as it was
SELECT min(id) AS id FROM hybrid_cache.dead_letter WHERE op = 'RPUSH' \gset
SET ROLE regress_other;
SELECT hybrid_cache.retry_dead_letter(:id);
RESET ROLE;
SELECT redis_set('text', '7');
BEGIN;
SELECT count(hybrid_cache.retry_dead_letter(id)) FROM hybrid_cache.dead_letter WHERE op = 'INCR';
ROLLBACK;
SELECT count(hybrid_cache.retry_dead_letter(id)) FROM hybrid_cache.dead_letter WHERE op = 'INCR';
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_get('text');
SELECT redis_del('text');
SELECT bool_and(hybrid_cache.retry_dead_letter(id)) FROM hybrid_cache.dead_letter;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_command('LRANGE', 'text', 0, 1), redis_command('LPOS', 'text', '\x00ff'::bytea);
SELECT op, key, split_part(error, ' ', 1) AS error, attempts FROM hybrid_cache.dead_letter ORDER BY op, key, error;
DELETE FROM hybrid_cache.dead_letter;

-- a letter of an entry and one of an event with the same key
SELECT redis_on_commit('SET', 'event', '-');
CREATE TABLE board (id int PRIMARY KEY);
SELECT hybrid_cache.attach('board', 'set', 'event', member => '{id}', name => 'board');
INSERT INTO board VALUES (1);
SELECT redis_on_commit('SADD', 'event', '1');
UPDATE board SET id = 1;
SELECT redis_on_commit('SADD', 'event', '1');
SELECT hybrid_cache.wait_for_sync('60s');
SELECT relation, op, key, member, attempts, payload IS NOT NULL AS event FROM hybrid_cache.dead_letter ORDER BY id;

DELETE FROM hybrid_cache.dead_letter;

-- what a trigger emits is kept with the position of its commit; the owner of the
-- table may send it again
GRANT CREATE ON SCHEMA public TO regress_other;
GRANT EXECUTE ON FUNCTION hybrid_cache.attach, hybrid_cache.emit TO regress_other;
GRANT SELECT ON hybrid_cache.dead_letter TO regress_other;
SET ROLE regress_other;
CREATE TABLE emitting (id int PRIMARY KEY);
SELECT hybrid_cache.attach('emitting', 'stream', 'emitted', maxlen => 10),
	hybrid_cache.attach('emitting', 'list', 'pushed', push => 'left'),
	hybrid_cache.attach('emitting', 'publish', channel => 'emitted');
RESET ROLE;
SELECT redis_set('emitted', '-'), redis_set('pushed', '-');
INSERT INTO emitting VALUES (1), (2);
SELECT hybrid_cache.wait_for_sync('60s');
SELECT relation, op, key, member, attempts FROM hybrid_cache.dead_letter ORDER BY id;
SELECT lsn::text FROM hybrid_cache.dead_letter LIMIT 1 \gset
SELECT redis_del('pushed', 'emitted');
SET ROLE regress_other;
SELECT bool_and(hybrid_cache.retry_dead_letter(id)) FROM (SELECT id FROM hybrid_cache.dead_letter ORDER BY id) letters;
RESET ROLE;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT entry -> 1 ->> 7 AS data, entry -> 1 ->> 5 = :'lsn' AS lsn
FROM jsonb_array_elements(redis_command('XRANGE', 'emitted', '-', '+')) entry;
SELECT element::jsonb - 'lsn' AS element, element::jsonb ->> 'lsn' = :'lsn' AS lsn
FROM jsonb_array_elements_text(redis_command('LRANGE', 'pushed', 0, -1)) element;
SELECT count(*) FROM hybrid_cache.dead_letter;

-- who may
SET ROLE regress_other;
SELECT redis_on_commit('INCR', 'n');
RESET ROLE;
DROP OWNED BY regress_reader, regress_other;
DROP ROLE regress_reader, regress_other;
