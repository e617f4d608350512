-- Limits and locks.
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
		regexp_replace(NULLIF(detail, ''), ' script: .*', ''), NULLIF(hint, ''));
END
$$;

-- microseconds since 1970
CREATE FUNCTION clock() RETURNS bigint LANGUAGE sql AS $$
	SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

-- a budget
SELECT l.allowed, l.remaining, l.retry_after FROM generate_series(1, 3) i,
	LATERAL hybrid_cache.rate_limit('login:' || sign(i), 3, '1 hour') l;
SELECT allowed, remaining, retry_after BETWEEN '19 minutes' AND '20 minutes' AS in_time
FROM hybrid_cache.rate_limit('login:1', 3, '1 hour');
-- others have their own
SELECT * FROM hybrid_cache.rate_limit('login:2', 3, '1 hour');
-- a look costs nothing, nor does what is refused
SELECT * FROM hybrid_cache.rate_limit('login:2', 3, '1 hour', cost => 0);
SELECT allowed, remaining FROM hybrid_cache.rate_limit('login:2', 3, '1 hour', cost => 3);
SELECT * FROM hybrid_cache.rate_limit('login:2', 3, '1 hour', cost => 2);
SELECT allowed, remaining, retry_after FROM hybrid_cache.rate_limit('login:2', 3, '1 hour', cost => 0);
-- it is not part of the transaction
BEGIN;
SELECT allowed FROM hybrid_cache.rate_limit('rolled back', 1, '1 hour');
ROLLBACK;
SELECT allowed FROM hybrid_cache.rate_limit('rolled back', 1, '1 hour');

-- it comes back steadily: a third of the period, a third of the budget
SELECT redis_set('hybrid_cache:limit:{steady}', '3 ' || clock() - 20 * 60 * 1000000::bigint);
SELECT allowed, remaining FROM hybrid_cache.rate_limit('steady', 3, '1 hour');
SELECT allowed, remaining FROM hybrid_cache.rate_limit('steady', 3, '1 hour');
-- so there is no edge of a window to wait for
SELECT redis_set('hybrid_cache:limit:{edge}', '100 ' || clock() - 30 * 60 * 1000000::bigint);
SELECT count(*) FILTER (WHERE allowed) AS allowed FROM generate_series(1, 100) i,
	LATERAL hybrid_cache.rate_limit('edge' || left(i::text, 0), 100, '1 hour') l;
-- who comes back after retry_after is let in
DO $$
DECLARE
	l record;
	again boolean;
BEGIN
	PERFORM hybrid_cache.rate_limit('patient', 7, '300 milliseconds', 7);
	FOR i IN 1 .. 5 LOOP
		SELECT * INTO l FROM hybrid_cache.rate_limit('patient', 7, '300 milliseconds', i);
		IF NOT l.allowed THEN
			PERFORM pg_sleep(extract(epoch FROM l.retry_after));
			SELECT allowed INTO again FROM hybrid_cache.rate_limit('patient', 7, '300 milliseconds', i);
			IF NOT again THEN
				RAISE WARNING 'not let in after %', l.retry_after;
			END IF;
		END IF;
	END LOOP;
END $$;
-- a clock that was set back by a day
SELECT redis_set('hybrid_cache:limit:{clock}', '2 ' || clock() + 24 * 60 * 60 * 1000000::bigint, 1000);
SELECT allowed, remaining, retry_after BETWEEN '59 minutes' AND '1 hour' AS in_time
FROM hybrid_cache.rate_limit('clock', 2, '1 hour', 2);
SELECT abs(split_part(redis_get('hybrid_cache:limit:{clock}'), ' ', 2)::bigint - clock()) < 60000000 AS now,
	redis_ttl('hybrid_cache:limit:{clock}') > 900 AS lives;
-- the key is gone when all is back
SELECT redis_ttl('hybrid_cache:limit:{login:1}') BETWEEN 3590 AND 3600 AS lives,
	redis_ttl('hybrid_cache:limit:{steady}') BETWEEN 3590 AND 3600 AS lives;
-- large numbers
SELECT allowed, remaining FROM hybrid_cache.rate_limit('large', 2147483647, '1000 years', 2147483647);
SELECT allowed, remaining FROM hybrid_cache.rate_limit('large', 2147483647, '1000 years');
SELECT allowed, remaining FROM hybrid_cache.rate_limit('fast', 2147483647, '1 millisecond', 2147483647);

