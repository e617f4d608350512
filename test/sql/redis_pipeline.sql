-- redis_pipeline(): many commands, one round trip, errors per command.
CREATE EXTENSION hybrid_cache;

SELECT * FROM redis_pipeline('[["SET", "k", 1], ["incrby", "k", 41], ["GET", "k"], ["GET", "x"], ["MGET", "k", "x"], ["LRANGE", "x", 0, -1]]') WITH ORDINALITY;
SELECT redis_pipeline('[]');

-- every shape of a word
SELECT redis_pipeline('[["RPUSH", "words", "täxt", "", 1.50, 1e3, -7, true, false], ["LRANGE", "words", 0, -1]]');

-- what Redis refuses is an answer, and the others are executed
SELECT CASE WHEN result ? 'error' THEN jsonb_set(result, '{error}', to_jsonb(split_part(result ->> 'error', ' ', 1))) ELSE result END AS result
FROM redis_pipeline('[["SET", "a", "1"], ["LPUSH", "a", "x"], ["INCR", "a"], ["NO SUCH", "a"], ["GET"],
	["EVAL", "return {1, redis.error_reply(\"MY own words\"), {}}", 0], ["GET", "a"]]') result;

-- what is not text is that, and nothing else is lost
SELECT redis_set('raw', '\x00ff'::bytea);
SELECT redis_pipeline('[["GET", "raw"], ["MGET", "a", "raw"], ["INCR", "a"]]');
SELECT redis_pipeline('[["EVAL", "return {ok = string.char(255)}", 0], ["INCR", "a"]]');

-- all or nothing is sent
SELECT redis_pipeline('[["SET", "sent", "1"], ["BLPOP", "x", 0]]');
SELECT redis_pipeline('[["SET", "sent", "1"], ["GET", null]]');
SELECT redis_pipeline('[["SET", "sent", "1"], "GET"]');
SELECT redis_exists('sent');

-- what is no list of commands
SELECT redis_pipeline(NULL);
SELECT redis_pipeline('{"SET": "k"}');
SELECT redis_pipeline('"GET"');
SELECT redis_pipeline('["GET", "k"]');
SELECT redis_pipeline('[["GET", "k"], []]');
SELECT redis_pipeline('[["GET", "k"], [""]]');
SELECT redis_pipeline('[["GET", "k"], ["GET", ["k"]]]');
SELECT redis_pipeline('[["GET", "k"], {"GET": "k"}]');

-- what is refused in redis_command() is here, too
\set VERBOSITY terse
SELECT redis_pipeline('[["MULTI"]]');
SELECT redis_pipeline('[["SUBSCRIBE", "c"]]');
SELECT redis_pipeline('[["client", "reply", "off"]]');
SELECT redis_pipeline('[["WAIT", 1, 0]]');
SELECT redis_pipeline('[["HELLO", 3]]');
SELECT redis_pipeline('[["XREAD", "BLOCK", 0, "STREAMS", "s", "$"]]');
SELECT redis_pipeline('[["XREADGROUP", "BLOCK", 0, "GROUP", "g", "c", "STREAMS", "s", ">"]]');
SELECT redis_pipeline('[["XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "BLOCK", 0, "STREAMS", "s", ">"]]');
\set VERBOSITY default
-- but not a group or consumer of that name
SELECT redis_pipeline('[["XADD", "s", "1-1", "f", "v"], ["XGROUP", "CREATE", "s", "block", 0], ["XREADGROUP", "GROUP", "block", "block", "STREAMS", "s", ">"]]');

-- no prefix, like redis_command()
SET hybrid_cache.key_prefix = 'app:';
SELECT redis_pipeline('[["GET", "a"]]');
RESET hybrid_cache.key_prefix;

-- more than are sent at a time
SELECT count(*), count(*) FILTER (WHERE result = '"OK"') AS ok
FROM redis_pipeline((SELECT jsonb_agg(jsonb_build_array('SET', 'k' || i, i)) FROM generate_series(1, 25000) i)) result;
SELECT count(*), bool_and(result #>> '{}' = n::text)
FROM redis_pipeline((SELECT jsonb_agg(jsonb_build_array('GET', 'k' || i) ORDER BY i) FROM generate_series(1, 25000) i)) WITH ORDINALITY AS r (result, n);
-- it can be ended, and its late answers answer nothing else
\set SHOW_CONTEXT never
SET hybrid_cache.connect_timeout = '10s';
SET statement_timeout = '30ms';
SELECT count(*) FROM redis_pipeline((SELECT jsonb_agg('["EVAL", "local i = 0; while i < 300000 do i = i + 1 end return i", 0]'::jsonb) FROM generate_series(1, 60)));
RESET statement_timeout;
SELECT redis_get('k25000');
