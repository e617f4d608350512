--
-- populate(), reconcile(), cancel(), orphans() and the view progress: what they
-- return, who may call them, and what they refuse
--
CREATE EXTENSION hybrid_cache;
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 10) g;

CREATE PROCEDURE settled() LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM hybrid_cache.progress) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	IF NOT hybrid_cache.wait_for_sync('30s') THEN
		RAISE 'the worker did not catch up';
	END IF;
END $$;
-- what reconcile() finds, but for the time that it takes
CREATE FUNCTION compare(relation regclass, name name, OUT checked bigint, OUT missing bigint,
	OUT stale bigint, OUT orphaned bigint, OUT conflicting bigint, OUT repaired bigint)
LANGUAGE sql AS $$
	SELECT checked, missing, stale, orphaned, conflicting, repaired
	FROM hybrid_cache.reconcile(relation, name) WHERE duration >= '0'
$$;
CREATE VIEW states AS SELECT relation, name, state FROM hybrid_cache.mapping ORDER BY relation::text, name;

--
-- populated in the background, and equal then
--
SELECT hybrid_cache.attach('t', 'string', 't:{id}', value => 'v');
CALL settled();
SELECT redis_get('t:1'), redis_get('t:10');
SELECT * FROM states;
SELECT * FROM compare('t', 't_string');

-- each kind of difference is found, counted and repaired
SELECT redis_del('t:1', 't:2'), redis_set('t:3', 'foreign'), redis_set('t:11', 'no row'), redis_set('t:x', 'not ours');
SELECT * FROM hybrid_cache.orphans('t', 't_string');
SELECT * FROM compare('t', 't_string');
SELECT redis_get('t:1'), redis_get('t:3'), redis_exists('t:11'), redis_exists('t:x');
SELECT * FROM compare('t', 't_string');
SELECT * FROM hybrid_cache.orphans('t', 't_string');
-- what is new is all that an incremental run need look at; without since it is all
SELECT checked FROM hybrid_cache.reconcile('t', 't_string', "full" => false);
-- in a transaction that has changed rows
BEGIN;
INSERT INTO t VALUES (11, 'not committed');
SELECT * FROM compare('t', 't_string');
ROLLBACK;

-- members
SELECT hybrid_cache.attach('t', 'zset', 'z', member => 'm{id}', score => 'id', filter => 'id < 4');
CALL settled();
SELECT * FROM compare('t', 't_zset');
SELECT redis_command('ZADD', 'z', '5', 'm5', '1', 'other', '1.5', 'm1');
SELECT * FROM hybrid_cache.orphans('t', 't_zset');
SELECT * FROM compare('t', 't_zset');
SELECT redis_command('ZRANGE', 'z', '0', '-1', 'WITHSCORES');

--
-- populate => false, and populate() afterwards
--
SELECT hybrid_cache.attach('t', 'string', 'lazy:{id}', value => 'v', name => 'lazy', populate => false);
SELECT * FROM hybrid_cache.progress;
SELECT redis_exists('lazy:1');
SELECT * FROM states WHERE name = 'lazy';
-- with the transaction, or not at all
BEGIN;
SELECT hybrid_cache.populate('t', 'lazy');
SELECT * FROM states WHERE name = 'lazy';
SELECT relation, name, kind, reason, phase, rows_done, started FROM hybrid_cache.progress;
ROLLBACK;
SELECT * FROM states WHERE name = 'lazy';
SELECT hybrid_cache.populate('t', 'lazy');
CALL settled();
SELECT redis_get('lazy:1');
SELECT * FROM states WHERE name = 'lazy';

-- with a time to live nothing is missing, unless it is asked for
SELECT hybrid_cache.attach('t', 'string', 'soon:{id}', value => 'v', ttl => '1 hour', name => 'soon');
SELECT * FROM compare('t', 'soon');
SELECT redis_exists('soon:1');
SELECT hybrid_cache.populate('t', 'soon');
CALL settled();
SELECT redis_get('soon:1'), redis_ttl('soon:1') BETWEEN 3500 AND 3600 AS expires;

-- cancelled before it began
BEGIN;
SELECT hybrid_cache.populate('t', 'lazy');
SELECT hybrid_cache.cancel('t', 'lazy');
SELECT hybrid_cache.cancel('t', 'lazy');
COMMIT;
SELECT * FROM states WHERE name = 'lazy';
SELECT * FROM hybrid_cache.progress;
SELECT hybrid_cache.cancel('t', 't_string');
-- until it is asked for
SELECT checked, repaired FROM hybrid_cache.reconcile('t', 'lazy');
SELECT * FROM states WHERE name = 'lazy';

