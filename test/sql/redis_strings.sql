-- Strings: set, get, getdel, mget, incrby, incrbyfloat.
CREATE EXTENSION hybrid_cache;

-- text and bytes at the same keys
SELECT redis_set('t', 'täxt'), redis_set('b', '\x00ff'::bytea), redis_set('both', 'abc'::bytea);
SELECT redis_get('t'), redis_get_bytea('t'), redis_get_bytea('b'), redis_get('both');
SELECT redis_set('b', '\x01'::bytea, ex => 100), redis_ttl('b'), redis_set('b', '\x02'::bytea, nx => true), redis_get_bytea('b');
-- without a type it is text, also as a parameter
PREPARE set_it AS SELECT redis_set($1, $2);
EXECUTE set_it('p', '\x00');
SELECT redis_get('p');

-- reading and removing at once
SELECT redis_getdel('t'), redis_getdel('t'), redis_getdel_bytea('b'), redis_exists('t', 'b');

-- counting
SELECT redis_incrby('n'), redis_incrby('n', 41), redis_incrby(key => 'n', increment => -2), redis_get('n');
SELECT redis_incrbyfloat('f', 10.5), redis_incrbyfloat('f', -0.25), redis_get('f');
SELECT redis_incrby('max', 9223372036854775807);

-- many keys, in their order, also twice, also those that are not there
SELECT redis_set('k' || i, 'v' || i) FROM generate_series(1, 3) i;
SELECT * FROM redis_mget(ARRAY['k2', 'x', 'k1', 'k2', 'k3']);
SELECT * FROM redis_mget('{}');
SELECT * FROM redis_mget(NULL);
SELECT * FROM redis_mget('{{k1,k2},{k3,x}}');
SELECT redis_set('b', '\x00ff'::bytea);
SELECT * FROM redis_mget_bytea('{b,k1,x}');
-- another type has no string
SELECT redis_sadd('set', 'm');
SELECT * FROM redis_mget('{set,k1}');

-- a join: one row for each
CREATE TABLE item (id int PRIMARY KEY, name text);
INSERT INTO item VALUES (1, 'one'), (2, 'two'), (4, 'four');
SELECT id, name, value FROM item
LEFT JOIN redis_mget(ARRAY(SELECT 'k' || id FROM item)) m ON m.key = 'k' || id ORDER BY id;

-- 10,000 keys are ten commands, which are sent together
SELECT count(*) FROM generate_series(1, 10000) i WHERE redis_set('many' || i, i::text);
SELECT redis_command('CONFIG', 'RESETSTAT');
SELECT count(*), count(value), sum(value::int), bool_and(key = 'many' || value)
FROM redis_mget(ARRAY(SELECT 'many' || i FROM generate_series(1, 10000) i));
SELECT substring(redis_command('INFO', 'commandstats') #>> '{}' FROM 'cmdstat_mget:calls=(\d+)') AS commands;

-- 1,000,000 keys
CREATE TABLE million AS SELECT array_agg('many' || i) AS keys FROM generate_series(1, 1000000) i;
SELECT count(*), count(value) FROM million, redis_mget(keys);
SELECT redis_exists(VARIADIC keys), redis_del(VARIADIC keys), redis_unlink(VARIADIC keys) FROM million;
-- they can be ended, wherever they are
\set SHOW_CONTEXT never
SET statement_timeout = '300ms';
SELECT sum(redis_exists(VARIADIC keys)) FROM million, generate_series(1, 100);
RESET statement_timeout;
SELECT redis_get('k1');

-- large values: fewer of them at a time
SELECT redis_set('large' || i, repeat('0123456789', 100000)) FROM generate_series(1, 30) i;
SELECT count(*), sum(length(value)) FROM redis_mget(ARRAY(SELECT 'large' || i % 30 + 1 FROM generate_series(1, 60) i));

-- what the planner expects
CREATE FUNCTION expected_rows(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
	RETURN plan -> 0 -> 'Plan' ->> 'Plan Rows';
END
$$;
SELECT expected_rows($$SELECT * FROM redis_mget('{a,b,c}')$$),
	expected_rows($$SELECT * FROM redis_mget(ARRAY['a', now()::text])$$),
	expected_rows($$SELECT * FROM redis_mget('{}')$$),
	expected_rows($$SELECT * FROM redis_mget(ARRAY(SELECT i::text FROM generate_series(1, 500) i))$$);

-- the prefix of keys comes back off
SET hybrid_cache.key_prefix = 'app:';
SELECT redis_set('k1', 'mine'), redis_incrby('n');
SELECT * FROM redis_mget('{k1,k2,n}');
SELECT redis_getdel('k1'), redis_command('GET', 'k1');
RESET hybrid_cache.key_prefix;
