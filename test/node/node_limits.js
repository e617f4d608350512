/*
 * node_limits.js
 *	  A service that shares limits and locks with sessions of PostgreSQL.
 */
'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { addScripts, beside, redis, session, until, value } = require('./lib/service');

const store = redis();
let pg;

test.before(async () => {
	pg = await session();
	await pg.query('CREATE EXTENSION hybrid_cache');
	await addScripts(store, pg);
});

/* Takes one of five per hour; true if that was allowed. */
async function take(key) {
	return (await store.rateLimit(1, beside('limit', key), 5, 3600000, 1))[0] === 1;
}

test('a service and PostgreSQL take from one budget', async () => {
	const allowed = [];

	for (let i = 0; i < 4; i++) {
		allowed.push(await take('login:alice'));
		allowed.push(await value(pg, "SELECT allowed FROM hybrid_cache.rate_limit('login:alice', 5, '1 hour')"));
	}
	assert.deepEqual(allowed, [true, true, true, true, true, false, false, false]);
	const [, remaining, after] = await store.rateLimit(1, beside('limit', 'login:alice'), 5, 3600000, 1);

	assert.equal(remaining, 0);
	assert.ok(after > 700000 && after <= 720000, `${after}`);
});

test('a hundred instances do not take more than there is', async () => {
	const results = await Promise.all(Array.from({ length: 100 }, () => take('crowd')));

	assert.equal(results.filter((allowed) => allowed).length, 5);
});

test('a budget fills up again', async () => {
	const key = beside('limit', 'fast');

	assert.equal((await store.rateLimit(1, key, 1, 50, 1))[0], 1);
	await until('it is allowed again', async () => (await store.rateLimit(1, key, 1, 50, 1))[0] === 1);
});

test('a lock has one holder, wherever he is, and tokens that grow', async () => {
	const key = beside('lock', 'report:7');
	const mine = await store.lock(1, key, 60000);

	assert.ok(mine > 0);
	assert.equal(await store.lock(1, key, 60000), null);
	assert.equal(await value(pg, "SELECT hybrid_cache.lock('report:7', '1 minute')"), null);
	assert.equal(await value(pg, "SELECT hybrid_cache.unlock('report:7', $1)", [Number(mine) - 1]), false);
	assert.equal(await store.extendLock(1, key, mine, 60000), 1);
	assert.equal(await store.unlock(1, key, mine), 1);
	assert.equal(await store.unlock(1, key, mine), 0);
	const theirs = await value(pg, "SELECT hybrid_cache.lock('report:7', '1 minute')");

	assert.ok(Number(theirs) > Number(mine), `${theirs} > ${mine}`);
	assert.equal(await store.extendLock(1, key, mine, 60000), 0);
	assert.equal(await store.lock(1, key, 60000), null);
	assert.equal(await value(pg, "SELECT hybrid_cache.unlock('report:7', $1)", [theirs]), true);
});

test('a lock runs out, and its token is worth nothing then', async () => {
	const key = beside('lock', 'short');
	const first = await store.lock(1, key, 20);
	const second = await until('it is free', () => store.lock(1, key, 60000));

	assert.ok(Number(second) > Number(first));
	assert.equal(await store.unlock(1, key, first), 0);

	/* what is protected looks at the token */
	await pg.query('CREATE TABLE report (id int PRIMARY KEY, fence bigint); INSERT INTO report VALUES (7, 0)');
	const write = 'UPDATE report SET fence = $1 WHERE id = 7 AND fence < $1';

	assert.equal((await pg.query(write, [second])).rowCount, 1);
	assert.equal((await pg.query(write, [first])).rowCount, 0);
});
