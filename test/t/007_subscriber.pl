# A logical subscriber: changes that replication applies reach Redis through a
# mapping with always => true, and only through such.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
$redis->start;

# The publisher knows nothing of Redis.
my $publisher = PostgreSQL::Test::Cluster->new('publisher');
$publisher->init(allows_streaming => 'logical');
$publisher->append_conf('postgresql.conf', 'max_prepared_transactions = 10');
$publisher->start;

my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init(allows_streaming => 'logical');
$subscriber->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
max_prepared_transactions = 10
hybrid_cache.redis_url = '@{[ $redis->url ]}'
CONF
$subscriber->start;

my $tables = <<'SQL';
CREATE TABLE t (id int PRIMARY KEY, v text, pad text);
ALTER TABLE t ALTER pad SET STORAGE EXTERNAL;
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
SQL
$publisher->safe_psql('postgres', $tables);
$publisher->safe_psql('postgres', <<'SQL');
INSERT INTO t VALUES (1, 'copied', repeat('x', 10000));
INSERT INTO p VALUES (1, 'copied');
CREATE PUBLICATION pub FOR TABLE t, p WITH (publish_via_partition_root = true);
SQL
$subscriber->safe_psql('postgres', $tables . <<'SQL');
CREATE EXTENSION hybrid_cache;
SELECT hybrid_cache.attach('t', 'string', 'always:{id}', value => $$v || length(pad)$$, always => true);
SELECT hybrid_cache.attach('t', 'string', 'origin:{id}', value => 'v', name => 'origin');
SELECT hybrid_cache.attach('p', 'json', 'p:{id}', always => true);
SQL
my $connstr = $publisher->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION sub CONNECTION '$connstr' PUBLICATION pub WITH (streaming = on, two_phase = on)");
$subscriber->wait_for_subscription_sync($publisher, 'sub');

sub in_sync
{
	$publisher->wait_for_catchup('sub');
	is($subscriber->safe_psql('postgres', "SELECT hybrid_cache.wait_for_sync('60s')"), 't', $_[0]);
	return;
}

sub publish
{
	my ($statements, $what) = @_;
	$publisher->safe_psql('postgres', $statements);
	in_sync($what);
	return;
}

in_sync('the first copy');
is($redis->cli('MGET', 'always:1', 'p:1'), "copied10000\n" . '{"id":1,"v":"copied"}', 'its rows');
is($redis->cli('EXISTS', 'origin:1'), '0', 'a mapping without always does not see replication');

publish(q{INSERT INTO t VALUES (2, 'two', ''); UPDATE t SET v = 'changed' WHERE id = 1}, 'changes');
is($redis->cli('MGET', 'always:1', 'always:2'), "changed10000\ntwo0",
	'an update with an unchanged value out of line');

publish(q{UPDATE t SET id = 3 WHERE id = 1; DELETE FROM t WHERE id = 2; UPDATE p SET id = 11}, 'key moves');
is($redis->cli('KEYS', 'always:*'), 'always:3', 'the old keys are gone');
is($redis->cli('KEYS', 'p:*'), 'p:11', 'also when a row changes its partition');

publish(q{BEGIN; INSERT INTO t VALUES (4, 'prepared', ''); PREPARE TRANSACTION 'x'}, 'prepared');
is($redis->cli('EXISTS', 'always:4'), '0', 'a prepared transaction shows nothing');
publish(q{COMMIT PREPARED 'x'}, 'committed');
is($redis->cli('GET', 'always:4'), 'prepared0', 'until it is committed');

# so large that it is streamed before it commits
publish(q{ALTER SYSTEM SET logical_decoding_work_mem = '64kB'; SELECT pg_reload_conf()}, 'reload');
publish(q{BEGIN; INSERT INTO t SELECT i, 'many', '' FROM generate_series(101, 5100) i;
	SAVEPOINT s; DELETE FROM t WHERE id > 100; ROLLBACK TO s; COMMIT}, 'a large transaction');
is($redis->cli('MGET', 'always:101', 'always:5100'), "many0\nmany0", 'is complete');

publish('TRUNCATE t, p', 'TRUNCATE');
is($redis->cli('KEYS', 'always:*') . $redis->cli('KEYS', 'p:*'), '', 'leaves nothing');

# local changes go through both
$subscriber->safe_psql('postgres', q{INSERT INTO t VALUES (9, 'local', '')});
in_sync('a local change');
is($redis->cli('MGET', 'always:9', 'origin:9'), "local0\nlocal", 'goes through both mappings');

$subscriber->stop;
$publisher->stop;
$redis->stop;
done_testing();
