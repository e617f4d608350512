-- The settings that lead to Redis, and what happens when it is not there.
CREATE EXTENSION hybrid_cache;

-- What a command fails with, wherever the server is.
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

SELECT redis_ping();

-- the settings, their kinds and defaults
SELECT name, vartype, context, unit, boot_val, min_val, max_val
FROM pg_settings WHERE name ~ '^hybrid_cache\.'
AND name IN ('hybrid_cache.redis_url', 'hybrid_cache.key_prefix',
	'hybrid_cache.enabled', 'hybrid_cache.connect_timeout',
	'hybrid_cache.command_timeout', 'hybrid_cache.atomic_ops',
	'hybrid_cache.max_databases')
ORDER BY name;
SET hybrid_cache.no_such_setting = 1;

-- URLs that are understood
CREATE FUNCTION is_url(url text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	PERFORM set_config('hybrid_cache.redis_url', url, true);
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	-- nothing that is said about a URL quotes it
	IF position('secret' IN message || detail || hint) > 0 THEN
		RETURN 'the password was shown';
	END IF;
	RETURN detail;
END
$$;
SELECT url, is_url(url) FROM unnest(ARRAY[
	'',
	'redis://localhost',
	'redis://localhost/',
	'REDIS://localhost:6380/15',
	'redis://10.0.0.1:1',
	'redis://[::1]',
	'redis://[fe80::1%25eth0]:6379/0',
	'redis://:secret@localhost',
	'redis://user:secret@localhost:6379/3',
	'redis://user:@localhost',
	'redis://user:p%40s%2Fs:w%25@localhost',
	'unix:///run/redis/redis.sock',
	'unix:///run/redis/redis.sock?db=2',
	'unix://:secret@/run/redis/redis.sock',
	'unix://user:secret@/run/redis/re%3Fdis.sock?db=2']) url;

-- and those that are not
SELECT url, is_url(url) FROM unnest(ARRAY[
	'localhost:6379',
	'http://localhost',
	'rediss://localhost',
	'redis://',
	'redis:///1',
	'redis://:6379',
	'redis://localhost:',
	'redis://localhost:0',
	'redis://localhost:65536',
	'redis://localhost:99999999999999999999',
	'redis://localhost:6379x',
	'redis://localhost/x',
	'redis://localhost/1/2',
	'redis://localhost/-1',
	'redis://localhost/2147483648',
	'redis://localhost?db=1',
	'redis://localhost#1',
	'redis://local host',
	'redis://::1',
	'redis://[::1',
	'redis://[::1]6379',
	'redis://[localhost]',
	'redis://secret@localhost',
	'redis://:se@cret@localhost',
	'redis://:sec/ret@localhost',
	'redis://:sec?ret@localhost',
	'redis://:secret%@localhost',
	'redis://:secret%zz@localhost',
	'redis://:secret%00@localhost',
	'redis://local%20host',
	'unix://',
	'unix:///',
	'unix://relative/path',
	'unix:///?db=1',
	'unix:///sock?db=',
	'unix:///sock?db=x',
	'unix:///sock?password=secret',
	'unix:///sock@secret',
	'unix://secret@/sock',
	'unix:///' || repeat('x', 106)]) url;
SHOW hybrid_cache.key_prefix;

-- PostgreSQL's own message would quote the value
\set VERBOSITY default
SET hybrid_cache.redis_url = 'redis://:secret@localhost:none';
ALTER DATABASE :DBNAME SET hybrid_cache.redis_url = 'redis://:secret@localhost:none';

-- a secret of the superuser's
CREATE ROLE regress_redis_user;
SET ROLE regress_redis_user;
SELECT left(failure('SHOW hybrid_cache.redis_url'), 5);
SET hybrid_cache.redis_url = '';
SET hybrid_cache.key_prefix = '';
SET hybrid_cache.command_timeout = '2s';
SELECT redis_ping();
SELECT redis_command('PING');
RESET ROLE;
RESET hybrid_cache.command_timeout;

-- no Redis
SET hybrid_cache.redis_url = '';
SELECT redis_ping();

-- a Redis that is not there, and the one that is
SET hybrid_cache.redis_url = 'redis://user:secret@127.0.0.1:1/3';
SELECT redis_ping();
SET hybrid_cache.redis_url = 'unix://:secret@/nonexistent/redis.sock?db=3';
SELECT redis_ping();
SET hybrid_cache.redis_url = 'redis://[::1]:1';
SELECT failure('SELECT redis_ping()') ~ '^08001';
RESET hybrid_cache.redis_url;
SELECT redis_ping();

-- a wrong password for a server that wants none; what it says may differ
SELECT current_setting('hybrid_cache.redis_url') AS url \gset
SELECT set_config('hybrid_cache.redis_url',
	regexp_replace(:'url', '://', '://nobody:secret@'), false) IS NOT NULL;
SELECT split_part(failure('SELECT redis_ping()'), E'\n', 1),
	failure('SELECT redis_ping()') ~ 'secret|nobody';
RESET hybrid_cache.redis_url;

-- a database that Redis does not have
SELECT set_config('hybrid_cache.redis_url',
	CASE WHEN :'url' ~ '^unix' THEN :'url' || '?db=123456' ELSE :'url' || '/123456' END,
	false) IS NOT NULL;
SELECT failure('SELECT redis_ping()');
RESET hybrid_cache.redis_url;

-- each URL has its own connection and its own database
SELECT redis_set('here', 'database 0');
SELECT set_config('hybrid_cache.redis_url',
	CASE WHEN :'url' ~ '^unix' THEN :'url' || '?db=1' ELSE :'url' || '/1' END,
	false) IS NOT NULL;
SELECT redis_get('here');
RESET hybrid_cache.redis_url;
SELECT redis_get('here');

-- the connection is kept over calls and transactions, also after an error
SELECT redis_command('CLIENT', 'ID') AS id \gset
SELECT failure($$SELECT redis_command('NOSUCHCOMMAND')$$) ~ '^38000';
\set VERBOSITY sqlstate
BEGIN;
SELECT redis_command('LPUSH', 'here', 1);
SELECT redis_ping();
ROLLBACK;
\set VERBOSITY default
SELECT redis_command('CLIENT', 'ID') = :'id'::jsonb;

-- an answer that comes too late ends it, and does not answer the next command
SET hybrid_cache.command_timeout = '100ms';
SELECT redis_command('CLIENT', 'PAUSE', 300);
SELECT failure($$SELECT redis_command('ECHO', 'late')$$);
RESET hybrid_cache.command_timeout;
SELECT redis_get('here');
SELECT redis_command('CLIENT', 'ID') <> :'id'::jsonb;

-- so does statement_timeout, at once
SELECT redis_command('CLIENT', 'PAUSE', 300);
SET statement_timeout = '100ms';
SELECT redis_command('ECHO', 'late');
RESET statement_timeout;
SELECT redis_get('here');

DROP ROLE regress_redis_user;
