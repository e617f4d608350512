--
-- every way a row can change
--
CREATE EXTENSION hybrid_cache;
SET client_min_messages = warning;

-- what differs between the tables' rows and Redis: nothing, always
CREATE FUNCTION differs(pattern text, query text)
RETURNS TABLE (key text, redis text, postgres text) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT hybrid_cache.wait_for_sync('30s') THEN
		RAISE 'the worker did not catch up';
	END IF;
	RETURN QUERY EXECUTE format($q$
		SELECT coalesce(r.k, p.k), r.v, p.v
		FROM (SELECT k, redis_get(k) AS v FROM jsonb_array_elements_text(redis_command('KEYS', %L)) k) r
		FULL JOIN (%s) p(k, v) ON p.k = r.k WHERE r.v IS DISTINCT FROM p.v ORDER BY 1$q$, pattern, query);
END
$$;

CREATE TABLE t (id int PRIMARY KEY, v text, junk int, live boolean DEFAULT true);
ALTER TABLE t DROP COLUMN junk;
ALTER TABLE t ADD COLUMN big text, ADD COLUMN twice text GENERATED ALWAYS AS (v || v) STORED;
ALTER TABLE t ALTER COLUMN big SET STORAGE EXTERNAL;
SELECT hybrid_cache.attach('t', 'string', 't:{id}', value => $$v || ':' || twice || ':' || length(coalesce(big, ''))$$, filter => 'live');
\set t '\'SELECT \'\'t:\'\' || id, v || \'\':\'\' || twice || \'\':\'\' || length(coalesce(big, \'\'\'\')) FROM t WHERE live AND v IS NOT NULL\''

INSERT INTO t (id, v) SELECT g, 'v' || g FROM generate_series(1, 10) g;
SELECT * FROM differs('t:*', :t);
UPDATE t SET v = v || '!' WHERE id <= 5;
UPDATE t SET live = false WHERE id = 1;
UPDATE t SET v = NULL WHERE id = 2;
UPDATE t SET id = 100 WHERE id = 3;
DELETE FROM t WHERE id = 4;
SELECT * FROM differs('t:*', :t);
UPDATE t SET live = true WHERE id = 1;
UPDATE t SET big = repeat('x', 100000) WHERE id = 5;
UPDATE t SET v = 'with a TOASTed neighbour' WHERE id = 5;
SELECT * FROM differs('t:*', :t);
SELECT redis_get('t:5');
COPY t (id, v) FROM stdin;
20	copied
21	\N
\.
INSERT INTO t (id, v) VALUES (20, 'conflict'), (22, 'new') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
INSERT INTO t (id, v) VALUES (22, 'ignored') ON CONFLICT DO NOTHING;
MERGE INTO t USING (VALUES (20, 'merged'), (22, 'gone'), (23, 'inserted')) s(id, v) ON t.id = s.id
	WHEN MATCHED AND s.v = 'gone' THEN DELETE
	WHEN MATCHED THEN UPDATE SET v = s.v
	WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, s.v);
WITH moved AS (DELETE FROM t WHERE id = 23 RETURNING *) INSERT INTO t (id, v) SELECT id + 1, v FROM moved;
SELECT * FROM differs('t:*', :t);
SELECT redis_get('t:20'), redis_get('t:24');

-- an update of nothing, or outside the entry, adds nothing
SELECT ops AS before FROM hybrid_cache.status \gset
UPDATE t SET v = v;
UPDATE t SET big = left(big, 100000);
SELECT * FROM differs('t:*', :t);
SELECT ops - :before AS ops FROM hybrid_cache.status;

TRUNCATE t;
SELECT * FROM differs('t:*', :t);
SELECT redis_command('KEYS', 't:*');

-- key moves in one statement
CREATE TABLE s (id int PRIMARY KEY DEFERRABLE, v text);
SELECT hybrid_cache.attach('s', 'string', 's:{id}', value => 'v');
\set s '\'SELECT \'\'s:\'\' || id, v FROM s\''
INSERT INTO s SELECT g, 'row ' || g FROM generate_series(1, 5) g;
UPDATE s SET id = id + 1;
SELECT * FROM differs('s:*', :s);
UPDATE s SET id = id - 1;
UPDATE s SET id = 6 - id;
SELECT * FROM differs('s:*', :s);
SELECT redis_get('s:1');
BEGIN;
UPDATE s SET id = 7 WHERE id = 1;
UPDATE s SET id = 1 WHERE id = 2;
INSERT INTO s VALUES (2, 'took over');
DELETE FROM s WHERE id = 7;
COMMIT;
SELECT * FROM differs('s:*', :s);

