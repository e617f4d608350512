--
-- JSON documents parse to what to_jsonb(row) gives under TimeZone = UTC, and
-- are the same bytes whatever the session's settings
--
CREATE EXTENSION hybrid_cache;
CREATE TYPE mood AS ENUM ('sad', 'ok "fine"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN moment AS timestamptz;

CREATE TABLE everything (
	id int PRIMARY KEY,
	t_bool bool, t_int2 int2, t_int8 int8, t_float4 float4, t_float8 float8,
	t_numeric numeric, t_money money, t_text text, t_varchar varchar(20),
	t_bpchar char(5), t_char "char", t_name name, t_bytea bytea,
	t_date date, t_time time, t_timetz timetz, t_timestamp timestamp,
	t_timestamptz timestamptz, t_interval interval, t_uuid uuid,
	t_json json, t_jsonb jsonb, t_inet inet, t_cidr cidr, t_macaddr macaddr,
	t_bit bit(3), t_varbit varbit, t_point point, t_box box, t_oid oid, t_regclass regclass,
	t_int4range int4range, t_tstzrange tstzrange, t_multirange nummultirange,
	t_tsvector tsvector, t_xml xml, t_enum mood, t_pair pair, t_domain positive,
	t_moment moment, t_ints int[], t_texts text[], t_stamps timestamptz[], t_floats float8[],
	t_pairs pair[], t_nested int[][], t_jsons jsonb[],
	t_generated text GENERATED ALWAYS AS (t_text || '!') STORED
);
SELECT hybrid_cache.attach('everything', 'json', 'everything:{id}');
SELECT hybrid_cache.attach('everything', 'hash', 'everything:{id}:hash');

INSERT INTO everything VALUES (1,
	true, -5, 9223372036854775807, 1.1, 0.1::float8 + 0.2,
	12345.67890, '12.34', E'quote " back \\ tab \t newline \n bell \x07 ünï 漢字', 'var',
	'pad', 'c', 'name', '\xdeadbeef',
	'2024-02-29', '12:34:56.789', '12:34:56+03', '2024-02-29 12:34:56.5',
	'2024-02-29 12:34:56.123456+05', '1 year 2 months 3 days 04:05:06', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
	'{"k": [1, 2.50, null], "s": "ä"}', '{"b": 1, "a": {"x": 1e3}}', '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03',
	B'101', B'11', '(1.5,2)', '(1,2),(3,4)', 42, 'pg_class',
	'[1,5)', '["2024-01-01 00:00+00","2024-06-01 00:00+00")', '{[1,2),[5,6)}',
	'a fat cat', '<a b="c"/>', 'ok "fine"', '(1,"x,y")', 7,
	'2024-07-01 00:00+00', '{1,NULL,3}', '{a,NULL,"b,c"}', '{"2024-02-29 12:00+00"}', '{1.5,NaN,Infinity}',
	ARRAY[(1,'a')::pair, NULL], '{{1,2},{3,4}}', ARRAY['{"a":1}'::jsonb]);
INSERT INTO everything (id) VALUES (2);
INSERT INTO everything (id, t_float4, t_float8, t_numeric, t_date, t_timestamp, t_timestamptz, t_text)
VALUES (3, 'NaN', '-Infinity', 'NaN', 'infinity', '-infinity', 'infinity', ''),
	(4, '1e30', '1e-300', 1e100, '4713-01-01 BC', '0044-03-15 BC', '294276-12-31 23:59:59+00', repeat('long ', 10000)),
	(5, '-0', '-0', 'Infinity', '5874897-12-31', '2000-01-01', '1900-01-01 00:00+00', 'x');

SELECT hybrid_cache.wait_for_sync('30s');
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
SET IntervalStyle = 'postgres';
SELECT id, redis_get('everything:' || id)::jsonb = to_jsonb(e) AS equal FROM everything e ORDER BY id;
-- what differs, if anything
SELECT id, k, j -> k AS redis, to_jsonb(e) -> k AS postgres
FROM everything e, redis_get('everything:' || id) g, CAST(g AS jsonb) j, jsonb_object_keys(to_jsonb(e)) k
WHERE j -> k IS DISTINCT FROM to_jsonb(e) -> k ORDER BY 1, 2;
-- the hash has every column as text
SELECT field, value FROM redis_hgetall('everything:1:hash') ORDER BY field COLLATE "C";
SELECT field, value FROM redis_hgetall('everything:3:hash') ORDER BY field COLLATE "C";

-- the same bytes under other settings
CREATE TABLE bytes AS
SELECT id, redis_get('everything:' || id) AS json,
	(SELECT jsonb_object_agg(field, value) FROM redis_hgetall('everything:' || id || ':hash')) AS hash FROM everything;
SET DateStyle = 'SQL, DMY';
SET TimeZone = 'America/New_York';
SET IntervalStyle = 'iso_8601';
SET extra_float_digits = -5;
SET bytea_output = 'escape';
SET xmlbinary = 'hex';
SET search_path = pg_catalog;
DO $$ BEGIN PERFORM set_config('lc_monetary', 'C.UTF-8', false); END $$;
UPDATE public.everything SET id = id + 100;
SELECT public.redis_command('EXISTS', 'everything:1', 'everything:1:hash') IS NOT NULL AS asked, hybrid_cache.wait_for_sync('30s');
RESET search_path;
SELECT id, replace(redis_get('everything:' || id + 100), '"id":' || id + 100, '"id":' || id) = json AS same_json,
	(SELECT jsonb_object_agg(field, value) FROM redis_hgetall('everything:' || id + 100 || ':hash')) = hash || jsonb_build_object('id', (id + 100)::text) AS same_hash
FROM bytes ORDER BY id;
SELECT redis_exists('everything:1', 'everything:1:hash') AS old_keys;
-- and the settings are what they were
SHOW DateStyle;
SHOW TimeZone;
SHOW extra_float_digits;
RESET DateStyle;
RESET TimeZone;
RESET IntervalStyle;
RESET extra_float_digits;

TRUNCATE everything;
SELECT hybrid_cache.wait_for_sync('30s'), redis_command('KEYS', '*everything*');
SET client_min_messages = warning;
DROP TABLE bytes;
SELECT count(hybrid_cache.detach(relation, name)) FROM hybrid_cache.mapping;
DO $$ BEGIN WHILE EXISTS (SELECT FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
DROP TABLE everything;
DROP TYPE mood, pair;
DROP DOMAIN positive, moment;
DROP EXTENSION hybrid_cache;
