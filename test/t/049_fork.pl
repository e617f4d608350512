# A standby is promoted that has not all that the primary has told Redis: what both
# have done is not sent again, and what the standby has of its own is sent.

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
hybrid_cache.redis_url = '@{[ $redis->url ]}'
max_prepared_transactions = 10
CONF
$primary->start;
$primary->safe_psql('postgres', <<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE said (word text);
SELECT hybrid_cache.attach('said', 'list', 'said', value => 'word');
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('t', 'string', 't:{id}', value => 'v');
SQL
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;

$primary->safe_psql('postgres', "INSERT INTO said VALUES ('by both')");
$primary->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO said VALUES ('prepared by both');
PREPARE TRANSACTION 'both';
SQL
$primary->wait_for_catchup($standby);
$standby->stop;
$primary->safe_psql('postgres', "INSERT INTO said VALUES ('lost'); INSERT INTO t VALUES (1, 'lost')");
is($primary->safe_psql('postgres', "SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'Redis has all');
is($redis->cli('LRANGE', 'said', 0, -1), "by both\nlost", 'also what the standby has not');
$primary->stop('immediate');

$standby->start;
$standby->promote;
$standby->safe_psql('postgres', "INSERT INTO said VALUES ('by the standby'); INSERT INTO t VALUES (2, 'kept')");
$standby->safe_psql('postgres', "COMMIT PREPARED 'both'");
is($standby->safe_psql('postgres', "SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'the promoted server goes on');
ok($standby->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM hybrid_cache.owed)'),
	'all is compared');
is($standby->safe_psql('postgres', "SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'and repaired');
is($redis->cli('LRANGE', 'said', 0, -1), "by both\nlost\nby the standby\nprepared by both",
	'each event comes once');
is($redis->cli('MGET', 't:1', 't:2'), "\nkept", 'entries are those of the promoted server');
like(slurp_file($standby->logfile), qr/not of this server's history/, 'the log says that Redis had more');

$standby->stop;
done_testing();
