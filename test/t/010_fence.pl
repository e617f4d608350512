# Who may write: late batches of old connections and processes, copies of the
# database, other databases.

use strict;
use warnings;

use HybridCache::Proxy;
use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = HybridCache::Redis->new;
$redis->start;
my $proxy = HybridCache::Proxy->new($redis);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.repair = off
hybrid_cache.redis_url = '@{[ $proxy->url ]}'
hybrid_cache.command_timeout = 2s
CONF
$node->start;

sub sql
{
	my ($server, $query, $database) = @_;
	return $server->safe_psql($database || 'postgres', $query);
}

sub in_sync
{
	my ($server, $what, $database) = @_;
	is(sql($server, "SELECT hybrid_cache.wait_for_sync('60s')", $database), 't', $what);
	return;
}

sub poll
{
	my ($server, $query, $what, $database) = @_;
	ok($server->poll_query_until($database || 'postgres', $query), $what);
	return;
}

# Wait until a condition holds.
sub until_true
{
	my ($condition, $what) = @_;
	my $turns = 100 * $PostgreSQL::Test::Utils::timeout_default;

	usleep(10_000) while !$condition->() && $turns-- > 0;
	ok($turns > 0, $what);
	return;
}

sub is_away
{
	my ($server, $what) = @_;
	poll($server, <<'SQL', $what);
SELECT last_error ~ 'another copy of this database is alive' AND NOT connected
FROM hybrid_cache.status WHERE database = current_database()
SQL
	return;
}

# The key of that kind of a database; there is only one.
sub key
{
	my ($kind) = @_;
	return $redis->cli('KEYS', "hybrid_cache:$kind:*");
}

