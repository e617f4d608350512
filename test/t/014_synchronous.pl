# hybrid_cache.synchronous: a commit that returns without a warning is in Redis;
# one that cannot be there warns, stays committed, and holds nobody up.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $port = PostgreSQL::Test::Cluster::get_free_port();
my $redis = HybridCache::Redis->new(
	port => $port,
	bind => '127.0.0.1',
	'repl-diskless-sync-delay' => 0);
my $replica = HybridCache::Redis->new(replicaof => "127.0.0.1 $port");
my $node = PostgreSQL::Test::Cluster->new('main');

# A Redis that is frozen is to count as slow, not as lost, for as long as needed.
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
hybrid_cache.command_timeout = '10min'
hybrid_cache.max_databases = 1
wal_level = logical
max_prepared_transactions = 10
max_wal_senders = 4
CONF
$redis->start;
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub poll
{
	my ($query, $what) = @_;
	ok($node->poll_query_until('postgres', $query), $what);
	return;
}

sub status { return sql("SELECT $_[0] FROM hybrid_cache.status"); }

# Runs SQL in a session that waits at its commits for as long as limit says;
# returns what it warns of.
sub commit
{
	my ($sql, $limit, $database) = @_;
	my $err;
	my $status = $node->psql($database || 'postgres',
		"SET hybrid_cache.synchronous = on; SET hybrid_cache.sync_timeout = '$limit'; $sql",
		stderr => \$err,
		on_error_stop => 1);
	is($status, 0, "succeeds: $sql");
	return $err;
}

# The same, but does not wait until it is done.
sub begin_commit
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe("SET hybrid_cache.synchronous = on; SET hybrid_cache.sync_timeout = '1h'");
	$session->query_until(qr/sent/, "\\echo sent\n$sql;\n");
	poll('SELECT waiting = 1 FROM hybrid_cache.status', "waits: $sql");
	return ($session, $pid);
}

