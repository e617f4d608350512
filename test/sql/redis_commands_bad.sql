-- What the commands refuse, and how.
CREATE EXTENSION hybrid_cache;

CREATE FUNCTION failure(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
	result text;
BEGIN
	EXECUTE 'SELECT string_agg(x::text, $1) FROM ' || command || ' x' INTO result USING ', ';
	RETURN 'no error: ' || coalesce(result, 'null');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE,
		regexp_replace(message, 'server ".*?"', 'server "..."'),
		NULLIF(detail, ''), NULLIF(hint, ''));
END
$$;
\pset format unaligned
\pset tuples_only on

SELECT redis_set('s', 'text'), redis_hset('h', 'f', 'v'), redis_set('raw', '\x00ff'::bytea), redis_sadd('rawset', '\xff'::bytea);

-- reading with null is null, or no rows
SELECT call || ': ' || failure(call) FROM unnest(ARRAY[
	'redis_get(NULL)', 'redis_get_bytea(NULL)', 'redis_mget(NULL)', 'redis_exists(VARIADIC NULL)', 'redis_ttl(NULL)', 'redis_type(NULL)',
	$$redis_hget('h', NULL)$$, 'redis_hgetall(NULL)', $$redis_hmget(NULL, 'f')$$, 'redis_smembers(NULL)', $$redis_sismember('s', NULL::text)$$,
	$$redis_zscore(NULL, 'm')$$, $$redis_zrank('z', NULL)$$, $$redis_zrange('z', NULL, 1)$$, $$redis_lrange('l', 0, NULL)$$, 'redis_llen(NULL)',
	'redis_xlen(NULL)']) call;

-- writing with null is an error
SELECT call || ': ' || failure(call) FROM unnest(ARRAY[
	$$redis_set(NULL, 'v')$$, $$redis_set('k', NULL)$$, $$redis_set('k', NULL::bytea)$$, 'redis_getdel(NULL)', 'redis_incrby(NULL)', $$redis_incrby('k', NULL)$$, $$redis_incrbyfloat('k', NULL)$$,
	'redis_del(VARIADIC NULL)', 'redis_unlink(VARIADIC NULL)', $$redis_del('a', NULL)$$, $$redis_expire('k', NULL)$$,
	$$redis_hset('h', VARIADIC NULL)$$, $$redis_hset(NULL, 'f', 'v')$$, $$redis_hset('h', 'f', NULL)$$, $$redis_hset('h', 'f', NULL::bytea)$$, $$redis_hdel('h', NULL)$$, $$redis_hincrby('h', NULL)$$,
	$$redis_sadd('k', NULL)$$, $$redis_sadd('k', VARIADIC NULL::text[])$$, $$redis_sadd(NULL, 'm')$$, $$redis_srem(NULL, 'm')$$,
	$$redis_zadd('z', NULL, 'm')$$, $$redis_zadd('z', 1, NULL)$$, $$redis_zadd_many('z', NULL, '{m}')$$, $$redis_zadd_many('z', '{1}', NULL)$$, $$redis_zadd_many('z', '{NULL}', '{m}')$$, $$redis_zadd_many('z', '{1}', '{NULL}')$$,
	$$redis_zincrby('z', NULL, 'm')$$, $$redis_zrem('z', NULL)$$,
	$$redis_lpush('l', NULL)$$, $$redis_rpush(NULL, 'e')$$, 'redis_lpop(NULL)', $$redis_lpop('l', NULL)$$, 'redis_rpop_bytea(NULL, 1)',
	$$redis_xadd('x', '*', 'f', NULL)$$, $$redis_xadd(NULL, '{"f": 1}')$$, $$redis_xadd('x', NULL::jsonb)$$, $$redis_xadd('x', '{"f": null}')$$, 'redis_xrange(NULL)',
	$$redis_publish('c', NULL)$$, $$redis_publish(NULL, 'm')$$, 'redis_eval(NULL)', $$redis_eval('return 1', NULL)$$, $$redis_eval('return 1', '{NULL}')$$, $$redis_eval('return 1', '{}', '{NULL}')$$,
	$$redis_mget('{a,NULL}')$$, $$redis_hmget('h', NULL)$$, $$redis_zrangebyscore('z', NULL::text, '1')$$]) call;

