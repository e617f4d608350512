/*
 * node_documents.js
 *	  A service that reads from Redis what PostgreSQL's tables hold.
 */
'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { redis, session, synced } = require('./lib/service');

const store = redis();
let pg;

test.before(async () => {
	pg = await session();
	await pg.query('CREATE EXTENSION hybrid_cache');
	await pg.query(`
		CREATE TABLE product (id int PRIMARY KEY, shop int, name text, price numeric(8,2), tags text[],
			made timestamptz, lng float8, lat float8, stock int, cost numeric)`);
	await pg.query(`
		SELECT hybrid_cache.attach('product', 'json', 'product:{id}', exclude => 'cost', name => 'json'),
			hybrid_cache.attach('product', 'hash', 'product_hash:{id}', columns => 'name, price, stock', name => 'hash'),
			hybrid_cache.attach('product', 'string', 'name:{id}', value => 'name', ttl => '1 hour', name => 'string'),
			hybrid_cache.attach('product', 'field', 'stock', field => '{id}', value => 'stock', name => 'field'),
			hybrid_cache.attach('product', 'set', 'shop:{shop}', member => '{id}', name => 'set'),
			hybrid_cache.attach('product', 'zset', 'prices', member => '{id}', score => 'price', name => 'zset'),
			hybrid_cache.attach('product', 'geo', 'places', member => '{id}', longitude => 'lng', latitude => 'lat', name => 'geo')`);
	await pg.query(`
		INSERT INTO product VALUES
			(1, 7, 'Käse "☃" 🧀', 1.50, '{a,b}', '2024-01-01 12:00+00', 9.19, 45.46, 3, 1),
			(2, 7, 'bread', 20.00, NULL, NULL, 2.35, 48.85, 0, 1),
			(3, 8, NULL, 3.25, '{}', NULL, NULL, NULL, NULL, 1)`);
	await synced(pg);
});

test('a row is a JSON document, without what was excluded', async () => {
	assert.deepEqual(JSON.parse(await store.get('product:1')), {
		id: 1, shop: 7, name: 'Käse "☃" 🧀', price: 1.5, tags: ['a', 'b'],
		made: '2024-01-01T12:00:00+00:00', lng: 9.19, lat: 45.46, stock: 3
	});
});

test('texts are UTF-8, byte by byte', async () => {
	assert.deepEqual(await store.getBuffer('name:1'), Buffer.from('Käse "☃" 🧀'));
});

test('hashes, fields, sets, sorted sets and positions', async () => {
	assert.deepEqual(await store.hgetall('product_hash:1'), { name: 'Käse "☃" 🧀', price: '1.50', stock: '3' });
	assert.deepEqual(await store.hgetall('product_hash:3'), { price: '3.25' });
	assert.deepEqual(await store.hgetall('stock'), { 1: '3', 2: '0' });
	assert.deepEqual((await store.smembers('shop:7')).sort(), ['1', '2']);
	assert.deepEqual(await store.zrange('prices', '(1.5', '+inf', 'BYSCORE', 'WITHSCORES'), ['3', '3.25', '2', '20']);
	assert.deepEqual(await store.geosearch('places', 'FROMLONLAT', 2, 48, 'BYRADIUS', 200, 'km', 'ASC'), ['2']);
});

test('a document that lives for an hour', async () => {
	const ttl = await store.ttl('name:1');

	assert.ok(ttl > 3500 && ttl <= 3600, `${ttl}`);
});

test('changes follow, whatever they are', async () => {
	await pg.query('UPDATE product SET name = NULL, price = 2, shop = 8 WHERE id = 1');
	await pg.query('UPDATE product SET id = 4 WHERE id = 2');
	await pg.query('DELETE FROM product WHERE id = 3');
	await synced(pg);
	assert.deepEqual(await store.hgetall('product_hash:1'), { price: '2.00', stock: '3' });
	assert.equal(await store.exists('name:1', 'product:2', 'product:3', 'product_hash:2', 'product_hash:3'), 0);
	assert.equal(JSON.parse(await store.get('product:4')).id, 4);
	assert.deepEqual(await store.zrange('prices', 0, -1), ['1', '4']);
	assert.deepEqual(await store.smembers('shop:8'), ['1']);
	await pg.query('TRUNCATE product');
	await synced(pg);
	assert.equal(await store.exists('product:1', 'product:4', 'stock', 'prices', 'places', 'shop:7', 'shop:8'), 0);
});

test('what is rolled back was never there', async () => {
	const watcher = redis();
	const seen = [];

	await watcher.config('SET', 'notify-keyspace-events', 'KA');
	await watcher.psubscribe('__keyspace@*__:product:*');
	watcher.on('pmessage', (pattern, channel) => seen.push(channel.replace(/.*:product:/, '')));
	await pg.query('BEGIN');
	await pg.query("INSERT INTO product VALUES (10, 1, 'never')");
	await pg.query('ROLLBACK');
	await pg.query('BEGIN');
	await pg.query('SAVEPOINT a');
	await pg.query("INSERT INTO product VALUES (11, 1, 'never')");
	await pg.query('ROLLBACK TO a');
	await pg.query("INSERT INTO product VALUES (12, 1, 'once')");
	await pg.query('COMMIT');
	await synced(pg);
	await watcher.ping();
	assert.deepEqual([...new Set(seen)], ['12']);
});

test('a reader never sees half a transaction', async () => {
	let rounds = 0;
	let done = false;

	await pg.query("INSERT INTO product (id, shop, name) VALUES (20, 1, '0'), (21, 1, '0')");
	await synced(pg);
	const reading = (async () => {
		while (!done) {
			const [a, b] = await store.mget('name:20', 'name:21');

			assert.equal(a, b);
			rounds++;
		}
	})();

	try {
		for (let i = 1; i <= 200; i++) {
			await pg.query('BEGIN');
			await pg.query('UPDATE product SET name = $1 WHERE id = 20', [`${i}`]);
			await pg.query('UPDATE product SET name = $1 WHERE id = 21', [`${i}`]);
			await pg.query('COMMIT');
		}
		await synced(pg);
	} finally {
		done = true;
		await reading;
	}
	assert.ok(rounds > 10, `${rounds}`);
	assert.equal(await store.get('name:20'), '200');
});

test('a thousand documents in one pipeline', async () => {
	await pg.query(`INSERT INTO product SELECT i, 1, 'p' || i, i / 4.0 FROM generate_series(1001, 2000) i`);
	await synced(pg);
	const pipeline = store.pipeline();

	for (let id = 1001; id <= 2000; id++)
		pipeline.get(`product:${id}`);
	const documents = (await pipeline.exec()).map(([error, text]) => error || JSON.parse(text));
	const { rows } = await pg.query(
		'SELECT id, name, price::float8 FROM product WHERE id > 1000 ORDER BY id');

	assert.deepEqual(documents.map(({ id, name, price }) => ({ id, name, price })), rows);
});