-- arguments
SELECT failure($$SELECT hybrid_cache.rate_limit(NULL, 1, '1 s')$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('', 1, '1 s')$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', NULL, '1 s')$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', 0, '1 s')$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', 1, NULL)$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', 1, '0 s')$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', 1, '-1 s')$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', 1, '2000 years')$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', 1, '1 s', NULL)$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', 1, '1 s', -1)$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', 1, '1 s', 2)$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', 1, '1 s', 1, NULL)$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('k', 1, '1 s', 1, 'panic')$$);
SELECT redis_exists('hybrid_cache:limit:{k}');

-- a key that holds something else
SELECT redis_command('HSET', 'hybrid_cache:limit:{other}', 'a', 'b');
SELECT redis_set('hybrid_cache:limit:{text}', 'text');
SELECT failure($$SELECT hybrid_cache.rate_limit('other', 1, '1 s')$$);
SELECT failure($$SELECT hybrid_cache.rate_limit('text', 1, '1 s')$$);

-- how Redis before 7 says it
SELECT failure($$SELECT redis_command('EVAL', 'return redis.error_reply(ARGV[1])', 0,
	'ERR Error running script (call to f_1): @user_script:12: WRONGTYPE Operation')$$);
SELECT failure($$SELECT redis_command('EVAL', 'return redis.error_reply(ARGV[1])', 0,
	'ERR Error running script (call to f_1): @user_script:12: @user_script: 12: -OOM command not allowed')$$);
SELECT failure($$SELECT redis_command('EVAL', 'return redis.error_reply(ARGV[1])', 0,
	'ERR Error running script (call to f_1): @user_script:12: user_script:12: Script attempted')$$);

-- Redis takes no changes
SELECT redis_command('CONFIG', 'SET', 'maxmemory', '1');
SELECT * FROM hybrid_cache.rate_limit('full', 1, '1 hour');
SELECT * FROM hybrid_cache.rate_limit('full', 1, '1 hour', on_error => 'deny');
SELECT failure($$SELECT hybrid_cache.rate_limit('full', 1, '1 hour', on_error => 'error')$$);
SELECT redis_command('CONFIG', 'SET', 'maxmemory', '0');
-- ... or is down
SET hybrid_cache.redis_url = 'redis://127.0.0.1:1';
SELECT * FROM hybrid_cache.rate_limit('down', 1, '1 hour');
SELECT * FROM hybrid_cache.rate_limit('down', 1, '1 hour', on_error => 'deny');
SELECT split_part(failure($$SELECT hybrid_cache.rate_limit('down', 1, '1 hour', on_error => 'error')$$), E'\n', 1);
SELECT split_part(failure($$SELECT hybrid_cache.lock('down', '1 hour')$$), E'\n', 1);
RESET hybrid_cache.redis_url;
SELECT allowed, remaining FROM hybrid_cache.rate_limit('down', 1, '1 hour');
-- ... or there is none
SET hybrid_cache.redis_url = '';
SELECT failure($$SELECT hybrid_cache.rate_limit('none', 1, '1 hour')$$);
RESET hybrid_cache.redis_url;

-- Redis has forgotten the scripts
SELECT redis_command('SCRIPT', 'FLUSH');
SELECT allowed, remaining FROM hybrid_cache.rate_limit('flushed', 2, '1 hour');
SELECT redis_command('SCRIPT', 'FLUSH');
SELECT allowed, remaining FROM hybrid_cache.rate_limit('flushed', 2, '1 hour', on_error => 'error');
SELECT redis_command('SCRIPT', 'FLUSH');
SELECT hybrid_cache.lock('flushed', '1 hour') IS NOT NULL;

