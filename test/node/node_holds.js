/*
 * node_holds.js
 *	  A box office: a service that holds seats while customers pay, and sees those
 *	  that sessions of PostgreSQL hold and sell.
 */
'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { addScripts, beside, redis, session, synced, until, value } = require('./lib/service');

const store = redis();
const seats = '{event:7}:seats';
let pg;

/* The keys of holds.lua. */
function keys(key) {
	return [key, ...['holds', 'holders', 'ends', 'ranout'].map((what) => beside(what, key)),
		'hybrid_cache:holds', 'hybrid_cache:holds'];
}

/* Nothing, or what is in the way. */
async function hold(holder, items, { key = seats, ttl = 60000, stream = '', free = 'free' } = {}) {
	const [done, ...way] = await store.holds(7, ...keys(key), 'hold', '-', holder, 0,
		ttl, stream, free === null ? 0 : 1, free === null ? '' : free, ...items);

	return done === 1 ? null : way;
}

async function ask(what, holder, ...rest) {
	return store.holds(7, ...keys(seats), what, '-', holder, 0, ...rest);
}

test.before(async () => {
	pg = await session();
	await pg.query('CREATE EXTENSION hybrid_cache');
	await pg.query("CREATE TABLE seat (event int, id text, state text DEFAULT 'free', buyer text, PRIMARY KEY (event, id))");
	await pg.query("SELECT hybrid_cache.attach('seat', 'field', '{{event:{event}}}:seats', field => '{id}', value => 'state')");
	await pg.query("INSERT INTO seat SELECT 7, 'A' || i FROM generate_series(1, 20) i");
	await synced(pg);
	await addScripts(store, pg);
});

test('what a service holds, a session of PostgreSQL cannot', async () => {
	assert.equal(await hold('alice', ['A1', 'A2']), null);
	assert.deepEqual(await hold('bob', ['A2', 'A3']), ['A2', 'pending:alice']);
	const { rows } = await pg.query("SELECT * FROM hybrid_cache.hold($1, '{A2,A4}', 'bob', '1 minute', 'free')", [seats]);

	assert.deepEqual(rows, [{ item: 'A2', value: 'pending:alice' }]);
	assert.deepEqual(await hold('bob', ['A99']), ['A99', null]);
	await assert.rejects(pg.query("SELECT hybrid_cache.hold_or_fail($1, '{A1}', 'bob', '1 minute', 'free')", [seats]), { code: '55P03' });
});

test('what a session holds, a service cannot, until that is rolled back', async () => {
	await pg.query('BEGIN');
	assert.equal((await pg.query("SELECT * FROM hybrid_cache.hold($1, '{A5}', 'carol', '1 minute', 'free')", [seats])).rowCount, 0);
	assert.deepEqual(await hold('bob', ['A5']), ['A5', 'pending:carol']);
	await pg.query('ROLLBACK');
	await until('the seat is free', async () => (await hold('bob', ['A5'])) === null);
	assert.deepEqual((await ask('release', 'bob'))[0], 1);
});

test('a sale: the seat is held by the service and sold by PostgreSQL', async () => {
	assert.equal(await hold('dave', ['A6']), null);
	await pg.query('BEGIN');
	assert.equal(await value(pg, "SELECT hybrid_cache.confirm($1, 'dave')", [seats]), true);
	assert.equal((await pg.query("UPDATE seat SET state = 'sold', buyer = 'dave' WHERE event = 7 AND id = 'A6' AND state = 'free'")).rowCount, 1);
	await pg.query('COMMIT');
	await synced(pg);
	assert.equal(await store.hget(seats, 'A6'), 'sold');
	assert.notEqual(await hold('eve', ['A6']), null);
	assert.ok((await pg.query('SELECT item, holder, state FROM hybrid_cache.holds($1)', [seats])).rows
		.some(({ item, holder, state }) => item === 'A6' && holder === 'dave' && state === 'confirmed'));
});

test('a hold runs out: the seat is free, and an event says so', async () => {
	assert.equal(await hold('frank', ['A7', 'A8'], { ttl: 50, stream: 'ranout' }), null);
	await until('the event comes', async () => (await store.xlen('ranout')) > 0);
	assert.equal(await hold('grace', ['A7', 'A8']), null);
	assert.equal(await value(pg, "SELECT hybrid_cache.confirm($1, 'frank')", [seats]), false);
	assert.ok(JSON.stringify(await store.xrange('ranout', '-', '+')).includes('frank'));
});

test('a hold is extended and released', async () => {
	assert.equal(await hold('heidi', ['A9']), null);
	assert.equal((await ask('extend', 'heidi', 3600000))[0], 1);
	const list = await ask('list', '-');

	assert.ok(Number(list[list.indexOf('A9') + 3]) > Date.now() + 1800000);
	assert.equal((await ask('release', 'heidi'))[0], 1);
	assert.equal((await ask('release', 'heidi'))[0], 0);
	assert.equal((await ask('extend', 'heidi', 1000))[0], 0);
});

test('a hundred customers and ten seats: each is held once', async () => {
	const winners = (await Promise.all(Array.from({ length: 100 }, async (_, i) => {
		const seat = `A${11 + i % 10}`;

		return (await hold(`customer ${i}`, [seat])) === null ? seat : null;
	}))).filter((seat) => seat !== null);

	assert.deepEqual(winners.sort(), Array.from({ length: 10 }, (_, i) => `A${11 + i}`));
});