sql($node, <<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE row (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v');
INSERT INTO row SELECT i, 'first' FROM generate_series(1, 10) i;
SQL
in_sync($node, 'the worker works through the proxy');

# ---------------------------------------------------------------------------
# connections of one worker

# A batch that arrives after a newer connection has applied newer changes.
$proxy->hold("\r\nold\r\n");
sql($node, "UPDATE row SET v = 'old' WHERE id = 1");
until_true(sub { $proxy->status->{held} > 0 }, 'a batch is on its way');
$proxy->abandon;
sql($node, "UPDATE row SET v = 'new' WHERE id = 1");
in_sync($node, 'another connection goes on');
is($redis->cli('GET', 'row:1'), 'new', 'with what came later');
{
	my $mark = $redis->cli('GET', key('watermark'));

	like($proxy->release, qr/\*-1\r\n/, 'the late batch is refused as a whole');
	is($redis->cli('GET', 'row:1'), 'new', 'it has changed nothing');
	is($redis->cli('GET', key('watermark')), $mark, 'the watermark neither');
}
sql($node, "UPDATE row SET v = 'newer' WHERE id = 1");
in_sync($node, 'and does not disturb');

# The same for what is sent on connecting, before any batch.
$proxy->cut;
$proxy->refuse;
sql($node, "UPDATE row SET v = 'while away' WHERE id = 2");
$proxy->delay(30);
$proxy->pass;
in_sync($node, 'after connections were refused');
is($redis->cli('GET', 'row:2'), 'while away', 'nothing is missing');

# Redis has the batch, and its answer never comes.
$proxy->drop_replies('unheard');
sql($node, "UPDATE row SET v = 'unheard' WHERE id = 3");
until_true(sub { $redis->cli('GET', 'row:3') eq 'unheard' }, 'a batch whose reply is lost');
$proxy->cut;
$proxy->pass;
in_sync($node, 'the worker finds out');

# Half a batch.
for my $bytes (1, 30, 80, 200, 300)
{
	$proxy->truncate($bytes);
	sql($node, "UPDATE row SET v = 'cut $bytes' WHERE id = 4");
	in_sync($node, "a batch that was cut after $bytes bytes is sent again");
	is($redis->cli('GET', 'row:4'), "cut $bytes", 'as a whole');
}
$proxy->pass;

# Redis forgets everything, with the batch that comes next.
sql($node, 'DELETE FROM hybrid_cache.owed');
$redis->cli('FLUSHALL');
sql($node, "UPDATE row SET v = 'after the flood' WHERE id = 5");
in_sync($node, 'after a FLUSHALL');
is($redis->cli('GET', 'row:5'), 'after the flood', 'changes go on');
unlike(slurp_file($node->logfile), qr/somebody else writes/, 'and nobody is suspected');

# ---------------------------------------------------------------------------
# restarts

# A lease that would last for long shows that nobody waits for it.
$redis->cli('PEXPIRE', key('lease'), 3_600_000);
$node->stop('immediate');
is($redis->cli('EXISTS', key('lease')), '1', 'a crash leaves the lease behind');
$node->start;
sql($node, "UPDATE row SET v = 'restarted' WHERE id = 6");
in_sync($node, 'the same server goes on at once');
$node->stop;
is(key('lease'), '', 'a server that is shut down gives up its lease');
isnt(key('watermark'), '', 'but not its watermark');
$node->start;
in_sync($node, 'and goes on later');

# ---------------------------------------------------------------------------
# copies of the database

$node->backup('copy', backup_options => [ '-c', 'fast' ]);
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'copy', has_streaming => 1);
$copy->append_conf('postgresql.conf',
	"hybrid_cache.redis_url = '" . $redis->url . "'");
$copy->start;
$node->wait_for_catchup($copy);
$copy->promote;
is_away($copy, 'a copy that was promoted aside stays away');
{
	my $fence = $redis->cli('GET', key('fence'));

	sql($copy, "UPDATE row SET v = 'copy' WHERE id = 7");
	sql($node, "UPDATE row SET v = 'original' WHERE id = 8");
	in_sync($node, 'the original works');
	$copy->restart;
	is_away($copy, 'so it does after a restart');
	is($redis->cli('GET', key('fence')), $fence, 'and has not touched the fence');
	is($redis->cli('MGET', 'row:7', 'row:8'), "first\noriginal", 'nor an entry');
}

# The worker of the original is stopped for longer than its lease lasts.  What
# it was about to write comes too late.
my $worker = sql($node, 'SELECT worker_pid FROM hybrid_cache.status');
kill 'STOP', $worker;
sql($node, "UPDATE row SET v = 'stopped' WHERE id = 7");
$redis->cli('PEXPIRE', key('lease'), 1);
poll($copy, 'SELECT connected FROM hybrid_cache.status', 'a lease that is over lets the copy in');
in_sync($copy, 'the copy has written');
sql($copy, "UPDATE row SET v = 'copy again' WHERE id = 7");
in_sync($copy, 'all its changes');
kill 'CONT', $worker;
is_away($node, 'the original, when it goes on, stays away');
is($redis->cli('GET', 'row:7'), 'copy again', 'and has written nothing');

# Nor do sessions of the one that stays away share cached results.
foreach my $server ($node, $copy, $node)
{
	is(sql($server, q{SELECT hybrid_cache.cached('seven', '1 hour', 'SELECT v FROM row WHERE id = 7')}),
		$server == $copy ? '[{"v": "copy again"}]' : '[{"v": "stopped"}]', 'a query finds the rows of its own copy');
	is($redis->cli('GET', 'seven'), $redis->cli('EXISTS', 'seven') ? '[{"v": "copy again"}]' : '',
		'and only the one at work stores them');
}
is($redis->cli('EXISTS', 'seven'), 1, 'which it does');

$copy->stop('immediate');
sql($node, "UPDATE row SET v = 'original again' WHERE id = 7");
$redis->cli('PEXPIRE', key('lease'), 1);
in_sync($node, 'after the end of the copy the original takes over');
is($redis->cli('GET', 'row:7'), 'original again', 'with its changes');
like(slurp_file($node->logfile), qr/not of this server's history/,
	'what the copy has written is to be compared');

$copy->start;
is_away($copy, 'the copy stays away again');
is(sql($copy, 'SELECT * FROM hybrid_cache.take_over()'), '', 'it cannot take over without force');
is(sql($copy, 'SELECT key IS NULL, owner FROM hybrid_cache.take_over(true)'),
	't|another copy of this database', 'with force it can');
sql($copy, "UPDATE row SET v = 'forced' WHERE id = 7");
in_sync($copy, 'it writes');
is_away($node, 'the original gives way');
sql($node, "UPDATE row SET v = 'not forced' WHERE id = 7");
is($redis->cli('GET', 'row:7'), 'forced', 'and writes no more');
$copy->stop;
in_sync($node, 'until the copy is shut down, which lets others in at once');
is($redis->cli('GET', 'row:7'), 'not forced', 'with all its changes');

# ---------------------------------------------------------------------------
# other databases with the same keys

sub state_is
{
	my ($server, $database, $pattern, $what) = @_;
	poll($server, "SELECT bool_and(state ~ '$pattern') FROM hybrid_cache.mapping WHERE name LIKE 'row%'",
		$what, $database);
	return;
}

sub make_other
{
	my ($server, $database) = @_;
	sql($server, <<'SQL', $database);
CREATE EXTENSION hybrid_cache;
CREATE TABLE row (number int PRIMARY KEY, v text);
CREATE TABLE free (id int PRIMARY KEY);
SELECT hybrid_cache.attach('free', 'string', 'free:{id}', value => 'id');
INSERT INTO row SELECT i, 'other' FROM generate_series(1, 3) i;
SELECT hybrid_cache.attach('row', 'string', 'row:{number}', value => 'v');
INSERT INTO row VALUES (100, 'other');
INSERT INTO free VALUES (1);
SQL
	return;
}

is($redis->cli('HKEYS', 'hybrid_cache:owner'), 'row:{}', 'the key template has an owner');
sql($node, 'CREATE DATABASE other');
make_other($node, 'other');
in_sync($node, 'another database with the same template', 'other');
state_is($node, 'other', '^owned by another database', 'is refused');
is($redis->cli('EXISTS', 'row:100'), '0', 'its entry is not written');
is($redis->cli('GET', 'row:1'), 'newer', 'and nothing overwritten');
is($redis->cli('GET', 'free:1'), '1', 'its other mapping works');
is(() = slurp_file($node->logfile) =~ /does not write mapping "row_string" of table "row"/g,
	1, 'the log says so, once');

{
	my ($ret, $out, $err) = $node->psql('other', 'SELECT * FROM hybrid_cache.take_over()');
	is($out, '', 'take_over() takes nothing from who is alive');
	like($err, qr/NOTICE:  key template "row:\{\}" belongs to database "postgres", which is alive/,
		'and says why');
}
is(sql($node, 'SELECT * FROM hybrid_cache.take_over(force => true)', 'other'),
	'row:{}|database "postgres"', 'with force it does');
state_is($node, 'other', '^(?!owned by)', 'the mapping is written now');
sql($node, "UPDATE row SET v = 'taken' WHERE number = 1", 'other');
in_sync($node, 'the new owner', 'other');
is($redis->cli('GET', 'row:1'), 'taken', 'writes');
sql($node, "UPDATE row SET v = 'lost' WHERE id = 1; INSERT INTO row VALUES (101, 'lost')");
in_sync($node, 'the former one');
state_is($node, 'postgres', '^owned by another database', 'knows that it is no more');
is($redis->cli('MGET', 'row:1', 'row:101'), "taken\n", 'and does not write');

# What a mapping had written is not its own any more when it goes.
sql($node, q{SELECT hybrid_cache.detach('row', 'row_string')});
in_sync($node, 'the former owner drops its mapping');
is($redis->cli('GET', 'row:1'), 'taken', 'which removes nothing');
sql($node, q{SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v')});
state_is($node, 'postgres', '^owned by another database', 'attached again it is refused again');

# The owner drops its mapping: when the entries are removed, whoever waits may
# have the template.
sql($node, 'ALTER DATABASE other SET hybrid_cache.repair = on', 'other');
sql($node, q{SELECT hybrid_cache.detach('row', 'row_string')}, 'other');
in_sync($node, 'the owner drops its mapping', 'other');
state_is($node, 'postgres', '^(?!owned by)', 'then the template is free');
sql($node, "UPDATE row SET v = 'mine' WHERE id = 1");
in_sync($node, 'and the other database');
is($redis->cli('GET', 'row:1'), 'mine', 'writes');

# drop and recreate
for (1 .. 2)
{
	sql($node, 'DROP DATABASE other');
	sql($node, 'CREATE DATABASE other');
	make_other($node, 'other');
	sql($node, 'INSERT INTO free VALUES (2)', 'other');
	in_sync($node, 'a database that was dropped and made again', 'other');
	is($redis->cli('EXISTS', 'free:1', 'free:2'), '2', 'has its keys at once');
	$redis->cli('DEL', 'free:1', 'free:2');
}
sql($node, 'DROP DATABASE other');

# Redis forgets who owns what.
$redis->cli('FLUSHALL');
until_true(sub { $redis->cli('HKEYS', 'hybrid_cache:owner') eq 'row:{}' },
	'after a FLUSHALL the owner is there again');

# another system
my $stranger = PostgreSQL::Test::Cluster->new('stranger');
$stranger->init(allows_streaming => 1);
$stranger->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
CONF
$stranger->start;
make_other($stranger, 'postgres');
in_sync($stranger, 'another system with the same template');
state_is($stranger, 'postgres', '^owned by another database', 'is refused');
is(sql($stranger, 'SELECT * FROM hybrid_cache.take_over()'), '', 'as long as the owner is alive');
$node->stop;
like(sql($stranger, 'SELECT * FROM hybrid_cache.take_over()'),
	qr/^row:\{\}\|database \d+ of system \d+$/, 'then it can take over');
state_is($stranger, 'postgres', '^(?!owned by)', 'and is the owner');
sql($stranger, "UPDATE row SET v = 'stranger' WHERE number = 2");
in_sync($stranger, 'the new owner');
is($redis->cli('GET', 'row:2'), 'stranger', 'writes');
$node->start;
sql($node, "UPDATE row SET v = 'too late' WHERE id = 2");
in_sync($node, 'the former owner');
is($redis->cli('GET', 'row:2'), 'stranger', 'does not');
sql($stranger, 'DROP EXTENSION hybrid_cache CASCADE');
state_is($node, 'postgres', '^(?!owned by)', 'until the extension is dropped there');
is($redis->cli('HKEYS', 'hybrid_cache:owner'), 'row:{}', 'which leaves nothing behind');

done_testing();
