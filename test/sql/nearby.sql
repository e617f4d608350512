-- The rows near a position: found by Redis or by the table, with the caller's
-- rights; and searches that tables answer while Redis is down.
CREATE EXTENSION hybrid_cache;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET hybrid_cache.repair = on', current_database()); END $$;

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
	RETURN concat_ws(E'\n', SQLSTATE, regexp_replace(message, '"redis:.*?"', '"..."'), NULLIF(detail, ''), NULLIF(hint, ''));
END
$$;
-- waits until Redis has all of it
CREATE PROCEDURE settle() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM hybrid_cache.mapping WHERE state ~ '^owes' AND state !~ 'as asked for');
		PERFORM pg_sleep(0.01);
		COMMIT;
	END LOOP;
	IF NOT hybrid_cache.wait_for_sync('60s') THEN
		RAISE 'not in sync';
	END IF;
END
$$;

-- a point is 0.01 degrees, 1.11 km, north of the one before
CREATE TABLE drivers (gone text, id int PRIMARY KEY, lng float8, lat float8, rating int, status text);
ALTER TABLE drivers DROP COLUMN gone;
INSERT INTO drivers SELECT i, 13.4, 52.5 + i * 0.01, i % 6, CASE WHEN i = 4 THEN 'off' ELSE 'online' END
	FROM generate_series(0, 9) i;
SELECT hybrid_cache.attach('drivers', 'geo', 'drivers', member => 'driver:{id}', longitude => 'lng', latitude => 'lat',
	filter => $$status = 'online'$$);
CALL settle();

SELECT (item).*, round(distance::numeric, 3) AS km, source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 5, 'km');
SELECT (item).id, round(distance::numeric) AS m, source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 3000);
SELECT (item).id, round(distance::numeric, 2) AS mi FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 1, 'MI');
SELECT (item).id, round(distance::numeric) AS ft FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 8000, 'ft');
SELECT (item).id FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 100, 'km', count => 3);
SELECT (item).id FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 0);
-- growing until enough pass
SELECT (item).id, source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 100, 'km', 1, 'rating = 5');
SELECT (item).id FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 100, 'km', filter => $$drivers.rating > 2 AND status LIKE 'on%' -- no more$$);
SELECT count(*) FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 100, 'km', filter => 'null');
SELECT count(*) FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 100, 'km', 5, filter => 'false');
-- what the filter may be
SELECT (item).id FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 100, 'km', filter => 'id = (SELECT max(id) FROM drivers d)');
SELECT (item).id FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2, 'km', filter => 'now() > ''2000-01-01'' AND random() >= 0 AND drivers IS NOT NULL');
-- nothing
SELECT * FROM hybrid_cache.nearby(NULL::drivers, NULL, 52.5, 5);
SELECT * FROM hybrid_cache.nearby(NULL::drivers, 13.4, NULL, 5);
SELECT * FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, NULL);
SELECT * FROM hybrid_cache.nearby(NULL::drivers, 0, 0, 5, 'km');
-- in other places
SELECT (hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 1)).item;
SELECT d.id, (n.item).id AS near FROM drivers d, LATERAL hybrid_cache.nearby(d, d.lng, d.lat, 1.2, 'km', 3) n WHERE d.id IN (0, 5) ORDER BY 1, 2;
CREATE VIEW near AS SELECT * FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 1, 'km');
SELECT (item).id, source FROM near;
CREATE FUNCTION estimate(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
	RETURN plan #>> '{0,Plan,Plan Rows}';
END
$$;
SELECT estimate('SELECT * FROM hybrid_cache.nearby(NULL::drivers, 0, 0, 1, count => 7)'),
	estimate('SELECT * FROM hybrid_cache.nearby(NULL::drivers, 0, 0, 1)');

-- what the row is now decides, whatever Redis has
BEGIN;
UPDATE drivers SET lat = lat + 0.0001 WHERE id = 1;
UPDATE drivers SET status = 'off' WHERE id = 2;
UPDATE drivers SET lng = 100 WHERE id = 3;
DELETE FROM drivers WHERE id = 0;
SELECT (item).id, round(distance::numeric, 3) AS km, source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 6, 'km');
ROLLBACK;

-- the table alone
CREATE TABLE answers AS
	SELECT q, (n.item).id, n.distance, n.source
	FROM (VALUES (1, 5000, NULL, NULL), (2, 100000, 3, NULL), (3, 100000, 1, 'rating = 5'), (4, 0, NULL, NULL), (5, 3e7, NULL, NULL)) v(q, radius, count, filter),
		hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, radius, 'm', count, filter) n;
