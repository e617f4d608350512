/*
 * node_cached.js
 *	  A service that shares cached values with sessions of PostgreSQL.
 */
'use strict';

const assert = require('node:assert/strict');
const { randomUUID } = require('node:crypto');
const test = require('node:test');
const { addScripts, beside, redis, session, synced, until, value } = require('./lib/service');

const store = redis();
const query = "SELECT hybrid_cache.cached('total', '1 hour', 'SELECT sum(v) AS s FROM item')";
let pg;

/* As a service would do it: the value, computed by one of all who ask. */
async function cached(client, key, of, ttl, compute) {
	const token = randomUUID();
	const keys = [key, beside('cached', key)];

	for (;;) {
		const [state, what, left] = await client.cachedGet(2, ...keys, of, 0, token, 10000, '', '');

		if (state === 'hit' || state === 'stale')
			return JSON.parse(what);
		if (state === 'wait') {
			await new Promise((resolve) => setTimeout(resolve, Math.min(Number(left), 5)));
			continue;
		}
		const result = await compute();

		if (state === 'lease')
			await client.cachedStore(2, ...keys, token, JSON.stringify(result), ttl, 0);
		return result;
	}
}

test.before(async () => {
	pg = await session();
	await pg.query('CREATE EXTENSION hybrid_cache');
	await pg.query('CREATE TABLE item (id int PRIMARY KEY, v int); INSERT INTO item VALUES (1, 1), (2, 2)');
	await pg.query("SELECT hybrid_cache.attach('item', 'invalidate', 'total'), hybrid_cache.attach('item', 'invalidate', 'item:{id}')");
	await synced(pg);
	await addScripts(store, pg);
});

test('a result of PostgreSQL is JSON in Redis', async () => {
	assert.deepEqual(await value(pg, query), [{ s: 3 }]);
	assert.deepEqual(JSON.parse(await store.get('total')), [{ s: 3 }]);
	assert.ok(await store.ttl('total') > 3500);
	await pg.query('UPDATE item SET v = 10 WHERE id = 1');
	await synced(pg);
	assert.equal(await store.exists('total', beside('cached', 'total')), 0);
	assert.deepEqual(await value(pg, query), [{ s: 12 }]);
});

test('of many instances of a service one computes', async () => {
	let runs = 0;
	const results = await Promise.all(Array.from({ length: 50 }, async () => {
		const client = redis();

		await addScripts(client, pg);
		return cached(client, 'report', 'v1', 60000, async () => {
			runs++;
			return { n: await value(await session(), 'SELECT sum(v)::int FROM item') };
		});
	}));

	assert.equal(runs, 1);
	for (const result of results)
		assert.deepEqual(result, { n: 12 });
	assert.deepEqual(await cached(store, 'report', 'v2', 60000, async () => 'another version'), 'another version');
});

test('what was computed before an invalidation cannot be stored', async () => {
	const keys = ['item:1', beside('cached', 'item:1')];

	assert.deepEqual(await store.cachedGet(2, ...keys, 'item', 0, 'mine', 10000, '', ''), ['lease']);
	const old = await value(pg, 'SELECT v FROM item WHERE id = 1');

	await pg.query('UPDATE item SET v = 11 WHERE id = 1');
	await synced(pg);
	assert.equal(await store.cachedStore(2, ...keys, 'mine', String(old), 60000, 0), 0);
	assert.equal(await store.exists(...keys), 0);
	assert.equal(await cached(store, 'item:1', 'item', 60000, () => value(pg, 'SELECT v FROM item WHERE id = 1')), 11);
	assert.equal(await store.get('item:1'), '11');
	await pg.query('TRUNCATE item');
	await synced(pg);
	assert.equal(await store.exists(...keys), 0);
});

test('sessions of PostgreSQL wait for a service', async () => {
	await pg.query('INSERT INTO item VALUES (1, 1)');
	await synced(pg);
	await value(pg, query);
	const keys = ['total', beside('cached', 'total')];
	const of = await store.hget(keys[1], 'of');

	await store.unlink(...keys);
	assert.deepEqual(await store.cachedGet(2, ...keys, of, 0, 'mine', 60000, '', ''), ['lease']);
	let answered = false;
	const answer = value(await session(), query).then((result) => {
		answered = true;
		return result;
	});

	await until('the session waits', () => value(pg,
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT hybrid_cache.cached(%' AND wait_event_type = 'Extension'"));
	assert.equal(answered, false);
	assert.equal(await store.cachedStore(2, ...keys, 'mine', '[{"s": "from a service"}]', 60000, 0), 1);
	assert.deepEqual(await answer, [{ s: 'from a service' }]);
});

test('a lease is given back, or ends', async () => {
	const keys = ['given', beside('cached', 'given')];
	const get = (token, lease) => store.cachedGet(2, ...keys, 'x', 0, token, lease, '', '');

	assert.deepEqual(await get('a', 60000), ['lease']);
	assert.equal((await get('b', 60000))[0], 'wait');
	assert.equal(await store.cachedRelease(1, keys[1], 'b'), 0);
	assert.equal(await store.cachedRelease(1, keys[1], 'a'), 1);
	assert.deepEqual(await get('b', 1), ['lease']);
	await until('it ends', async () => (await get('c', 60000))[0] === 'lease');
	assert.equal(await store.cachedStore(2, ...keys, 'b', '1', 1000, 0), 0);
	assert.equal(await store.cachedStore(2, ...keys, 'c', '2', 1000, 0), 1);
});

test('an old value, while a new one is computed', async () => {
	const keys = ['old', beside('cached', 'old')];
	const get = (token, stale) => store.cachedGet(2, ...keys, 'x', stale, token, 60000, '', '');

	assert.deepEqual(await get('a', 60000), ['lease']);
	assert.equal(await store.cachedStore(2, ...keys, 'a', '1', 1, 60000), 1);
	await until('its time is over', async () => (await get('b', 60000))[0] === 'lease');
	assert.deepEqual((await get('c', 60000)).slice(0, 2), ['stale', '1']);
	assert.equal((await get('c', 0))[0], 'wait');
});

test('Redis has forgotten the scripts', async () => {
	await store.script('FLUSH');
	assert.equal(await cached(store, 'again', 'x', 60000, async () => 1), 1);
	assert.equal(await cached(store, 'again', 'x', 60000, async () => 2), 1);
});
