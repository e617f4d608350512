/*
 * node_events.js
 *	  Services that react to what happens in PostgreSQL, and that tell it what
 *	  happens outside.
 */
'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { redis, session, synced, until, value } = require('./lib/service');

const store = redis();
let pg;

/* The fields of a stream's entry as an object. */
function fields(entry) {
	const result = { id: entry[0] };

	for (let i = 0; i < entry[1].length; i += 2)
		result[entry[1][i]] = entry[1][i + 1];
	return result;
}

test.before(async () => {
	pg = await session();
	await pg.query('CREATE EXTENSION hybrid_cache');
	await pg.query('CREATE TABLE purchase (id int PRIMARY KEY, state text, card text, due timestamptz)');
	await pg.query(`
		SELECT hybrid_cache.attach('purchase', 'stream', 'purchases', exclude => 'card', name => 'stream'),
			hybrid_cache.attach('purchase', 'publish', channel => 'purchase:{id}', operations => 'update',
				filter => 'OLD.state <> NEW.state', columns => 'id, OLD.state AS was, NEW.state AS state', name => 'publish'),
			hybrid_cache.attach('purchase', 'list', 'jobs', operations => 'insert', value => 'id', name => 'list'),
			hybrid_cache.attach('purchase', 'timer', 'due', member => '{id}', expires_at => 'due', name => 'timer')`);
});

test('a consumer group reads the events of a table in the order of commits', async () => {
	const worker = redis();
	const events = [];

	await worker.xgroup('CREATE', 'purchases', 'mails', '$', 'MKSTREAM');
	await pg.query("INSERT INTO purchase VALUES (1, 'new', '1234'), (2, 'new', '5678')");
	await pg.query("UPDATE purchase SET state = 'paid' WHERE id = 1");
	await pg.query("BEGIN; INSERT INTO purchase VALUES (3, 'never'); ROLLBACK");
	await pg.query('DELETE FROM purchase WHERE id = 2');
	while (events.length < 4) {
		const reply = await worker.xreadgroup('GROUP', 'mails', 'me', 'COUNT', 2, 'BLOCK', 30000,
			'STREAMS', 'purchases', '>');

		assert.ok(reply, 'no event came');
		for (const entry of reply[0][1]) {
			events.push(fields(entry));
			assert.equal(await worker.xack('purchases', 'mails', entry[0]), 1);
		}
	}
	assert.deepEqual(events.map((event) => [event.op, event.table]),
		[['insert', 'public.purchase'], ['insert', 'public.purchase'], ['update', 'public.purchase'], ['delete', 'public.purchase']]);
	assert.deepEqual(JSON.parse(events[0].data), { id: 1, state: 'new', due: null });
	assert.deepEqual(JSON.parse(events[2].data).state, 'paid');
	assert.deepEqual(JSON.parse(events[2].old).state, 'new');
	assert.deepEqual(JSON.parse(events[3].data).id, 2);
	assert.match(events[0].lsn, /^[0-9A-F]+\/[0-9A-F]+$/);
	assert.equal(events[0].lsn, events[1].lsn, 'one transaction, one position');
	assert.notEqual(events[1].lsn, events[2].lsn);
	await synced(pg);
	assert.equal(await store.xlen('purchases'), 4);
});

test('events of many sessions come in the order of commits, each once', async () => {
	await pg.query('CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)');
	await pg.query("SELECT hybrid_cache.attach('counter', 'stream', 'counts', operations => 'update', value => 'n')");
	await Promise.all([1, 2, 3, 4].map(async (who) => {
		const client = await session();

		for (let i = 0; i < 100; i++) {
			await client.query('BEGIN');
			await client.query('UPDATE counter SET n = n + 1');
			await client.query((i + who) % 5 === 0 ? 'ROLLBACK' : 'COMMIT');
		}
	}));
	await synced(pg);
	assert.deepEqual((await store.xrange('counts', '-', '+')).map((entry) => Number(fields(entry).value)),
		Array.from({ length: 320 }, (_, i) => i + 1));
});