CREATE VIEW differences AS
	SELECT q, id, distance, t.source
	FROM (SELECT q, (n.item).id, n.distance, n.source
		FROM (VALUES (1, 5000, NULL, NULL), (2, 100000, 3, NULL), (3, 100000, 1, 'rating = 5'), (4, 0, NULL, NULL), (5, 3e7, NULL, NULL)) v(q, radius, count, filter),
			hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, radius, 'm', count, filter) n) t
		FULL JOIN answers a USING (q, id, distance)
	WHERE t.source IS DISTINCT FROM 'table' OR a.source IS NULL;
SELECT count(*), min(source), max(source) FROM answers;
ALTER TABLE drivers DISABLE TRIGGER drivers_geo;
SELECT * FROM differences;
SELECT (item).id, source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2, 'km');
ALTER TABLE drivers ENABLE REPLICA TRIGGER drivers_geo;
SELECT DISTINCT source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2, 'km');
ALTER TABLE drivers ENABLE TRIGGER drivers_geo;
CALL settle();
SELECT DISTINCT source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2, 'km');
SET hybrid_cache.redis_url = 'unix:///nowhere';
SELECT * FROM differences;
SELECT (item).id, source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2, 'km');
SET hybrid_cache.fallback = off;
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2)');
RESET hybrid_cache.fallback;
SET hybrid_cache.redis_url = '';
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2)');
RESET hybrid_cache.redis_url;

-- what makes no sense
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 180.1, 52.5, 2)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 52.5, 86, 2)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, ''NaN'', 0, 2)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, ''infinity'', 2)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, -1)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, ''NaN'')');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, ''infinity'')');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, ''miles'')');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, NULL)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, count => 0)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, count => -3)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, mapping => ''nosuch'')');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, key => ''drivers2'')');
SELECT failure('SELECT hybrid_cache.nearby(NULL, 0, 0, 1)');
SELECT failure('SELECT hybrid_cache.nearby(1, 0, 0, 1)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::near, 0, 0, 1)');
CREATE TYPE pair AS (a int, b int);
SELECT failure('SELECT hybrid_cache.nearby(NULL::pair, 0, 0, 1)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::answers, 0, 0, 1)');
-- a filter that is none
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => $f$nosuch > 4$f$)$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => $f$rating + 4$f$)$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => $f$rating >$f$)$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => '')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => '*')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => 'true, false')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => 'true AS t')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => 'true; DROP TABLE drivers')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => 'true) OR (true')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => 'true FROM answers')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => 'DISTINCT true')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => 'count(*) > 0')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => 'row_number() OVER () > 0')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 1, filter => 'generate_series(1, 3) > 0')$$);
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 10, filter => '1 / (id - id) > 0')$$);

-- rights
CREATE ROLE regress_nearby;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_nearby;
GRANT EXECUTE ON FUNCTION hybrid_cache.nearby(anyelement, float8, float8, float8, text, int, text, name, text) TO regress_nearby;
SET ROLE regress_nearby;
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 0, 0, 2)');
RESET ROLE;
GRANT SELECT (id, lng, lat) ON drivers TO regress_nearby;
SET ROLE regress_nearby;
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2)');
RESET ROLE;
GRANT SELECT ON drivers TO regress_nearby;
SET ROLE regress_nearby;
SELECT (item).id, source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2, 'km');
SELECT failure($$SELECT hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2, filter => 'EXISTS (SELECT FROM answers)')$$);
SELECT count(*) FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2, 'km', filter => $$current_user = 'regress_nearby'$$);
RESET ROLE;
-- row security, on every path
ALTER TABLE drivers ENABLE ROW LEVEL SECURITY;
CREATE POLICY odd ON drivers FOR SELECT TO regress_nearby USING (id % 2 = 1);
-- a filter does not see other rows, whatever it says about them
CREATE FUNCTION look(id int) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
	RAISE NOTICE 'looked at %', id;
	RETURN true;