--
-- what cannot be
--
\set SHOW_CONTEXT never
SELECT hybrid_cache.reconcile(NULL, 'x');
SELECT hybrid_cache.populate('t', NULL);
SELECT hybrid_cache.cancel(NULL, NULL);
SELECT hybrid_cache.orphans('t', NULL);
SELECT hybrid_cache.reconcile('t', 'nothing');
SELECT hybrid_cache.populate('t', 'nothing');
SELECT hybrid_cache.cancel('t', 'nothing');
SELECT hybrid_cache.orphans('t', 'nothing');
SELECT hybrid_cache.reconcile('t', 't_string_truncate');
SELECT hybrid_cache.populate('states', 'x');

-- nothing to compare
SELECT hybrid_cache.attach('t', 'invalidate', 'page:{id}');
SELECT hybrid_cache.populate('t', 't_invalidate');
SELECT hybrid_cache.reconcile('t', 't_invalidate');
SELECT hybrid_cache.orphans('t', 't_invalidate');

-- a part of a mapping
CREATE TABLE p (id int, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
INSERT INTO p VALUES (1, 'one'), (11, 'eleven');
SELECT hybrid_cache.attach('p', 'string', 'p:{id}', value => 'v');
CALL settled();
SELECT * FROM compare('p', 'p_string');
SELECT hybrid_cache.reconcile('p1', 'p_string');
SELECT redis_set('p:2', 'no row');
SELECT * FROM hybrid_cache.orphans('p', 'p_string');

-- disabled
ALTER TABLE t DISABLE TRIGGER lazy;
SELECT hybrid_cache.populate('t', 'lazy');
SELECT hybrid_cache.reconcile('t', 'lazy');
ALTER TABLE t ENABLE TRIGGER lazy;
CALL settled();

-- the keeper would wait for this transaction
BEGIN;
LOCK TABLE t;
SELECT hybrid_cache.reconcile('t', 't_string');
ROLLBACK;
BEGIN;
LOCK TABLE p2;
SELECT hybrid_cache.reconcile('p', 'p_string');
ROLLBACK;
BEGIN;
SELECT hybrid_cache.populate('t', 'lazy');
SELECT hybrid_cache.reconcile('t', 't_string');
ROLLBACK;
BEGIN;
SELECT hybrid_cache.attach('t', 'string', 'new:{id}', value => 'v', name => 'new');
SELECT hybrid_cache.reconcile('t', 'new');
ROLLBACK;

-- settings that are off
SET hybrid_cache.repair = off;
SELECT hybrid_cache.reconcile('t', 't_string');
BEGIN;
SELECT hybrid_cache.populate('t', 't_string');
ROLLBACK;
RESET hybrid_cache.repair;
SET hybrid_cache.enabled = off;
SELECT hybrid_cache.reconcile('t', 't_string');
RESET hybrid_cache.enabled;

-- a transaction that may not write
BEGIN READ ONLY;
SELECT * FROM compare('t', 't_string');
SELECT hybrid_cache.populate('t', 't_string');
ROLLBACK;

--
-- rights
--
CREATE ROLE regress_reconciler;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_reconciler;
GRANT SELECT ON t TO regress_reconciler;
SET ROLE regress_reconciler;
SELECT hybrid_cache.populate('t', 't_string');
SELECT hybrid_cache.reconcile('t', 't_string');
SELECT hybrid_cache.cancel('t', 't_string');
SELECT hybrid_cache.orphans('t', 't_string');
SELECT * FROM hybrid_cache.progress;
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hybrid_cache TO regress_reconciler;
SET ROLE regress_reconciler;
SELECT hybrid_cache.populate('t', 't_string');
SELECT hybrid_cache.reconcile('t', 't_string');
SELECT hybrid_cache.cancel('t', 't_string');
SELECT hybrid_cache.orphans('t', 't_string');
RESET ROLE;
-- the owner, for whom the keeper reads
ALTER TABLE t OWNER TO regress_reconciler;
SET ROLE regress_reconciler;
SELECT * FROM compare('t', 't_string');
SELECT count(*) FROM hybrid_cache.orphans('t', 't_string');
RESET ROLE;
ALTER TABLE t OWNER TO CURRENT_USER;
-- who may see statistics
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA hybrid_cache FROM regress_reconciler;
GRANT pg_read_all_stats TO regress_reconciler;
SET ROLE regress_reconciler;
SELECT count(*) FROM hybrid_cache.progress;
RESET ROLE;
DROP OWNED BY regress_reconciler;
DROP ROLE regress_reconciler;

SET client_min_messages = error;
DROP TABLE t, p;
DROP VIEW states;
DROP FUNCTION compare(regclass, name);
DROP PROCEDURE settled();
DROP EXTENSION hybrid_cache;
