-- Redis commands as SQL functions.
CREATE EXTENSION hybrid_cache;

CREATE FUNCTION failure(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE,
		regexp_replace(message, 'server ".*?"', 'server "..."'),
		NULLIF(detail, ''), NULLIF(hint, ''));
END
$$;

-- strings
SELECT redis_get('k'), redis_exists('k'), redis_ttl('k'), redis_del('k');
SELECT redis_set('k', 'value');
SELECT redis_get('k'), redis_get_bytea('k'), redis_exists('k'), redis_ttl('k');
SELECT redis_set('k', '') AND redis_get('k') = '';
SELECT redis_set('', 'the empty key'), redis_get('');
SELECT redis_get(NULL), redis_get_bytea(NULL), redis_ttl(NULL), redis_exists(VARIADIC NULL);

-- options of SET
SELECT redis_set('k', 'a', nx => true), redis_set('n', 'b', nx => true);
SELECT redis_set('k', 'c', xx => true), redis_set('x', 'd', xx => true);
SELECT redis_get('k'), redis_get('n'), redis_get('x');
SELECT redis_set('k', 'e', 100), redis_ttl('k');
SELECT redis_set('k', 'f', keepttl => true), redis_ttl('k') BETWEEN 90 AND 100;
SELECT redis_set('k', 'g', px => 100000), redis_ttl('k') BETWEEN 90 AND 100;
SELECT redis_set('k', 'h'), redis_ttl('k');
SELECT redis_set('k', 'i', ex => NULL, px => NULL, nx => NULL, xx => NULL, keepttl => NULL);
SELECT failure($$SELECT redis_set('k', 'x', ex => 1, px => 1)$$);
SELECT failure($$SELECT redis_set('k', 'x', ex => 1, keepttl => true)$$);
SELECT failure($$SELECT redis_set('k', 'x', nx => true, xx => true)$$);
SELECT failure($$SELECT redis_set('k', 'x', ex => 0)$$);
SELECT failure($$SELECT redis_set('k', 'x', px => -1)$$);
SELECT failure($$SELECT redis_set('k', NULL)$$);
SELECT failure($$SELECT redis_set(NULL, 'x')$$);
SELECT redis_get('k');

-- keys
SELECT redis_exists('k', 'n', 'x', 'k'), redis_exists(VARIADIC '{}');
SELECT redis_expire('k', 100), redis_expire('x', 100), redis_ttl('k') BETWEEN 90 AND 100;
SELECT redis_expire('k', 0), redis_exists('k');
SELECT redis_del('k', 'n', 'x'), redis_del(VARIADIC '{}'), redis_del(VARIADIC ARRAY['a', '']);
SELECT failure($$SELECT redis_del('a', NULL)$$);

-- hashes and sorted sets
SELECT redis_command('HSET', 'h', 'a', 1, 'b', 'two', 'ü', 'drei');
SELECT redis_hget('h', 'b'), redis_hget('h', 'x'), redis_hget('x', 'b');
SELECT * FROM redis_hgetall('h') ORDER BY field COLLATE "C";
SELECT * FROM redis_hgetall('x');
SELECT key, hash.* FROM unnest(ARRAY['h', 'x', 'h']) WITH ORDINALITY keys (key, n),
	LATERAL redis_hgetall(key) hash WHERE field = 'a' ORDER BY n;
SELECT redis_command('ZADD', 'z', 1.5, 'a', '-inf', 'b', 1e300, 'c', 0.1, 'd');
SELECT member, redis_zscore('z', member) FROM unnest(ARRAY['a', 'b', 'c', 'd', 'x']) member;
SELECT redis_zscore('x', 'a');

-- every shape of a reply
SELECT redis_command('PING'), redis_command('ECHO', ''), redis_command('GET', 'x'),
	redis_command('STRLEN', 'x'), redis_command('DECR', 'n');
SELECT redis_command('LRANGE', 'x', 0, -1), redis_command('MGET', 'x', 'n');
SELECT redis_command('EVAL', 'return {1, {2, {}, {"three"}}, false, "4"}', 0);
SELECT redis_command('INCRBY', 'max', 9223372036854775807), redis_command('DECRBY', 'min', 9223372036854775807);
SELECT redis_command(VARIADIC ARRAY['MGET', 'n', 'x']);
SELECT redis_command(VARIADIC ARRAY[]::text[]);
SELECT redis_command();

