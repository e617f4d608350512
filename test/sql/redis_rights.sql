-- The grants for a reader, a writer, an operator and an owner of tables, as doc/reference.md has them.
CREATE EXTENSION hybrid_cache;
CREATE ROLE regress_nobody;
CREATE ROLE regress_reader;
CREATE ROLE regress_writer;
CREATE ROLE regress_operator;
CREATE ROLE regress_owner;

-- a reader of Redis, and of what the extension makes of tables
DO $$
BEGIN
	EXECUTE (SELECT format('GRANT EXECUTE ON FUNCTION %s TO regress_reader', string_agg(oid::regprocedure::text, ', '))
		FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND
			proname ~ '^redis_(ping|get|mget|exists|ttl|type|hget|hmget|hgetall|smembers|sismember|zscore|zrank|zrange|zrangebyscore|lrange|llen|xrange|xlen|geosearch|geosearch_member|geosearch_box)(_bytea)?$');
END $$;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_reader;
GRANT EXECUTE ON FUNCTION hybrid_cache.wait_for_sync, hybrid_cache.nearby, hybrid_cache.holds,
	hybrid_cache.get(regclass, name, "any"), hybrid_cache.get(regclass, name) TO regress_reader;

-- a writer, who can do that and change keys, take holds and locks, and ask for limits and cached results
GRANT regress_reader TO regress_writer;
DO $$
BEGIN
	EXECUTE (SELECT format('GRANT EXECUTE ON FUNCTION %s TO regress_writer', string_agg(oid::regprocedure::text, ', '))
		FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND
			proname ~ '^redis_(set|getdel|incrby|incrbyfloat|del|unlink|expire|hset|hdel|hincrby|sadd|srem|zadd|zadd_many|zincrby|zrem|lpush|rpush|lpop|rpop|xadd|publish)(_bytea)?$');
END $$;
GRANT EXECUTE ON FUNCTION hybrid_cache.hold, hybrid_cache.hold_or_fail, hybrid_cache.confirm,
	hybrid_cache.release, hybrid_cache.extend_hold, hybrid_cache.rate_limit, hybrid_cache.lock,
	hybrid_cache.unlock, hybrid_cache.extend_lock,
	hybrid_cache.cached(text, interval, text), hybrid_cache.cached(text, interval, text, "any") TO regress_writer;

-- an operator, who can do anything in Redis, see how it goes, and put things right
GRANT regress_writer, pg_read_all_stats TO regress_operator;
GRANT EXECUTE ON FUNCTION redis_command, redis_pipeline, redis_eval, redis_on_commit, redis_scan, redis_scan_bytea,
	hybrid_cache.mapping_list, hybrid_cache.populate, hybrid_cache.reconcile, hybrid_cache.cancel, hybrid_cache.orphans,
	hybrid_cache.purge, hybrid_cache.take_over, hybrid_cache.retry_dead_letter,
	hybrid_cache.pause_consumer, hybrid_cache.resume_consumer, hybrid_cache.drop_consumer,
	hybrid_cache.retry_message TO regress_operator;
GRANT SELECT ON hybrid_cache.mapping, hybrid_cache.run TO regress_operator;
GRANT DELETE ON hybrid_cache.dead_letter TO regress_operator;
GRANT SELECT, DELETE ON hybrid_cache.leftover, hybrid_cache.dead_message TO regress_operator;

-- an owner of tables, who may map them and send their events, have streams handled, and bridge channels
GRANT USAGE ON SCHEMA hybrid_cache TO regress_owner;
GRANT EXECUTE ON FUNCTION hybrid_cache.attach, hybrid_cache.detach,
	hybrid_cache.write_through, hybrid_cache.invalidate, hybrid_cache.emit,
	hybrid_cache.mapping_list, hybrid_cache.populate, hybrid_cache.reconcile, hybrid_cache.cancel, hybrid_cache.orphans,
	hybrid_cache.retry_dead_letter, redis_on_commit,
	hybrid_cache.consume, hybrid_cache.pause_consumer, hybrid_cache.resume_consumer, hybrid_cache.drop_consumer,
	hybrid_cache.retry_message, hybrid_cache.bridge, hybrid_cache.drop_bridge TO regress_owner;
GRANT SELECT ON hybrid_cache.mapping TO regress_owner;

-- who may what, each with what the one before may
WITH granted AS (
	SELECT oid::regprocedure::text AS function, has_function_privilege('regress_nobody', oid, 'EXECUTE') AS nobody,
		has_function_privilege('regress_reader', oid, 'EXECUTE') AS reader,
		has_function_privilege('regress_writer', oid, 'EXECUTE') AS writer,
		has_function_privilege('regress_operator', oid, 'EXECUTE') AS operator,
		has_function_privilege('regress_owner', oid, 'EXECUTE') AS owner
	FROM pg_proc WHERE proname ~ '^redis_' OR pronamespace = 'hybrid_cache'::regnamespace)
SELECT CASE WHEN nobody THEN 'PUBLIC' WHEN reader THEN 'reader' WHEN writer THEN 'writer' WHEN operator THEN 'operator' ELSE 'others' END AS from,
	owner, function
FROM granted ORDER BY nobody DESC, reader DESC, writer DESC, operator DESC, function COLLATE "C";

