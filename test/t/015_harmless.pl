# The background processes and Redis may fail as they like: sessions and commits
# go on, the log says once what is wrong, and afterwards nothing is lost and
# nothing applied twice.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
$redis->start;

my $node = new_node('main', 'max_prepared_transactions = 10');
my $id = 0;

# A server with the extension.  After a crash it comes back, as in production.
sub new_node
{
	my ($name, $conf) = @_;
	my $new = PostgreSQL::Test::Cluster->new($name);

	$new->init;
	$new->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
hybrid_cache.key_prefix = '$name:'
hybrid_cache.command_timeout = 1s
wal_level = replica
restart_after_crash = on
log_min_messages = debug1
$conf
CONF
	$new->start;
	return $new;
}

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub make_mapping
{
	sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE row (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v');
SQL
	return;
}

sub poll
{
	my ($query, $what) = @_;
	ok($node->poll_query_until('postgres', $query), $what);
	return;
}

sub in_sync
{
	my ($what) = @_;
	is(sql("SELECT hybrid_cache.wait_for_sync('120s')"), 't', $what);
	return;
}

# Rows can be changed right now.
sub commits
{
	my ($what) = @_;
	$id++;
	is(sql(<<"SQL"), 'committed', "commits go on: $what");
BEGIN;
INSERT INTO row SELECT $id * 1000 + i, 'v' FROM generate_series(1, 100) i;
SAVEPOINT s;
DELETE FROM row WHERE id BETWEEN $id * 1000 + 1 AND $id * 1000 + 10;
ROLLBACK TO s;
UPDATE row SET v = 'w' WHERE id BETWEEN $id * 1000 + 1 AND $id * 1000 + 20;
DELETE FROM row WHERE id = $id * 1000 + 100;
COMMIT;
SELECT 'committed';
SQL
	return;
}

# Redis has what the table has, once everything is applied.
sub equal
{
	my ($what) = @_;
	in_sync("all is applied: $what");
	my $rows = sql('SELECT count(*) FROM row');
	is(sql(<<'SQL'), "$rows|$rows", "Redis equals the table: $what");
SELECT count(*) FILTER (WHERE redis_get('row:' || id) = v),
	jsonb_array_length(redis_command('KEYS', current_setting('hybrid_cache.key_prefix') || 'row:*'))
FROM row
SQL
	return;
}

sub worker_pid { return sql('SELECT worker_pid FROM hybrid_cache.status'); }

sub launcher_pid
{
	return sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'hybrid_cache launcher'");
}

sub worker_is_new
{
	my ($old, $what) = @_;
	poll("SELECT worker_pid <> $old FROM hybrid_cache.status WHERE worker_pid IS NOT NULL",
		"a worker comes back: $what");
	return;
}

sub launcher_is_new
{
	my ($old, $what) = @_;
	poll("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'hybrid_cache launcher' AND pid <> $old)",
		"a launcher comes back: $what");
	return;
}

# How often the log says it, and how often at a level that users see.
sub count_log { my ($re) = @_; my $n = () = slurp_file($node->logfile) =~ /$re/g; return $n; }

sub said_once
{
	my ($re, $what) = @_;
	is(count_log(qr/(?:LOG|WARNING|ERROR|FATAL):  [^\n]*$re/), 1, "it is said once: $what");
	return;
}

# Waits until something was tried in vain so many times.
sub tried
{
	my ($times) = @_;
	my $before = sql('SELECT failures FROM hybrid_cache.status');
	poll("SELECT failures >= $before + $times FROM hybrid_cache.status", "$times attempts in vain");
	return;
}

make_mapping();
commits('everything is well');
equal('everything is well');

# ---------------------------------------------------------------------------
# processes that are told to end

{
	my $open = $node->background_psql('postgres');
	my $pid = worker_pid();
	my $launcher = launcher_pid();

	$open->query_safe("BEGIN; INSERT INTO row VALUES (1, 'open')");
	kill 'TERM', $pid;
	commits('SIGTERM of the worker');
	worker_is_new($pid, 'SIGTERM');

	$pid = worker_pid();
	is(sql("SELECT pg_terminate_backend($pid)"), 't', 'pg_terminate_backend of the worker');
	commits('the worker was terminated');
	worker_is_new($pid, 'pg_terminate_backend');

	is(sql("SELECT pg_terminate_backend($launcher)"), 't', 'pg_terminate_backend of the launcher');
	commits('the launcher was terminated');
	launcher_is_new($launcher, 'pg_terminate_backend');

	# nobody cancels them on purpose, but a script may cancel everybody
	sql('SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()');
	$open->query_safe("INSERT INTO row VALUES (2, 'open'); COMMIT");
	$open->quit;
	equal('after all of that');

	# without a launcher there is nobody to bring the worker back, for a while
	$pid = worker_pid();
	$launcher = launcher_pid();
	sql("SELECT pg_terminate_backend($launcher), pg_terminate_backend($pid)");
	commits('neither worker nor launcher');
	worker_is_new($pid, 'with the launcher');
	equal('both were terminated');
}

# ---------------------------------------------------------------------------
# errors

{
	my $pid = worker_pid();

	sql('ALTER TABLE hybrid_cache.installation RENAME TO elsewhere');
	sql("SELECT pg_terminate_backend($pid)");
	commits('the worker fails');
	poll(q{SELECT last_error ~ 'installation.*does not exist' FROM hybrid_cache.status},
		'a worker that cannot work says why in the view');
	tried(5);
	commits('the worker still fails');
	said_once(qr/cannot apply changes: relation "hybrid_cache.installation" does not exist/,
		'why the worker fails');
	is(sql("SELECT hybrid_cache.wait_for_sync('10ms')"), 'f', 'nothing is applied meanwhile');

	# nor does its slot keep more WAL than it may
	my $restart = sql("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name ~ '^hybrid_cache_'");
	sql("ALTER SYSTEM SET hybrid_cache.max_wal_keep_size = '16MB'");
	sql('SELECT pg_reload_conf()');
	foreach (1 .. 4)
	{
		sql('SELECT pg_switch_wal()');
		commits('the limit of WAL is passed');
	}
	poll("SELECT restart_lsn > '$restart' FROM pg_replication_slots WHERE slot_name ~ '^hybrid_cache_'",
		'the slot of a worker that fails moves on');
	said_once(qr/replication slot of database \d+ keeps no more WAL/, 'that the slot moves on');
	sql('ALTER SYSTEM RESET hybrid_cache.max_wal_keep_size');
	sql('SELECT pg_reload_conf()');
	sql('ALTER TABLE hybrid_cache.elsewhere RENAME TO installation');
	equal('the fault is repaired');
	said_once(qr/applies changes to Redis server .* again/, 'that it works again');
}

# The launcher finds a slot that it should drop, and cannot.
SKIP:
{
	my $folder = $node->data_dir . '/pg_replslot';
	my $re = qr/launcher could not look after databases: could not rename/;

	sql("SELECT pg_create_physical_replication_slot('hybrid_cache_99999', true)");
	chmod 0500, $folder or die "chmod: $!";
	if (-w $folder)
	{
		chmod 0700, $folder;
		sql("SELECT pg_drop_replication_slot('hybrid_cache_99999')");
		skip 'this user may write to any folder', 7;
	}

	# each makes it look
	sql("CREATE DATABASE d$_") foreach 1 .. 4;
	sql("DROP DATABASE d$_") foreach 1 .. 4;
	$node->wait_for_log(qr/DEBUG:  .*$re/);
	ok(1, 'the launcher tries again in vain');
	commits('the launcher fails');
	said_once($re, 'why the launcher fails');

	my $pid = worker_pid();
	sql("SELECT pg_terminate_backend($pid)");
	worker_is_new($pid, 'a launcher that fails does its main task');

	chmod 0700, $folder or die "chmod: $!";
	sql('CREATE DATABASE d5');
	poll("SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = 'hybrid_cache_99999')",
		'the slot is dropped when it can be');
	equal('after the fault of the launcher');
}

# ---------------------------------------------------------------------------
# a Redis that hangs

{
	$redis->freeze;
	commits('Redis hangs');
	is(sql("INSERT INTO row SELECT i, repeat('x', 500) FROM generate_series(500001, 520000) i; SELECT count(*) FROM row WHERE id > 500000"),
		'20000', 'so does a large transaction');
	sql(q{BEGIN; INSERT INTO row VALUES (3, 'prepared'); PREPARE TRANSACTION 'p'});
	sql(q{COMMIT PREPARED 'p'});
	is(sql(q{SELECT hybrid_cache.attach('row', 'set', 'set', member => '{id}')}),
		'row_set', 'a mapping is made');
	is(sql(q{SELECT hybrid_cache.detach('row', 'row_set')}), '', 'and removed');
	tried(2);

	my $pid = worker_pid();
	sql("SELECT pg_terminate_backend($pid)");
	worker_is_new($pid, 'Redis hangs');

	# the worker waits for Redis at this moment; that must not hold up the others
	$node->stop('fast');
	ok(1, 'the server stops while Redis hangs');
	$node->start;
	commits('Redis hangs still');
	$redis->thaw;
	equal('Redis answers again');
}

# One that is not there at all.
{
	$redis->stop;
	commits('Redis is down');
	tried(3);
	commits('Redis is down still');
	$redis->start;

	# it came back empty: what it lost is owed, and what was not sent is sent
	commits('Redis is back, empty');
	in_sync('an empty Redis');
	is(sql(<<"SQL"), '99', 'the changes of the time without it are there');
SELECT count(*) FILTER (WHERE redis_get('row:' || id) = v) FROM row WHERE id / 1000 = $id - 1
SQL
	sql("SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v', replace => true)");
	equal('all rows were captured again');
}

# ---------------------------------------------------------------------------
# kill -9

# What Redis has, but for what it does with expiry: nothing applied again.
sub leave_mark { $redis->cli('SET', 'main:row:1', 'mark'); return; }

sub mark_is_there
{
	my ($what) = @_;
	is($redis->cli('GET', 'main:row:1'), 'mark', "nothing is applied twice: $what");
	$redis->cli('SET', 'main:row:1', 'open');
	return;
}

foreach my $victim ('sync worker', 'launcher')
{
	my $open = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'hybrid_cache $victim'");
	my $restarts = count_log(qr/all server processes terminated; reinitializing/);

	in_sync("before kill -9 of the $victim");
	leave_mark();
	$redis->freeze;
	commits("before kill -9 of the $victim");
	sql("BEGIN; INSERT INTO row VALUES ($id, 'prepared'); PREPARE TRANSACTION 'p'");
	$open->query_safe("BEGIN; INSERT INTO row SELECT i, repeat('x', 1000) FROM generate_series(600001, 603000) i");
	kill 'KILL', $pid;
	ok($node->poll_query_until('postgres',
			"SELECT pg_postmaster_start_time() IS NOT NULL"), 'the server answers');
	$node->wait_for_log(qr/(?:all server processes terminated; reinitializing.*?){@{[ $restarts + 1 ]}}/s);
	ok($node->poll_query_until('postgres',
			"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache sync worker' AND pid <> $pid"),
		"PostgreSQL has recovered from kill -9 of the $victim, and the worker is back");
	eval { $open->quit; };
	$redis->thaw;
	sql("COMMIT PREPARED 'p'");
	commits("after kill -9 of the $victim");
	in_sync("after kill -9 of the $victim");
	mark_is_there("kill -9 of the $victim");
	equal("kill -9 of the $victim");
	is($redis->cli('EXISTS', 'main:row:600001', 'main:row:603000'),
		'0', 'what had not committed is not there');
}
is(sql('SELECT count(*) FROM hybrid_cache.owed'), '0', 'no reconcile is owed');
$node->stop;

# ---------------------------------------------------------------------------
# no replication slot

$node = new_node('slots', "max_replication_slots = 1\nmax_wal_senders = 1");
sql("SELECT pg_create_physical_replication_slot('taken')");
make_mapping();
commits('there is no replication slot');
poll("SELECT last_error ~ 'all replication slots are in use' FROM hybrid_cache.status",
	'the view says that there is no replication slot');
tried(4);
said_once(qr/cannot apply changes: all replication slots are in use/, 'that there is no slot');
like(slurp_file($node->logfile), qr/HINT:  Free one or increase "?max_replication_slots/,
	'and what to do');
sql("SELECT pg_drop_replication_slot('taken')");
equal('a slot is free again');
is(sql('SELECT count(*) FROM hybrid_cache.owed'), '0', 'nothing was lost');
$node->stop;

# ---------------------------------------------------------------------------
# no background worker: room for the launchers only, then not even for it

$node = new_node('workers', "max_worker_processes = 2\nmax_replication_slots = 5\nmax_wal_senders = 1");
make_mapping();
commits('there is no room for a worker');
$node->wait_for_log(qr/(?:DEBUG:  could not start a sync worker.*?){3}/s);
said_once(qr/could not start a sync worker/, 'that there is no room for a worker');
like(slurp_file($node->logfile), qr/HINT:  You might need to increase max_worker_processes/,
	'and what to do');
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
commits('there is not even a launcher');
sql('SET synchronous_commit = off; ' . "UPDATE row SET v = 'async' WHERE id = 1001");
is(sql("SELECT hybrid_cache.wait_for_sync('10ms')"), 'f', 'wait_for_sync does not lie');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
equal('there is room again');
is(sql('SELECT count(*) FROM hybrid_cache.owed'), '0', 'nothing was lost');
$node->stop;

# ---------------------------------------------------------------------------
# wal_level = minimal

$node = new_node('minimal', "max_replication_slots = 5\nmax_wal_senders = 0\nwal_level = minimal");
sql('CREATE EXTENSION hybrid_cache; CREATE TABLE row (id int PRIMARY KEY, v text)');
{
	my ($status, $out, $err) = $node->psql('postgres',
		q{SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v')});
	is($out, 'row_string', 'attach() at wal_level = minimal makes the mapping');
	my $n = () = $err =~ /WARNING:  mapping "row_string" of table "row" does not reach Redis yet/g;
	is($n, 1, 'and warns, once');
	like($err, qr/HINT:  Set wal_level = replica/, 'and says what to do');
}
commits('wal_level = minimal');
sql("BEGIN; CREATE TABLE fresh (LIKE row INCLUDING ALL); SELECT hybrid_cache.attach('fresh', 'string', 'fresh:{id}', value => 'v');
	INSERT INTO fresh SELECT i, 'v' FROM generate_series(1, 1000) i; COMMIT");
poll("SELECT last_error ~ 'wal_level' FROM hybrid_cache.status", 'the view says what is wrong');
tried(4);
said_once(qr/cannot apply changes: replication slots can only be used if wal_level >= replica/,
	'that wal_level is too low');
like(slurp_file($node->logfile), qr/HINT:  The sync worker needs wal_level = replica/,
	'and what to do');
is(sql("SELECT hybrid_cache.wait_for_sync('10ms')"), 'f', 'nothing is applied');
$node->append_conf('postgresql.conf', "wal_level = replica\nmax_wal_senders = 1");
$node->restart;
commits('wal_level = replica');
in_sync('with wal_level = replica');
is(sql("SELECT count(*) > 0 AND count(*) = count(*) FILTER (WHERE redis_get('row:' || id) = v) FROM row WHERE id / 1000 = $id"),
	't', 'changes from then on reach Redis');
is(sql(q{SELECT EXISTS (SELECT FROM hybrid_cache.owed) OR bool_and(redis_get('row:' || id) IS NOT DISTINCT FROM v) FROM row}),
	't', 'those of before do as well, or a reconcile is owed');
$node->stop;

done_testing();
