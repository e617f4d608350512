-- Streams, messages and scripts: xadd, xrange, xlen, publish, eval.
CREATE EXTENSION hybrid_cache;

SELECT redis_xadd('x', '1-1', 'op', 'insert', 'n', '1'), redis_xadd('x', '1-2', 'op', 'update');
SELECT redis_xadd('x', '{"op": "delete", "n": 1.50, "yes": true, "nested": {"a": [1, null]}}', id => '2-1');
SELECT redis_xadd('x', fields => jsonb_build_object('name', 'Jörg', 'empty', ''), id => '2-2');
SELECT redis_xadd('x', '*', 'f', 'v') ~ '^\d{13,}-\d+$' AS one, redis_xadd('x', '{"f": "v"}') ~ '^\d{13,}-\d+$' AS two, redis_xlen('x'), redis_xlen('none');
SELECT * FROM redis_xrange('x', "end" => '2-2');
SELECT * FROM redis_xrange('x', '(1-1', '2-1');
SELECT id FROM redis_xrange('x', count => 2);
SELECT id FROM redis_xrange('x', '-', '2-2', 2, rev => true);
SELECT * FROM redis_xrange('x', count => 0);
SELECT * FROM redis_xrange('none');
SELECT fields ->> 'op' AS op, count(*) FROM redis_xrange('x') GROUP BY 1 ORDER BY 1;

-- it does not grow for ever
SELECT count(redis_xadd('short', jsonb_build_object('i', i), maxlen => 100)) FROM generate_series(1, 1000) i;
SELECT redis_xlen('short') BETWEEN 100 AND 300;
SELECT redis_xadd('short', '{"f": "v"}', maxlen => 0) IS NOT NULL;

-- what another client can write
SELECT redis_command('XADD', 'twice', '1-1', 'f', 1, 'f', 2), redis_command('XADD', 'raw', '1-1', 'f', '\x00'::bytea);
SELECT * FROM redis_xrange('twice');
SELECT * FROM redis_xrange('raw');

-- messages
SELECT redis_publish('channel', 'message'), redis_publish('channel', '\x00ff'::bytea), redis_publish('', '');

-- scripts
SELECT redis_eval('return 1'), redis_eval('return nil'), redis_eval('return {1, 2.9, "three", false, {true}}');
SELECT redis_eval('return {KEYS, ARGV}', '{k1,k2}', '{a,"",ü}');
SELECT redis_eval('return redis.call("SET", KEYS[1], ARGV[1])', ARRAY['k'], ARRAY['v']), redis_get('k');
SELECT redis_eval(args => '{x}', script => 'return ARGV[1]');
-- also after Redis has forgotten it
SELECT redis_command('SCRIPT', 'FLUSH'), redis_eval('return 1');

-- what the planner expects
CREATE FUNCTION expected_rows(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
	RETURN plan -> 0 -> 'Plan' ->> 'Plan Rows';
END
$$;
SELECT expected_rows($$SELECT * FROM redis_xrange('x', count => 33)$$), expected_rows($$SELECT * FROM redis_xrange('x')$$);

SET hybrid_cache.key_prefix = 'app:';
SELECT redis_xadd('x', '1-1', 'whose', 'mine'), redis_xlen('x'), redis_eval('return KEYS', '{a,b}');
SELECT *, redis_command('XLEN', 'app:x') FROM redis_xrange('x');
RESET hybrid_cache.key_prefix;
