--
-- hybrid_cache.hold() and its kin: what they answer.  Faults and the end of time
-- are in t/034_holds.pl.
--
CREATE EXTENSION hybrid_cache;
SELECT redis_command('HSET', '{event:7}:seats', 'A1', 'free', 'A2', 'free', 'A3', 'sold', 'B1', 'free');

-- all or nothing
SELECT * FROM hybrid_cache.hold('{event:7}:seats', '{A1,A2}', 'alice', '1 minute', free => 'free');
SELECT * FROM hybrid_cache.hold('{event:7}:seats', '{B1,A1,A3,Z9}', 'bob', '1 minute', free => 'free');
SELECT item, holder, state, expires_at BETWEEN now() AND now() + '61 s' AS soon FROM hybrid_cache.holds('{event:7}:seats') ORDER BY 1;
SELECT hybrid_cache.hold_or_fail('{event:7}:seats', '{B1,A1,A3,Z9}', 'bob', '1 minute', free => 'free');
SELECT hybrid_cache.hold_or_fail('{event:7}:seats', '{B1,B1}', 'bob', '1 minute', free => 'free');
-- what one holds already stays, and more can be held
SELECT * FROM hybrid_cache.hold('{event:7}:seats', '{B1}', 'bob', '2 minutes', free => 'free');
SELECT * FROM hybrid_cache.hold('{event:7}:seats', '{B1,A2}', 'bob', '2 minutes', free => 'free');
SELECT hybrid_cache.release('{event:7}:seats', 'alice');
SELECT * FROM hybrid_cache.hold('{event:7}:seats', '{B1,A2}', 'bob', '2 minutes', free => 'free');
SELECT item, holder, state, expires_at > now() + '100 s' AS later FROM hybrid_cache.holds('{event:7}:seats') ORDER BY 1;
SELECT hybrid_cache.release('{event:7}:seats', 'bob'), hybrid_cache.release('{event:7}:seats', 'bob');

-- without a hash, everything that nobody holds is free
SELECT * FROM hybrid_cache.hold('rooms', ARRAY['', 'two words', E'a\nb', 'ä'], 'ä: ö', '1 minute');
SELECT * FROM hybrid_cache.hold('rooms', ARRAY['1', '', E'a\nb', 'ä'], '3:x', '1 minute');
SELECT item, holder, state FROM hybrid_cache.holds('rooms') ORDER BY item COLLATE "C";
SELECT hybrid_cache.release('rooms', 'ä: ö');
SELECT item FROM hybrid_cache.holds('rooms');

-- a transaction that is rolled back holds nothing
BEGIN;
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', '1 minute');
SELECT item, state FROM hybrid_cache.holds('rooms');
ROLLBACK;
SELECT item, state FROM hybrid_cache.holds('rooms');
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'bob', '1 minute');
SELECT hybrid_cache.release('rooms', 'bob');

-- nor does a savepoint, nor a block that fails
BEGIN;
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', '1 minute');
SAVEPOINT a;
SELECT * FROM hybrid_cache.hold('rooms', '{1,2}', 'alice', '1 minute');
SAVEPOINT b;
SELECT * FROM hybrid_cache.hold('rooms', '{3}', 'alice', '1 minute');
RELEASE b;
SELECT * FROM hybrid_cache.hold('rooms', '{2,3}', 'alice', '1 minute');
SELECT item FROM hybrid_cache.holds('rooms') ORDER BY 1;
ROLLBACK TO a;
SELECT item FROM hybrid_cache.holds('rooms') ORDER BY 1;
SELECT * FROM hybrid_cache.hold('rooms', '{3}', 'bob', '1 minute');
SAVEPOINT c;
SELECT * FROM hybrid_cache.hold('rooms', '{4}', 'alice', '1 minute');
RELEASE c;
DO $$
BEGIN
	PERFORM hybrid_cache.hold_or_fail('rooms', '{5}', 'alice', '1 minute');
	PERFORM hybrid_cache.hold_or_fail('rooms', '{3}', 'alice', '1 minute');
EXCEPTION WHEN lock_not_available THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
COMMIT;
SELECT item, holder, state FROM hybrid_cache.holds('rooms') ORDER BY 1;
SELECT hybrid_cache.release('rooms', 'alice'), hybrid_cache.release('rooms', 'bob');

-- a hold that is renewed
BEGIN;
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', '1 minute');
SELECT hybrid_cache.extend_hold('rooms', 'alice', '10 minutes'), hybrid_cache.extend_hold('rooms', 'alice', '1 s'),
	hybrid_cache.extend_hold('rooms', 'bob', '1 s');
SELECT expires_at > now() + '9 minutes' AS later FROM hybrid_cache.holds('rooms');
ROLLBACK;
SELECT hybrid_cache.extend_hold('rooms', 'alice', '10 minutes');

-- confirmed when it is committed
SELECT hybrid_cache.confirm('rooms', 'alice');
SELECT * FROM hybrid_cache.hold('rooms', '{1,2}', 'alice', '1 minute');
BEGIN;
SELECT hybrid_cache.confirm('rooms', 'alice');
SELECT item, state, expires_at FROM hybrid_cache.holds('rooms') ORDER BY 1;
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'bob', '1 minute');
SELECT hybrid_cache.confirm('rooms', 'alice'), hybrid_cache.extend_hold('rooms', 'alice', '1 minute');
ROLLBACK;
SELECT item, state, expires_at > now() AS later FROM hybrid_cache.holds('rooms') ORDER BY 1;
BEGIN;
SAVEPOINT a;
SELECT hybrid_cache.confirm('rooms', 'alice');
ROLLBACK TO a;
SELECT hybrid_cache.confirm('rooms', 'alice');
COMMIT;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT item, holder, state, expires_at FROM hybrid_cache.holds('rooms') ORDER BY 1;
SELECT * FROM hybrid_cache.hold('rooms', '{1,2}', 'alice', '1 minute');
SELECT hybrid_cache.confirm('rooms', 'alice'), hybrid_cache.extend_hold('rooms', 'alice', '1 minute');

