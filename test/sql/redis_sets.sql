-- Sets: sadd, srem, smembers, sismember.
CREATE EXTENSION hybrid_cache;

SELECT redis_sadd('s', 'a', 'b', 'a', ''), redis_sadd('s', 'b', 'c');
SELECT redis_smembers('s') AS member ORDER BY member;
SELECT redis_smembers('x');
SELECT redis_sismember('s', 'a'), redis_sismember('s', 'x'), redis_sismember('x', 'a'), redis_sismember('s', NULL::text);
SELECT redis_srem('s', 'a', 'x'), redis_srem('x', 'a'), redis_sadd('s', VARIADIC '{}'::text[]), redis_srem('s', VARIADIC '{}'::text[]);

-- bytes
SELECT redis_sadd('raw', '\x00ff'::bytea, '\x01'::bytea), redis_sismember('raw', '\x00ff'::bytea), redis_sismember('raw', '\x02'::bytea);
SELECT redis_smembers_bytea('raw') AS member ORDER BY member;
SELECT redis_srem('raw', '\x00ff'::bytea), redis_smembers_bytea('raw');

-- more members than a command has, and a join
SELECT redis_sadd('big', VARIADIC ARRAY(SELECT i::text FROM generate_series(1, 25000) i)),
	redis_sadd('big', VARIADIC ARRAY(SELECT i::text FROM generate_series(24001, 26000) i));
SELECT count(*) FROM redis_smembers('big') member JOIN generate_series(1, 100000) i ON i::text = member;
SELECT redis_srem('big', VARIADIC ARRAY(SELECT i::text FROM generate_series(1, 100000) i)), redis_exists('big');

SET hybrid_cache.key_prefix = 'app:';
SELECT redis_sadd('s', 'mine');
SELECT redis_smembers('s'), redis_command('SMEMBERS', 'app:s');
SELECT redis_sismember('s', 'mine'), redis_srem('s', 'mine'), redis_command('EXISTS', 'app:s');
RESET hybrid_cache.key_prefix;
