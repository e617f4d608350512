-- Sorted sets: zadd, zincrby, zrem, zscore, zrank, zrange, zrangebyscore.
CREATE EXTENSION hybrid_cache;

SELECT redis_zadd('z', 1, 'a'), redis_zadd('z', 2.5, 'b'), redis_zadd('z', '-inf', 'low'), redis_zadd('z', 'inf', 'high'),
	redis_zadd('z', 0.1, 'a');
PREPARE add_it AS SELECT redis_zadd($1, $2, $3);
EXECUTE add_it('z', '3', 'c');
SELECT * FROM redis_zrange('z', 0, -1);
SELECT * FROM redis_zrange('z', 1, 2, rev => true);
SELECT * FROM redis_zrange('z', -2, -1);
SELECT * FROM redis_zrange('z', 10, 20);
SELECT * FROM redis_zrange('x', 0, -1);

-- options
SELECT redis_zadd('z', 9, 'a', nx => true), redis_zadd('z', 9, 'new', xx => true), redis_zscore('z', 'a'), redis_zscore('z', 'new');
SELECT redis_zadd('z', 4, 'a', ch => true), redis_zadd('z', 3, 'a', gt => true, ch => true), redis_zadd('z', 3, 'a', lt => true, ch => true),
	redis_zscore('z', 'a');

SELECT redis_zincrby('z', 1.25, 'b'), redis_zincrby('z', 7, 'd'), redis_zrank('z', 'low'), redis_zrank('z', 'd'), redis_zrank('z', 'x'), redis_zrank('x', 'a');

-- by score: numbers, or what Redis takes
SELECT * FROM redis_zrangebyscore('z', 3, 7);
SELECT * FROM redis_zrangebyscore('z', '(3', '+inf');
SELECT * FROM redis_zrangebyscore('z', '-inf', 7::float8);
SELECT * FROM redis_zrangebyscore('z', 3, 7, rev => true, count => 2);
SELECT * FROM redis_zrangebyscore('z', '-inf', 'inf', "offset" => 4);
SELECT * FROM redis_zrangebyscore('z', '-inf', 'inf', false, 1, 2);
SELECT * FROM redis_zrangebyscore('z', 7, 3);

SELECT redis_zrem('z', 'low', 'high', 'x'), redis_zrem('x', 'a'), redis_zrem('z', VARIADIC '{}');

-- many at once, each with its score; more than a command has
SELECT redis_zadd_many('big', array_agg(i::float8 / 2), array_agg('m' || i)) FROM generate_series(1, 5000) i;
SELECT redis_zadd_many('big', '{1,2}', '{m1,new}', ch => true), redis_zadd_many('big', '{5,6}', '{m1,m2}', nx => true), redis_zadd_many('big', '{}', '{}');
SELECT count(*), sum(score) FROM redis_zrange('big', 0, -1);
SELECT * FROM redis_zrange('big', 0, 2);

SELECT redis_zrem('big', VARIADIC ARRAY(SELECT 'm' || i FROM generate_series(1, 5000) i)), redis_zrange('big', 0, -1);

-- what the planner expects
CREATE FUNCTION expected_rows(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
	RETURN plan -> 0 -> 'Plan' ->> 'Plan Rows';
END
$$;
SELECT expected_rows($$SELECT * FROM redis_zrange('z', 0, 9)$$), expected_rows($$SELECT * FROM redis_zrange('z', -5, -1)$$),
	expected_rows($$SELECT * FROM redis_zrange('z', 0, -1)$$), expected_rows($$SELECT * FROM redis_zrange('z', 9, 0)$$);

SET hybrid_cache.key_prefix = 'app:';
SELECT redis_zadd('z', 1, 'mine'), redis_zincrby('z', 1, 'mine'), redis_zscore('z', 'mine'), redis_zrank('z', 'mine');
SELECT *, redis_command('ZRANGE', 'app:z', 0, -1) FROM redis_zrange('z', 0, -1);
SELECT * FROM redis_zrangebyscore('z', 0, 10);
SELECT redis_zrem('z', 'mine');
RESET hybrid_cache.key_prefix;
