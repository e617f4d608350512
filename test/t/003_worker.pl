# The sync worker: what happens to changes when the worker, PostgreSQL or Redis
# goes away, in which order they are applied, and that none is applied twice.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new(appendonly => 'yes', appendfsync => 'always');
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.repair = off
hybrid_cache.redis_url = '@{[ $redis->url ]}'
hybrid_cache.atomic_ops = 1000
wal_level = replica
max_wal_senders = 1
max_prepared_transactions = 10
wal_writer_delay = 10s
hybrid_cache.wal_keep_size = 0
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Everything committed so far is in Redis.
sub in_sync
{
	my ($what) = @_;
	is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', $what);
	return;
}

sub poll
{
	my ($query, $what) = @_;
	ok($node->poll_query_until('postgres', $query), $what);
	return;
}

sub worker_pid { return sql('SELECT worker_pid FROM hybrid_cache.status'); }

sub status { return sql("SELECT $_[0] FROM hybrid_cache.status"); }

# What a replay would overwrite: an entry that somebody else has changed.
sub leave_mark { $redis->cli('SET', 'row:1', 'mark'); return; }

sub mark_is_there
{
	my ($what) = @_;
	is($redis->cli('GET', 'row:1'), 'mark', "nothing is applied twice: $what");
	return;
}

# ---------------------------------------------------------------------------
# Redis comes later than PostgreSQL

