--
-- events: a change of a row becomes an entry of a stream, a message, an element
-- of a list
--
CREATE EXTENSION hybrid_cache;
SET client_min_messages = warning;
SET TimeZone = 'Asia/Tokyo';

CREATE TABLE orders (
	id int PRIMARY KEY,
	state text,
	price numeric,
	at timestamptz DEFAULT '2024-02-29 12:00+00',
	secret text
);

CREATE PROCEDURE synced() LANGUAGE plpgsql AS $$
BEGIN
	IF NOT hybrid_cache.wait_for_sync('30s') THEN
		RAISE 'the worker did not catch up';
	END IF;
END
$$;

-- the entries of a stream, as arrays of fields and values; positions are checked
-- and left out
CREATE FUNCTION entries(key text) RETURNS TABLE (n bigint, entry text) LANGUAGE plpgsql AS $$
BEGIN
	CALL synced();
	RETURN QUERY
	SELECT e.ord, regexp_replace((e.entry -> 1)::text, '"lsn", "[0-9A-F]+/[0-9A-F]+"', '"lsn", "*"')
	FROM jsonb_array_elements(redis_command('XRANGE', key, '-', '+')) WITH ORDINALITY e (entry, ord)
	ORDER BY e.ord;
END
$$;

-- the elements of a list, the same
CREATE FUNCTION elements(key text) RETURNS TABLE (n bigint, element text) LANGUAGE plpgsql AS $$
BEGIN
	CALL synced();
	RETURN QUERY
	SELECT e.ord, regexp_replace(e.element, '"lsn":"[0-9A-F]+/[0-9A-F]+"', '"lsn":"*"')
	FROM jsonb_array_elements_text(redis_command('LRANGE', key, '0', '-1')) WITH ORDINALITY e (element, ord)
	ORDER BY e.ord;
END
$$;

-- runs a command that fails, and says how
CREATE PROCEDURE try(command text) LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE command;
	RAISE INFO 'it worked: %', command;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RAISE INFO '% %', SQLSTATE, SQLERRM ||
		CASE WHEN detail <> '' THEN E'\n  DETAIL ' || detail ELSE '' END ||
		CASE WHEN hint <> '' THEN E'\n  HINT ' || hint ELSE '' END;
END
$$;

-- what is there is not sent: nothing has happened to it
INSERT INTO orders VALUES (1, 'there before', 1);
SELECT hybrid_cache.attach('orders', 'stream', 'events', exclude => 'secret');
SELECT hybrid_cache.attach('orders', 'list', 'queue', exclude => 'secret');
SELECT hybrid_cache.attach('orders', 'publish', channel => 'changes:{id}', exclude => 'secret');
SELECT relation, name, kind, options, fires, state FROM hybrid_cache.mapping ORDER BY name;
SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'orders'::regclass ORDER BY tgname;

INSERT INTO orders VALUES (2, 'new', 2.50, DEFAULT, 'x'), (3, 'with "quotes" and Ä', NULL, 'infinity', 'y');
UPDATE orders SET state = 'paid' WHERE id = 2;
DELETE FROM orders WHERE id = 1;
SELECT * FROM entries('events');
SELECT * FROM elements('queue');

