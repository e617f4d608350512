--
-- kind timer: one event at the time that a row says, which follows its row
--
CREATE EXTENSION hybrid_cache;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET client_min_messages = warning;

CREATE TABLE task (
	id int PRIMARY KEY,
	queue text NOT NULL DEFAULT 'q',
	due timestamptz,
	state text NOT NULL DEFAULT 'open',
	note text
);

CREATE PROCEDURE settled() LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM hybrid_cache.progress) OR
		EXISTS (SELECT FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	IF NOT hybrid_cache.wait_for_sync('60s') THEN
		RAISE 'the worker did not catch up';
	END IF;
END
$$;
-- pending timers of a stream, by the name of the set that has them
CREATE FUNCTION pending(name text, OUT member text, OUT due timestamptz) RETURNS SETOF record LANGUAGE sql AS $$
	CALL settled();
	SELECT m #>> '{}', to_timestamp((redis_command('ZSCORE', name, m #>> '{}') #>> '{}')::numeric / 1000)
	FROM jsonb_array_elements(redis_command('ZRANGE', name, '0', '-1')) m ORDER BY 2, 1;
$$;
CREATE FUNCTION events(stream text, OUT id text, OUT member text, OUT at timestamptz) RETURNS SETOF record LANGUAGE sql AS $$
	SELECT e ->> 0, e -> 1 ->> 1, to_timestamp((e -> 1 ->> 3)::numeric / 1000)
	FROM jsonb_array_elements(redis_command('XRANGE', stream, '-', '+')) e;
$$;
-- the members in the order of their events, when there are so many
CREATE FUNCTION fired(stream text, n int) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		EXIT WHEN redis_command('EXISTS', stream) = '1' AND redis_command('XLEN', stream)::int >= n;
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN (SELECT array_agg(member) FROM events(stream));
END
$$;

--
-- definitions
--
SELECT hybrid_cache.attach('task', 'timer', 'q', member => '{id}');
SELECT hybrid_cache.attach('task', 'timer', 'q', expires_at => 'due');
SELECT hybrid_cache.attach('task', 'timer', 'q', member => '{id}', expires_at => 'due', ttl => '1 hour');
SELECT hybrid_cache.attach('task', 'timer', 'q', member => '{id}', expires_at => 'due', value => 'note');
SELECT hybrid_cache.attach('task', 'timer', 'q', member => '{id}', expires_at => 'note');
SELECT hybrid_cache.attach('task', 'timer', 'q', member => '{id}', expires_at => 'now()');
INSERT INTO task (id, due) VALUES (1, '2020-01-01 00:00+00'), (2, '2100-01-01 00:00:00.0004+00');
SELECT hybrid_cache.attach('task', 'timer', 'q', member => '{id}', expires_at => 'due',
	filter => $$state = 'open' AND queue = 'q'$$, name => 'due');
SELECT relation, name, kind, options, fires FROM hybrid_cache.mapping;
-- rows that were due before there was a mapping are no events
SELECT * FROM pending('hybrid_cache:timers:{q}');
-- the same entries, and others in the same stream
SELECT hybrid_cache.attach('task', 'zset', 'q', member => '{id}', score => 'id');
SELECT hybrid_cache.attach('task', 'timer', 'q', member => '{id}', expires_at => 'due');
-- nothing to read
SELECT hybrid_cache.get('task', 'due');

--
-- pending timers follow their rows
--
INSERT INTO task (id, due, note) VALUES (3, '2100-01-02', NULL), (4, '2100-01-03', NULL), (5, NULL, NULL),
	(6, 'infinity', NULL), (7, '-infinity', NULL), (8, '2100-01-08', 'sub');
SELECT * FROM pending('hybrid_cache:timers:{q}');
UPDATE task SET due = '2100-01-04' WHERE id = 3;
UPDATE task SET state = 'done' WHERE id = 4;
UPDATE task SET due = '2100-01-05', note = 'from null' WHERE id = 5;
UPDATE task SET due = '2100-01-06' WHERE id = 6;
DELETE FROM task WHERE id = 2;
SELECT * FROM pending('hybrid_cache:timers:{q}');
UPDATE task SET id = 33 WHERE id = 3;
UPDATE task SET due = NULL WHERE id = 5;
UPDATE task SET due = 'infinity' WHERE id = 6;
UPDATE task SET state = 'open' WHERE id = 4;
BEGIN;
SAVEPOINT s;
DELETE FROM task WHERE id = 8;
UPDATE task SET due = '2000-01-01' WHERE id = 4;
ROLLBACK TO s;
INSERT INTO task (id, due) VALUES (9, '2100-01-09');
COMMIT;
BEGIN;
UPDATE task SET due = '2000-01-01';
ROLLBACK;
SELECT * FROM pending('hybrid_cache:timers:{q}');
-- as far as PostgreSQL's time goes
INSERT INTO task (id, due) VALUES (10, '294276-01-01');
CALL settled();
SELECT redis_command('ZSCORE', 'hybrid_cache:timers:{q}', '10');
SELECT redis_command('EXISTS', 'q');
TRUNCATE task;
SELECT * FROM pending('hybrid_cache:timers:{q}');

--
-- the event
--
-- at once, when the time is over already; in the order of their times
INSERT INTO task (id, due) VALUES (1, '2000-01-03'), (2, '2000-01-01 00:00:00.1234567+00'), (3, '2000-01-02');
SELECT fired('q', 3);
SELECT member, at FROM events('q');
SELECT * FROM pending('hybrid_cache:timers:{q}');
-- in time, not before
INSERT INTO task (id, due) VALUES (4, clock_timestamp() + '300 ms');
SELECT fired('q', 4);
SELECT member, at = ceil_ms AS at_due, id::numeric >= extract(epoch FROM at) * 1000 AS not_early
FROM (SELECT e.member, e.at, split_part(e.id, '-', 1) AS id,
	to_timestamp(ceil(extract(epoch FROM due) * 1000) / 1000) AS ceil_ms
	FROM events('q') e JOIN task ON task.id::text = e.member WHERE e.member = '4') s;
-- one that is moved further away does not fire at its old time
INSERT INTO task (id, due) VALUES (5, clock_timestamp() + '3 s'), (6, clock_timestamp() + '3.1 s');
UPDATE task SET due = '2100-01-01' WHERE id = 5;
SELECT fired('q', 5);
SELECT * FROM pending('hybrid_cache:timers:{q}');
-- and fires when it is moved near
UPDATE task SET due = '2001-01-01' WHERE id = 5;
SELECT fired('q', 6);

--
-- what has fired does not fire again, unless its time is changed
--
CREATE TABLE barrier AS SELECT 100 AS id;
CREATE FUNCTION fire_another() RETURNS int LANGUAGE sql AS $$
	WITH b AS (UPDATE barrier SET id = id + 1 RETURNING id)
	INSERT INTO task (id, due) SELECT id, '2100-01-01'::timestamptz - '100 years'::interval FROM b RETURNING id;
$$;
SELECT redis_command('DEL', 'q');
UPDATE task SET note = 'changed';
BEGIN;
UPDATE task SET note = 'changed';
UPDATE task SET note = 'changed again';
UPDATE task SET due = due + interval '0';
COMMIT;
BEGIN;
UPDATE task SET note = 'and';
SAVEPOINT s;
UPDATE task SET note = 'again';
ROLLBACK TO s;
UPDATE task SET note = 'another', due = due - interval '1 microsecond' WHERE due <> date_trunc('milliseconds', due);
ALTER TABLE task ADD COLUMN rewritten float8 DEFAULT random();
UPDATE task SET note = 'rewritten';
COMMIT;
SELECT fire_another();
SELECT fired('q', 1);
BEGIN;
UPDATE task SET note = 'first' WHERE id = 1;
UPDATE task SET due = '2000-02-01' WHERE id = 1;
UPDATE task SET note = 'last' WHERE id = 1;
COMMIT;
SELECT fired('q', 2);
SELECT member, at FROM events('q') ORDER BY id DESC LIMIT 1;
-- made and changed in one transaction
BEGIN;
INSERT INTO task (id, due) VALUES (20, '2000-01-01');
UPDATE task SET note = 'changed' WHERE id = 20;
UPDATE task SET note = 'again' WHERE id = 20;
COMMIT;
SELECT fired('q', 3);
-- a row that leaves and comes back has a new event
BEGIN;
UPDATE task SET state = 'done' WHERE id = 20;
UPDATE task SET state = 'open' WHERE id = 20;
COMMIT;
SELECT fired('q', 4);

-- a user's trigger that changes the row again comes before ours
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE task SET note = coalesce(note, '') || 'x' WHERE id = NEW.id AND length(coalesce(note, '')) < 3;
	RETURN NULL;
END $$;
CREATE TRIGGER a_again AFTER INSERT OR UPDATE ON task FOR EACH ROW EXECUTE FUNCTION again();
SELECT redis_command('DEL', 'q');
INSERT INTO task (id, due) VALUES (30, '2000-01-01');
SELECT fired('q', 1);
UPDATE task SET note = '' WHERE id = 30;
UPDATE task SET note = '', due = '2000-01-02' WHERE id = 30;
SELECT fired('q', 2);
UPDATE task SET note = '', due = '2100-01-02' WHERE id = 30;
SELECT * FROM pending('hybrid_cache:timers:{q}');
UPDATE task SET note = '', due = '2000-01-03' WHERE id = 30;
SELECT fired('q', 3);
BEGIN;
INSERT INTO task (id, due) VALUES (31, '2000-01-01');
UPDATE task SET note = '' WHERE id = 31;
UPDATE task SET note = '', due = '2000-01-04' WHERE id = 30;
UPDATE task SET note = '' WHERE id = 30;
COMMIT;
SELECT fired('q', 5);
SELECT fire_another();
SELECT fired('q', 6);
DROP TRIGGER a_again ON task;

--
-- comparing
--
TRUNCATE task;
SELECT redis_command('DEL', 'q');
INSERT INTO task (id, due) VALUES (1, '2100-01-01'), (2, '2100-01-02'), (3, '2100-01-03'), (4, '2000-01-01'), (5, NULL);
SELECT fired('q', 1);
CALL settled();
SELECT checked, missing, stale, orphaned, conflicting, repaired FROM hybrid_cache.reconcile('task', 'due');
SELECT redis_command('ZREM', 'hybrid_cache:timers:{q}', '1'),
	redis_command('ZADD', 'hybrid_cache:timers:{q}', '5000000000000', '2', '5000000000000', 'other', '5000000000000', '8', '5000000000000', '5');
SELECT * FROM hybrid_cache.orphans('task', 'due');
SELECT checked, missing, stale, orphaned, conflicting, repaired FROM hybrid_cache.reconcile('task', 'due');
SELECT * FROM pending('hybrid_cache:timers:{q}');
SELECT checked, missing, stale, orphaned, conflicting, repaired FROM hybrid_cache.reconcile('task', 'due');
SELECT redis_command('XLEN', 'q');

--
-- names: a key per queue, with and without a hash tag, and members of any text
--
SELECT hybrid_cache.attach('task', 'timer', '{{{queue}}}:due', member => 'task {id} é', expires_at => 'due', name => 'tagged', filter => $$queue <> 'q'$$);
INSERT INTO task (id, queue, due) VALUES (10, 'a', '2100-01-01'), (11, 'b', '2000-01-01'), (12, 'a', '2000-01-01');
SELECT fired('{b}:due', 1), fired('{a}:due', 1);
SELECT * FROM pending('hybrid_cache:timers:{a}:due');
SELECT redis_command('ZADD', 'hybrid_cache:timers:{a}:due', '5000000000000', 'task 77 é', '5000000000000', 'foreign');
SELECT * FROM hybrid_cache.orphans('task', 'tagged');
SELECT checked, missing, stale, orphaned, conflicting, repaired FROM hybrid_cache.reconcile('task', 'tagged');

--
-- a stream that is none: nothing is lost, and others go on
--
SELECT redis_command('DEL', '{b}:due'), redis_set('{b}:due', 'a string');
INSERT INTO task (id, queue, due) VALUES (13, 'b', '2000-01-03'), (14, 'b', '2000-01-04'), (15, 'a', '2000-01-05');
SELECT fired('{a}:due', 2);
SELECT * FROM pending('hybrid_cache:timers:{b}:due');
SELECT redis_command('DEL', '{b}:due');
SELECT fired('{b}:due', 2);

--
-- the mapping goes, and its pending timers with it; the stream is the user's
--
SELECT hybrid_cache.detach('task', 'tagged');
SELECT * FROM pending('hybrid_cache:timers:{a}:due');
SELECT fired('{a}:due', 2);
DROP TABLE task CASCADE;
SELECT mapping, kind, key, member FROM hybrid_cache.leftover;
SELECT hybrid_cache.purge(id, dry_run => false) FROM hybrid_cache.leftover;
SELECT * FROM pending('hybrid_cache:timers:{q}');
DROP EXTENSION hybrid_cache;
