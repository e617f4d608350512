# What an application developer sees: rows are changed through SQL, and a plain
# Redis client reads what they became, for every kind of mapping.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

my $redis = HybridCache::Redis->new;
$redis->start;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
wal_level = replica
hybrid_cache.redis_url = '@{[ $redis->url ]}'
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Changes something, and returns when Redis has it, and what was to be populated.
sub change
{
	my ($statements) = @_;
	sql($statements);
	$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM hybrid_cache.progress');
	my ($synced) = sql("SELECT hybrid_cache.wait_for_sync('60s')") =~ /(\w)\s*\z/;
	die "Redis did not follow: $statements" unless defined $synced && $synced eq 't';
	return;
}

# What redis-cli prints for a command, its lines sorted.
sub sorted { return join ' ', sort split /\n/, $redis->cli(@_); }

# All keys but those of the extension itself.
sub keys_there
{
	return join ' ', sort grep { !/^hybrid_cache:/ } split /\n/, $redis->cli('KEYS', '*');
}

# Tries until a command of redis-cli prints what is expected.
sub becomes
{
	my ($expected, $what, @command) = @_;
	my $end = Time::HiRes::time() + $PostgreSQL::Test::Utils::timeout_default;
	my $got;
	while (($got = $redis->cli(@command)) ne $expected && Time::HiRes::time() < $end)
	{
		Time::HiRes::usleep(10_000);
	}
	return is($got, $expected, $what);
}

sql('CREATE EXTENSION hybrid_cache');
is(keys_there(), '', 'Redis is empty before the test');

# One table, with a mapping of every kind.
sql(<<'SQL');
CREATE TABLE drivers (
	id int PRIMARY KEY,
	name text NOT NULL,
	status text NOT NULL,
	rating numeric,
	lng float8,
	lat float8
);
INSERT INTO drivers VALUES (1, 'Ann', 'online', 4.5, 13.361389, 38.115556);

SELECT hybrid_cache.attach('drivers', 'string', 'name:{id}', value => 'upper(name)', filter => $$status <> 'hidden'$$);
SELECT hybrid_cache.attach('drivers', 'json', 'driver:{id}', exclude => 'lng, lat', filter => $$status <> 'hidden'$$);
SELECT hybrid_cache.attach('drivers', 'hash', 'hash:{id}', columns => 'name, rating * 10 AS points', filter => $$status <> 'hidden'$$);
SELECT hybrid_cache.attach('drivers', 'field', 'names', field => '{id}', value => 'name', filter => $$status <> 'hidden'$$);
SELECT hybrid_cache.attach('drivers', 'geo', 'places', member => '{id}', longitude => 'lng', latitude => 'lat', filter => $$status <> 'hidden'$$);
SELECT hybrid_cache.attach('drivers', 'zset', 'ratings', member => '{id}', score => 'rating', filter => $$status <> 'hidden'$$);
SELECT hybrid_cache.attach('drivers', 'set', '{status}', member => '{name}', filter => $$status <> 'hidden'$$);
SELECT hybrid_cache.attach('drivers', 'invalidate', 'page:{id}', filter => $$status <> 'hidden'$$);
SQL

# ---------------------------------------------------------------------------
# what was there, without waiting in SQL

becomes('ANN', 'a row that was there appears by itself', 'GET', 'name:1');
change('SELECT 1');

# Everything that belongs to a driver, under every kind.
sub entries_are
{
	my ($id, $what, %expected) = @_;
	subtest $what => sub {
		is($redis->cli('GET', "name:$id"), $expected{string}, 'string');
		is($redis->cli('GET', "driver:$id"), $expected{json}, 'json');
		is(sorted('HGETALL', "hash:$id"), $expected{hash}, 'hash');
		is($redis->cli('HGET', 'names', $id), $expected{field}, 'field');
		is($redis->cli('GEOHASH', 'places', $id), $expected{geo}, 'geo');
		is($redis->cli('ZSCORE', 'ratings', $id), $expected{zset}, 'zset');
		is($redis->cli('SISMEMBER', $expected{set}[0], $expected{set}[1]), $expected{set}[2], 'set');
	};
	return;
}

