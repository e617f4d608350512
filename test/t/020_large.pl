# Large transactions: what they cost in memory, and that nobody waits for one
# that is open.  test/bench/memory measures larger ones.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant ROWS => 100_000;

my $redis = HybridCache::Redis->new;
my $node = PostgreSQL::Test::Cluster->new('main');

$redis->start;
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
wal_level = replica
max_wal_senders = 1
log_statement = none
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub in_sync
{
	my ($what) = @_;
	is(sql("SELECT hybrid_cache.wait_for_sync('120s')"), 't', $what);
	return;
}

# As many keys as rows, and each has the value of its row.
sub equal
{
	my ($what) = @_;
	in_sync("all is applied: $what");
	is(sql(<<'SQL'), ROWS . '|' . ROWS, "Redis equals the table: $what");
SELECT sum(cardinality(ids)),
	sum((SELECT count(*) FROM jsonb_array_elements_text(
			redis_command(VARIADIC ARRAY['MGET'] || (SELECT array_agg('row:' || i) FROM unnest(ids) i)))
		WITH ORDINALITY r(v, n) WHERE r.v = vs[n]))
FROM (SELECT array_agg(id ORDER BY id) AS ids, array_agg(v ORDER BY id) AS vs FROM row GROUP BY id / 1000) t
SQL
	my @own = split /\n/, $redis->cli('KEYS', 'hybrid_cache:*');
	is($redis->cli('DBSIZE') - @own, ROWS + 1, "and nothing else is there: $what");
	return;
}

# Memory that a process shares with nobody, in MiB; undef where the system does
# not tell.
sub memory
{
	my ($pid) = @_;
	open my $status, '<', "/proc/$pid/status" or return;
	my ($kb) = map { /^RssAnon:\s*(\d+)/ ? $1 : () } <$status>;
	return defined $kb ? $kb / 1024 : undef;
}

sub worker_pid { return sql('SELECT worker_pid FROM hybrid_cache.status'); }

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE row (id int PRIMARY KEY DEFERRABLE, v text);
SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v');
CREATE TABLE other (v int);
INSERT INTO other VALUES (0);
SELECT hybrid_cache.attach('other', 'string', 'other', value => 'v');
SQL
in_sync('an empty table');

my $worker = worker_pid();
my $idle = memory($worker);
my $session = $node->background_psql('postgres');
my $backend = $session->query_safe('SELECT pg_backend_pid()');

# $1 = statements that run in one transaction
sub transaction
{
	my ($statements, $what) = @_;
	my $n = sql('SELECT v + 1 FROM other');

	$session->query_safe("BEGIN; $statements");
	sql("UPDATE other SET v = $n");
	in_sync("others do not wait: $what");
	is($redis->cli('GET', 'other'), $n, "their changes are in Redis: $what");
	$session->query_safe('COMMIT');
	equal($what);
	return;
}

my $rows = ROWS;
transaction("INSERT INTO row SELECT i, md5(i::text) FROM generate_series(1, $rows) i", 'rows are inserted');
transaction('UPDATE row SET v = md5(v)', 'rows are updated');

# Each row hands its key on to the next one: more entries change hands than are
# remembered, and still it is known which removals are void.
transaction('UPDATE row SET id = id + 1', 'keys move');
my $sum = ROWS + 3;
transaction("UPDATE row SET id = $sum - id", 'rows far from each other swap keys');
transaction("DELETE FROM row; INSERT INTO row SELECT i, 'new ' || i FROM generate_series(1, $rows) i",
	'rows are replaced');
is(sql('SELECT count(*) FROM hybrid_cache.owed'), '0', 'no reconcile is owed');
unlike(slurp_file($node->logfile), qr/could not be applied as it was written/, 'and was never');

SKIP:
{
	skip 'the memory of a process is not known here', 2 unless defined $idle;
	is(worker_pid(), $worker, 'it is still the same worker');
	cmp_ok(memory($worker), '<', $idle + 64, 'the worker has its memory back');
}

# Many savepoints: what is remembered of each goes with it.
my $context = q{SELECT total_bytes FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext'};
my $before = $session->query_safe("BEGIN; UPDATE row SET v = v || '.' WHERE id = 1; $context");
my $after = $session->query_safe(<<"SQL");
DO \$\$BEGIN
	FOR i IN 1 .. 20000 LOOP
		BEGIN
			UPDATE row SET v = v || '.' WHERE id = i;
			RAISE check_violation;
		EXCEPTION WHEN check_violation THEN NULL;
		END;
	END LOOP;
END\$\$;
$context;
SQL
cmp_ok($after, '<', $before + 512 * 1024, 'savepoints that are rolled back leave nothing behind');
$session->query_safe('COMMIT');
$session->quit;
equal('after many savepoints');

$node->stop;
done_testing();