-- wrong values
SELECT call || ': ' || failure(call) FROM unnest(ARRAY[
	$$redis_hset('h', 'f')$$, $$redis_hset('h', 'f', 'v', 'g')$$, $$redis_zadd_many('z', '{1,2}', '{m}')$$, $$redis_zadd_many('z', '{}', '{m}')$$,
	$$redis_set('k', 'v', ex => 1, px => 1)$$, $$redis_set('k', 'v', nx => true, xx => true)$$, $$redis_set('k', '\x00'::bytea, ex => 0)$$,
	$$redis_lpop('l', -1)$$, $$redis_scan(count => 0)$$, $$redis_xadd('x', '*', 'f')$$, $$redis_xadd('x', '*', VARIADIC '{}')$$, $$redis_xadd('x', '{}')$$, $$redis_xadd('x', '[1]')$$, $$redis_xadd('x', '1')$$, $$redis_xadd('x', '{"f": 1}', maxlen => -1)$$]) call;

-- what Redis refuses; its words differ between versions
SELECT call || ': ' || split_part(failure(call), ' | ', 1) FROM unnest(ARRAY[
	$$redis_zadd('z', 1, 'm', nx => true, gt => true)$$, $$redis_zadd('z', 'nan', 'm')$$, $$redis_zrangebyscore('z', 'low', 'high')$$,
	$$redis_incrby('s')$$, $$redis_hincrby('h', 'f')$$, $$redis_incrbyfloat('s', 1)$$, $$redis_incrbyfloat('k', 'inf')$$,
	$$redis_xadd('x', 'id', 'f', 'v')$$, $$redis_xadd('x', '0-0', 'f', 'v')$$, $$redis_xrange('x', 'id')$$,
	$$redis_eval('no lua')$$, $$redis_eval('return redis.error_reply("MY words")')$$]) call;

-- the key has another type
SELECT call || ': ' || split_part(failure(call), ' | ', 1) FROM unnest(ARRAY[
	$$redis_get('h')$$, $$redis_getdel('h')$$, $$redis_incrby('h')$$, $$redis_hget('s', 'f')$$, $$redis_hset('s', 'f', 'v')$$, $$redis_hgetall('s')$$, $$redis_hmget('s', 'f')$$, $$redis_hdel('s', 'f')$$,
	$$redis_sadd('s', 'm')$$, $$redis_srem('s', 'm')$$, $$redis_smembers('s')$$, $$redis_sismember('s', 'm')$$, $$redis_zadd('s', 1, 'm')$$, $$redis_zadd_many('s', '{1}', '{m}')$$, $$redis_zincrby('s', 1, 'm')$$, $$redis_zrem('s', 'm')$$,
	$$redis_zscore('s', 'm')$$, $$redis_zrank('s', 'm')$$, $$redis_zrange('s', 0, 1)$$, $$redis_zrangebyscore('s', 0, 1)$$, $$redis_lpush('s', 'e')$$, $$redis_rpush('s', VARIADIC '{}'::text[])$$, $$redis_lpop('s')$$, $$redis_rpop('s', 2)$$,
	$$redis_lrange('s', 0, 1)$$, $$redis_llen('s')$$, $$redis_xadd('s', '*', 'f', 'v')$$, $$redis_xrange('s')$$, $$redis_xlen('s')$$]) call;
-- also in the middle of many commands; the session goes on
SELECT failure($$redis_sadd('s', VARIADIC ARRAY(SELECT i::text FROM generate_series(1, 30000) i))$$), redis_get('s');

-- bytes that are no text
SELECT call || ': ' || failure(call) FROM unnest(ARRAY[
	$$redis_get('raw')$$, $$redis_mget('{raw}')$$, $$redis_smembers('rawset')$$]) call;

-- nothing of that has changed anything
SELECT redis_get('s'), redis_hget('h', 'f'), redis_scan('[a-z]') AS key ORDER BY key;
