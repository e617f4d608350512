-- What is near, found by Redis.
CREATE EXTENSION hybrid_cache;

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
	RETURN concat_ws(E'\n', SQLSTATE,
		regexp_replace(message, 'server ".*?"', 'server "..."'),
		NULLIF(detail, ''), NULLIF(hint, ''));
END
$$;

CREATE TABLE city (name text PRIMARY KEY, longitude float8, latitude float8);
INSERT INTO city VALUES
	('Berlin', 13.405, 52.52), ('Potsdam', 13.0645, 52.3906), ('Hamburg', 9.9937, 53.5511),
	('München', 11.582, 48.1351), ('Praha', 14.4378, 50.0755), ('Suva', 178.4419, -18.1416),
	('Apia', -171.7667, -13.8333);
SELECT count(redis_command('GEOADD', 'cities', longitude, latitude, name)) FROM city;

-- around a position, nearest first, in the unit asked for
SELECT member, round(distance::numeric, 1) AS km, round(longitude::numeric, 3) AS lng, round(latitude::numeric, 3) AS lat
FROM redis_geosearch('cities', 13.405, 52.52, 300, 'km');
SELECT unit, member, round(distance::numeric, 2)
FROM unnest(ARRAY['m', 'km', 'ft', 'mi', 'KM']) unit,
	redis_geosearch('cities', 13.405, 52.52, CASE unit WHEN 'm' THEN 30000 WHEN 'ft' THEN 100000 ELSE 30 END, unit)
WHERE member = 'Potsdam';
SELECT member FROM redis_geosearch('cities', 13.405, 52.52, 30000);
SELECT member FROM redis_geosearch('cities', 13.405, 52.52, 600, 'km', sort => 'desc');
SELECT member FROM redis_geosearch('cities', 13.405, 52.52, 600, 'km', sort => NULL) ORDER BY member COLLATE "C";
SELECT member FROM redis_geosearch('cities', 13.405, 52.52, 600, 'km', count => 2);
SELECT member FROM redis_geosearch('cities', 13.405, 52.52, 600, 'km', 2, 'DESC');
SELECT count(*) FROM redis_geosearch('cities', 13.405, 52.52, 600, 'km', count => 2, any_match => true);
SELECT count(*) FROM redis_geosearch('cities', 13.405, 52.52, 600, 'km', count => 2, sort => NULL, any_match => true);
SELECT member, distance FROM redis_geosearch('cities', 0, 0, 0);
-- beyond the 180th meridian
SELECT member FROM redis_geosearch('cities', 179, -17, 1200, 'km');
SELECT count(*) FROM redis_geosearch('cities', -180, 85.05112878, 20100, 'km');

-- around a member
SELECT member, round(distance::numeric, 1) FROM redis_geosearch_member('cities', 'München', 400, 'km');
SELECT member FROM redis_geosearch_member('cities', 'München', 600, 'km', count => 1, sort => 'desc');
SELECT member FROM redis_geosearch_member('cities', 'nowhere', 600, 'km');

-- in a box
SELECT member, round(distance::numeric, 1) FROM redis_geosearch_box('cities', 13.405, 52.52, 100, 600, 'km');
SELECT member FROM redis_geosearch_box('cities', 13.405, 52.52, 700, 100, 'km');
SELECT count(*) FROM redis_geosearch_box('cities', 13.405, 52.52, 600, 600, 'km', count => 1, any_match => true);

-- nothing there
SELECT * FROM redis_geosearch('no such key', 0, 0, 1);
SELECT * FROM redis_geosearch_member('no such key', 'x', 1);
SELECT * FROM redis_geosearch_box('no such key', 0, 0, 1, 1);
SELECT * FROM redis_geosearch(NULL, 0, 0, 1);
SELECT * FROM redis_geosearch('cities', NULL, 0, 1);
SELECT * FROM redis_geosearch_member('cities', NULL, 1);
SELECT * FROM redis_geosearch_box('cities', 0, 0, 1, NULL);