my $committed = qr/The transaction has already committed locally/;

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE row (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v');
INSERT INTO row SELECT i, 'first' FROM generate_series(0, 100) i;
CREATE TABLE plain (id int);

-- writes and reads Redis at once, n times; counts what it does not find there
CREATE PROCEDURE write_and_read(k int, n int) LANGUAGE plpgsql AS $$
DECLARE
	missing int := 0;
BEGIN
	FOR i IN 1 .. n LOOP
		UPDATE row SET v = i WHERE id = k;
		COMMIT;
		IF redis_get('row:' || k) IS DISTINCT FROM i::text THEN
			missing := missing + 1;
		END IF;
	END LOOP;
	IF missing > 0 THEN
		RAISE EXCEPTION '% of % were missing', missing, n;
	END IF;
END $$;
SELECT hybrid_cache.wait_for_sync('60s');
SQL

# ---------------------------------------------------------------------------
# what returns without a warning is there

is(commit("UPDATE row SET v = 'a' WHERE id = 1", '60s'), '', 'COMMIT waits, and has nothing to warn of');
is($redis->cli('GET', 'row:1'), 'a', 'the value is in Redis');

is(commit('CALL write_and_read(0, 2000)', '60s'), '',
	'each of 2000 commits of a session is there when COMMIT returns');
$node->pgbench(
	'-n -c 8 -j 2 -t 1',
	0, [qr/8\/8/], [qr/^$/],
	'the same for 8 sessions at once',
	{ '014_synchronous' => <<'SQL' });
SET hybrid_cache.synchronous = on;
SET hybrid_cache.sync_timeout = '60s';
CALL write_and_read(:client_id + 1, 500);
SQL

is(commit("SET synchronous_commit = off; CALL write_and_read(0, 200)", '60s'), '',
	'also with synchronous_commit = off');

is(commit("BEGIN; UPDATE row SET v = 'prepared' WHERE id = 9; PREPARE TRANSACTION 'p'", '1ms'),
	'', 'PREPARE TRANSACTION does not wait');
is(commit("COMMIT PREPARED 'p'", '60s'), '', 'COMMIT PREPARED does');
is($redis->cli('GET', 'row:9'), 'prepared', 'and then the value is in Redis');
poll('SELECT waiting = 0 FROM hybrid_cache.status', 'nobody waits any more');

# ---------------------------------------------------------------------------
# Redis does not answer

$redis->freeze;
my $err = commit("UPDATE row SET v = 'late' WHERE id = 1", '300ms');
like($err, qr/WARNING:  Redis did not take the changes of the transaction within 300 ms\n.*$committed/,
	'COMMIT warns after hybrid_cache.sync_timeout');
is(sql('SELECT v FROM row WHERE id = 1'), 'late', 'the transaction is committed');

is(commit("BEGIN; UPDATE row SET v = 'never' WHERE id = 1; ROLLBACK", '1ms'), '', 'ROLLBACK does not wait');
is(commit('BEGIN; SELECT FROM row; COMMIT', '1ms'), '', 'nor does who only reads');
is(commit('INSERT INTO plain VALUES (1)', '1ms'), '', 'nor who changes tables without mappings');
is(commit("BEGIN; SAVEPOINT s; UPDATE row SET v = 'x' WHERE id = 2; ROLLBACK TO s; INSERT INTO plain VALUES (2); COMMIT", '1ms'),
	'', 'nor a transaction whose only changes were rolled back');
is(commit("BEGIN; SET LOCAL hybrid_cache.synchronous = off; UPDATE row SET v = 'off' WHERE id = 2; COMMIT", '1ms'),
	'', 'a transaction can decide not to wait');
like(commit("SET hybrid_cache.synchronous = off; BEGIN; SET LOCAL hybrid_cache.synchronous = on; UPDATE row SET v = 'on' WHERE id = 2; COMMIT", '1ms'),
	qr/within 1 ms/, 'or to wait');
like(commit("BEGIN; SAVEPOINT s; UPDATE row SET v = 'sub' WHERE id = 2; RELEASE s; COMMIT", '1ms'),
	qr/^psql:<stdin>:1: WARNING:[^\n]*within 1 ms(?!.*WARNING)/s, 'subtransactions wait once, at the end');

like(commit("SET hybrid_cache.redis_url = ''; UPDATE row SET v = 'u' WHERE id = 1", '1h'),
	qr/WARNING:  commit does not wait for Redis: this database has no Redis server\n.*$committed/,
	'no redis_url: COMMIT warns at once');

# A commit that waits holds no locks, not even against who has queued before.
my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_safe(<<'SQL');
SET hybrid_cache.synchronous = on;
SET hybrid_cache.sync_timeout = '1h';
BEGIN;
UPDATE row SET v = 'waits' WHERE id = 3;
SQL
my $queued = $node->background_psql('postgres');
$queued->query_safe("SET lock_timeout = '60s'");
$queued->query_until(qr/sent/, "\\echo sent\nUPDATE row SET v = v || ' for nobody' WHERE id = 3 RETURNING v;\n");
poll("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
	'a session queues for a row');
$session->query_until(qr/sent/, "\\echo sent\nCOMMIT;\n");
poll('SELECT waiting = 1 FROM hybrid_cache.status', 'the commit that holds the row waits for Redis');
sql("CREATE DATABASE scratch; SET statement_timeout = '60s'; DROP DATABASE scratch");
pass('nor keep a database from being dropped');
like($queued->query('SELECT 1'), qr/waits for nobody/, 'the row is free');
is($queued->{stderr}, '', 'for the one that has queued');
$queued->quit;
sql("SELECT pg_cancel_backend($pid)");
is($session->query('SELECT 1'), '1', 'a cancelled wait does not end the session');
like($session->{stderr}, qr/WARNING:  canceling wait for Redis due to user request\n.*$committed/,
	'but warns');
$session->quit;
poll('SELECT waiting = 0 FROM hybrid_cache.status', 'it has left its place');

($session, $pid) = begin_commit("UPDATE row SET v = 'terminated' WHERE id = 4");
sql("SELECT pg_terminate_backend($pid)");
$session->{run}->finish;
like($session->{stderr}, qr/WARNING:  canceling the wait for Redis and terminating connection.*\n.*$committed/,
	'a session that is terminated warns');
unlike($session->{stdout}, qr/UPDATE 1/, 'and does not report success');
is(sql('SELECT v FROM row WHERE id = 4'), 'terminated', 'the transaction is committed all the same');
poll('SELECT waiting = 0 FROM hybrid_cache.status', 'it has left its place, too');

# It goes on as soon as Redis does.
($session) = begin_commit("UPDATE row SET v = 'thawed' WHERE id = 5");
my ($other) = $node->background_psql('postgres');
$other->query_safe("SET hybrid_cache.synchronous = on; SET hybrid_cache.sync_timeout = '1h'");
$other->query_until(qr/sent/, "\\echo sent\nUPDATE row SET v = 'thawed' WHERE id = 6;\n");
poll('SELECT waiting = 2 FROM hybrid_cache.status', 'another one waits beside it');
$redis->thaw;
foreach ($session, $other)
{
	is($_->query('SELECT 1'), '1', 'a commit returns when Redis answers again');
	is($_->{stderr}, '', 'without a warning');
	$_->quit;
}
is($redis->cli('MGET', 'row:3', 'row:4', 'row:5', 'row:6'),
	"waits for nobody\nterminated\nthawed\nthawed", 'all is in Redis');

# ---------------------------------------------------------------------------
# replicas

$replica->start;
$node->append_conf('postgresql.conf', 'hybrid_cache.wait_replicas = 1');
$node->reload;
is(commit("UPDATE row SET v = 'without' WHERE id = 8", '60s'), '',
	'COMMIT waits until there is a replica');
is($replica->cli('GET', 'row:8'), 'without', 'and has the value');
is(commit("UPDATE row SET v = 'r' || i FROM generate_series(1, 10) i WHERE id = 10 + i", '60s'),
	'', 'COMMIT waits for a replica');
is($replica->cli('GET', 'row:20'), 'r10', 'which has the value then');

$replica->freeze;
$err = commit("UPDATE row SET v = 'alone' WHERE id = 7", '300ms');
like($err, qr/WARNING:  1 replica of Redis did not get the changes .* within 300 ms\n.*its changes are in Redis/,
	'a replica that does not follow: COMMIT warns');
is($redis->cli('GET', 'row:7'), 'alone', 'the value is in Redis itself');
($session) = begin_commit("UPDATE row SET v = 'waits' WHERE id = 7");
sql("UPDATE row SET v = 'others' WHERE id = 8");
is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'others are applied meanwhile');
$replica->thaw;
is($session->query('SELECT 1'), '1', 'it goes on when the replica does');
is($session->{stderr}, '', 'without a warning');
$session->quit;
is($replica->cli('MGET', 'row:7', 'row:8'), "waits\nothers", 'which has all then');

