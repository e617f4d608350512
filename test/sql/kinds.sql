--
-- every kind of mapping: a row becomes an entry, follows it, and takes it away
--
CREATE EXTENSION hybrid_cache;
SET TimeZone = 'Asia/Tokyo';
SET client_min_messages = warning;

CREATE TABLE shop (
	id int PRIMARY KEY,
	name text,
	price numeric,
	open boolean,
	lng float8,
	lat float8,
	since timestamptz DEFAULT '2024-02-29 12:00+00'
);

-- what Redis holds at a key
CREATE FUNCTION held(key text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM hybrid_cache.progress) OR
		EXISTS (SELECT FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	IF NOT hybrid_cache.wait_for_sync('30s') THEN
		RAISE 'the worker did not catch up';
	END IF;
	CASE redis_command('TYPE', key) #>> '{}'
		WHEN 'string' THEN RETURN redis_command('GET', key);
		WHEN 'hash' THEN
			RETURN (SELECT jsonb_object_agg(field, value) FROM redis_hgetall(key));
		WHEN 'zset' THEN RETURN redis_command('ZRANGE', key, '0', '-1', 'WITHSCORES');
		WHEN 'set' THEN
			RETURN (SELECT jsonb_agg(m ORDER BY m) FROM jsonb_array_elements(redis_command('SMEMBERS', key)) m);
		WHEN 'none' THEN RETURN NULL;
	END CASE;
END
$$;

SELECT hybrid_cache.attach('shop', 'string', 'shop:{id}:name', value => 'upper(name)');
SELECT hybrid_cache.attach('shop', 'json', 'shop:{id}');
SELECT hybrid_cache.attach('shop', 'json', 'shop:{id}:short', columns => 'id, price * 2 AS "double price", open', name => 'short');
SELECT hybrid_cache.attach('shop', 'hash', 'shop:{id}:hash', exclude => 'lng, lat');
SELECT hybrid_cache.attach('shop', 'field', 'shops', field => '{id}', value => 'price');
SELECT hybrid_cache.attach('shop', 'geo', 'shops:geo', member => 'shop {id}', longitude => 'lng', latitude => 'lat', filter => 'open');
SELECT hybrid_cache.attach('shop', 'zset', 'shops:by_price', member => '{id}', score => 'price');
SELECT hybrid_cache.attach('shop', 'set', 'shops:{open}', member => '{name}');
SELECT hybrid_cache.attach('shop', 'invalidate', 'cached:{id}');
SELECT relation, name, kind, fires, state FROM hybrid_cache.mapping ORDER BY name;

INSERT INTO shop VALUES
	(1, 'bakery "Ä"', 2.50, true, 13.361389, 38.115556, DEFAULT),
	(2, 'closed', NULL, false, 15.087269, 37.502669, DEFAULT),
	(3, NULL, 'NaN', NULL, NULL, NULL, 'infinity');

SELECT id, held(format('shop:%s:name', id)) AS string FROM shop ORDER BY id;
SELECT id, held(format('shop:%s', id)) #>> '{}' AS json,
	(held(format('shop:%s', id)) #>> '{}')::jsonb = (SELECT to_jsonb(shop) FROM set_config('TimeZone', 'UTC', false)) AS equal
FROM shop ORDER BY id;
SET TimeZone = 'Asia/Tokyo';
SELECT id, held(format('shop:%s:short', id)) #>> '{}' AS columns FROM shop ORDER BY id;
SELECT id, held(format('shop:%s:hash', id)) AS hash FROM shop ORDER BY id;
SELECT held('shops') AS field;
SELECT member, round(longitude::numeric, 4) AS lng, round(latitude::numeric, 4) AS lat
FROM redis_geosearch('shops:geo', 13.361389, 38.115556, 1000, 'km');
SELECT held('shops:by_price') AS zset;
SELECT held('shops:true') AS open, held('shops:false') AS closed;

-- an update moves every entry to where it belongs
SELECT redis_set('cached:1', 'computed'), redis_set('cached:2', 'computed');
UPDATE shop SET name = 'baker', price = 3, open = false, lng = 13.4 WHERE id = 1;
SELECT held('shop:1:name') AS string, held('shop:1:hash') AS hash, held('shops') AS field,
	held('shops:geo') AS geo, held('shops:by_price') AS zset,
	held('shops:true') AS open, held('shops:false') AS closed,
	held('cached:1') AS invalidated, held('cached:2') AS untouched;
-- a field that becomes NULL does not stay behind
UPDATE shop SET name = NULL, since = NULL WHERE id = 1;
SELECT held('shop:1:name') AS string, held('shop:1:hash') AS hash, held('shops:false') AS set;
-- another key
UPDATE shop SET id = 10, name = 'moved', open = true WHERE id = 1;
SELECT held('shop:1') AS old, held('shop:10') IS NOT NULL AS new, held('shops') AS field,
	(SELECT array_agg(member) FROM redis_geosearch('shops:geo', 13.4, 38.1, 10, 'km')) AS geo,
	held('shops:by_price') AS zset;

-- nothing is left of a row that is gone
DELETE FROM shop WHERE id IN (2, 10);
SELECT held('shops') AS field, held('shops:geo') AS geo, held('shops:by_price') AS zset, held('cached:2') AS invalidated;
TRUNCATE shop;
SELECT held('shops'), redis_command('KEYS', '*shop*'), redis_command('KEYS', 'cached*');

-- places that Redis cannot hold have no entry and are counted
SELECT out_of_range AS before FROM hybrid_cache.status \gset
INSERT INTO shop (id, open, lng, lat) VALUES
	(1, true, 180, 85.05), (2, true, 180.1, 0), (3, true, 0, 85.06), (4, true, 'NaN', 0), (5, true, NULL, 0);
SELECT held('shops:geo') IS NOT NULL AS one, redis_command('ZCARD', 'shops:geo'),
	out_of_range - :before AS counted FROM hybrid_cache.status;
-- and one that moves out of range loses its entry
UPDATE shop SET lat = 90 WHERE id = 1;
SELECT held('shops:geo');
TRUNCATE shop;

-- time to live and expiry
SELECT hybrid_cache.attach('shop', 'string', 'ttl:{id}', value => 'name', ttl => '1 hour', name => 'ttl');
SELECT hybrid_cache.attach('shop', 'hash', 'expires:{id}', columns => 'name', expires_at => 'since', name => 'expires');
INSERT INTO shop (id, name, since) VALUES (1, 'one', now() + '10 min'), (2, 'two', now() - interval '1 min'), (3, 'three', NULL), (4, 'four', 'infinity'), (5, 'five', '-infinity'), (6, 'six', '1960-01-01'), (77, 'far', '294276-01-01');
SELECT id, held('ttl:' || id) AS ttl, held('expires:' || id) AS expires,
	redis_ttl('ttl:' || id) BETWEEN 3500 AND 3600 AS ttl_ok,
	CASE WHEN redis_ttl('expires:' || id) > 0 THEN redis_ttl('expires:' || id) BETWEEN 500 AND 600 END AS expires_ok,
	redis_ttl('expires:' || id) > 0 AS expires
FROM shop ORDER BY id;
-- an update of nothing starts the time to live again
SELECT redis_expire('ttl:1', 5);
UPDATE shop SET name = name WHERE id = 1;
SELECT held('ttl:1'), redis_ttl('ttl:1') > 3500 AS again;

-- the key prefix
SET hybrid_cache.key_prefix = 'app:';
INSERT INTO shop (id, name) VALUES (7, 'seven');
SELECT held('app:shop:7:name'), redis_get('shop:7:name');
DELETE FROM shop WHERE id = 7;
RESET hybrid_cache.key_prefix;
SELECT held('app:shop:7:name');

-- the keys of the extension are nobody's
CREATE TABLE word (k text PRIMARY KEY, v text);
SELECT hybrid_cache.attach('word', 'string', '{k}', value => 'v');
SELECT hybrid_cache.attach('word', 'list', '{k}:list');
SELECT out_of_range AS before FROM hybrid_cache.status \gset
INSERT INTO word VALUES ('hybrid_cache:holds', 'mine now'), ('hybrid_cache', 'a word');
SELECT hybrid_cache.wait_for_sync('30s');
SELECT redis_exists('hybrid_cache:holds') + redis_exists('hybrid_cache:holds:list') AS taken, held('hybrid_cache') AS a_word,
	out_of_range >= :before + 2 AS counted FROM hybrid_cache.status;
UPDATE word SET k = 'other' WHERE k = 'hybrid_cache:holds';
SELECT held('other');
SELECT count(*) FILTER (WHERE key LIKE 'hybrid\_cache:%') AS ours FROM hybrid_cache.orphans('word', 'word_string');
SELECT count(hybrid_cache.detach('word', name)) FROM hybrid_cache.mapping WHERE relation = 'word'::regclass;
DO $$ BEGIN WHILE EXISTS (SELECT FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
DROP TABLE word;

-- the name of a field needs quotes in JSON, a key's braces are doubled
CREATE TABLE odd ("the ""id""" int PRIMARY KEY, "a:b" text);
SELECT hybrid_cache.attach('odd', 'json', '{{odd:{the "id"}}}:{a:b}');
INSERT INTO odd VALUES (1, 'x{y}');
SELECT held('{odd:1}:x{y}');

SELECT hybrid_cache.detach('odd', 'odd_json');
DO $$ BEGIN WHILE EXISTS (SELECT FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT held('{odd:1}:x{y}');
SELECT count(hybrid_cache.detach(relation, name)) FROM hybrid_cache.mapping;
DO $$ BEGIN WHILE EXISTS (SELECT FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT held('shops'), redis_command('KEYS', '*shop*'), redis_command('KEYS', 'ttl*');
DROP TABLE shop, odd;
DROP FUNCTION held;
DROP EXTENSION hybrid_cache;
