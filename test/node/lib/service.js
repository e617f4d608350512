/*
 * service.js
 *	  What the services of these tests have in common: connections to PostgreSQL
 *	  and Redis, as test/run names them in the environment, the Lua scripts of the
 *	  extension, and waiting for something.
 */
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const Redis = require('ioredis');
const { Client } = require('pg');

const PATIENCE_MS = 30000;

const connections = [];

/* A connection to Redis; the options are those of ioredis. */
function redis(options) {
	const client = new Redis(process.env.REDIS_URL, options);

	connections.push(() => client.disconnect());
	return client;
}

/* A session of PostgreSQL. */
async function session() {
	const client = new Client();

	await client.connect();
	connections.push(() => client.end());
	return client;
}

/* The first column of the first row. */
async function value(client, sql, parameters) {
	const result = await client.query({ text: sql, values: parameters, rowMode: 'array' });

	return result.rows.length > 0 ? result.rows[0][0] : undefined;
}

/* Waits until all that was committed is in Redis. */
async function synced(client) {
	if (!(await value(client, "SELECT hybrid_cache.wait_for_sync('30s')")))
		throw new Error('Redis does not follow');
}

/* Asks until the answer is true, and returns it. */
async function until(what, ask) {
	const end = Date.now() + PATIENCE_MS;

	for (;;) {
		const answer = await ask();

		if (answer)
			return answer;
		if (Date.now() > end)
			throw new Error(`it did not come true: ${what}`);
		await new Promise((resolve) => setTimeout(resolve, 10));
	}
}

/* The name of a key of the extension beside a key; see src/lua/README.md. */
function beside(what, key) {
	return `hybrid_cache:${what}:${/\{[^}]+\}/.test(key) ? key : `{${key}}`}`;
}

/*
 * Makes each script a method, named in camel case: rate_limit.lua becomes
 * redis.rateLimit(number of keys, keys ..., arguments ...).
 */
async function addScripts(client, pg) {
	const folder = await value(pg,
		"SELECT setting || '/extension/hybrid_cache' FROM pg_config WHERE name = 'SHAREDIR'");

	for (const file of fs.readdirSync(folder)) {
		if (!file.endsWith('.lua'))
			continue;
		const name = file.slice(0, -4).replace(/_(.)/g, (_, letter) => letter.toUpperCase());

		client.defineCommand(name, { lua: fs.readFileSync(path.join(folder, file), 'utf8') });
	}
}

test.after(async () => {
	for (const close of connections.reverse())
		await close();
});

module.exports = { addScripts, beside, redis, session, synced, until, value };
