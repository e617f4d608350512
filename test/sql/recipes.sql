-- The recipes of doc/recipes.md, as they are there, and what comes of them: change both.
CREATE EXTENSION hybrid_cache;

-- counters
CREATE TABLE post (id int PRIMARY KEY, title text NOT NULL, likes bigint NOT NULL DEFAULT 0);
SELECT hybrid_cache.attach('post', 'field', 'likes', field => '{id}', value => 'likes');

INSERT INTO post VALUES (1, 'first');
UPDATE post SET likes = likes + 1 WHERE id = 1;
SELECT hybrid_cache.wait_for_sync(NULL), redis_hget('likes', '1');
BEGIN;
INSERT INTO post VALUES (2, 'second');
SELECT redis_on_commit('HINCRBY', 'posts-by-day', '2026-11-21', 1);
COMMIT;
SELECT hybrid_cache.wait_for_sync(NULL), redis_hget('posts-by-day', '2026-11-21');
CREATE TABLE page (path text PRIMARY KEY, views bigint NOT NULL);
CREATE FUNCTION count_view(id text, fields jsonb) RETURNS void LANGUAGE sql SET search_path = public AS $$
    INSERT INTO page VALUES (fields->>'path', 1) ON CONFLICT (path) DO UPDATE SET views = page.views + 1
$$;
SELECT hybrid_cache.consume('views', 'count_view(text, jsonb)', 'views', batch => 1000);
SELECT redis_command('XADD', 'views', 'MAXLEN', '~', 1000000, '*', 'path', '/home') IS NOT NULL AS added FROM generate_series(1, 3);
DO $$
BEGIN
	FOR i IN 1..600 LOOP
		EXIT WHEN (SELECT views = 3 FROM page);
		PERFORM pg_sleep(0.05);
		COMMIT;
	END LOOP;
END $$;
SELECT * FROM page;
SELECT hybrid_cache.drop_consumer('views');

-- leaderboards
CREATE TABLE player (id int PRIMARY KEY, name text NOT NULL, season int NOT NULL, points int NOT NULL);
INSERT INTO player VALUES (1, 'Ada', 3, 50), (2, 'Ben', 3, 70), (3, 'Cem', 3, 60), (4, 'Dan', 2, 90);
SELECT hybrid_cache.attach('player', 'zset', 'board:{season}', member => '{id}', score => 'points');
SELECT checked FROM hybrid_cache.reconcile('player', 'player_zset');
-- the best ten, with names
SELECT row_number() OVER (ORDER BY b.score DESC, b.member) AS place, p.name, b.score
FROM redis_zrange('board:3', 0, 9, rev => true) b JOIN player p ON p.id = b.member::int
ORDER BY place;

-- the place of one of them, from 0; the same as ZREVRANK
SELECT redis_command('ZREVRANK', 'board:3', 3);

-- how many have more
SELECT count(*) FROM redis_zrangebyscore('board:3', '(60', '+inf');

-- sessions
CREATE TABLE login (token uuid PRIMARY KEY, account int NOT NULL, valid_until timestamptz NOT NULL,
                    revoked boolean NOT NULL DEFAULT false);
SELECT hybrid_cache.attach('login', 'json', 'session:{token}', columns => 'account, valid_until',
                           expires_at => 'valid_until', filter => 'NOT revoked');

INSERT INTO login VALUES ('11111111-1111-1111-1111-111111111111', 7, now() + interval '30 minutes');
SELECT hybrid_cache.wait_for_sync(NULL), redis_ttl('session:11111111-1111-1111-1111-111111111111') BETWEEN 1 AND 1800 AS expires;
SELECT hybrid_cache.get('login', 'login_json', '11111111-1111-1111-1111-111111111111') ->> 'account';

-- it ends for everybody, and COMMIT waits until it has
SET hybrid_cache.sync_timeout = '1min';
SET hybrid_cache.synchronous = on;
UPDATE login SET revoked = true WHERE account = 7;
SELECT redis_exists('session:11111111-1111-1111-1111-111111111111');
RESET hybrid_cache.synchronous;
SELECT redis_set('s:4711', '{"account": 7}', ex => 1800);
SELECT redis_get('s:4711')::jsonb ->> 'account' WHERE redis_expire('s:4711', 1800);

-- seats
CREATE TABLE seat (event int, number text, status text NOT NULL DEFAULT 'free', buyer text,
                   PRIMARY KEY (event, number));
SELECT hybrid_cache.attach('seat', 'field', '{{event:{event}}}:seats', field => '{number}', value => 'status');
INSERT INTO seat SELECT 7, 'A' || n FROM generate_series(1, 10) n;
SELECT hybrid_cache.wait_for_sync(NULL);

CREATE FUNCTION buy(event_id int, numbers text[], order_id text) RETURNS void
LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
    sold int;
BEGIN
    IF NOT hybrid_cache.confirm(format('{event:%s}:seats', event_id), order_id) THEN
        RAISE 'order % took too long', order_id USING ERRCODE = 'lock_not_available';
    END IF;
    UPDATE seat SET status = 'sold', buyer = order_id
    WHERE event = event_id AND number = ANY (numbers) AND status = 'free';
    GET DIAGNOSTICS sold = ROW_COUNT;
    IF sold <> cardinality(numbers) THEN
        RAISE 'a seat of order % is sold', order_id USING ERRCODE = 'unique_violation';
    END IF;