-- locks
SELECT hybrid_cache.lock('job', '1 hour') AS token \gset
SELECT abs(:token - clock()) < 60000000 AS is_time;
SELECT hybrid_cache.lock('job', '1 hour') IS NULL AS taken;
SELECT hybrid_cache.lock('job:2', '1 hour') > :token AS other;
SELECT hybrid_cache.unlock('job', :token + 1), hybrid_cache.unlock('job', 0), hybrid_cache.unlock('none', :token);
SELECT hybrid_cache.extend_lock('job', :token + 1, '1 day'), hybrid_cache.extend_lock('none', :token, '1 day');
SELECT hybrid_cache.extend_lock('job', :token, '2 days'), redis_ttl('hybrid_cache:lock:{job}') > 200000 AS longer;
SELECT hybrid_cache.lock('job', '1 hour') IS NULL AS taken;
SELECT hybrid_cache.unlock('job', :token), hybrid_cache.unlock('job', :token), hybrid_cache.extend_lock('job', :token, '1 day');
SELECT hybrid_cache.lock('job', '1 hour') AS next \gset
SELECT :next > :token AS grows;
SELECT hybrid_cache.unlock('job', :token), hybrid_cache.unlock('job', :next);
-- it runs out
SELECT hybrid_cache.lock('brief', '1 millisecond') AS brief \gset
SELECT pg_sleep(0.01);
SELECT hybrid_cache.unlock('brief', :brief), hybrid_cache.extend_lock('brief', :brief, '1 hour');
SELECT hybrid_cache.lock('brief', '1 hour') > :brief AS grows;
-- the token grows when the clock is set back, and when Redis has lost it
SELECT redis_command('HSET', 'hybrid_cache:lock:{past}', 'token', clock() + 1000000000000, 'until', 0, 'ttl', 0);
SELECT hybrid_cache.lock('past', '1 hour') = redis_hget('hybrid_cache:lock:{past}', 'token')::bigint AS same,
	redis_hget('hybrid_cache:lock:{past}', 'token')::bigint > clock() + 900000000000 AS grows;
SELECT hybrid_cache.lock('lost', '1 hour') AS token \gset
SELECT redis_del('hybrid_cache:lock:{lost}');
SELECT hybrid_cache.lock('lost', '1 hour') > :token AS grows;
-- a lock from a time that is still to come is held as long as it was to be
SELECT redis_command('HSET', 'hybrid_cache:lock:{future}', 'token', 1, 'until', clock() / 1000 + 86400000, 'ttl', 50);
DO $$
BEGIN
	WHILE hybrid_cache.lock('future', '1 hour') IS NULL LOOP
		PERFORM pg_sleep(0.005);
	END LOOP;
END $$;
-- the key outlives the lock
SELECT redis_ttl('hybrid_cache:lock:{job}') BETWEEN 86400 + 3590 AND 86400 + 3600 AS lives;

-- names
SELECT hybrid_cache.lock('{a:1}:b', '1 hour') IS NOT NULL, redis_exists('hybrid_cache:lock:{a:1}:b');
SELECT hybrid_cache.lock('{}', '1 hour') IS NOT NULL, redis_exists('hybrid_cache:lock:{{}}');
SELECT hybrid_cache.lock('}x{', '1 hour') IS NOT NULL, redis_exists('hybrid_cache:lock:{}x{}');
SELECT hybrid_cache.lock('ü', '1 hour') IS NOT NULL, redis_exists('hybrid_cache:lock:{ü}');
SET hybrid_cache.key_prefix = 'p:';
SELECT hybrid_cache.lock('a', '1 hour') IS NOT NULL, redis_command('EXISTS', 'hybrid_cache:lock:{p:a}');
SELECT allowed, redis_command('EXISTS', 'hybrid_cache:limit:{p:a}') FROM hybrid_cache.rate_limit('a', 1, '1 hour');
RESET hybrid_cache.key_prefix;

-- arguments
SELECT failure($$SELECT hybrid_cache.lock(NULL, '1 s')$$);
SELECT failure($$SELECT hybrid_cache.lock('', '1 s')$$);
SELECT failure($$SELECT hybrid_cache.lock('k', NULL)$$);
SELECT failure($$SELECT hybrid_cache.lock('k', '0')$$);
SELECT failure($$SELECT hybrid_cache.unlock(NULL, 1)$$);
SELECT failure($$SELECT hybrid_cache.unlock('', 1)$$);
SELECT failure($$SELECT hybrid_cache.unlock('k', NULL)$$);
SELECT failure($$SELECT hybrid_cache.extend_lock(NULL, 1, '1 s')$$);
SELECT failure($$SELECT hybrid_cache.extend_lock('k', NULL, '1 s')$$);
SELECT failure($$SELECT hybrid_cache.extend_lock('k', 1, NULL)$$);
SELECT failure($$SELECT hybrid_cache.extend_lock('k', 1, '-1 s')$$);
SELECT redis_set('hybrid_cache:lock:{text}', 'text');
SELECT failure($$SELECT hybrid_cache.lock('text', '1 s')$$);
SELECT failure($$SELECT hybrid_cache.unlock('text', 1)$$);
SELECT failure($$SELECT hybrid_cache.extend_lock('text', 1, '1 s')$$);

DROP FUNCTION failure, clock;
DROP EXTENSION hybrid_cache;
