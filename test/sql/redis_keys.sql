-- Keys: del, unlink, exists, expire, ttl, type, scan.
CREATE EXTENSION hybrid_cache;

SELECT redis_set('s', 'v'), redis_hset('h', 'f', 'v'), redis_rpush('l', 'e'), redis_sadd('m', 'x'),
	redis_zadd('z', 1, 'x'), redis_xadd('x', '1-1', 'f', 'v');
SELECT key, redis_type(key) FROM unnest('{s,h,l,m,z,x,nothing}'::text[]) key;

-- not the keys of the extension itself
SELECT redis_scan('?') AS key ORDER BY key;
SELECT redis_scan('[hl]') AS key ORDER BY key;
SELECT redis_scan('?', type => 'zset');
SELECT redis_scan(match => 'no such key');
SELECT redis_scan('?', 1) AS key ORDER BY key;
SELECT redis_scan_bytea('s');
SELECT redis_set('key' || i, 'v') FROM generate_series(1, 3000) i OFFSET 2999;
SELECT count(DISTINCT key) FROM redis_scan('key*') key;

-- the prefix is no pattern, and comes back off
SET hybrid_cache.key_prefix = 'a*[b]:';
SELECT redis_set('1', 'v'), redis_set('2', 'v');
SELECT redis_command('SET', 'axxb:3', 'v');
SELECT redis_scan() AS key ORDER BY key;
SELECT redis_scan('2*');
SELECT redis_type('1'), redis_unlink('1', '2'), redis_exists('1', '2');
RESET hybrid_cache.key_prefix;

-- a key that is not text
SELECT redis_command('SET', '\x00ff'::bytea, 'v');
SELECT redis_scan_bytea('*') AS key EXCEPT SELECT convert_to(key, 'UTF8') FROM redis_scan('[a-z]*') key;
SELECT redis_scan();

-- expiry
SELECT redis_expire('s', 100), redis_ttl('s') BETWEEN 90 AND 100, redis_expire('nothing', 100);
SELECT redis_expire('s', -1), redis_exists('s'), redis_ttl('s');

-- more keys than a command has
SELECT redis_unlink(VARIADIC ARRAY(SELECT 'key' || i FROM generate_series(1, 5000) i));
SELECT redis_del('h', 'l', 'nothing'), redis_exists('h', 'l', 'm', 'm'), redis_unlink(VARIADIC '{}');
