--
-- DDL around mappings: what it must not break, and what must not escape notice
--
CREATE EXTENSION hybrid_cache;
-- what is owed is to be seen, not to be dealt with
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET hybrid_cache.repair = off', current_database()); END $$;

CREATE VIEW triggers AS
SELECT tgrelid::regclass AS table,
	CASE WHEN tgisinternal THEN regexp_replace(tgname, '\d+$', 'N') ELSE tgname END AS name,
	CASE WHEN tgtype & 1 = 1 THEN 'row' ELSE 'truncate' END AS type, tgenabled AS enabled,
	tgisinternal AS internal, tgparentid <> 0 AS clone
FROM pg_trigger WHERE tgfoid::regproc::text LIKE 'hybrid_cache.%' ORDER BY tgrelid::regclass::text, 2;
CREATE VIEW states AS SELECT relation, name, state FROM hybrid_cache.mapping ORDER BY relation::text, name;
-- forget what is owed, as a reconcile will
CREATE PROCEDURE settle() LANGUAGE sql AS 'DELETE FROM hybrid_cache.owed';

--
-- plain DDL
--
CREATE TABLE t (id int PRIMARY KEY, name text, status text DEFAULT 'new', n int);
CREATE TRIGGER t_string AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('string', 'key=t:{id}', 'value=name', $$filter=status <> 'hidden'$$);
SELECT * FROM states;
CREATE TRIGGER t_string_truncate BEFORE TRUNCATE ON t FOR EACH STATEMENT
EXECUTE FUNCTION hybrid_cache.write_through('string', 'key=t:{id}', 'value=name', $$filter=status <> 'hidden'$$);
SELECT * FROM states;
INSERT INTO t VALUES (1, 'one');
CREATE TRIGGER t_late AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=late:{id}', 'exclude=n');
CREATE TRIGGER t_soon AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=soon:{id}', 'ttl=1 hour');
CREATE TRIGGER t_inval AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.invalidate('key=cached:{id}');
SELECT * FROM states;

--
-- columns
--
CALL settle();
-- the definition names them
ALTER TABLE t RENAME id TO t_id;
ALTER TABLE t RENAME status TO state;
ALTER TABLE t RENAME n TO m;
ALTER TABLE t ALTER name TYPE varchar(100);
ALTER TABLE t ALTER id TYPE bigint;
ALTER TABLE t DROP status;
ALTER TABLE t DROP n;
-- what does not change the entry is nobody's business
ALTER TABLE t ALTER name SET NOT NULL, ALTER status SET STATISTICS 100, ALTER status DROP DEFAULT,
	ALTER name SET STORAGE EXTERNAL, ALTER n SET DEFAULT 7;
