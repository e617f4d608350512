# Moments at which it is easy to lose a change: the middle of a transaction that
# is cut into many batches, a commit that is not durable yet.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = HybridCache::Redis->new(appendonly => 'yes');
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
hybrid_cache.atomic_ops = 1
wal_level = replica
wal_writer_delay = 10s
CONF
$redis->start;
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# How many ops of a transaction that is not yet done are in Redis: by the
# watermark, which names the transaction as well.
sub ops_done
{
	my ($key) = $redis->cli('KEYS', 'hybrid_cache:watermark:*');
	my @fields = split / /, $redis->cli('GET', $key);
	return $fields[5] eq '0/0' ? 0 : $fields[6];
}

sub compare
{
	my ($what) = @_;
	is(sql(<<'SQL'), '20000|20000|20000', $what);
SELECT count(*), count(*) FILTER (WHERE r.v = t.v), jsonb_array_length(redis_command('KEYS', 'row:*'))
FROM row t, redis_get('row:' || t.id) r(v)
SQL
	return;
}

# The extension, a mapping and its rows in one transaction: when it commits there
# is no worker yet that could be told of it, and nobody has flushed it.
$node->safe_psql('postgres', <<'SQL');
BEGIN;
SET LOCAL synchronous_commit = off;
CREATE EXTENSION hybrid_cache;
CREATE TABLE early (id int PRIMARY KEY);
SELECT hybrid_cache.attach('early', 'string', 'early:{id}', value => 'id');
INSERT INTO early VALUES (1);
COMMIT;
SQL
is(sql("SELECT hybrid_cache.wait_for_sync('60s'), redis_get('early:1')"),
	't|1', 'changes of the transaction that creates the extension are waited for');

# Each key is handed on from row to row, and only the whole transaction tells
# which removals are void.
sql(<<'SQL');
CREATE TABLE row (id int PRIMARY KEY DEFERRABLE, v text);
SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v');
INSERT INTO row SELECT i, 'v' || i FROM generate_series(1, 20000) i;
SELECT hybrid_cache.wait_for_sync('60s');
UPDATE row SET id = id + 1;
SQL

my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
usleep(100_000) while ops_done() == 0 && $patience-- > 0;
$redis->freeze;
my $worker = sql('SELECT worker_pid FROM hybrid_cache.status');
sql('ALTER SYSTEM SET hybrid_cache.atomic_ops = 100000');
sql('SELECT pg_reload_conf()');
sql("SELECT pg_terminate_backend($worker)");
ok($node->poll_query_until('postgres',
		"SELECT worker_pid <> $worker FROM hybrid_cache.status"),
	'the worker is restarted in the middle of a transaction');
$redis->thaw;
is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'it goes on');
compare('a transaction that was divided is still seen as a whole');
is(sql('SELECT count(*) FROM hybrid_cache.owed'), '0', 'no reconcile is owed');

# Rows that have the same key for a while, and only the one that stays has it in
# the end: in one batch, and with each op in a batch of its own.
for my $atomic_ops (100000, 1)
{
	sql("ALTER SYSTEM SET hybrid_cache.atomic_ops = $atomic_ops");
	sql('SELECT pg_reload_conf()');
	$node->safe_psql('postgres', <<'SQL');
DROP TABLE IF EXISTS guest;
CREATE TABLE guest (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, name text);
SELECT hybrid_cache.attach('guest', 'string', 'guest:{id}', value => 'name');
INSERT INTO guest SELECT i, 'v' || i FROM generate_series(1, 500) i;
BEGIN;
UPDATE guest SET id = id + 1 WHERE name IN (SELECT 'v' || i FROM generate_series(1, 500, 5) i);
UPDATE guest SET name = name || '.' WHERE name IN (SELECT 'v' || i FROM generate_series(2, 500, 5) i);
UPDATE guest SET id = id + 1000 WHERE name IN (SELECT 'v' || i || '.' FROM generate_series(2, 500, 5) i);
UPDATE guest SET id = id + 1 WHERE name IN (SELECT 'v' || i FROM generate_series(3, 500, 5) i);
UPDATE guest SET id = id - 1 WHERE name IN (SELECT 'v' || i FROM generate_series(3, 500, 5) i);
UPDATE guest SET name = name || '!' WHERE name IN (SELECT 'v' || i FROM generate_series(5, 500, 5) i);
DELETE FROM guest WHERE name LIKE '%!';
COMMIT;
SELECT hybrid_cache.wait_for_sync('60s');
SQL
	is(sql(<<'SQL'), '400|400|400', "rows that visit keys, atomic_ops = $atomic_ops");
SELECT count(*), count(*) FILTER (WHERE redis_get('guest:' || id) = name),
	jsonb_array_length(redis_command('KEYS', 'guest:*')) FROM guest
SQL
	sql(q{SELECT hybrid_cache.detach('guest', 'guest_string')});
	$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM hybrid_cache.leftover');
	is(sql(q{SELECT hybrid_cache.wait_for_sync('60s'), redis_command('KEYS', 'guest:*')}),
		't|[]', 'nothing is left behind');
}

done_testing();
