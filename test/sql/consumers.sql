--
-- consumers: who may, bad input, messages of every form, dead messages
--
CREATE EXTENSION hybrid_cache;
CREATE ROLE regress_app;
CREATE ROLE regress_other;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_app, regress_other;
GRANT EXECUTE ON FUNCTION hybrid_cache.consume, hybrid_cache.pause_consumer,
	hybrid_cache.resume_consumer, hybrid_cache.drop_consumer, hybrid_cache.retry_message
	TO regress_app, regress_other;
\set VERBOSITY terse
\pset null NULL

-- waits until a query returns true
CREATE PROCEDURE wait_until(query text) LANGUAGE plpgsql AS $$
DECLARE
	done boolean;
BEGIN
	FOR i IN 1 .. 3000 LOOP
		EXECUTE query INTO done;
		EXIT WHEN done;
		COMMIT;
		PERFORM pg_sleep(0.02);
	END LOOP;
	IF done IS NOT TRUE THEN
		RAISE EXCEPTION 'never: %', query;
	END IF;
END
$$;

CREATE TABLE got (n bigserial, handler text, id text, fields jsonb);
GRANT ALL ON got, got_n_seq TO regress_app, regress_other;
CREATE FUNCTION on_message(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF fields ? 'fail' THEN
		RAISE EXCEPTION 'no: %', fields->>'fail' USING ERRCODE = 'XX123';
	END IF;
	INSERT INTO got (handler, id, fields) VALUES (current_user, id, fields);
END
$$;

-- bad input
SELECT hybrid_cache.consume(NULL, 'on_message(text, jsonb)', 'c');
SELECT hybrid_cache.consume('s', NULL, 'c');
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', NULL);
SELECT hybrid_cache.consume('', 'on_message(text, jsonb)', 'c');
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', '');
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c', batch => 0);
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c', batch => 10001);
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c', batch => NULL);
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c', max_attempts => 0);
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c', start => NULL);
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c', start => '-1');
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c', start => '1-2-3');
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c', start => '18446744073709551616');
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c', start => '5-0');
SELECT hybrid_cache.consume('s', 'nothing(text, jsonb)', 'c');
SELECT hybrid_cache.consume('s', 4294967295::oid::regprocedure, 'c');
CREATE FUNCTION wrong_arguments(id text, fields json) RETURNS void LANGUAGE sql AS '';
SELECT hybrid_cache.consume('s', 'wrong_arguments(text, json)', 'c');
SELECT hybrid_cache.consume('s', 'jsonb_object_agg("any", "any")', 'c');
SELECT redis_set('string', 'x');
\set VERBOSITY sqlstate
SELECT hybrid_cache.consume('string', 'on_message(text, jsonb)', 'c', start => '$');
\set VERBOSITY terse
SELECT hybrid_cache.pause_consumer(NULL);
SELECT hybrid_cache.pause_consumer('c');
SELECT hybrid_cache.resume_consumer('c');
SELECT hybrid_cache.drop_consumer('c');
SELECT hybrid_cache.retry_message('c', '1-0');

-- every form of message
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c');
SELECT hybrid_cache.consume('s', 'on_message(text, jsonb)', 'c');
SELECT redis_command('XADD', 's', '1-0', 'a', '1', 'b', '{"x": 2}');
SELECT redis_command('XADD', 's', '1-1', 'same', 'first', 'same', 'last');
SELECT redis_command('XADD', 's', '1-2', '', '');
SELECT redis_command('XADD', 's', '2-0', E'\u00e4', E'\u20ac \U0001F600');
SELECT redis_command('XADD', 's', '3-0', 'fail', 'always', 'a', '1');
SELECT redis_command('XADD', 's', '4-0', 'binary', '\xff00fe'::bytea);
SELECT redis_command('XADD', 's', '5-0', '\x61007a'::bytea, 'x');
SELECT redis_command('XADD', 's', '6-0', 'last', 'one');
SELECT count(redis_command('XADD', 's', '18446744073709551615-' || i, 'i', i)) FROM generate_series(1, 250) i;
CALL wait_until($$SELECT last_id = '18446744073709551615-250' FROM hybrid_cache.consumers$$);
SELECT id, fields FROM got WHERE NOT fields ? 'i' ORDER BY n;
SELECT count(*), count(DISTINCT id), bool_and((fields->>'i')::int = i)
FROM (SELECT *, row_number() OVER (ORDER BY n) AS i FROM got WHERE fields ? 'i') g;
SELECT consumer, message, fields, raw, error, sqlstate, attempts, retry
FROM hybrid_cache.dead_message ORDER BY id;
SELECT name, stream, handler, state, last_id, lag, behind, processed, dead, batch, max_attempts, attempts, error, sqlstate, error_at
FROM hybrid_cache.consumers;
SELECT redis_command('XPENDING', 's', 'c')->0 AS pending;

-- dead messages are tried again, when that is asked for
SELECT hybrid_cache.retry_message('c', NULL);
SELECT hybrid_cache.retry_message('c', '9-9');
SELECT hybrid_cache.retry_message('c', '4-0') AS binary;
SELECT hybrid_cache.retry_message('c', '3-0');
CALL wait_until($$SELECT attempts = 4 AND NOT retry FROM hybrid_cache.dead_message WHERE message = '3-0'$$);
CREATE OR REPLACE FUNCTION on_message(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO got (handler, id, fields) VALUES ('new', id, fields);
END
$$;
SELECT hybrid_cache.retry_message('c', '3-0');
CALL wait_until($$SELECT count(*) = 0 FROM hybrid_cache.dead_message WHERE message = '3-0'$$);
SELECT handler, id, fields FROM got WHERE fields ? 'fail';

-- nothing of that is there if the transaction is rolled back
BEGIN;
SELECT hybrid_cache.drop_consumer('c');
SELECT count(*) FROM hybrid_cache.consumers;
ROLLBACK;
BEGIN;
SELECT hybrid_cache.pause_consumer('c');
ROLLBACK;
SELECT hybrid_cache.drop_consumer('c');
SELECT count(*) FROM hybrid_cache.consumers;
SELECT redis_command('XINFO', 'GROUPS', 's');

-- begin at the end, or behind a message; a procedure; another stream
CREATE PROCEDURE as_procedure(id text, fields jsonb) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO got (handler, id, fields) VALUES ('procedure', id, fields);
END
$$;
SELECT redis_command('XADD', 'p', i || '-0', 'i', i) FROM generate_series(1, 3) i;
SELECT hybrid_cache.consume('p', 'as_procedure(text, jsonb)', 'end', start => '$');
SELECT hybrid_cache.consume('p', 'as_procedure(text, jsonb)', 'second', start => '2');
SELECT redis_command('XADD', 'p', '4-0', 'i', '4');
CALL wait_until($$SELECT count(*) = 3 FROM got WHERE handler = 'procedure'$$);
SELECT id, count(*) FROM got WHERE handler = 'procedure' GROUP BY id ORDER BY id;
SELECT hybrid_cache.consume('p', 'on_message(text, jsonb)', 'end', batch => 7, replace => true);
SELECT name, handler, last_id, batch FROM hybrid_cache.consumers ORDER BY name;
SELECT hybrid_cache.consume('q', 'on_message(text, jsonb)', 'end', replace => true);
SELECT name, stream, last_id FROM hybrid_cache.consumers ORDER BY name;
SELECT hybrid_cache.drop_consumer('second');

-- a key of another type; then it is a stream
SELECT hybrid_cache.consume('string', 'on_message(text, jsonb)', 'end', replace => true);
CALL wait_until($$SELECT state = 'failing' FROM hybrid_cache.consumers$$);
SELECT substring(error FROM 'WRONGTYPE.*') AS error, sqlstate FROM hybrid_cache.consumers;
SELECT redis_del('string');
SELECT redis_command('XADD', 'string', '1-0', 'now', 'it is');
CALL wait_until($$SELECT last_id = '1-0' AND state = 'active' FROM hybrid_cache.consumers$$);

-- paused
SELECT hybrid_cache.pause_consumer('end');
SELECT redis_command('XADD', 'string', '2-0', 'while', 'paused');
SELECT name, state, last_id, lag FROM hybrid_cache.consumers;
SELECT hybrid_cache.resume_consumer('end');
CALL wait_until($$SELECT last_id = '2-0' FROM hybrid_cache.consumers$$);
SELECT hybrid_cache.drop_consumer('end');

-- the rights are those of who called consume()
SET ROLE regress_app;
SELECT hybrid_cache.consume('r', 'on_message(text, jsonb)', 'mine');
SELECT * FROM hybrid_cache.consumer;
SELECT * FROM hybrid_cache.consumers;
SET ROLE regress_other;
SELECT hybrid_cache.pause_consumer('mine');
SELECT hybrid_cache.resume_consumer('mine');
SELECT hybrid_cache.drop_consumer('mine');
SELECT hybrid_cache.retry_message('mine', '1-0');
SELECT hybrid_cache.consume('r', 'on_message(text, jsonb)', 'mine', replace => true);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION on_message FROM PUBLIC;
SET ROLE regress_other;
SELECT hybrid_cache.consume('r', 'on_message(text, jsonb)', 'theirs');
RESET ROLE;
GRANT EXECUTE ON FUNCTION on_message TO regress_app;
CREATE OR REPLACE FUNCTION on_message(id text, fields jsonb) RETURNS void LANGUAGE sql AS $$
	INSERT INTO got (handler, id, fields) VALUES (current_user, id, fields)
$$;
SELECT redis_command('XADD', 'r', '1-0', 'whose', 'app');
CALL wait_until($$SELECT processed = 1 FROM hybrid_cache.consumers$$);
SELECT handler, fields FROM got WHERE fields ? 'whose';
SET ROLE regress_app;
SELECT hybrid_cache.drop_consumer('mine');
RESET ROLE;
SELECT count(*) FROM hybrid_cache.consumers;

-- clean up
DROP EXTENSION hybrid_cache;
DROP OWNED BY regress_app, regress_other;
DROP ROLE regress_app;
DROP ROLE regress_other;