-- the position is that of the commit: all events of a transaction have the same,
-- and later ones a higher one
SELECT redis_del('events', 'queue');
BEGIN;
INSERT INTO orders VALUES (4);
UPDATE orders SET state = 'x' WHERE id = 4;
COMMIT;
DELETE FROM orders WHERE id = 4;
CALL synced();
WITH e AS (
	SELECT ord, (entry #>> '{1,5}')::pg_lsn AS lsn
	FROM jsonb_array_elements(redis_command('XRANGE', 'events', '-', '+')) WITH ORDINALITY e (entry, ord)
), q AS (
	SELECT ord, (element::jsonb ->> 'lsn')::pg_lsn AS lsn
	FROM jsonb_array_elements_text(redis_command('LRANGE', 'queue', '0', '-1')) WITH ORDINALITY q (element, ord)
)
SELECT ord, e.lsn = q.lsn AS same, e.lsn = lag(e.lsn) OVER w AS as_before, e.lsn > lag(e.lsn) OVER w AS later,
	e.lsn <= pg_current_wal_lsn() AS past
FROM e JOIN q USING (ord) WINDOW w AS (ORDER BY ord) ORDER BY ord;

-- what is rolled back has not happened
SELECT redis_del('events', 'queue');
BEGIN;
INSERT INTO orders VALUES (5, 'kept');
SAVEPOINT s;
UPDATE orders SET state = 'rolled back';
INSERT INTO orders VALUES (6);
ROLLBACK TO s;
DO $$
BEGIN
	INSERT INTO orders VALUES (7);
	RAISE 'no';
EXCEPTION WHEN OTHERS THEN
	UPDATE orders SET state = 'kept, too' WHERE id = 5;
END
$$;
COMMIT;
BEGIN;
DELETE FROM orders;
ROLLBACK;
-- TRUNCATE has no events, nor has a change that PostgreSQL does not make
INSERT INTO orders VALUES (5) ON CONFLICT DO NOTHING;
UPDATE orders SET state = 'x' WHERE false;
BEGIN;
TRUNCATE orders;
COMMIT;
SELECT * FROM entries('events');
-- but an UPDATE that sets what is there has; COPY and ON CONFLICT DO UPDATE too
SELECT redis_del('events', 'queue');
COPY orders (id, state) FROM stdin;
1	one
\.
UPDATE orders SET state = state;
INSERT INTO orders VALUES (1) ON CONFLICT (id) DO UPDATE SET price = 7;
SELECT * FROM elements('queue');

SELECT hybrid_cache.detach('orders', 'orders_stream'), hybrid_cache.detach('orders', 'orders_list', purge => false),
	hybrid_cache.detach('orders', 'orders_publish');
-- events stay, they are of those who read them
SELECT redis_exists('events'), redis_exists('queue'), (SELECT count(*) FROM hybrid_cache.leftover) AS leftover;
DELETE FROM orders;
SELECT redis_del('events', 'queue');

-- OLD and NEW, and the row that the change is about
SELECT hybrid_cache.attach('orders', 'stream', 'states:{id}', name => 'states',
	filter => 'old.state IS DISTINCT FROM new.state',
	columns => $$coalesce(old.state, '-') || ' > ' || coalesce(NEW.state, '-') AS change, price, old.price * 2 AS twice, 'events' AS "old.x"$$);
SELECT hybrid_cache.attach('orders', 'list', 'prices', name => 'prices', push => 'left', operations => 'update',
	columns => 'id, orders.price, NEW.price - OLD.price AS difference, at');
SELECT hybrid_cache.attach('orders', 'stream', 'last', name => 'last', value => 'price', maxlen => 1000, operations => 'insert, delete');
SELECT options FROM hybrid_cache.mapping ORDER BY name;
SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'orders'::regclass ORDER BY tgname;
INSERT INTO orders VALUES (1, 'new', 10), (2, NULL, 20);
UPDATE orders SET state = 'paid' WHERE id = 1;
UPDATE orders SET price = 11 WHERE id = 1;
UPDATE orders SET state = 'sent', price = NULL WHERE id = 1;
DELETE FROM orders;
SELECT * FROM entries('states:1');
SELECT * FROM entries('states:2');
SELECT * FROM elements('prices');
-- a value that is NULL has no event
SELECT * FROM entries('last');
-- the table can be renamed: its name is in no definition
ALTER TABLE orders RENAME TO purchases;
INSERT INTO purchases VALUES (9, 'renamed', 9);
SELECT * FROM entries('states:9');
ALTER TABLE purchases RENAME TO orders;
-- what they name stays as it is
CALL try('ALTER TABLE orders RENAME COLUMN state TO status');
CALL try('ALTER TABLE orders ALTER COLUMN price TYPE float8');
CALL try('ALTER TABLE orders DROP COLUMN state');
ALTER TABLE orders DROP COLUMN secret;
SELECT name, state FROM hybrid_cache.mapping ORDER BY name;
-- replaced: what was sent stays
SELECT hybrid_cache.attach('orders', 'stream', 'last', name => 'last', value => 'id', replace => true);
INSERT INTO orders VALUES (10);
UPDATE orders SET price = 1 WHERE id = 10;
SELECT * FROM entries('last');
-- disabled and enabled again: nothing is owed
ALTER TABLE orders DISABLE TRIGGER last;
INSERT INTO orders VALUES (11);
SELECT name, fires, state FROM hybrid_cache.mapping ORDER BY name;
ALTER TABLE orders ENABLE TRIGGER last;
SET hybrid_cache.enabled = off;
INSERT INTO orders VALUES (12);
RESET hybrid_cache.enabled;
SELECT name, fires, state FROM hybrid_cache.mapping ORDER BY name;
SELECT count(*) FROM entries('last');
DROP TRIGGER last ON orders;
DROP TABLE orders;
SELECT count(*) FROM hybrid_cache.owed;
SELECT count(*) FROM hybrid_cache.leftover;

-- by hand: any trigger for each row after the change
CREATE TABLE t (id int, name text, o int);
CREATE TRIGGER a AFTER INSERT ON t FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.emit('stream', 'key=hand', 'value=name');
CREATE TRIGGER b AFTER UPDATE OF name ON t FOR EACH ROW WHEN (OLD.id = 1)
EXECUTE FUNCTION hybrid_cache.emit('stream', 'key=hand', $$columns='b' AS by, OLD.name AS was, NEW.name AS is$$);
CREATE CONSTRAINT TRIGGER c AFTER DELETE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.emit('stream', 'key=hand', $$columns='c' AS by, id$$, 'operations=delete');
INSERT INTO t VALUES (1, 'a'), (2, 'b');
UPDATE t SET name = 'c';
UPDATE t SET id = 3 WHERE id = 1;
BEGIN;
DELETE FROM t WHERE id = 2;
INSERT INTO t VALUES (4, 'before the delete');
COMMIT;
SELECT * FROM entries('hand');
SELECT name, kind, state FROM hybrid_cache.mapping ORDER BY name;
CALL try($$CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.emit('stream', 'key=k')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION hybrid_cache.emit('stream', 'key=k')$$);
CALL try($$CREATE TRIGGER x BEFORE TRUNCATE ON t EXECUTE FUNCTION hybrid_cache.emit('stream', 'key=k')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.emit('stream', 'key=k', 'operations=insert,delete')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.emit()$$);
CALL try($$CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.emit('json', 'key=k')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.emit('post', 'key=k')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through('stream', 'key=k')$$);
CALL try('SELECT hybrid_cache.emit()');
DROP TABLE t;

-- wrong definitions
CREATE TABLE t (id int PRIMARY KEY, name text, price float8);
CALL try($$SELECT hybrid_cache.attach('t', 'stream')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'publish', 'k')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'publish')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', push => 'left')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'list', 'k', push => 'up')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'list', 'k', maxlen => 10)$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', maxlen => 0)$$);
CALL try($$CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.emit('stream', 'key=k', 'maxlen=many')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.emit('stream', 'key=k', 'maxlen=99999999999999999999')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', operations => '')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', operations => 'insert, truncate')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', value => 'name', columns => 'id')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', value => 'name', exclude => 'id')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', columns => 'name', exclude => 'id')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', exclude => 'id, name, price')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', ttl => '1 hour')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k:{nowhere}')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', filter => 'old.nowhere > 1')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', filter => 'new.id')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', filter => 'old IS NOT NULL')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', filter => 'old.ctid = new.ctid')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', filter => 'older.id = 1')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', columns => 'now()')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', columns => 'old.*')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', columns => 'old.id, new.id')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'stream', 'k', populate => true)$$);
-- OLD and NEW are of events only
CALL try($$SELECT hybrid_cache.attach('t', 'json', 'k:{id}', filter => 'old.id = 1')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'json', 'k:{id}', operations => 'insert')$$);