END
$$;
-- chosen: no row means held
SELECT * FROM hybrid_cache.hold('{event:7}:seats', '{A1, A2}', 'order-1', '10 minutes',
                                free => 'free', expired => 'orders:expired');
-- somebody else
SELECT * FROM hybrid_cache.hold('{event:7}:seats', '{A2, A3}', 'order-2', '10 minutes', free => 'free');
-- paid: all of it, or nothing of it
SELECT buy(7, '{A1, A2}', 'order-1');
SELECT * FROM seat WHERE status <> 'free' ORDER BY number;
SELECT hybrid_cache.wait_for_sync(NULL), redis_hget('{event:7}:seats', 'A2');
SELECT item, holder, state FROM hybrid_cache.holds('{event:7}:seats') ORDER BY item;
-- who has no hold is turned away; and where Redis has lost what it knew, the table decides
SELECT buy(7, '{A2, A3}', 'order-2');
SELECT hybrid_cache.release('{event:7}:seats', 'order-1');
SELECT hybrid_cache.wait_for_sync(NULL);
SELECT * FROM hybrid_cache.hold('{event:7}:seats', '{A2, A3}', 'order-2', '10 minutes');
SELECT buy(7, '{A2, A3}', 'order-2');
SELECT number, buyer FROM seat WHERE status <> 'free' ORDER BY number;
SELECT item, holder, state FROM hybrid_cache.holds('{event:7}:seats') ORDER BY item;

-- what is not paid in time
CREATE TABLE booking (id int PRIMARY KEY, state text NOT NULL, pay_until timestamptz NOT NULL);
SELECT hybrid_cache.attach('booking', 'timer', 'unpaid', member => '{id}',
                           expires_at => 'pay_until', filter => $$state = 'reserved'$$);

CREATE FUNCTION cancel_booking(id text, fields jsonb) RETURNS void LANGUAGE sql SET search_path = public AS $$
    UPDATE booking SET state = 'cancelled'
    WHERE booking.id = (fields->>'member')::int AND state = 'reserved' AND pay_until <= now()
$$;
SELECT hybrid_cache.consume('unpaid', 'cancel_booking(text, jsonb)', 'unpaid');

INSERT INTO booking VALUES (1, 'reserved', now() + interval '1 second'), (2, 'paid', now()), (3, 'reserved', now() + interval '1 hour');
DO $$
BEGIN
	FOR i IN 1..600 LOOP
		EXIT WHEN (SELECT state = 'cancelled' FROM booking WHERE id = 1);
		PERFORM pg_sleep(0.05);
		COMMIT;
	END LOOP;
END $$;
SELECT id, state FROM booking ORDER BY id;
SELECT hybrid_cache.drop_consumer('unpaid');

-- pages that are computed once
CREATE TABLE article (id int PRIMARY KEY, shop text NOT NULL, name text NOT NULL, price numeric NOT NULL);
SELECT hybrid_cache.attach('article', 'invalidate', 'cheapest:{shop}');

SELECT hybrid_cache.cached('cheapest', '1 hour',
    'SELECT name, price FROM article WHERE shop = $1 ORDER BY price LIMIT 10', 'berlin');
INSERT INTO article VALUES (1, 'berlin', 'pen', 2.50), (2, 'oslo', 'cup', 7);
SELECT hybrid_cache.wait_for_sync(NULL);
SELECT hybrid_cache.cached('cheapest', '1 hour',
    'SELECT name, price FROM article WHERE shop = $1 ORDER BY price LIMIT 10', 'berlin');

-- queues
CREATE TABLE job (id int PRIMARY KEY, state text NOT NULL, payload jsonb);

-- a stream: several groups of readers, each message acknowledged, history
SELECT hybrid_cache.attach('job', 'stream', 'job-events', maxlen => 100000, operations => 'insert');
-- a list: who takes an element (BLPOP) has it alone
SELECT hybrid_cache.attach('job', 'list', 'jobs', operations => 'insert', value => 'id');
-- a message: who listens, hears it
SELECT hybrid_cache.attach('job', 'publish', channel => 'job:{id}', operations => 'update',
                           filter => 'OLD.state <> NEW.state', value => 'NEW.state');
INSERT INTO job VALUES (1, 'new', '{"to": "ada"}');
UPDATE job SET state = 'done';
SELECT redis_on_commit('RPUSH', 'mails', 'ada');
SELECT hybrid_cache.wait_for_sync(NULL), redis_xlen('job-events'), redis_lpop('jobs'), redis_lpop('mails');

-- attempts and single runs
-- five attempts, then one every 12 seconds
SELECT allowed, retry_after FROM hybrid_cache.rate_limit('login:alice', 5, '1 minute');

-- a job that only one of many servers is to run
SELECT hybrid_cache.lock('nightly', '10 minutes') IS NOT NULL AS taken;
SELECT hybrid_cache.lock('nightly', '10 minutes') IS NOT NULL AS taken;