# What a driver has who has no entry.
sub nothing
{
	my (@set) = @_;
	return (
		string => '', json => '', hash => '', field => '', geo => '', zset => '',
		set => [ @set, 0 ]);
}

entries_are(1, 'attach() sends the rows that are there',
	string => 'ANN',
	json => '{"id":1,"name":"Ann","status":"online","rating":4.5}',
	hash => '45.0 Ann name points',
	field => 'Ann',
	geo => 'sqc8b49rny0',
	zset => '4.5',
	set => [ 'online', 'Ann', 1 ]);

# ---------------------------------------------------------------------------
# INSERT

$redis->cli('SET', 'page:2', 'rendered earlier');
change(q{INSERT INTO drivers VALUES (2, 'Böb "B" \\ 漢字', 'online', 3, 15.087269, 37.502669)});
entries_are(2, 'INSERT',
	string => 'BÖB "B" \\ 漢字',
	json => '{"id":2,"name":"Böb \\"B\\" \\\\ 漢字","status":"online","rating":3}',
	hash => '30 Böb "B" \\ 漢字 name points',
	field => 'Böb "B" \\ 漢字',
	geo => 'sqdtr74hyu0',
	zset => '3',
	set => [ 'online', 'Böb "B" \\ 漢字', 1 ]);
is($redis->cli('EXISTS', 'page:2'), '0', 'invalidate removes a key for INSERT');
is($redis->cli('GEODIST', 'places', '1', '2', 'km'), '166.2742', 'Redis searches the geo index');

# ---------------------------------------------------------------------------
# UPDATE

$redis->cli('SET', 'page:2', 'rendered again');
change(q{UPDATE drivers SET name = 'Bob', status = 'busy', rating = NULL, lng = NULL WHERE id = 2});
entries_are(2, 'UPDATE; what is NULL goes',
	string => 'BOB',
	json => '{"id":2,"name":"Bob","status":"busy","rating":null}',
	hash => 'Bob name',
	field => 'Bob',
	geo => '',
	zset => '',
	set => [ 'busy', 'Bob', 1 ]);
is($redis->cli('EXISTS', 'page:2'), '0', 'invalidate removes a key for UPDATE');
is(sorted('SMEMBERS', 'online'), 'Ann', 'the old key of a set loses the member');

# ---------------------------------------------------------------------------
# a row gets another key

$redis->cli('MSET', 'page:2', 'old', 'page:20', 'new');
change(q{UPDATE drivers SET id = 20, rating = -1e-7, lng = 0, lat = 0 WHERE id = 2});
entries_are(2, 'nothing stays at the old key', nothing('online', 'Bob'));
entries_are(20, 'everything is at the new key',
	string => 'BOB',
	json => '{"id":20,"name":"Bob","status":"busy","rating":-0.0000001}',
	hash => '-0.0000010 Bob name points',
	field => 'Bob',
	geo => 's0000000000',
	zset => $redis->cli('ZSCORE', 'ratings', 20),
	set => [ 'busy', 'Bob', 1 ]);
is($redis->cli('ZSCORE', 'ratings', 20) + 0, -1e-7, 'a score that is small');
is($redis->cli('EXISTS', 'page:2', 'page:20'), '0', 'invalidate removes both keys');

# ---------------------------------------------------------------------------
# a row leaves the filter and comes back

change(q{UPDATE drivers SET status = 'hidden' WHERE id = 20});
entries_are(20, 'a row that the filters leave out has no entry', nothing('hidden', 'Bob'));
is($redis->cli('EXISTS', 'busy'), '0', 'an empty set is no key');
change(q{UPDATE drivers SET status = 'online', lng = NULL, rating = 1 WHERE id = 20});
entries_are(20, 'and has one when it is back',
	string => 'BOB',
	json => '{"id":20,"name":"Bob","status":"online","rating":1}',
	hash => '10 Bob name points',
	field => 'Bob',
	geo => '',
	zset => '1',
	set => [ 'online', 'Bob', 1 ]);

# ---------------------------------------------------------------------------
# DELETE, TRUNCATE