-- users' triggers that update the same row again, before ours fires
CREATE TABLE n (id int PRIMARY KEY, v text, depth int DEFAULT 0);
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.v LIKE 'delete%' THEN
		DELETE FROM n WHERE id = new.id;
	ELSIF new.v LIKE 'move%' AND new.depth = 0 THEN
		UPDATE n SET id = id + 100, depth = 1 WHERE id = new.id;
	ELSIF new.v LIKE 'undo%' AND new.depth = 0 THEN
		BEGIN
			UPDATE n SET v = 'undone', depth = 1 WHERE id = new.id;
			RAISE 'never mind';
		EXCEPTION WHEN raise_exception THEN
		END;
	ELSIF new.v LIKE 'touch%' AND new.depth = 0 THEN
		UPDATE n SET depth = 1 WHERE id = new.id;
	ELSIF new.v LIKE 'nest%' AND new.depth < 3 THEN
		UPDATE n SET v = 'nest ' || new.depth + 1, depth = new.depth + 1 WHERE id = new.id;
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER a_user_trigger AFTER INSERT OR UPDATE ON n FOR EACH ROW EXECUTE FUNCTION again();
SELECT hybrid_cache.attach('n', 'string', 'n:{id}', value => 'v');
\set n '\'SELECT \'\'n:\'\' || id, v FROM n\''
INSERT INTO n VALUES (1, 'nest'), (2, 'delete'), (3, 'move'), (4, 'undo'), (5, 'touch'), (6, 'plain'), (7, 'plain');
SELECT * FROM n ORDER BY id;
SELECT * FROM differs('n:*', :n);
UPDATE n SET v = 'nest again', depth = 0 WHERE id = 6;
UPDATE n SET v = 'touch again', depth = 0, id = 50 WHERE id = 7;
UPDATE n SET v = 'delete me' WHERE id = 4;
UPDATE n SET v = 'move back', depth = 0, id = 3 WHERE id = 103;
UPDATE n SET v = 'undo', depth = 0 WHERE id = 5;
SELECT * FROM n ORDER BY id;
SELECT * FROM differs('n:*', :n);

-- savepoints, exceptions, procedures, prepared transactions
BEGIN;
INSERT INTO t (id, v) VALUES (1, 'kept');
SAVEPOINT a;
INSERT INTO t (id, v) VALUES (2, 'lost');
UPDATE t SET v = 'lost' WHERE id = 1;
SAVEPOINT b;
INSERT INTO t (id, v) VALUES (3, 'lost');
RELEASE b;
ROLLBACK TO a;
INSERT INTO t (id, v) VALUES (4, 'kept');
SAVEPOINT c;
UPDATE t SET v = 'kept too' WHERE id = 4;
RELEASE c;
COMMIT;
SELECT * FROM differs('t:*', :t);
BEGIN;
DELETE FROM t;
INSERT INTO t (id, v) VALUES (9, 'never');
ROLLBACK;
SELECT * FROM differs('t:*', :t);
SELECT redis_get('t:4'), redis_get('t:9');
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 30 .. 33 LOOP
		INSERT INTO t (id, v) VALUES (i, 'step');
		IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
	END LOOP;
END
$$;
CALL steps();
SELECT * FROM differs('t:*', :t);
SELECT redis_command('KEYS', 't:3*') @> '["t:30", "t:32"]' AS committed, redis_exists('t:31', 't:33') AS rolled_back;
BEGIN;
UPDATE t SET v = 'prepared' WHERE id = 30;
PREPARE TRANSACTION 'hybrid_cache_capture';
SELECT hybrid_cache.wait_for_sync('30s'), redis_get('t:30');
COMMIT PREPARED 'hybrid_cache_capture';
SELECT * FROM differs('t:*', :t);
BEGIN;
UPDATE t SET v = 'not prepared' WHERE id = 30;
PREPARE TRANSACTION 'hybrid_cache_capture';
ROLLBACK PREPARED 'hybrid_cache_capture';
SELECT * FROM differs('t:*', :t);
-- what waits in one's own transaction is not waited for, and that is said
RESET client_min_messages;
BEGIN;
UPDATE t SET v = 'open' WHERE id = 30;
SELECT hybrid_cache.wait_for_sync('30s');
ROLLBACK;
SET client_min_messages = warning;

