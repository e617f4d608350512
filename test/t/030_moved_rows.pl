# A row that moves, while its table is read, from a part that is still to be read to
# one that was read: no snapshot of the first pass has seen it there, and no trigger
# has captured it, since nothing has changed in its entry.  It is compared anyway.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
hybrid_cache.reconcile_interval = 0
wal_level = replica
CONF
$redis->start;
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Two rows in a block, and no more than that; the first four blocks are empty.
sql(<<'SQL');
CREATE TABLE moved (id int PRIMARY KEY, v text, other int, filler text) WITH (autovacuum_enabled = off);
ALTER TABLE moved ALTER filler SET STORAGE PLAIN;
INSERT INTO moved SELECT i, 'v' || i, 0, repeat('x', 3000) FROM generate_series(1, 60) i;
DELETE FROM moved WHERE id <= 8;
VACUUM moved;
CREATE EXTENSION hybrid_cache;
SELECT hybrid_cache.attach('moved', 'string', 'm:{id}', value => 'v', name => 'm');
SQL
ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM hybrid_cache.owed)'), 'the mapping is populated');

sub set
{
	my ($setting, $value) = @_;
	sql("ALTER SYSTEM SET hybrid_cache.$setting = $value");
	sql('SELECT pg_reload_conf()');
	return;
}

# With one row per second the run would take a minute; it is held behind its first
# rows until the others have moved.  Of a run that nobody has asked for the rate can
# be changed.
$redis->cli('DEL', 'm:58', 'm:59');
$redis->cli('SET', 'm:57', 'x');
set('reconcile_rate', 1);
set('reconcile_interval', q{'1s'});
ok($node->poll_query_until('postgres', 'SELECT EXISTS (SELECT FROM hybrid_cache.progress WHERE rows_done BETWEEN 1 AND 20)'),
	'a run has read its first rows');
set('reconcile_interval', 0);

# the column is in no entry
sql('UPDATE moved SET other = 1 WHERE id >= 57');
is(sql('SELECT count(*) FROM moved WHERE id >= 57 AND (ctid::text::point)[0] < 4'), '4', 'the last rows have moved to the beginning');
is(sql('SELECT count(*) FROM hybrid_cache.progress WHERE rows_done < 44'), '1', '... while it was on its way there');

set('reconcile_rate', 0);
ok($node->poll_query_until('postgres', q{SELECT kind = 'reconcile' AND phase = 'over' FROM hybrid_cache.run}), 'it ends');
is(sql('SELECT checked, missing, stale, orphaned, conflicting, repaired FROM hybrid_cache.run'), '48|2|1|0|0|3',
	'it has found those that were not equal, and not the one that was');
is($redis->cli('GET', "m:$_"), "v$_", "... and made row $_ equal") foreach 57 .. 60;

done_testing();