SET ROLE regress_nobody;
SELECT redis_get('k');
SET ROLE regress_reader;
SELECT redis_get('k'), redis_ttl('k');
SELECT * FROM redis_mget('{k}');
SELECT redis_set('k', 'v');
SELECT redis_pipeline('[["SET", "k", "v"]]');
SET ROLE regress_writer;
SELECT redis_set('k', 'v'), redis_set('k', '\x01'::bytea), redis_lpush('l', 'e'), redis_get('k') = E'\x01';
SELECT allowed FROM hybrid_cache.rate_limit('k', 10, '1 minute');
SELECT redis_eval('return 1');
SELECT redis_command('FLUSHALL');
SET ROLE regress_operator;
SELECT redis_command('LLEN', 'l'), redis_eval('return 1'), count(*) FROM hybrid_cache.status GROUP BY 1, 2;
SELECT * FROM hybrid_cache.mapping;
-- holds, limits, locks, cached results and commands, each by who may
RESET ROLE;
CREATE SCHEMA regress_seats AUTHORIZATION regress_owner;
GRANT USAGE ON SCHEMA regress_seats TO regress_reader;
SET ROLE regress_owner;
CREATE TABLE regress_seats.seat (number text PRIMARY KEY, status text DEFAULT 'free', buyer text);
INSERT INTO regress_seats.seat VALUES ('A1'), ('A2');
GRANT SELECT ON regress_seats.seat TO regress_reader;
GRANT UPDATE ON regress_seats.seat TO regress_writer;
SELECT hybrid_cache.attach('regress_seats.seat', 'field', 'seats', field => '{number}', value => 'status');
SELECT hybrid_cache.attach('regress_seats.seat', 'stream', 'seat-events');
SELECT checked, conflicting FROM hybrid_cache.reconcile('regress_seats.seat', 'seat_field');
CREATE FUNCTION regress_seats.handle(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
SELECT hybrid_cache.consume('seat-orders', 'regress_seats.handle(text, jsonb)', 'regress_orders', max_attempts => 1);
SELECT hybrid_cache.bridge('regress:*', 'regress');
SELECT redis_on_commit('INCR', 'seats-mapped');
SELECT redis_command('FLUSHALL');
SET ROLE regress_writer;
SELECT * FROM hybrid_cache.hold('seats', '{A1, A2}', 'order-1', '1 minute', free => 'free');
BEGIN;
SELECT hybrid_cache.confirm('seats', 'order-1');
UPDATE regress_seats.seat SET status = 'sold', buyer = 'order-1' WHERE number IN ('A1', 'A2') AND status = 'free';
COMMIT;
SELECT hybrid_cache.extend_hold('seats', 'order-2', '1 minute'), hybrid_cache.release('seats', 'order-2');
SELECT hybrid_cache.unlock('l', hybrid_cache.lock('l', '1 minute'));
SELECT hybrid_cache.cached('c', '1 minute', 'SELECT $1 + 1 AS two', 1);
SELECT redis_xadd('seat-orders', '{"order": 1}') IS NOT NULL AS added;
SELECT redis_on_commit('INCR', 'k');
SELECT hybrid_cache.reconcile('regress_seats.seat', 'seat_field');
SET ROLE regress_reader;
SELECT hybrid_cache.wait_for_sync(NULL), hybrid_cache.get('regress_seats.seat', 'seat_field');
SELECT item, holder, state FROM hybrid_cache.holds('seats') ORDER BY item;
SELECT hybrid_cache.release('seats', 'order-1');
SELECT hybrid_cache.cached('c', '1 minute', 'SELECT 1');
SET ROLE regress_operator;
DO $$
BEGIN
	FOR i IN 1..600 LOOP
		EXIT WHEN EXISTS (SELECT FROM hybrid_cache.dead_message);
		PERFORM pg_sleep(0.05);
	END LOOP;
END $$;
SELECT consumer, fields, error FROM hybrid_cache.dead_message;
SELECT name, role, state, dead FROM hybrid_cache.consumers;
SELECT pattern, channel FROM hybrid_cache.bridges;
SELECT name, kind FROM hybrid_cache.mapping ORDER BY name;
SELECT count(*) FROM hybrid_cache.run WHERE kind IS NOT NULL;
SELECT payload FROM hybrid_cache.dead_letter;
SELECT hybrid_cache.pause_consumer('regress_orders');
SELECT hybrid_cache.populate('regress_seats.seat', 'seat_field');
RESET ROLE;
GRANT regress_owner TO regress_operator;
SET ROLE regress_operator;
SELECT hybrid_cache.pause_consumer('regress_orders');
DELETE FROM hybrid_cache.dead_message WHERE consumer = 'regress_orders';
DELETE FROM hybrid_cache.dead_letter WHERE id = 1;
DELETE FROM hybrid_cache.leftover WHERE id = 1;
SELECT count(*) FROM hybrid_cache.take_over();
SELECT checked, conflicting FROM hybrid_cache.reconcile('regress_seats.seat', 'seat_field');
SELECT hybrid_cache.drop_consumer('regress_orders');
SET ROLE regress_owner;
SELECT hybrid_cache.drop_bridge('regress:*', 'regress');
SELECT hybrid_cache.detach('regress_seats.seat', 'seat_stream');
RESET ROLE;

DROP OWNED BY regress_nobody, regress_reader, regress_writer, regress_operator, regress_owner;
DROP ROLE regress_nobody, regress_reader, regress_writer, regress_operator, regress_owner;