sql('CREATE EXTENSION hybrid_cache');
sql(<<'SQL');
CREATE TABLE row (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v');
INSERT INTO row SELECT i, 'v' || i FROM generate_series(1, 10) i;
SQL
poll('SELECT failures > 0 FROM hybrid_cache.status',
	'the worker tries to connect while there is no Redis');
is(sql("SELECT hybrid_cache.wait_for_sync('10ms')"),
	'f', 'wait_for_sync returns at its timeout without Redis');
is(status('connected'), 'f', 'the view says that Redis is not connected');
like(status('last_error'), qr/redis/i, 'and why');

$redis->start;
in_sync('changes made before Redis was there reach it');
is($redis->cli('GET', 'row:10'), 'v10', 'with their values');
is(status('connected'), 't', 'the view says that Redis is connected');
is(sql('SELECT count(*) FROM hybrid_cache.owed'),
	'0', 'no reconcile is owed: nothing was lost');

# ---------------------------------------------------------------------------
# the worker is restarted

leave_mark();
my $pid = worker_pid();
sql("SELECT pg_terminate_backend($pid)");
sql("INSERT INTO row VALUES (11, 'v11')");
poll("SELECT worker_pid <> $pid FROM hybrid_cache.status", 'a new worker comes up');
in_sync('it applies what came meanwhile');
is($redis->cli('GET', 'row:11'), 'v11', 'a change after the restart of the worker');
mark_is_there('restart of the worker');

# ---------------------------------------------------------------------------
# PostgreSQL is restarted, orderly and by a crash

$node->restart;
sql("INSERT INTO row VALUES (12, 'v12')");
in_sync('after a restart of PostgreSQL');
is($redis->cli('GET', 'row:12'), 'v12', 'a change after the restart');
mark_is_there('restart of PostgreSQL');

# A transaction that has written changes but not committed when the server dies.
my $open = $node->background_psql('postgres');
$open->query_safe(<<'SQL');
BEGIN;
INSERT INTO row SELECT i, repeat('x', 1000) FROM generate_series(100001, 103000) i;
SQL
$redis->stop;
sql("INSERT INTO row VALUES (13, 'v13')");
$node->stop('immediate');
$open->{run}->finish;
$redis->start;
$node->start;
sql("INSERT INTO row VALUES (14, 'v14')");
in_sync('after a crash of PostgreSQL');
is($redis->cli('MGET', 'row:13', 'row:14'), "v13\nv14",
	'changes committed before and after the crash');
is($redis->cli('EXISTS', 'row:100001', 'row:103000'),
	'0', 'a transaction that the crash ended does not reach Redis');
mark_is_there('crash of PostgreSQL');

# ---------------------------------------------------------------------------
# Redis is restarted with its data, with old data, and without any

$redis->stop;
sql("INSERT INTO row VALUES (15, 'v15')");
$redis->start;
in_sync('after a restart of Redis');
is($redis->cli('GET', 'row:15'), 'v15', 'a change made while Redis was down');
mark_is_there('restart of Redis');
is(sql('SELECT count(*) FROM hybrid_cache.owed'), '0', 'still nothing is owed');

# Another Redis gets all there ever was as long as the WAL of it is kept, then
# everything is owed.
sql("SELECT pg_switch_wal(); UPDATE row SET v = 'next segment' WHERE id = 6");
poll('SELECT restart_lsn > created_lsn FROM pg_replication_slots, hybrid_cache.installation',
	'the slot moves on with the WAL segments');

# An old copy of the data: what came after it is replayed.
{
	my $old = HybridCache::Redis->new(save => '3600 1');
	$old->start;
	$node->append_conf('postgresql.conf',
		"hybrid_cache.redis_url = '" . $old->url . "'");
	$node->reload;
	poll(q{SELECT EXISTS (SELECT FROM hybrid_cache.owed WHERE reason ~ 'no watermark')},
		'a reload connects to another Redis, which owes everything');
	sql("UPDATE row SET v = 'old' WHERE id = 2");
	in_sync('a change in the other Redis');
	$old->cli('SAVE');
	sql("UPDATE row SET v = 'new' WHERE id = 2");
	in_sync('and another one');
	$old->kill9;
	$old->start;
	is($old->cli('GET', 'row:2'), 'old', 'Redis has come back with old data');
	sql("UPDATE row SET v = 'news' WHERE id = 3");
	in_sync('changes that Redis has lost are replayed');
	is($old->cli('MGET', 'row:2', 'row:3'), "new\nnews", 'with their values');

	$node->append_conf('postgresql.conf',
		"hybrid_cache.redis_url = '" . $redis->url . "'");
	$node->reload;
	in_sync('back at the first Redis');
	is($redis->cli('MGET', 'row:2', 'row:3'),
		"new\nnews", 'which had missed all of that');
	$old->stop;
}

# No data at all.  Nobody changes anything, and still it is noticed.
sql('DELETE FROM hybrid_cache.owed');
$redis->cli('FLUSHALL');
poll('SELECT EXISTS (SELECT FROM hybrid_cache.owed)',
	'a FLUSHALL is noticed by an idle worker');
sql('DELETE FROM hybrid_cache.owed');
sql("UPDATE row SET v = 'again' WHERE id = 3");
in_sync('after a FLUSHALL');
is($redis->cli('GET', 'row:3'), 'again', 'changes go on');
is(sql('SELECT count(*) FROM hybrid_cache.owed'),
	'0', 'the watermark is back, so one loss is owed once');

sql('DELETE FROM hybrid_cache.owed');
$redis->freeze;
sql("UPDATE row SET v = 'frozen' WHERE id = 4");
is(sql("SELECT hybrid_cache.wait_for_sync('10ms')"), 'f', 'Redis hangs');
{
	my ($status, $out, $err) = $node->psql('postgres', <<'SQL', on_error_stop => 0);
SET statement_timeout = '100ms';
SELECT hybrid_cache.wait_for_sync('1h');
SELECT hybrid_cache.wait_for_sync(NULL);
SELECT hybrid_cache.wait_for_sync('-1s'), 'the session goes on';
SQL
	my $cancelled = () = $err =~ /canceling statement due to statement timeout/g;
	is($cancelled, 2, 'who waits can be cancelled');
	is($out, 'f|the session goes on', 'and the session goes on');
}
$redis->thaw;
in_sync('Redis answers again');
is($redis->cli('GET', 'row:4'), 'frozen', 'with the change');

# ---------------------------------------------------------------------------
# a watermark that cannot be ours

{
	my $key = $redis->cli('KEYS', 'hybrid_cache:watermark:*');
	my @mark = split / /, $redis->cli('GET', $key);

	sql('DELETE FROM hybrid_cache.owed');
	$redis->cli('SET', $key, 'garbage');
	poll(q{SELECT EXISTS (SELECT FROM hybrid_cache.owed WHERE reason ~ 'cannot be read')},
		'a watermark that is garbage is noticed');
	sql("UPDATE row SET v = 'after garbage' WHERE id = 5");
	in_sync('after a watermark of garbage');
	is($redis->cli('GET', 'row:5'), 'after garbage', 'changes go on');

	sql('DELETE FROM hybrid_cache.owed');
	$mark[4] = $mark[7] = 'FF/0';
	$redis->cli('SET', $key, "@mark");
	poll(q{SELECT EXISTS (SELECT FROM hybrid_cache.owed WHERE reason ~ 'history')},
		'so is one from the future');
	sql("UPDATE row SET v = 'after the future' WHERE id = 5");
	in_sync('after a watermark of the future');
	is($redis->cli('GET', 'row:5'), 'after the future', 'changes go on');
	sql('DELETE FROM hybrid_cache.owed');
}

# ---------------------------------------------------------------------------
# commits that are not flushed

is(sql(<<'SQL'), 't', 'a commit with synchronous_commit = off is waited for');
SET synchronous_commit = off;
INSERT INTO row VALUES (20, 'async');
SELECT hybrid_cache.wait_for_sync('5s');
SQL
is($redis->cli('GET', 'row:20'), 'async', 'and is in Redis');

my ($ret, $stdout, $stderr) = $node->psql('postgres',
	"BEGIN; INSERT INTO row VALUES (21, 'x'); SELECT hybrid_cache.wait_for_sync(); ROLLBACK");
like($stderr, qr/changes of the current transaction are not waited for/,
	'wait_for_sync warns of changes that are not committed');
is($stdout, 't', 'and waits for the others');

# ---------------------------------------------------------------------------
# prepared transactions

sql(<<'SQL');
BEGIN;
INSERT INTO row VALUES (30, 'prepared');
PREPARE TRANSACTION 'commit me';
SQL
sql(<<'SQL');
BEGIN;
INSERT INTO row VALUES (31, 'prepared');
PREPARE TRANSACTION 'take me back';
SQL
in_sync('with prepared transactions');
is($redis->cli('EXISTS', 'row:30', 'row:31'), '0', 'they are not in Redis');
$node->restart;
sql("INSERT INTO row VALUES (32, 'v32')");
in_sync('after a restart');
is($redis->cli('EXISTS', 'row:30', 'row:31', 'row:32'), '1', 'still not');
sql("COMMIT PREPARED 'commit me'");
sql("ROLLBACK PREPARED 'take me back'");
in_sync('they have ended');
is($redis->cli('GET', 'row:30'), 'prepared', 'the one that was committed is in Redis');
is($redis->cli('EXISTS', 'row:31'), '0', 'the one that was taken back is not');

# Crash with a prepared transaction open, and no news: only polling can see it.
sql(<<'SQL');
BEGIN;
INSERT INTO row VALUES (33, 'prepared');
PREPARE TRANSACTION 'survives';
SQL
$node->stop('immediate');
$node->start;
sql("COMMIT PREPARED 'survives'");
in_sync('a prepared transaction outlives a crash');
is($redis->cli('GET', 'row:33'), 'prepared', 'and reaches Redis');

# ---------------------------------------------------------------------------
# commit order, not the order in which changes were made

sql(<<'SQL');
CREATE TABLE shared (id int PRIMARY KEY, k int, v text);
SELECT hybrid_cache.attach('shared', 'string', 'shared:{k}', value => 'v');
SQL
sql(<<'SQL');
BEGIN;
INSERT INTO shared VALUES (1, 1, 'made first, committed last');
PREPARE TRANSACTION 'late';
SQL
sql("INSERT INTO shared VALUES (2, 1, 'made last, committed first')");
in_sync('the second of two changes of an entry');
is($redis->cli('GET', 'shared:1'), 'made last, committed first', 'is there');
sql("COMMIT PREPARED 'late'");
in_sync('then the first is committed');
is($redis->cli('GET', 'shared:1'), 'made first, committed last', 'and replaces it');

# The same from a backlog, where the worker reads both at once.
sql(<<'SQL');
BEGIN;
INSERT INTO shared VALUES (3, 2, 'made first, committed last');
PREPARE TRANSACTION 'late';
SQL
$redis->stop;
sql("INSERT INTO shared VALUES (4, 2, 'made last, committed first')");
sql("COMMIT PREPARED 'late'");
$redis->start;
in_sync('the same from a backlog');
is($redis->cli('GET', 'shared:2'), 'made first, committed last', 'gives the same');

# ---------------------------------------------------------------------------
# nothing shows in Redis before PostgreSQL shows it

# A commit that waits for a standby is flushed but not visible.
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$node->reload;
{
	my $waiting = $node->background_psql('postgres');

	$waiting->query_until(qr/begun/, "\\echo begun\nINSERT INTO row VALUES (35, 'waits');\n");
	poll("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')",
		'a commit waits for a standby');
	is(sql("SELECT count(*) FROM row WHERE id = 35"), '0', 'nobody sees it');
	is(sql("SELECT hybrid_cache.wait_for_sync('300ms')"), 'f', 'nor is it applied');
	is($redis->cli('EXISTS', 'row:35'), '0', 'so Redis does not show it');
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$node->reload;
	$waiting->quit;
}
in_sync('the standby is given up');
is($redis->cli('GET', 'row:35'), 'waits', 'now Redis shows it');

# ---------------------------------------------------------------------------
# large transactions

sql(<<'SQL');
CREATE TABLE large (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('large', 'zset', 'large', member => '{id}', score => 'id');
BEGIN;
INSERT INTO large SELECT i, repeat('x', 100) FROM generate_series(1, 60000) i;
SAVEPOINT s;
DELETE FROM large WHERE id <= 30000;
INSERT INTO large SELECT i, repeat('y', 100) FROM generate_series(60001, 120000) i;
ROLLBACK TO s;
DELETE FROM large WHERE id % 3 = 0;
COMMIT;
SQL
in_sync('a transaction in many pieces, part of it taken back');
is($redis->cli('ZCARD', 'large'), '40000', 'has the right entries');
is(sql(q{SELECT count(*) FROM large}), '40000', 'as the table has');
is($redis->cli('ZSCORE', 'large', '59999'), '59999', 'up to the end');
is($redis->cli('ZSCORE', 'large', '60001'), '', 'and not further');

# Each row takes over the entry of its successor: the removal of the old owner
# comes after the set of the new one, first in the same batch ...
sql(<<'SQL');
CREATE TABLE few (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
SELECT hybrid_cache.attach('few', 'set', 'few', member => '{id}');
INSERT INTO few SELECT generate_series(1, 10);
SQL
sql('UPDATE few SET id = id + 1');
in_sync('ten keys have moved by one');
is(join(' ', sort { $a <=> $b } split /\n/, $redis->cli('SMEMBERS', 'few')),
	'2 3 4 5 6 7 8 9 10 11', 'none is missing, none is left');

# ... then often in another one.
sql(<<'SQL');
CREATE TABLE chain (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
SELECT hybrid_cache.attach('chain', 'string', 'chain:{id}', value => 'v');
INSERT INTO chain SELECT i, 'of ' || i FROM generate_series(1, 5000) i;
SQL
in_sync('rows that will move');
sql('UPDATE chain SET id = id + 1');
in_sync('every key has moved by one');
is($redis->cli('GET', 'chain:5001'), 'of 5000', 'the last one');
is($redis->cli('EXISTS', 'chain:1'), '0', 'the first is gone');
is(scalar(grep { /^chain:/ } split /\n/, $redis->cli('KEYS', 'chain:*')),
	5000, 'none is missing');
is($redis->cli('GET', 'chain:1001'), 'of 1000', 'at the border of two batches');
sql('UPDATE chain SET id = -id');
sql('UPDATE chain SET id = id + 2500');
in_sync('and further');
is(scalar(grep { /^chain:/ } split /\n/, $redis->cli('KEYS', 'chain:*')),
	5000, 'none is missing still');

# The worker is killed in the middle of a large transaction.
{
	$redis->freeze;
	sql("UPDATE large SET v = 'z'; UPDATE large SET id = id + 1000000");
	my $before = worker_pid();
	$redis->thaw;
	sql("SELECT pg_terminate_backend($before)");
	in_sync('a large transaction that is interrupted');
	is($redis->cli('ZCARD', 'large'), '40000', 'is complete');
	is($redis->cli('ZCOUNT', 'large', '1000000', '+inf'),
		'40000', 'and has its new entries');
}

# ---------------------------------------------------------------------------
# Redis refuses

$redis->cli('DEL', 'large');
$redis->cli('SET', 'large', 'a string');
my $refused = status('refused');
sql(q{BEGIN; UPDATE large SET id = -id WHERE id < 1000010;
	INSERT INTO row VALUES (40, 'beside'); COMMIT});
in_sync('a change of a key of another type');
is($redis->cli('GET', 'row:40'), 'beside', 'does not stop the others');
cmp_ok(status('refused'), '>', $refused, 'and is counted');
like(status('last_error'), qr/"large".*WRONGTYPE/, 'and shown with its key');
is($redis->cli('GET', 'large'), 'a string', 'the key is left alone');
$redis->cli('DEL', 'large');
sql('UPDATE large SET id = -id WHERE id < 0');
in_sync('the key is free again');
is($redis->cli('TYPE', 'large'), 'zset', 'and is written again');

# An error at queue time discards the whole MULTI.
$refused = status('refused');
$redis->cli('ACL', 'SETUSER', 'default', 'resetkeys', '~hybrid_cache:*', '~row:*');
sql(q{BEGIN; INSERT INTO row VALUES (41, 'allowed'), (42, 'allowed');
	INSERT INTO shared VALUES (41, 41, 'forbidden'), (42, 42, 'forbidden'); COMMIT});
in_sync('a change of a key that this user of Redis must not touch');
is($redis->cli('MGET', 'row:41', 'row:42'), "allowed\nallowed", 'does not stop the others');
is(status('refused') - $refused, 2, 'and each is counted once');
$redis->cli('ACL', 'SETUSER', 'default', 'allkeys');
is($redis->cli('EXISTS', 'shared:41'), '0', 'it is not applied');

# What concerns the whole server is waited for.
$redis->cli('CONFIG', 'SET', 'maxmemory', '1');
sql("INSERT INTO row VALUES (43, 'later')");
poll("SELECT last_error ~ 'has no memory left' FROM hybrid_cache.status",
	'a Redis without memory takes no changes');
is(sql("SELECT hybrid_cache.wait_for_sync('10ms')"), 'f', 'nothing is skipped');
$redis->cli('CONFIG', 'SET', 'maxmemory', '0');
in_sync('until it has memory again');
is($redis->cli('GET', 'row:43'), 'later', 'then it takes them');

# ---------------------------------------------------------------------------
# WAL is not kept longer than needed

my $lsn = sql('SELECT pg_current_wal_lsn()');
sql("SELECT pg_switch_wal(); CREATE TABLE filler AS SELECT repeat('x', 100) FROM generate_series(1, 20000); SELECT pg_switch_wal(); CHECKPOINT");
poll("SELECT restart_lsn > '$lsn' FROM pg_replication_slots WHERE slot_name ~ '^hybrid_cache_'",
	'the slot moves on, also without changes of mapped tables');
poll('SELECT lag < 1000000 FROM hybrid_cache.status', 'and the lag is small');

is(status('damaged'), '0', 'no change record was found damaged');
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP/,
	'no process has crashed');

$node->stop;
done_testing();