-- every shape of an argument
SELECT redis_command('MSET', 'bool', true, 'int', 42, 'bigint', 9223372036854775807,
	'numeric', 1.50, 'float', '-0.1'::float8, 'char', 'ab '::char(5), 'name', 'x'::name,
	'jsonb', '{"a": [1, null]}'::jsonb, 'array', ARRAY[1, 2], 'bytea', 'bytes'::bytea,
	'uuid', '7d444840-9dc0-11d1-b245-5ffdce74fad2'::uuid, 'text', 'täxt'::text);
SELECT key, redis_get(key) FROM unnest(ARRAY['bool', 'int', 'bigint', 'numeric', 'float',
	'char', 'name', 'jsonb', 'array', 'bytea', 'uuid', 'text']) key;
CREATE DOMAIN truth AS boolean;
CREATE DOMAIN raw AS bytea;
SELECT redis_command('MSET', 'd1', false::truth, 'd2', '\x00ff'::raw);
SELECT redis_get('d1'), redis_get_bytea('d2');
SELECT failure($$SELECT redis_command('SET', 'k', NULL)$$);
SELECT failure($$SELECT redis_command(VARIADIC ARRAY['SET', 'k', NULL])$$);
SELECT failure($$SELECT redis_command(VARIADIC NULL::text[])$$);
SELECT failure($$SELECT redis_command('')$$);

-- binary data
SELECT redis_command('SET', 'binary', '\x00ff'::bytea);
SELECT redis_command('SET', 'zero', 'a\000b'::bytea);
SELECT redis_get_bytea('binary'), redis_get_bytea('zero');
SELECT failure($$SELECT redis_get('binary')$$);
SELECT failure($$SELECT redis_get('zero')$$);
SELECT failure($$SELECT redis_command('GET', 'binary')$$);
SELECT failure($$SELECT redis_command('MGET', 'text', 'zero')$$);
SELECT redis_command('HSET', 'hb', 'f', '\xc3'::bytea);
SELECT failure($$SELECT redis_hgetall('hb')$$);
SELECT failure($$SELECT redis_hget('hb', 'f')$$);

-- large values
SELECT redis_set('large', repeat('0123456789', 1000000));
SELECT length(redis_get('large')), md5(redis_get('large')) = md5(repeat('0123456789', 1000000));
SELECT redis_command(VARIADIC ARRAY['RPUSH', 'list'] || array_agg(i::text)) FROM generate_series(1, 100000) i;
SELECT jsonb_array_length(redis_command('LRANGE', 'list', 0, -1));

-- what Redis refuses, in its own words
SELECT failure($$SELECT redis_get('h')$$);
SELECT failure($$SELECT redis_hgetall('zero')$$);
SELECT failure($$SELECT redis_command('INCR', 'text')$$);
SELECT failure($$SELECT redis_command('EVAL', 'return {1, redis.error_reply("MY own words")}', 0)$$);
SELECT failure($$SELECT redis_command('EVAL', 'return redis.error_reply("OOM command not allowed")', 0)$$);
SELECT failure($$SELECT redis_command('EVAL', 'return redis.error_reply("NOPERM User alice has no permissions")', 0)$$);
SELECT failure($$SELECT redis_command('EVAL', 'return redis.error_reply("MY \255 \195\164")', 0)$$);
SELECT length(failure($$SELECT redis_command('EVAL', 'return redis.error_reply(string.rep("long ", 100000))', 0)$$));

-- what is not passed on
SELECT command, split_part(failure, E'\n', 1), split_part(failure, E'\n', 2)
FROM unnest(ARRAY[
	$$'BLPOP', 'x', 0$$, $$'brpop', 'x', 0$$, $$'BLMOVE'$$, $$'BRPOPLPUSH'$$, $$'BLMPOP'$$,
	$$'BZPOPMIN'$$, $$'BZPOPMAX'$$, $$'BZMPOP'$$, $$'WAIT', 1, 0$$, $$'WAITAOF'$$,
	$$'XREAD', 'COUNT', 1, 'block', 0, 'STREAMS', 's', '$'$$,
	$$'XREADGROUP', 'GROUP', 'g', 'c', 'BLOCK', 0, 'STREAMS', 's', '>'$$,
	$$'SUBSCRIBE', 'x'$$, $$'PSUBSCRIBE', 'x'$$, $$'SSUBSCRIBE', 'x'$$, $$'UNSUBSCRIBE'$$,
	$$'MONITOR'$$, $$'SYNC'$$, $$'PSYNC'$$,
	$$'SELECT', 1$$, $$'AUTH', 'x'$$, $$'HELLO', 3$$, $$'RESET'$$, $$'QUIT'$$,
	$$'CLIENT', 'REPLY', 'OFF'$$, $$'Client', 'tracking', 'on'$$,
	$$'MULTI'$$, $$'EXEC'$$, $$'DISCARD'$$, $$'WATCH', 'x'$$, $$'UNWATCH'$$]) command,
	failure(format('SELECT redis_command(%s)', command));
