-- Hashes: hset, hget, hmget, hgetall, hdel, hincrby.
CREATE EXTENSION hybrid_cache;

SELECT redis_hset('h', 'a', '1', 'b', 'zwei', 'c', ''), redis_hset('h', 'a', '2', 'd', '4');
SELECT redis_hget('h', 'a'), redis_hget('h', 'c'), redis_hget('h', 'x'), redis_hget('x', 'a');
SELECT * FROM redis_hgetall('h') ORDER BY field;
SELECT * FROM redis_hmget('h', 'b', 'x', 'a', 'b');
SELECT * FROM redis_hmget('x', 'a');
SELECT * FROM redis_hmget('h', VARIADIC '{}');
SELECT * FROM redis_hmget('h', VARIADIC NULL);

-- bytes
SELECT redis_hset('h', 'raw', '\x00ff'::bytea), redis_hset('h', 'raw', '\x00ff00'::bytea);
SELECT redis_hget_bytea('h', 'raw'), redis_hget_bytea('h', 'x'), redis_hget_bytea('h', 'b');
SELECT * FROM redis_hmget_bytea('h', 'raw', 'x');
SELECT * FROM redis_hgetall_bytea('h') ORDER BY field;

SELECT redis_hincrby('h', 'a', 40), redis_hincrby('h', 'new'), redis_hget('h', 'a');
SELECT redis_hdel('h', 'a', 'b', 'x'), redis_hdel('x', 'a'), redis_hdel('h', VARIADIC '{}');

-- a hash of a query, with more fields than a command has
SELECT redis_hset('big', VARIADIC array_agg(w ORDER BY i, n))
FROM generate_series(1, 5000) i, LATERAL (VALUES (1, 'f' || i), (2, i::text)) v (n, w);
SELECT count(*), sum(value::int), bool_and(field = 'f' || value) FROM redis_hgetall('big');
SELECT count(*), sum(value::int) FROM redis_hmget('big', VARIADIC ARRAY(SELECT 'f' || i FROM generate_series(1, 6000) i));
SELECT redis_hdel('big', VARIADIC ARRAY(SELECT 'f' || i FROM generate_series(1, 6000) i)), redis_exists('big');

SET hybrid_cache.key_prefix = 'app:';
SELECT redis_hset('h', 'mine', 'x'), redis_hincrby('h', 'n', 2);
SELECT * FROM redis_hmget('h', 'mine', 'n', 'd');
SELECT redis_command('HGETALL', 'app:h'), redis_hdel('h', 'mine', 'n');
RESET hybrid_cache.key_prefix;