-- a user's trigger moves a row that this transaction has made: the first key goes
CREATE TABLE own (id int PRIMARY KEY DEFERRABLE, v int);
SELECT hybrid_cache.attach('own', 'string', 'own:{id}', value => 'v');
\set own '\'SELECT \'\'own:\'\' || id, v::text FROM own\''
CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() = 1 AND NEW.v = 1 THEN
		UPDATE own SET id = id + 100 WHERE id = NEW.id;
	ELSIF pg_trigger_depth() = 1 AND NEW.v = 2 THEN
		DELETE FROM own WHERE id = NEW.id;
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER a_move AFTER UPDATE ON own FOR EACH ROW EXECUTE FUNCTION move();
BEGIN;
INSERT INTO own SELECT g, 0 FROM generate_series(1, 3) g;
UPDATE own SET v = id;
COMMIT;
SELECT * FROM differs('own:*', :own);
SELECT redis_command('KEYS', 'own:*') @> '["own:101", "own:3"]' AS right_ones;
TRUNCATE own;
DROP TRIGGER a_move ON own;

-- two rows at one key for a while: the one that stays has it
CREATE TABLE guest (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, name text);
SELECT hybrid_cache.attach('guest', 'string', 'guest:{id}', value => 'name');
\set guest '\'SELECT \'\'guest:\'\' || id, name FROM guest\''
INSERT INTO guest VALUES (1, 'ann'), (2, 'bob'), (3, 'carl'), (4, 'dora'), (5, 'eve');
BEGIN;
UPDATE guest SET id = 1 WHERE name = 'bob';
UPDATE guest SET name = 'anna' WHERE name = 'ann';
UPDATE guest SET id = 6 WHERE name = 'anna';
UPDATE guest SET id = 3 WHERE name = 'dora';
UPDATE guest SET id = 4 WHERE name = 'dora';
UPDATE guest SET id = 5 WHERE name = 'carl';
UPDATE guest SET name = 'carla' WHERE name = 'carl';
DELETE FROM guest WHERE name = 'carla';
UPDATE guest SET name = 'eva' WHERE name = 'eve';
INSERT INTO guest VALUES (5, 'fred');
DELETE FROM guest WHERE name = 'eva';
UPDATE guest SET name = 'frida' WHERE name = 'fred';
DELETE FROM guest WHERE name = 'frida';
COMMIT;
SELECT * FROM differs('guest:*', :guest);
SELECT id, name, redis_get('guest:' || id) FROM guest ORDER BY id;

-- a guest whom a user's trigger sends on before its own entry is captured
CREATE TABLE inn (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, name text, stay boolean);
CREATE FUNCTION send_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NOT NEW.stay AND NEW.id < 100 THEN
		UPDATE inn SET name = name || '+' WHERE name = NEW.name AND length(name) < 6;
		UPDATE inn SET id = 100 + ascii(NEW.name) WHERE name LIKE NEW.name || '%' AND NOT stay;
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER a_send_on AFTER INSERT OR UPDATE ON inn FOR EACH ROW EXECUTE FUNCTION send_on();
SELECT hybrid_cache.attach('inn', 'hash', 'inn:{id}');
SELECT hybrid_cache.attach('inn', 'set', 'inns', member => '{id}');
INSERT INTO inn VALUES (1, 'host', true);
INSERT INTO inn VALUES (1, 'anna', false);
INSERT INTO inn VALUES (2, 'berta', true);
UPDATE inn SET id = 1, stay = false WHERE name = 'berta';
BEGIN;
UPDATE inn SET id = 3 WHERE name = 'host';
INSERT INTO inn VALUES (1, 'carla', false);
UPDATE inn SET id = 1 WHERE name = 'host';
COMMIT;
SELECT hybrid_cache.wait_for_sync('30s');
TABLE inn ORDER BY id;
SELECT k, redis_command('HGET', k, 'name') FROM jsonb_array_elements_text(redis_command('KEYS', 'inn:*')) k ORDER BY 1;
SELECT m FROM jsonb_array_elements_text(redis_command('SMEMBERS', 'inns')) m ORDER BY m::int;

-- a table that is rewritten within a transaction: its rows have other tids then
BEGIN;
INSERT INTO own SELECT g, 0 FROM generate_series(1, 6) g;
DELETE FROM own WHERE id = 1;
CLUSTER own USING own_pkey;
DELETE FROM own WHERE id = 2;
UPDATE own SET id = 7 - id WHERE id IN (3, 4);
ALTER TABLE own ADD COLUMN note float8 DEFAULT random();
UPDATE own SET id = 55 WHERE id = 5;
COMMIT;
SELECT * FROM differs('own:*', :own);
BEGIN;
TRUNCATE own;
COPY own (id, v) FROM stdin WITH (FREEZE);
1	0
2	0
\.
UPDATE own SET v = v;
UPDATE own SET id = 10 WHERE id = 1;
DELETE FROM own WHERE id = 2;
COMMIT;
SELECT * FROM differs('own:*', :own);
SELECT redis_command('KEYS', 'own:*');