my $failures = status('failures');
$redis->cli('ACL', 'SETUSER', 'default', '-wait');
like(commit("UPDATE row SET v = 'refused' WHERE id = 7", '100ms'),
	qr/replica of Redis did not get/, 'a Redis that refuses WAIT');
$redis->cli('ACL', 'SETUSER', 'default', '+wait');
is(status('failures'), $failures, 'does not stop the worker');
$node->append_conf('postgresql.conf', 'hybrid_cache.wait_replicas = 0');
$node->reload;
is(commit("UPDATE row SET v = 'enough' WHERE id = 7", '60s'), '', 'without replicas');
$replica->stop;

# ---------------------------------------------------------------------------
# no point in waiting: this would take an hour

$redis->kill9;
poll('SELECT down_since IS NOT NULL FROM hybrid_cache.status', 'Redis is known to be down');
like(commit("UPDATE row SET v = 'down' WHERE id = 1", '1h'),
	qr/WARNING:  commit does not wait for Redis: it is known to be down\n.*$committed.*Since .*could not connect/,
	'Redis is down: COMMIT warns at once');
$redis->start;
poll('SELECT connected AND down_since IS NULL FROM hybrid_cache.status', 'Redis is back');
is(commit("UPDATE row SET v = 'back' WHERE id = 1", '60s'), '', 'COMMIT waits again');
is($redis->cli('GET', 'row:1'), 'back', 'and finds the value');

# One that waits already is told.
$redis->freeze;
($session) = begin_commit("UPDATE row SET v = 'told' WHERE id = 1");
kill 'KILL', $redis->pid;    # before it can answer
$redis->kill9;
is($session->query('SELECT 1'), '1', 'Redis goes down while a commit waits');
like($session->{stderr}, qr/WARNING:  commit does not wait for Redis: it .*\n.*$committed/, 'it warns');
$session->quit;
$redis->start;

sql('CREATE DATABASE other');
$node->safe_psql('other', <<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE row (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('row', 'string', 'other:{id}', value => 'v');
SQL
like(commit("INSERT INTO row VALUES (1, 'x')", '1h', 'other'),
	qr/WARNING:  commit does not wait for Redis: no sync worker runs\n.*$committed/,
	'a database without a worker: COMMIT warns at once');

# ---------------------------------------------------------------------------
# background processes do not wait

my $connstr = 'host=' . $node->host . ' port=' . $node->port . ' dbname=other';
$node->safe_psql('other', <<'SQL');
CREATE PUBLICATION rows FOR TABLE row;
SELECT pg_create_logical_replication_slot('rows', 'pgoutput');
SQL
my $pid_before = status('worker_pid');
sql(<<"SQL");
ALTER TABLE row ENABLE ALWAYS TRIGGER row_string;
BEGIN;
ALTER DATABASE postgres SET hybrid_cache.synchronous = on;
ALTER DATABASE postgres SET hybrid_cache.sync_timeout = '1h';
COMMIT;
SQL
poll("SELECT connected AND worker_pid <> $pid_before FROM hybrid_cache.status",
	'the worker has come back with the new settings');
$redis->freeze;
sql("CREATE SUBSCRIPTION rows CONNECTION '$connstr' PUBLICATION rows WITH (create_slot = false, copy_data = false)");
$node->safe_psql('other', "INSERT INTO row VALUES ($_, 'replicated')") foreach 201, 202;
poll('SELECT count(*) = 2 FROM row WHERE id IN (201, 202)',
	'the subscriber applies one transaction after the other while Redis is frozen');
is(status('waiting'), '0', 'it does not wait');
$redis->thaw;
is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'Redis goes on');
is($redis->cli('GET', 'row:202'), 'replicated', 'and gets what was replicated');
sql('DROP SUBSCRIPTION rows');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/,
	'no process has crashed');

$node->stop;
done_testing();