$redis->cli('SET', 'page:20', 'old');
change('DELETE FROM drivers WHERE id = 20');
entries_are(20, 'DELETE', nothing('online', 'Bob'));
is($redis->cli('EXISTS', 'page:20'), '0', 'invalidate removes a key for DELETE');
is(keys_there(), 'driver:1 hash:1 name:1 names online places ratings', 'the other row has all it had');

$redis->cli('SET', 'page:1', 'old');
change('TRUNCATE drivers');
is(keys_there(), '', 'TRUNCATE leaves nothing');

# ---------------------------------------------------------------------------
# nothing before COMMIT, everything after it

my $session = $node->background_psql('postgres');
$session->query_safe(q{BEGIN;
	INSERT INTO drivers VALUES (3, 'Cid', 'online', 1, 0, 0);
	SAVEPOINT s; INSERT INTO drivers VALUES (4, 'Dan', 'online', 1, 0, 0); ROLLBACK TO s});
# what committed afterwards has passed by
sql(q{CREATE TABLE marks (id int PRIMARY KEY);
	SELECT hybrid_cache.attach('marks', 'set', 'marks', member => '{id}')});
change('INSERT INTO marks VALUES (1)');
is(keys_there(), 'marks', 'a transaction that is open shows nothing in Redis');
$session->query_safe('COMMIT');
becomes('CID', 'it appears soon after COMMIT', 'GET', 'name:3');
is(keys_there(), 'driver:3 hash:3 marks name:3 names online places ratings',
	'all of it, but not what a savepoint took back');
$session->query_safe('BEGIN; DELETE FROM drivers; ROLLBACK');
$session->quit;
change('INSERT INTO marks VALUES (2)');
is($redis->cli('GET', 'name:3'), 'CID', 'what is rolled back changes nothing');

# ---------------------------------------------------------------------------
# entries that expire

sql(q{CREATE TABLE sessions (id int, until timestamptz);
	SELECT hybrid_cache.attach('sessions', 'string', 'session:{id}', value => 'id', expires_at => 'until');
	SELECT hybrid_cache.attach('sessions', 'json', 'login:{id}', ttl => '1 hour')});
change(q{INSERT INTO sessions VALUES (1, '2100-01-01 UTC'), (2, '2000-01-01 UTC'), (3, NULL)});
is($redis->cli('PEXPIRETIME', 'session:1'), '4102444800000', 'expires_at is a time of the row')
  if $redis->cli('INFO', 'server') !~ /redis_version:6/;
is($redis->cli('MGET', 'session:1', 'session:2', 'session:3'), "1\n\n3", 'what expired earlier is not there');
cmp_ok($redis->cli('TTL', 'login:1'), '>', 3500, 'ttl');
cmp_ok($redis->cli('TTL', 'login:1'), '<=', 3600, 'is not longer than asked for');

# ---------------------------------------------------------------------------
# detach, and key_prefix

change(q{SELECT hybrid_cache.detach(relation, name) FROM hybrid_cache.mapping WHERE kind <> 'invalidate'});
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM hybrid_cache.leftover'), 'detach() ...');
is(keys_there(), '', '... removes the entries');

sql(q{ALTER DATABASE postgres SET hybrid_cache.key_prefix = 'app:'});
change(q{SELECT hybrid_cache.attach('drivers', 'string', 'name:{id}', value => 'name');
	SELECT hybrid_cache.attach('drivers', 'geo', 'places', member => '{id}', longitude => 'lng', latitude => 'lat')});
is(keys_there(), 'app:name:3 app:places', 'every key begins with key_prefix');
is($redis->cli('ZRANGE', 'app:places', 0, -1), '3', 'a member does not');
$redis->cli('MSET', 'app:page:3', 'x', 'page:3', 'y');
change('UPDATE drivers SET id = 5');
is(keys_there(), 'app:name:5 app:places page:3', 'changes and invalidations go to keys with the prefix');
change('TRUNCATE drivers');
is(keys_there(), 'page:3', 'so do removals');

$node->stop;
$redis->stop;
done_testing();