-- foreign keys that cascade
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
SELECT hybrid_cache.attach('child', 'string', 'child:{id}', value => 'parent');
\set child '\'SELECT \'\'child:\'\' || id, parent::text FROM child\''
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1), (2, 1), (3, 2);
UPDATE parent SET id = 20 WHERE id = 2;
DELETE FROM parent WHERE id = 1;
SELECT * FROM differs('child:*', :child);
SELECT redis_command('KEYS', 'child:*'), redis_get('child:3');
TRUNCATE parent CASCADE;
SELECT * FROM differs('child:*', :child);

-- partitions: columns in another order, rows that move, one that is truncated
CREATE TABLE p (id int, v text, region text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE p_eu (v text, dropped int, region text NOT NULL, id int NOT NULL);
ALTER TABLE p_eu DROP COLUMN dropped;
ALTER TABLE p ATTACH PARTITION p_eu FOR VALUES IN ('eu');
CREATE TABLE p_us PARTITION OF p FOR VALUES IN ('us');
SELECT hybrid_cache.attach('p', 'string', 'p:{region}:{id}', value => 'v');
CREATE TABLE p_as PARTITION OF p FOR VALUES IN ('as') PARTITION BY RANGE (id);
CREATE TABLE p_as_1 PARTITION OF p_as FOR VALUES FROM (0) TO (100);
\set p '\'SELECT \'\'p:\'\' || region || \'\':\'\' || id, v FROM p\''
INSERT INTO p SELECT g, 'v' || g, (ARRAY['eu', 'us', 'as'])[1 + g % 3] FROM generate_series(1, 12) g;
SELECT * FROM differs('p:*', :p);
UPDATE p SET region = 'us', v = 'moved' WHERE region = 'eu' AND id < 7;
UPDATE p SET v = v || '.';
SELECT * FROM differs('p:*', :p);
TRUNCATE p_us;
SELECT * FROM differs('p:*', :p);
TRUNCATE p_as;
SELECT * FROM differs('p:*', :p);
INSERT INTO p VALUES (1, 'again', 'as');
TRUNCATE p;
SELECT * FROM differs('p:*', :p);
SELECT redis_command('KEYS', 'p:*');

-- composite keys, and a row that hands its key on
CREATE TABLE slot (day date, place int, holder text, active boolean, PRIMARY KEY (day, place, holder));
SELECT hybrid_cache.attach('slot', 'string', 'slot:{day}:{place}', value => 'holder', filter => 'active');
INSERT INTO slot VALUES ('2024-01-01', 1, 'ann', true), ('2024-01-01', 1, 'bob', false);
BEGIN;
UPDATE slot SET active = true WHERE holder = 'bob';
UPDATE slot SET active = false WHERE holder = 'ann';
COMMIT;
SELECT hybrid_cache.wait_for_sync('30s'), redis_get('slot:2024-01-01:1');
DELETE FROM slot WHERE holder = 'ann';
SELECT hybrid_cache.wait_for_sync('30s'), redis_get('slot:2024-01-01:1');

-- capture that is off leaves a debt, which is paid afterwards
BEGIN;
SET LOCAL hybrid_cache.enabled = off;
UPDATE slot SET holder = 'carl' WHERE holder = 'bob';
SELECT relation, name, state FROM hybrid_cache.mapping WHERE state <> 'ok';
COMMIT;
CREATE PROCEDURE settled() LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM hybrid_cache.progress) OR
		EXISTS (SELECT FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
CALL settled();
SELECT hybrid_cache.wait_for_sync('30s'), redis_get('slot:2024-01-01:1');
SELECT hybrid_cache.attach('slot', 'string', 'slot:{day}:{place}', value => 'holder', filter => 'active', name => 'slot_string', replace => true);
CALL settled();
SELECT hybrid_cache.wait_for_sync('30s'), redis_get('slot:2024-01-01:1');
SELECT relation, name, state FROM hybrid_cache.mapping WHERE state <> 'ok';

SELECT count(hybrid_cache.detach(relation, name)) FROM hybrid_cache.mapping;
CALL settled();
SELECT hybrid_cache.wait_for_sync('30s');
SELECT jsonb_agg(k) FROM jsonb_array_elements_text(redis_command('KEYS', '*')) k WHERE k NOT LIKE 'hybrid_cache:%';
DROP TABLE t, s, n, own, guest, inn, child, parent, p, slot;
DROP FUNCTION again(), move(), send_on(), differs(text, text);
DROP PROCEDURE steps(), settled();
DROP EXTENSION hybrid_cache;
