--
-- hybrid_cache.take_over(): what it answers.  That writes follow is in
-- t/010_fence.pl.
--
CREATE EXTENSION hybrid_cache;
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE u (id int PRIMARY KEY, v text);

-- nothing is mapped, nothing is asked for
SELECT * FROM hybrid_cache.take_over();
SELECT * FROM hybrid_cache.take_over(NULL);
SELECT * FROM hybrid_cache.take_over(force => true);

SELECT hybrid_cache.attach('t', 'string', 't:{id}', value => 'v');
SELECT hybrid_cache.attach('u', 'field', 'shared {{x}}', field => 'u:{id}', value => 'v');
SELECT hybrid_cache.attach('t', 'field', 'shared {{x}}', field => 't:{id}', value => 'v');
SELECT hybrid_cache.wait_for_sync('60s');
SELECT redis_command('HKEYS', 'hybrid_cache:owner');

-- everything is ours
SELECT * FROM hybrid_cache.take_over();

-- an owner that gives no sign, one that does, and one that is none
SELECT redis_command('HSET', 'hybrid_cache:owner', 't:{}', '1 2', 'shared {{x}}', '3 4');
SELECT redis_command('SET', 'hybrid_cache:lease:3:4', 'alive');
SELECT * FROM hybrid_cache.take_over();
SELECT * FROM hybrid_cache.take_over();
SELECT * FROM hybrid_cache.take_over(force => true);
SELECT redis_command('HSET', 'hybrid_cache:owner', 't:{}', 'somebody', 'shared {{x}}', '0 0 0');
SELECT * FROM hybrid_cache.take_over(force => true);

-- a key of another type where the owners should be
SELECT redis_command('SET', 'hybrid_cache:owner', 'string');
\set VERBOSITY sqlstate
SELECT * FROM hybrid_cache.take_over();
\set VERBOSITY default
SELECT redis_command('DEL', 'hybrid_cache:owner');
SELECT hybrid_cache.wait_for_sync('60s');

-- no Redis
SET hybrid_cache.redis_url = '';
SELECT * FROM hybrid_cache.take_over();
RESET hybrid_cache.redis_url;

CREATE ROLE regress_nobody;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_nobody;
SET ROLE regress_nobody;
SELECT * FROM hybrid_cache.take_over();
RESET ROLE;
DROP OWNED BY regress_nobody;
DROP ROLE regress_nobody;