END
$$;
SET ROLE regress_nearby;
SELECT (item).id, source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 100, 'km', count => 3);
SELECT (item).id FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2, 'km', filter => 'look(id)');
SET hybrid_cache.connect_timeout = 1000;
RESET ROLE;
SET hybrid_cache.redis_url = 'unix:///nowhere';
SET ROLE regress_nearby;
SELECT (item).id, source FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 100, 'km', count => 3);
SELECT (item).id FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2, 'km', filter => 'look(id)');
RESET ROLE;
RESET hybrid_cache.redis_url;
-- plans that are kept know who asks
SELECT count(*), min(source) FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 100, 'km');
SET ROLE regress_nearby;
SELECT count(*), min(source) FROM hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 100, 'km');
RESET ROLE;
ALTER TABLE drivers DISABLE ROW LEVEL SECURITY;

-- the mapping's expressions run as the owner of the table, the filter as the caller
CREATE SCHEMA hidden;
CREATE FUNCTION hidden.who(id int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN current_user <> 'regress_nearby';
END
$$;
REVOKE ALL ON FUNCTION hidden.who(int) FROM PUBLIC;
CREATE TABLE guarded (id int PRIMARY KEY, lng float8, lat float8);
GRANT SELECT ON guarded TO regress_nearby;
INSERT INTO guarded VALUES (1, 1, 1), (2, 1, 1.001);
SELECT hybrid_cache.attach('guarded', 'geo', 'guarded', member => '{id}', longitude => 'lng', latitude => 'lat', filter => 'hidden.who(id)');
CALL settle();
SET ROLE regress_nearby;
SELECT item, source FROM hybrid_cache.nearby(NULL::guarded, 1, 1, 1, 'km');
RESET ROLE;
ALTER TABLE guarded DISABLE TRIGGER guarded_geo;
SET ROLE regress_nearby;
SELECT item, source FROM hybrid_cache.nearby(NULL::guarded, 1, 1, 1, 'km');
RESET ROLE;

-- several keys, several columns in the member, partitions, strange names
CREATE TABLE "Stop s" ("select" text, "a""b" int, n numeric, x numeric, y int, PRIMARY KEY ("select", "a""b")) PARTITION BY LIST ("select");
CREATE TABLE "Stop 1" PARTITION OF "Stop s" FOR VALUES IN ('Köln', 'o''hare');
CREATE TABLE "Stop 2" ("a""b" int NOT NULL, y int, n numeric, x numeric, "select" text NOT NULL);
ALTER TABLE "Stop s" ATTACH PARTITION "Stop 2" FOR VALUES IN ('Bonn');
INSERT INTO "Stop s" SELECT c, i, i::numeric(5, 2), i * 0.001, 50 FROM unnest(ARRAY['Köln', 'o''hare', 'Bonn']) c, generate_series(1, 4) i;
SELECT hybrid_cache.attach('"Stop s"', 'geo', 'stops:{select}', member => '{n}/{a"b}', longitude => 'x', latitude => 'y', name => 'stops');
CALL settle();
ALTER TABLE "Stop 1" DISABLE TRIGGER stops;
SELECT DISTINCT source FROM hybrid_cache.nearby(NULL::"Stop s", 0, 50, 1, 'km', key => 'stops:Bonn');
ALTER TABLE "Stop 1" ENABLE TRIGGER stops;
CALL settle();
SELECT DISTINCT source FROM hybrid_cache.nearby(NULL::"Stop s", 0, 50, 1, 'km', key => 'stops:Bonn');
SELECT failure('SELECT hybrid_cache.nearby(NULL::"Stop s", 0, 50, 1)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::"Stop s", 0, 50, 1, key => ''stop'')');
SELECT item, round(distance::numeric, 2), source FROM hybrid_cache.nearby(NULL::"Stop s", 0, 50, 1, 'km', 3, key => 'stops:Köln');
SELECT item, source FROM hybrid_cache.nearby(NULL::"Stop s", 0, 50, 1, 'km', 1, key => 'stops:o''hare', filter => '"a""b" > 2');
SELECT item, source FROM hybrid_cache.nearby(NULL::"Stop 2", 0, 50, 1, 'km', 2, key => 'stops:Bonn');
SELECT item, source FROM hybrid_cache.nearby(NULL::"Stop s", 0, 50, 1, 'km', key => 'stops:Ulm');
SET hybrid_cache.redis_url = 'unix:///nowhere';
SELECT item, round(distance::numeric, 2), source FROM hybrid_cache.nearby(NULL::"Stop s", 0, 50, 1, 'km', 3, key => 'stops:Köln');
SELECT item, source FROM hybrid_cache.nearby(NULL::"Stop s", 0, 50, 1, 'km', 1, key => 'stops:o''hare', filter => '"a""b" > 2');
SELECT item, source FROM hybrid_cache.nearby(NULL::"Stop 2", 0, 50, 1, 'km', 2, key => 'stops:Bonn');
SELECT member, round(distance::numeric, 2) FROM redis_geosearch('stops:Köln', 0, 50, 200);
RESET hybrid_cache.redis_url;

-- members that cannot be read back; what cannot be in Redis; rows of children
CREATE TABLE odd (a text, b text, x float8, y float8);
INSERT INTO odd VALUES ('p', 'q', 10, 10), ('p:q', 'r', 10, 10.001), ('far', 'away', 'NaN', 10), ('far', 'off', 10, 'infinity'),
	('far', 'out', 180.5, 10), ('far', 'null', NULL, 10), (NULL, 'n', 10, 10);
CREATE TABLE odd_child () INHERITS (odd);
INSERT INTO odd_child VALUES ('c', 'd', 10, 10);
SELECT hybrid_cache.attach('odd', 'geo', 'odd', member => '{a}:{b}', longitude => 'x', latitude => 'y');
SELECT hybrid_cache.attach('odd', 'geo', 'odd_hours', member => '{a}', longitude => 'x', latitude => 'y', filter => $$b = 'q'$$);
CALL settle();
SELECT failure('SELECT hybrid_cache.nearby(NULL::odd, 10, 10, 1)');
SELECT failure('SELECT hybrid_cache.nearby(NULL::odd, 10, 10, 1, mapping => ''nosuch'')');
SELECT item, source FROM hybrid_cache.nearby(NULL::odd, 10, 10, 1, 'km', mapping => 'odd_geo');
SELECT item, source FROM hybrid_cache.nearby(NULL::odd, 10, 10, 1, 'km', mapping => 'odd_geo1');
-- members that somebody else put there
SELECT redis_command('GEOADD', 'odd_hours', 10, 10.0001, 'stranger', 10, 10.0002, '\xff'::bytea);
SELECT item, source FROM hybrid_cache.nearby(NULL::odd, 10, 10, 1, 'km', mapping => 'odd_geo1', count => 2);
SELECT failure('SELECT hybrid_cache.nearby(NULL::odd_child, 10, 10, 1)');

-- another type under the name is an error of a Redis that is up
SELECT redis_del('drivers'), redis_set('drivers', 'x');
SELECT failure('SELECT hybrid_cache.nearby(NULL::drivers, 13.4, 52.5, 2)');
SELECT redis_del('drivers');

-- an index on the columns is used, whatever their type, beginning with a small area
CREATE TABLE many (id int PRIMARY KEY, lng numeric, lat float4);
INSERT INTO many SELECT i, (i % 200) / 10.0, i / 1000.0 FROM generate_series(1, 20000) i;
CREATE INDEX ON many (lng, lat);
ANALYZE many;
SELECT hybrid_cache.attach('many', 'geo', 'many', member => '{id}', longitude => 'lng', latitude => 'lat', populate => false);
CREATE FUNCTION reads(query text, OUT rows bigint, OUT seq_scans bigint, OUT few boolean) LANGUAGE plpgsql AS $$
DECLARE
	before record;
BEGIN
	SELECT s.seq_scan, s.idx_tup_fetch + s.seq_tup_read AS n INTO before FROM pg_stat_xact_user_tables s WHERE relname = 'many';
	EXECUTE 'SELECT count(*) FROM ' || query INTO rows;
	SELECT s.seq_scan - before.seq_scan, s.idx_tup_fetch + s.seq_tup_read - before.n < 300 INTO seq_scans, few
		FROM pg_stat_xact_user_tables s WHERE relname = 'many';
END
$$;
SELECT * FROM reads($$hybrid_cache.nearby(NULL::many, 10, 10, 15, 'km')$$);
SELECT * FROM reads($$hybrid_cache.nearby(NULL::many, 10, 10, 2000, 'km', count => 10)$$);
SELECT * FROM reads($$hybrid_cache.nearby(NULL::many, 10, 10, 2000, 'km', filter => 'id > 0')$$);
SELECT source FROM hybrid_cache.nearby(NULL::many, 10, 10, 2000, 'km', count => 1);

-- a column that has another type now
CREATE TABLE typed (id int, lng float8, lat float8);
INSERT INTO typed VALUES (1, 1, 1);
SELECT hybrid_cache.attach('typed', 'geo', 'typed', member => '{id}', longitude => 'lng', latitude => 'lat');
CALL settle();
SELECT item, source FROM hybrid_cache.nearby(NULL::typed, 1, 1, 1);
SELECT hybrid_cache.detach('typed', 'typed_geo');
ALTER TABLE typed ALTER id TYPE bigint;
SELECT hybrid_cache.attach('typed', 'geo', 'typed', member => '{id}', longitude => 'lng', latitude => 'lat');
CALL settle();
SELECT item, source FROM hybrid_cache.nearby(NULL::typed, 1, 1, 1);
DROP TABLE typed;

-- redis_geosearch() and its siblings while Redis is down
CREATE TABLE trucks (id int PRIMARY KEY, lng float8, lat float8);
INSERT INTO trucks SELECT i, 13.4, 52.495 + i * 0.01 FROM generate_series(0, 3) i;
SELECT hybrid_cache.attach('trucks', 'geo', 'drivers', member => 'truck:{id}', longitude => 'lng', latitude => 'lat');
ALTER TABLE drivers DISABLE TRIGGER drivers_geo;
ALTER TABLE drivers ENABLE TRIGGER drivers_geo;
CALL settle();
CREATE VIEW searches AS
	SELECT 1 AS q, * FROM redis_geosearch('drivers', 13.4, 52.5, 3, 'km')
	UNION ALL SELECT 2, * FROM redis_geosearch('drivers', 13.4, 52.5, 30, 'mi', 3, 'desc')
	UNION ALL SELECT 3, * FROM redis_geosearch('drivers', 13.4, 52.5, 3000, count => 4)
	UNION ALL SELECT 4, * FROM redis_geosearch_member('drivers', 'truck:2', 2, 'km')
	UNION ALL SELECT 5, * FROM redis_geosearch_member('drivers', 'driver:5', 5000, 'ft', 2)
	UNION ALL SELECT 6, * FROM redis_geosearch_member('drivers', 'driver:4', 5000, 'ft', 2)
	UNION ALL SELECT 7, * FROM redis_geosearch_member('drivers', 'nobody', 5, 'km')
	UNION ALL SELECT 8, * FROM redis_geosearch_box('drivers', 13.4, 52.5, 1, 5, 'km');
CREATE TABLE found AS SELECT row_number() OVER (), * FROM searches;
SELECT q, count(*), (array_agg(member ORDER BY row_number))[1:2] FROM found GROUP BY q ORDER BY q;
SET hybrid_cache.redis_url = 'unix:///nowhere';
CREATE TABLE fallen_back AS SELECT row_number() OVER (), * FROM searches;
SELECT count(*) FROM redis_geosearch('drivers', 13.4, 52.5, 3, 'km', sort => NULL);
SELECT * FROM found f FULL JOIN fallen_back b USING (row_number)
	WHERE f.member IS DISTINCT FROM b.member OR abs(f.distance - b.distance) > 0.0001
		OR abs(f.longitude - b.longitude) > 1e-9 OR abs(f.latitude - b.latitude) > 1e-9;
-- not for keys that no mapping has, nor against the setting
SELECT failure('SELECT redis_geosearch(''taxis'', 0, 0, 1)');
SELECT failure('SELECT redis_get(''drivers'')');
SET hybrid_cache.fallback = off;
SELECT failure('SELECT redis_geosearch(''drivers'', 0, 0, 1)');
RESET hybrid_cache.fallback;
-- the prefix
SET hybrid_cache.key_prefix = 'p:';
SELECT failure('SELECT redis_geosearch(''taxis'', 0, 0, 1)');
SELECT member FROM redis_geosearch('drivers', 13.4, 52.5, 1);
RESET hybrid_cache.key_prefix;
-- as the owner, whoever asks; but not where the owner does not see all rows
GRANT EXECUTE ON FUNCTION redis_geosearch(text, float8, float8, float8, text, int, text, boolean) TO regress_nearby;
SET ROLE regress_nearby;
SELECT member FROM redis_geosearch('guarded', 1, 1, 1, 'km');
RESET ROLE;
CREATE ROLE regress_owner;
ALTER TABLE guarded OWNER TO regress_owner;
GRANT USAGE ON SCHEMA hidden TO regress_owner;
GRANT EXECUTE ON FUNCTION hidden.who(int) TO regress_owner;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
SELECT member FROM redis_geosearch('guarded', 1, 1, 1, 'km');
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
SELECT failure('SELECT redis_geosearch(''guarded'', 1, 1, 1)');
RESET hybrid_cache.redis_url;

DROP TABLE guarded;
DROP OWNED BY regress_nearby, regress_owner;
DROP ROLE regress_nearby, regress_owner;