-- a stream is shared by any number of mappings, but not with other kinds
SELECT hybrid_cache.attach('t', 'stream', 'shared:{id}');
SELECT hybrid_cache.attach('t', 'stream', 'shared:{name}', name => 'second');
CALL try($$SELECT hybrid_cache.attach('t', 'list', 'shared:{id}')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'json', 'shared:{id}')$$);
CALL try($$SELECT hybrid_cache.attach('t', 'set', 'shared:{id}', member => '{id}')$$);
SELECT hybrid_cache.attach('t', 'publish', channel => 'shared:{id}');

-- there is nothing to read, to compare or to populate
CALL try($$SELECT hybrid_cache.get('t', 't_stream', 1)$$);
CALL try($$SELECT hybrid_cache.populate('t', 't_stream')$$);
CALL try($$SELECT * FROM hybrid_cache.reconcile('t', 't_publish')$$);
SELECT * FROM hybrid_cache.orphans('t', 't_stream');
SELECT hybrid_cache.cancel('t', 't_stream');

-- a mapping that was one of entries owes nothing as one of events
SELECT hybrid_cache.attach('t', 'json', 'document:{id}', populate => false);
CALL synced();
CREATE OR REPLACE TRIGGER t_json AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.emit('stream', 'key=stream:{id}');
SELECT name, kind, state FROM hybrid_cache.mapping ORDER BY name;
DROP TABLE t;

-- a table and columns called old and new; composite types
CREATE TYPE pair AS (a int, b int);
CREATE TABLE old (id int, old pair, new pair);
SELECT hybrid_cache.attach('old', 'stream', 'names', columns => '(old.old).a AS was, (new.old).a AS is, (old).b AS "(old).b", (new).b AS other', operations => 'update');
INSERT INTO old VALUES (1, (1, 2), (3, 4));
UPDATE old SET old = (5, 6), new = (7, 8);
SELECT options ->> 'columns' AS columns FROM hybrid_cache.mapping;
SELECT * FROM entries('names');
DROP TABLE old;