test('who subscribes to a channel hears of changes', async () => {
	const listener = redis();
	const heard = [];

	await listener.psubscribe('purchase:*');
	listener.on('pmessage', (pattern, channel, message) => heard.push([channel, JSON.parse(message)]));
	await pg.query("INSERT INTO purchase VALUES (4, 'new')");
	await pg.query("UPDATE purchase SET state = 'new' WHERE id = 4");
	await pg.query("UPDATE purchase SET state = 'sent' WHERE id = 4");
	await until('the message comes', () => heard.length > 0);
	await synced(pg);
	await listener.ping();
	assert.deepEqual(heard, [['purchase:4', { id: 4, was: 'new', state: 'sent' }]]);
});

test('a list is a queue of jobs, each for one worker', async () => {
	const done = [];

	await synced(pg);
	await store.del('jobs');
	const work = [1, 2, 3].map(async () => {
		const worker = redis();

		for (;;) {
			const job = await worker.blpop('jobs', 30);

			assert.ok(job, 'no job came');
			if (job[1] === 'end')
				return;
			done.push(Number(job[1]));
		}
	});

	await pg.query("INSERT INTO purchase SELECT i, 'new' FROM generate_series(101, 200) i");
	await synced(pg);
	await store.rpush('jobs', 'end', 'end', 'end');
	await Promise.all(work);
	assert.deepEqual(done.sort((a, b) => a - b), Array.from({ length: 100 }, (_, i) => i + 101));
});

test('a timer comes when it is time, moves with its row, and ends with it', async () => {
	const at = new Date(Date.now() + 700);

	await store.del('due');
	await pg.query("INSERT INTO purchase VALUES (11, 'new', NULL, $1), (12, 'new', NULL, $1), (13, 'new', NULL, $2)",
		[at, new Date(Date.now() + 3600000)]);
	await pg.query('DELETE FROM purchase WHERE id = 11');
	await pg.query('UPDATE purchase SET due = $1 WHERE id = 13', [at]);
	await until('two timers', async () => (await store.xlen('due')) >= 2);
	assert.ok(Date.now() >= at.getTime(), 'not before');
	const events = (await store.xrange('due', '-', '+')).map(fields);

	assert.deepEqual(events.map((event) => event.member).sort(), ['12', '13']);
	assert.deepEqual(events.map((event) => Number(event.at)), [at.getTime(), at.getTime()]);
});

test('a command that runs on commit, and only then', async () => {
	await pg.query("BEGIN; SELECT redis_on_commit('INCR', 'paid'); ROLLBACK");
	await pg.query("BEGIN; SELECT redis_on_commit('INCR', 'paid'); COMMIT");
	await synced(pg);
	assert.equal(await store.get('paid'), '1');
});

test('what a service publishes, PostgreSQL hears', async () => {
	const listener = await session();
	const heard = [];

	listener.on('notification', (message) => heard.push(message.payload));
	await listener.query('LISTEN weather');
	await pg.query("SELECT hybrid_cache.bridge('weather:*', 'weather', with_channel => true)");
	await until('the bridge stands', () => value(pg, 'SELECT subscribed_at IS NOT NULL FROM hybrid_cache.bridges'));
	await store.publish('weather:rome', 'sunny');
	await until('the notification comes', () => heard.length > 0);
	assert.deepEqual(heard.map((payload) => JSON.parse(payload)), [{ channel: 'weather:rome', message: 'sunny' }]);
});

test('what a service adds to a stream, a table gets once', async () => {
	await pg.query('CREATE TABLE reading (id text PRIMARY KEY, sensor int, value float8)');
	await pg.query(`
		CREATE FUNCTION take_reading(id text, fields jsonb) RETURNS void LANGUAGE sql AS $$
			INSERT INTO reading VALUES (id, (fields ->> 'sensor')::int, (fields ->> 'value')::float8)
		$$`);
	await pg.query("SELECT hybrid_cache.consume('readings', 'take_reading(text, jsonb)', 'sensors')");
	const pipeline = store.pipeline();

	for (let i = 0; i < 500; i++)
		pipeline.xadd('readings', '*', 'sensor', i % 5, 'value', i / 2);
	const ids = (await pipeline.exec()).map(([error, id]) => error || id);

	await until('all readings are there', async () => (await value(pg, 'SELECT count(*) = 500 FROM reading')));
	const { rows } = await pg.query('SELECT id, sensor, value FROM reading ORDER BY value');

	assert.deepEqual(rows, ids.map((id, i) => ({ id, sensor: i % 5, value: i / 2 })));
});
