# A standby is promoted: its sync worker goes on where the one of the old primary
# stopped, across the switch of timelines.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
$redis->start;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.repair = off
hybrid_cache.redis_url = '@{[ $redis->url ]}'
wal_keep_size = 256
max_prepared_transactions = 10
CONF
$primary->start;
$primary->safe_psql('postgres', <<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('t', 'string', 't:{id}', value => 'v');
INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 10) i;
SQL
is($primary->safe_psql('postgres', "SELECT hybrid_cache.wait_for_sync('60s')"),
	't', 'the primary has a worker');

$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;

my ($ret, $stdout, $stderr) =
  $standby->psql('postgres', 'SELECT hybrid_cache.wait_for_sync()');
like($stderr, qr/recovery is in progress/, 'a standby cannot wait for its worker');
for my $function ('populate', 'reconcile', 'cancel', 'orphans')
{
	($ret, $stdout, $stderr) = $standby->psql('postgres', "SELECT hybrid_cache.$function('t', 't_string')");
	like($stderr, qr/cannot execute hybrid_cache\.$function\(\) during recovery/, "$function() on a standby");
}
is($standby->safe_psql('postgres', 'SELECT count(*) FROM hybrid_cache.progress'), '0', 'nothing is compared there');
is($standby->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^hybrid_cache'"),
	'0', 'since it has none');

# The last that the primary does does not reach Redis.
$redis->cli('SET', 't:1', 'mark');
$redis->freeze;
$primary->safe_psql('postgres', <<'SQL');
INSERT INTO t VALUES (11, 'not yet applied');
BEGIN;
INSERT INTO t VALUES (12, 'prepared');
PREPARE TRANSACTION 'p';
SQL
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$standby->promote;
$standby->safe_psql('postgres', "INSERT INTO t VALUES (13, 'after the promotion')");
$redis->thaw;
$standby->safe_psql('postgres', "COMMIT PREPARED 'p'");
is($standby->safe_psql('postgres', "SELECT hybrid_cache.wait_for_sync('60s')"),
	't', 'the promoted server has a worker');
is($redis->cli('MGET', 't:11', 't:12', 't:13'),
	"not yet applied\nprepared\nafter the promotion",
	'which applies the changes of both');
is($redis->cli('GET', 't:1'), 'mark', 'and nothing twice');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM hybrid_cache.owed'),
	'0', 'nothing was lost');

$standby->restart;
$standby->safe_psql('postgres', "INSERT INTO t VALUES (14, 'on the new timeline')");
is($standby->safe_psql('postgres', "SELECT hybrid_cache.wait_for_sync('60s')"),
	't', 'after a restart');
is($redis->cli('GET', 't:14'), 'on the new timeline', 'it goes on');
is($redis->cli('GET', 't:1'), 'mark', 'without doing anything twice');

$standby->stop;
done_testing();