-- what is confirmed is released when that is committed
BEGIN;
SELECT * FROM hybrid_cache.hold('rooms', '{3}', 'alice', '1 minute');
SELECT hybrid_cache.release('rooms', 'alice');
ROLLBACK;
SELECT item, holder, state FROM hybrid_cache.holds('rooms') ORDER BY 1;
SELECT hybrid_cache.release('rooms', 'alice');
SELECT hybrid_cache.wait_for_sync('60s');
SELECT * FROM hybrid_cache.holds('rooms');
SELECT redis_command('KEYS', 'hybrid_cache:*{rooms}');

-- everything in one transaction
BEGIN;
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', '1 minute');
SELECT hybrid_cache.confirm('rooms', 'alice');
SELECT hybrid_cache.release('rooms', 'alice');
SELECT * FROM hybrid_cache.hold('rooms', '{2}', 'alice', '1 minute');
SELECT hybrid_cache.confirm('rooms', 'alice');
COMMIT;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT item, holder, state FROM hybrid_cache.holds('rooms') ORDER BY 1;
BEGIN;
SELECT * FROM hybrid_cache.hold('rooms', '{7}', 'carl', '1 minute');
SELECT hybrid_cache.confirm('rooms', 'carl');
ROLLBACK;
SELECT item, holder, state FROM hybrid_cache.holds('rooms') ORDER BY 1;

-- another session sees at once what is confirmed
BEGIN;
SELECT * FROM hybrid_cache.hold('rooms', '{8}', 'dora', '1 minute');
SELECT hybrid_cache.confirm('rooms', 'dora');
COMMIT;
SELECT hybrid_cache.release('rooms', 'dora');
SELECT * FROM hybrid_cache.hold('rooms', '{9}', 'dora', '1 minute');
SELECT hybrid_cache.wait_for_sync('60s');
SELECT item, holder, state FROM hybrid_cache.holds('rooms') ORDER BY 1;


-- with a prefix
SET hybrid_cache.key_prefix = 'p:';
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', '1 minute', expired => 'over');
SELECT redis_command('HKEYS', 'hybrid_cache:holds:{p:rooms}');
SELECT hybrid_cache.release('rooms', 'alice');
RESET hybrid_cache.key_prefix;

-- what it does not take
SELECT * FROM hybrid_cache.hold(NULL, '{1}', 'alice', '1 minute');
SELECT * FROM hybrid_cache.hold('', '{1}', 'alice', '1 minute');
SELECT * FROM hybrid_cache.hold('rooms', NULL, 'alice', '1 minute');
SELECT * FROM hybrid_cache.hold('rooms', '{}', 'alice', '1 minute');
SELECT * FROM hybrid_cache.hold('rooms', '{1,NULL}', 'alice', '1 minute');
SELECT * FROM hybrid_cache.hold('rooms', '{1}', NULL, '1 minute');
SELECT * FROM hybrid_cache.hold('rooms', '{1}', '', '1 minute');
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', NULL);
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', '0');
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', '-1 s');
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', '1 minute', expired => '');
SELECT hybrid_cache.hold_or_fail('rooms', '{}', 'alice', '1 minute');
SELECT hybrid_cache.confirm(NULL, 'alice');
SELECT hybrid_cache.confirm('rooms', NULL);
SELECT hybrid_cache.release('', 'alice');
SELECT hybrid_cache.release('rooms', NULL);
SELECT hybrid_cache.extend_hold('rooms', 'alice', '0');
SELECT hybrid_cache.extend_hold(NULL, 'alice', '1 s');
SELECT * FROM hybrid_cache.holds(NULL);
SELECT * FROM hybrid_cache.hold('rooms', ARRAY(SELECT i::text FROM generate_series(1, 10001) i), 'alice', '1 minute');
BEGIN READ ONLY;
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', '1 minute');
ROLLBACK;

-- a key of another type
SELECT redis_set('{s}', 'string'), redis_set('hybrid_cache:holds:{broken}', 'string');
\set VERBOSITY sqlstate
SELECT * FROM hybrid_cache.hold('{s}', '{1}', 'alice', '1 minute', free => 'free');
SELECT * FROM hybrid_cache.hold('broken', '{1}', 'alice', '1 minute');
\set VERBOSITY default
SELECT * FROM hybrid_cache.hold('{s}', '{1}', 'alice', '1 minute');

-- scripts are forgotten
SELECT redis_command('SCRIPT', 'FLUSH');
SELECT item, holder, state FROM hybrid_cache.holds('{s}');
SELECT hybrid_cache.release('{s}', 'alice');

CREATE ROLE regress_nobody;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_nobody;
SET ROLE regress_nobody;
SELECT * FROM hybrid_cache.hold('rooms', '{1}', 'alice', '1 minute');
SELECT * FROM hybrid_cache.holds('rooms');
RESET ROLE;
DROP OWNED BY regress_nobody;
DROP ROLE regress_nobody;