SELECT redis_command('BLPOP', 'x', 0);
SELECT redis_command('SUBSCRIBE', 'x');
SELECT redis_command('SELECT', 1);
SELECT redis_command('MULTI');
SELECT redis_command('XADD', 'block', '1-1', 'f', 'v');
SELECT redis_command('XREAD', 'STREAMS', 'block', '0');
SELECT redis_command('XGROUP', 'CREATE', 'block', 'g', 0);
SELECT redis_command('XREADGROUP', 'GROUP', 'g', 'block', 'STREAMS', 'block', '>');

-- the prefix is put before keys, not before what only looks like one
SET hybrid_cache.key_prefix = 'app:';
SELECT redis_set('k', '1'), redis_get('k'), redis_exists('k', 'text'), redis_expire('k', 9), redis_ttl('k') > 0;
SELECT redis_command('HSET', 'app:h', 'f', 'v'), redis_command('ZADD', 'app:z', 1, 'm');
SELECT redis_hget('h', 'f'), redis_hgetall('h'), redis_zscore('z', 'm');
SELECT redis_command('KEYS', 'app:k'), redis_command('EXISTS', 'k');
SELECT redis_del('k', 'h', 'z'), redis_command('KEYS', 'app:*');
RESET hybrid_cache.key_prefix;

-- nothing takes part in the transaction
BEGIN;
SELECT redis_set('rolled back', 'is there');
ROLLBACK;
SELECT redis_get('rolled back');

-- in any schema, and unreachable until granted
DROP EXTENSION hybrid_cache;
CREATE SCHEMA "Other schema";
CREATE EXTENSION hybrid_cache SCHEMA "Other schema";
SELECT "Other schema".redis_ping();
SELECT count(*) FROM pg_proc WHERE pronamespace = '"Other schema"'::regnamespace
	AND has_function_privilege('public', oid, 'EXECUTE');
DROP EXTENSION hybrid_cache;
CREATE SCHEMA hybrid_cache;
CREATE EXTENSION hybrid_cache SCHEMA hybrid_cache;
SELECT hybrid_cache.redis_ping();
DROP EXTENSION hybrid_cache;
DROP SCHEMA hybrid_cache, "Other schema";

-- other encodings: Redis has UTF-8
SELECT current_database() AS utf8_database \gset
CREATE EXTENSION hybrid_cache;
SELECT redis_set('Schlüssel', 'Größe €');
CREATE DATABASE regress_redis_latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;
CREATE DATABASE regress_redis_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0;
\c regress_redis_latin1
SET client_encoding = 'UTF8';
CREATE EXTENSION hybrid_cache;
SET hybrid_cache.key_prefix = 'Schl';
SELECT redis_get_bytea('üssel') = convert_to('Größe ', 'UTF8') || '\xe282ac';
SELECT redis_get('üssel');
SELECT redis_pipeline('[["GET", "Schlüssel"], ["EVAL", "return {ok = ARGV[1]}", 0, "ü"], ["PING"]]');
SELECT redis_set('üssel', 'Größe'), redis_get('üssel'), redis_get_bytea('üssel');
SELECT redis_command('GET', 'Schlüssel');
\c regress_redis_ascii
SET client_encoding = 'SQL_ASCII';
CREATE EXTENSION hybrid_cache;
SELECT redis_get('Schlüssel')::bytea, redis_set('raw', E'\xff'), redis_get('raw')::bytea;
SELECT redis_command('SET', 'raw', '\x6100'::bytea);
SELECT redis_get('raw');
\c :utf8_database
SELECT redis_get('Schlüssel'), redis_get_bytea('raw');
DROP DATABASE regress_redis_latin1;
DROP DATABASE regress_redis_ascii;