-- joined, laterally, in the target list, in a cursor
SELECT c.name, n.member, round(n.distance::numeric) AS km
FROM city c, LATERAL redis_geosearch_member('cities', c.name, 300, 'km') n
WHERE n.member <> c.name ORDER BY c.name COLLATE "C", km;
SELECT name, (redis_geosearch('cities', longitude, latitude, 30, 'km')).member
FROM city WHERE name IN ('Berlin', 'Suva') ORDER BY 1, 2;
BEGIN;
DECLARE c CURSOR FOR SELECT member FROM redis_geosearch('cities', 13.405, 52.52, 600, 'km');
FETCH 2 FROM c;
SELECT redis_command('DEL', 'no such key');
FETCH ALL FROM c;
COMMIT;

-- the prefix
SET hybrid_cache.key_prefix = 'cit';
SELECT member FROM redis_geosearch('ies', 13.405, 52.52, 30, 'km');
SELECT member FROM redis_geosearch_member('ies', 'Berlin', 30, 'km');
SELECT member FROM redis_geosearch_box('ies', 13.405, 52.52, 30, 30, 'km');
RESET hybrid_cache.key_prefix;

-- what makes no sense
SELECT failure($$SELECT redis_geosearch('cities', 181, 0, 1)$$);
SELECT failure($$SELECT redis_geosearch('cities', 0, 85.06, 1)$$);
SELECT failure($$SELECT redis_geosearch('cities', 'NaN', 0, 1)$$);
SELECT failure($$SELECT redis_geosearch('cities', 0, '-infinity', 1)$$);
SELECT failure($$SELECT redis_geosearch('cities', 0, 0, -1)$$);
SELECT failure($$SELECT redis_geosearch('cities', 0, 0, 'infinity')$$);
SELECT failure($$SELECT redis_geosearch_member('cities', 'Berlin', 'NaN')$$);
SELECT failure($$SELECT redis_geosearch_box('cities', 0, 0, -1, 1)$$);
SELECT failure($$SELECT redis_geosearch_box('cities', 0, 0, 1, -1)$$);
SELECT failure($$SELECT redis_geosearch_box('cities', 200, 0, 1, 1)$$);
SELECT failure($$SELECT redis_geosearch('cities', 0, 0, 1, 'miles')$$);
SELECT failure($$SELECT redis_geosearch('cities', 0, 0, 1, NULL)$$);
SELECT failure($$SELECT redis_geosearch('cities', 0, 0, 1, count => 0)$$);
SELECT failure($$SELECT redis_geosearch('cities', 0, 0, 1, count => -5)$$);
SELECT failure($$SELECT redis_geosearch('cities', 0, 0, 1, sort => 'nearest')$$);
SELECT failure($$SELECT redis_geosearch('cities', 0, 0, 1, any_match => true)$$);
SELECT redis_set('string', 'x');
SELECT failure($$SELECT redis_geosearch('string', 0, 0, 1)$$);
SELECT redis_command('GEOADD', 'binary', 1, 1, '\xff'::bytea);
SELECT failure($$SELECT redis_geosearch('binary', 1, 1, 1)$$);

-- how many rows the planner expects
CREATE FUNCTION estimate(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
	RETURN plan #>> '{0,Plan,Plan Rows}';
END
$$;
SELECT estimate($$SELECT * FROM redis_geosearch('cities', 0, 0, 1)$$);
SELECT estimate($$SELECT * FROM redis_geosearch('cities', 0, 0, 1, count => 7)$$);
SELECT estimate($$SELECT * FROM redis_geosearch('cities', 0, 0, 1, count => 3 + length('four'))$$);
SELECT estimate($$SELECT * FROM redis_geosearch('cities', 0, 0, 1, count => 0)$$);
SELECT estimate($$SELECT * FROM redis_geosearch_member('cities', 'Berlin', 1, count => 8)$$);
SELECT estimate($$SELECT * FROM redis_geosearch_box('cities', 0, 0, 1, 1, 'km', 9)$$);
SELECT estimate($$SELECT redis_geosearch('cities', 0, 0, 1, count => 7)$$);
-- planning asks nobody
SET hybrid_cache.redis_url = '';
SELECT estimate($$SELECT * FROM redis_geosearch('cities', 0, 0, 1, count => (SELECT 7))$$);
RESET hybrid_cache.redis_url;