-- partitions: the name is that of the table with the mapping; a row that moves
-- is deleted here and inserted there
CREATE TABLE p (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 (extra_dropped int, part int NOT NULL, id int NOT NULL);
ALTER TABLE p2 DROP COLUMN extra_dropped;
SELECT hybrid_cache.attach('p', 'stream', 'parts', filter => 'old.id IS NULL OR new.id IS NULL OR old.part <> new.part');
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
INSERT INTO p VALUES (1, 1), (2, 2);
UPDATE p SET part = 2 WHERE id = 1;
DELETE FROM p1;
DELETE FROM p2 WHERE id = 2;
TRUNCATE p2;
SELECT * FROM entries('parts');
ALTER TABLE p DETACH PARTITION p1;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgrelid IN ('p'::regclass, 'p1'::regclass, 'p2'::regclass) ORDER BY 1, 2;
SELECT name, state FROM hybrid_cache.mapping;
DROP TABLE p, p1;

-- expressions run as the owner, with fixed settings, whoever changes the row
CREATE ROLE regress_writer;
CREATE ROLE regress_owner;
CREATE SCHEMA own AUTHORIZATION regress_owner;
GRANT USAGE ON SCHEMA own, hybrid_cache TO regress_owner;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hybrid_cache TO regress_owner;
GRANT USAGE ON SCHEMA own TO regress_writer;
SET ROLE regress_owner;
CREATE TABLE own.t (id int, day date, length interval);
CREATE FUNCTION own.who(int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN current_user; END';
REVOKE ALL ON FUNCTION own.who(int) FROM PUBLIC;
SET search_path = own, public;
SELECT hybrid_cache.attach('t', 'stream', 'own', columns => $$who(new.id) AS who, new.day - old.day AS days, day::text AS day, day - date '01/02/2024' AS since, length$$);
GRANT INSERT, UPDATE ON t TO regress_writer;
SET ROLE regress_writer;
SET DateStyle = 'German';
SET IntervalStyle = 'iso_8601';
INSERT INTO own.t VALUES (1, date '2024-01-03', interval '1 day 2 hours');
RESET DateStyle;
RESET IntervalStyle;
RESET ROLE;
RESET search_path;
SELECT * FROM entries('own');
DROP SCHEMA own CASCADE;
REVOKE ALL ON SCHEMA hybrid_cache FROM regress_owner;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA hybrid_cache FROM regress_owner;
DROP ROLE regress_owner, regress_writer;

-- key templates with a NULL: no event; with a prefix; and what Redis refuses
CREATE TABLE k (id int, name text);
SELECT hybrid_cache.attach('k', 'list', 'names:{name}', value => 'id');
SELECT hybrid_cache.attach('k', 'stream', 'taken', name => 'taken', columns => 'id, name', operations => 'insert');
SELECT redis_set('taken', 'by another type');
INSERT INTO k VALUES (1, NULL), (2, 'a');
SELECT * FROM elements('names:a');
SELECT relation, op, key, error, sqlstate FROM hybrid_cache.dead_letter ORDER BY id;
SELECT redis_del('taken');
SELECT hybrid_cache.retry_dead_letter(id) FROM hybrid_cache.dead_letter ORDER BY id;
SELECT * FROM entries('taken');
SELECT count(*) FROM hybrid_cache.dead_letter;
-- values that are stored out of line
CREATE TABLE wide (id int, v text);
ALTER TABLE wide ALTER v SET STORAGE EXTERNAL;
SELECT hybrid_cache.attach('wide', 'list', 'wide');
INSERT INTO wide VALUES (1, repeat('x', 100000));
UPDATE wide SET id = 2;
DELETE FROM wide;
SELECT e ->> 'op' AS op, length(e #>> '{data,v}') AS data, length(e #>> '{old,v}') AS old
FROM elements('wide'), LATERAL (SELECT element::jsonb AS e) e ORDER BY n;
DROP TABLE wide;
-- timers share a stream with events
SELECT hybrid_cache.attach('k', 'timer', 'taken', member => '{id}', expires_at => $$timestamptz '2100-01-01 00:00+00'$$);
CALL try($$SELECT hybrid_cache.attach('k', 'timer', 'names:{name}', member => '{id}', expires_at => 'NULL::timestamptz', name => 'x')$$);
DROP TABLE k;
DROP EXTENSION hybrid_cache;
DROP TYPE pair;