ALTER TABLE t SET (fillfactor = 90);
ALTER TABLE t SET UNLOGGED;
ALTER TABLE t SET LOGGED;
CREATE INDEX ON t (name);
VACUUM FULL t;
SELECT * FROM states;
-- only whole rows show them
ALTER TABLE t ADD extra int;
SELECT * FROM states;
ALTER TABLE t RENAME extra TO more;
ALTER TABLE t ALTER more TYPE numeric(10,2);
ALTER TABLE t DROP more;
SELECT * FROM states;
CALL settle();
CREATE TABLE empty (id int);
CREATE TRIGGER empty AFTER INSERT OR UPDATE OR DELETE ON empty FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('hash', 'key=empty:{id}');
ALTER TABLE empty ADD x int;
ALTER TABLE empty DROP x;
SELECT * FROM states;
-- functions and types that the definition names
CREATE SCHEMA lib;
CREATE TYPE lib.mood AS ENUM ('good', 'bad');
CREATE FUNCTION lib.visible(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$ SELECT $1 <> 'hidden' $$;
ALTER TABLE t ADD feels lib.mood;
CREATE TRIGGER t_filtered AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('field', 'key=filtered', 'field={id}', 'value=feels', 'filter=lib.visible(status)');
CALL settle();
DROP FUNCTION lib.visible;
ALTER FUNCTION lib.visible RENAME TO seen;
ALTER FUNCTION lib.visible SET SCHEMA public;
ALTER FUNCTION lib.visible VOLATILE;
CREATE OR REPLACE FUNCTION lib.visible(text) RETURNS boolean LANGUAGE sql AS $$ SELECT random() > 0.5 $$;
ALTER SCHEMA lib RENAME TO library;
SELECT * FROM states WHERE name = 't_filtered';
CREATE OR REPLACE FUNCTION lib.visible(text) RETURNS boolean STABLE LANGUAGE sql AS $$ SELECT $1 <> 'invisible' $$;
SELECT * FROM states WHERE name = 't_filtered';
-- the type of a column is not called by its name
ALTER TYPE lib.mood RENAME TO humour;
ALTER TYPE lib.humour SET SCHEMA public;
UPDATE t SET feels = 'bad' WHERE id = 1;
SELECT hybrid_cache.wait_for_sync('30s'), redis_hget('filtered', '1');
DROP FUNCTION lib.visible CASCADE;
ALTER TABLE t DROP feels;
ALTER SCHEMA lib RENAME TO library;
-- the fields of a composite type
CREATE TYPE place AS (town text, street text);
CREATE TABLE house (id int, place place);
SELECT hybrid_cache.attach('house', 'string', 'house:{id}', value => '(place).town');
ALTER TYPE place RENAME ATTRIBUTE town TO city;
ALTER TYPE place RENAME ATTRIBUTE street TO road;
ALTER TYPE place DROP ATTRIBUTE town;
SELECT hybrid_cache.detach('house', 'house_string');
ALTER TYPE place RENAME ATTRIBUTE town TO city;
DROP TABLE house;
-- the index that tells rows apart
CREATE TRIGGER t_identified AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('set', 'key=identified', 'member={id}', 'identity=t_pkey');
ALTER TABLE t DROP CONSTRAINT t_pkey;
ALTER INDEX t_pkey RENAME TO primary_key;
UPDATE t SET id = id + 1;
ALTER TABLE t DROP CONSTRAINT t_pkey CASCADE;
CALL settle();
-- a column's CASCADE takes the mapping along, and says what is left
ALTER TABLE t DROP name CASCADE;
SELECT * FROM triggers WHERE "table" = 't'::regclass;
SELECT id, relation, mapping, kind, key, member, types FROM hybrid_cache.leftover ORDER BY id;

--
-- names and places
--
CREATE SCHEMA elsewhere;
ALTER TABLE t RENAME TO renamed;
ALTER TABLE renamed SET SCHEMA elsewhere;
ALTER TRIGGER t_late ON elsewhere.renamed RENAME TO documents;
CREATE ROLE regress_new_owner;
ALTER TABLE elsewhere.renamed OWNER TO regress_new_owner;
SELECT * FROM states;

--
-- TRUNCATE, disabling, replacing
--
TRUNCATE elsewhere.renamed;
SELECT * FROM states;
CALL settle();
CREATE TRIGGER documents_truncate BEFORE TRUNCATE ON elsewhere.renamed FOR EACH STATEMENT
EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=late:{id}', 'exclude=n');
TRUNCATE elsewhere.renamed;
SELECT * FROM states;
CALL settle();
ALTER TABLE elsewhere.renamed DISABLE TRIGGER documents;
SELECT * FROM states;
ALTER TABLE elsewhere.renamed ENABLE TRIGGER documents;
ALTER TABLE elsewhere.renamed ENABLE ALWAYS TRIGGER t_inval;
ALTER TABLE elsewhere.renamed ENABLE REPLICA TRIGGER t_soon;
SELECT relation, name, fires, state FROM hybrid_cache.mapping ORDER BY relation::text, name;
ALTER TABLE elsewhere.renamed ENABLE TRIGGER USER;
ALTER TABLE elsewhere.renamed DISABLE TRIGGER documents_truncate;
SELECT relation, name, fires, state FROM hybrid_cache.mapping ORDER BY relation::text, name;
CALL settle();
CREATE OR REPLACE TRIGGER documents AFTER INSERT OR UPDATE OR DELETE ON elsewhere.renamed FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=late:{id}', 'exclude=n');
SELECT * FROM states;
CREATE OR REPLACE TRIGGER documents AFTER INSERT OR UPDATE OR DELETE ON elsewhere.renamed FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=late:{id}', 'columns=id');
SELECT * FROM states;
CREATE OR REPLACE TRIGGER documents AFTER INSERT OR UPDATE OR DELETE ON elsewhere.renamed FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=elsewhere:{id}', 'columns=id');
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE OR REPLACE TRIGGER documents AFTER INSERT OR UPDATE OR DELETE ON elsewhere.renamed FOR EACH ROW
EXECUTE FUNCTION nothing();
CREATE OR REPLACE TRIGGER documents AFTER INSERT OR UPDATE OR DELETE ON elsewhere.renamed FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=elsewhere:{id}', 'columns=id');
SELECT * FROM states;
-- a trigger that was not ours is none of ours
DROP TRIGGER documents ON elsewhere.renamed;
CREATE TRIGGER other AFTER INSERT ON elsewhere.renamed FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE elsewhere.renamed DISABLE TRIGGER other;
DROP TRIGGER other ON elsewhere.renamed;

--
-- drops
--
DROP TABLE empty;
DROP SCHEMA elsewhere CASCADE;
SELECT * FROM triggers;
SELECT * FROM hybrid_cache.owed;
SELECT id, relation, mapping, kind, key, member, types FROM hybrid_cache.leftover ORDER BY id;
-- a type and a table that uses it go together, with the mapping
CREATE SCHEMA pair;
CREATE TYPE pair.mood AS ENUM ('good', 'bad');
CREATE TABLE pair.people (id int, mood pair.mood);
SELECT hybrid_cache.attach('pair.people', 'string', 'mood:{id}', value => 'mood');
\set VERBOSITY terse
DROP TYPE pair.mood;
\set VERBOSITY default
DROP SCHEMA pair CASCADE;
-- undone
CREATE TABLE t (id int);
SELECT hybrid_cache.attach('t', 'json', 't:{id}');
BEGIN;
DROP TABLE t;
ROLLBACK;
SELECT * FROM states;
SELECT count(*) FROM hybrid_cache.leftover WHERE relation = 'public.t' AND kind = 'json';
SET client_min_messages = error;
DROP TABLE t;
RESET client_min_messages;

--
-- partitions
--
CREATE TABLE p (id int, v text, w int) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE p2a PARTITION OF p2 FOR VALUES FROM (10) TO (15);
INSERT INTO p VALUES (1, 'one'), (11, 'eleven');
-- both orders in which the two triggers may come
CREATE TRIGGER a_row AFTER INSERT OR UPDATE OR DELETE ON p FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('string', 'key=a:{id}', 'value=v');
CREATE TRIGGER a_truncate BEFORE TRUNCATE ON p FOR EACH STATEMENT
EXECUTE FUNCTION hybrid_cache.write_through('string', 'key=a:{id}', 'value=v');
CREATE TRIGGER b_truncate BEFORE TRUNCATE ON p FOR EACH STATEMENT
EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=b:{id}');
CREATE TRIGGER b_row AFTER INSERT OR UPDATE OR DELETE ON p FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=b:{id}');
SELECT * FROM triggers;
SELECT * FROM states;
CALL settle();
-- partitions that come later
CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (30);
CREATE TABLE p2b (w int, v text, id int);
INSERT INTO p2b VALUES (0, 'sixteen', 16);
ALTER TABLE p2 ATTACH PARTITION p2b FOR VALUES FROM (15) TO (20);
SELECT * FROM triggers WHERE "table" IN ('p3'::regclass, 'p2b'::regclass);
SELECT * FROM states;
CALL settle();
TRUNCATE p3;
TRUNCATE p2;
SELECT * FROM states;
INSERT INTO p VALUES (12, 'twelve'), (21, 'twenty-one');
-- columns, by the partition's own numbers
ALTER TABLE p RENAME v TO value;
ALTER TABLE p DROP v;
ALTER TABLE p ALTER v TYPE varchar;
ALTER TABLE p RENAME w TO x;
ALTER TABLE p ADD y int;
SELECT * FROM states;
CALL settle();
-- disabled as a whole and in part
ALTER TABLE p DISABLE TRIGGER a_row;
ALTER TABLE p DISABLE TRIGGER a_truncate;
ALTER TABLE p2a DISABLE TRIGGER b_row;
SELECT * FROM triggers WHERE enabled = 'D';
SELECT * FROM states;
ALTER TABLE p ENABLE TRIGGER a_row;
ALTER TABLE p ENABLE TRIGGER a_truncate;
ALTER TABLE p2a ENABLE TRIGGER b_row;
SELECT * FROM triggers WHERE enabled = 'D';
SELECT * FROM states;
CALL settle();
ALTER TRIGGER a_row ON p RENAME TO a;
SELECT * FROM triggers WHERE name = 'a';
-- replaced as a whole
CREATE OR REPLACE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON p FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.write_through('string', 'key=a:{id}', 'value=upper(v)');
SELECT * FROM triggers WHERE internal;
SELECT * FROM states;
CREATE OR REPLACE TRIGGER a_truncate BEFORE TRUNCATE ON p FOR EACH STATEMENT
EXECUTE FUNCTION hybrid_cache.write_through('string', 'key=a:{id}', 'value=upper(v)');
SELECT "table", count(*) FROM triggers WHERE internal GROUP BY 1 ORDER BY "table"::text;
SELECT * FROM states;
CALL settle();
-- detached and dropped: only rows are missed
ALTER TABLE p DETACH PARTITION p3;
SELECT * FROM triggers WHERE "table" = 'p3'::regclass;
SELECT * FROM states;
CALL settle();
ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30);
SELECT * FROM triggers WHERE "table" = 'p3'::regclass;
CALL settle();
ALTER TABLE p DETACH PARTITION p3 CONCURRENTLY;
SELECT * FROM triggers WHERE "table" = 'p3'::regclass;
SELECT * FROM states;
CALL settle();
ALTER TABLE p DETACH PARTITION p2;
SELECT * FROM triggers WHERE "table" IN ('p2'::regclass, 'p2a'::regclass, 'p2b'::regclass);
SELECT * FROM states;
CALL settle();
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
CALL settle();
TRUNCATE p2a;
DROP TABLE p2a;
SELECT * FROM states;
INSERT INTO p VALUES (17);
DROP TABLE p2b;
SELECT * FROM states;
CALL settle();
-- the TRUNCATE trigger alone
DROP TRIGGER b_truncate ON p;
SELECT * FROM triggers;
TRUNCATE p1;
SELECT * FROM states;
-- everything
DROP TRIGGER b_row ON p;
DROP TABLE p, p3;
SELECT * FROM triggers;
SELECT * FROM hybrid_cache.owed;
DROP ROLE regress_new_owner;

--
-- capture off
--
CREATE TABLE t (id int);
SELECT hybrid_cache.attach('t', 'json', 't:{id}');
SET hybrid_cache.enabled = off;
INSERT INTO t VALUES (1), (2);
TRUNCATE t;
RESET hybrid_cache.enabled;
SELECT * FROM states;

-- the extension goes, and takes the mappings
DROP EXTENSION hybrid_cache CASCADE;
DROP TABLE t;
