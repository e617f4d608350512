-- Messages of Redis as notifications: what the functions refuse.
CREATE EXTENSION hybrid_cache;

SELECT hybrid_cache.bridge(NULL, 'c');
SELECT hybrid_cache.bridge('', 'c');
SELECT hybrid_cache.bridge('p', NULL);
SELECT hybrid_cache.bridge('p', '');
SELECT hybrid_cache.bridge('p', repeat('c', 64));
SELECT hybrid_cache.bridge('p', 'c', NULL);
SELECT hybrid_cache.drop_bridge(NULL, 'c');
SELECT hybrid_cache.drop_bridge('p', NULL);
SELECT hybrid_cache.drop_bridge('p', 'c');

SELECT hybrid_cache.bridge('p', repeat('c', 63));
SELECT hybrid_cache.bridge('p', 'c');
SELECT hybrid_cache.bridge('p', 'c', true);
SELECT hybrid_cache.bridge('p', 'd', true);
SELECT hybrid_cache.bridge('q*', 'c');
SELECT pattern, channel, with_channel FROM hybrid_cache.bridges ORDER BY pattern, channel;

-- they come and go with their transaction
BEGIN;
SELECT hybrid_cache.bridge('r', 'c');
SELECT hybrid_cache.drop_bridge('p', 'c');
SELECT count(*) FROM hybrid_cache.bridges WHERE pattern IN ('p', 'r') AND channel = 'c';
ROLLBACK;
SELECT pattern FROM hybrid_cache.bridges WHERE pattern IN ('p', 'r') AND channel = 'c';
BEGIN READ ONLY;
SELECT hybrid_cache.bridge('r', 'c');
ROLLBACK;
BEGIN READ ONLY;
SELECT hybrid_cache.drop_bridge('p', 'c');
ROLLBACK;
SELECT hybrid_cache.drop_bridge('p', 'c');
SELECT hybrid_cache.bridge('p', 'c', true);
SELECT pattern, channel, with_channel FROM hybrid_cache.bridges ORDER BY pattern, channel;

-- who may
CREATE ROLE regress_bridge;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_bridge;
SET ROLE regress_bridge;
SELECT hybrid_cache.bridge('mine', 'c');
SELECT hybrid_cache.drop_bridge('p', 'c');
SELECT count(*) FROM hybrid_cache.bridges;
SELECT count(*) FROM hybrid_cache.bridged;
RESET ROLE;
GRANT EXECUTE ON FUNCTION hybrid_cache.bridge, hybrid_cache.drop_bridge TO regress_bridge;
GRANT pg_read_all_stats TO regress_bridge;
SET ROLE regress_bridge;
SELECT hybrid_cache.bridge('mine', 'c');
SELECT pattern FROM hybrid_cache.bridges WHERE channel = 'c' ORDER BY pattern;
SELECT hybrid_cache.drop_bridge('mine', 'c');
RESET ROLE;

DROP EXTENSION hybrid_cache;
DROP OWNED BY regress_bridge;
DROP ROLE regress_bridge;
