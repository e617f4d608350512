-- Lists: lpush, rpush, lpop, rpop, lrange, llen.
CREATE EXTENSION hybrid_cache;

SELECT redis_rpush('l', 'b', 'c'), redis_lpush('l', 'a', 'z'), redis_llen('l'), redis_llen('x');
SELECT * FROM redis_lrange('l', 0, -1) WITH ORDINALITY;
SELECT redis_lrange('l', 1, 2);
SELECT redis_lrange('l', 10, 20);
SELECT redis_lrange('x', 0, -1);
SELECT redis_lpop('l'), redis_rpop('l'), redis_lpop('x'), redis_rpop('x');

-- several at once
SELECT redis_rpush('l', '1', '2', '3', '4') ;
SELECT redis_lpop('l', 3);
SELECT redis_rpop('l', 2);
SELECT redis_lpop('l', 0);
SELECT redis_lpop('l', 10);
SELECT redis_lpop('l', 10);
SELECT redis_exists('l');

-- nothing to push: the length all the same
SELECT redis_rpush('l', VARIADIC '{}'::text[]), redis_rpush('l', 'x'), redis_lpush('l', VARIADIC '{}'::text[]);

-- bytes
SELECT redis_rpush('raw', '\x00ff'::bytea, '\x01'::bytea), redis_lpush('raw', '\x02'::bytea);
SELECT redis_lrange_bytea('raw', 0, -1);
SELECT redis_lpop_bytea('raw'), redis_rpop_bytea('raw'), redis_lpop_bytea('x');
SELECT redis_lpop_bytea('raw', 5);
SELECT redis_rpush('raw', '\x00ff'::bytea);
SELECT redis_rpop_bytea('raw', 5);

-- more than a command has, in their order
SELECT redis_rpush('big', VARIADIC ARRAY(SELECT i::text FROM generate_series(1, 25000) i));
SELECT count(*), bool_and(element = n::text) FROM redis_lrange('big', 0, -1) WITH ORDINALITY AS l (element, n);
SELECT count(*) FROM redis_lpop('big', 20000);
SELECT redis_lrange('big', 0, 0), redis_llen('big');

SET hybrid_cache.key_prefix = 'app:';
SELECT redis_rpush('l', 'mine'), redis_lpush('l', 'first'), redis_llen('l'), redis_command('LRANGE', 'app:l', 0, -1);
SELECT redis_lrange('l', 0, -1);
SELECT redis_lpop('l'), redis_rpop('l');
RESET hybrid_cache.key_prefix;
