# Holds when something fails: sessions, servers, the network; and when their time
# is over.

use strict;
use warnings;

use HybridCache::Proxy;
use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll in_log);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = HybridCache::Redis->new(appendonly => 'yes', appendfsync => 'always');
$redis->start;
my $proxy = HybridCache::Proxy->new($redis);
$redis->stop;
my $direct = "SET hybrid_cache.redis_url = '" . $redis->url . "'";

# The worker goes through the proxy; sessions do unless they are told otherwise.
my $node = start_server($redis, <<"CONF");
hybrid_cache.redis_url = '@{[ $proxy->url ]}'
restart_after_crash = on
max_prepared_transactions = 5
CONF
sql('CREATE EXTENSION hybrid_cache');

sub record { return $redis->cli('HGET', 'hybrid_cache:holds:{seats}', $_[0]); }

# The record of an item is soon such.
sub becomes
{
	my ($item, $pattern, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $patience = 2000;
	usleep(10_000) while record($item) !~ $pattern && $patience-- > 0;
	like(record($item), $pattern, $what);
	return;
}

sub connected { poll('SELECT connected FROM hybrid_cache.status', $_[0]); return; }

sub session
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query($_) foreach @_;
	return $session;
}

sub hold { return "SELECT count(*) FROM hybrid_cache.hold('seats', '{$_[0]}', '$_[1]', '$_[2]')"; }
sub confirm { return "SELECT hybrid_cache.confirm('seats', '$_[0]')"; }
sub restarted { $node->poll_query_until('postgres', 'SELECT true'); connected($_[0]); return; }

connected('the worker is connected');

# ---------------------------------------------------------------------------
# sessions that end

my $session = session('BEGIN', hold('1,2', 'alice', '1 hour'));
like(record('1'), qr/^held \S+:\S+ - 0 5:alice:$/, 'an open transaction holds something');
my $pid = $session->query('SELECT pg_backend_pid()');
sql("SELECT pg_terminate_backend($pid)");
becomes('1', qr/^$/, 'a session that is terminated holds nothing');
eval { $session->quit };

sql(hold('3', 'carl', '1 hour'));
$session = session('BEGIN', hold('1,2', 'alice', '1 hour'), hold('4', 'carl', '1 hour'), confirm('carl'));
$pid = $session->query('SELECT pg_backend_pid()');
like(record('3'), qr/^confirming/, 'another transaction confirms something');
kill 'KILL', $pid;
eval { $session->quit };
becomes('1', qr/^$/, 'a session that is killed, and with it the server, holds nothing');
becomes('3', qr/^held - - 0 4:carl:$/, 'what it has confirmed is held as before');
is(record('4'), '', 'unless it was held in the same transaction');
restarted('the server is back');
is(sql(confirm('carl')), 't', 'and can be confirmed');
becomes('3', qr/^confirmed/, 'which it is');

# What was committed outlives a crash, also if nothing but Redis was changed.
sql(hold('5', 'dora', '1 hour'));
sql('BEGIN; ' . hold('6', 'emil', '1 hour') . '; ' . confirm('emil') . "; PREPARE TRANSACTION 'open'");
sql('BEGIN; ' . hold('7', 'fred', '1 hour') . '; ' . confirm('fred') . "; PREPARE TRANSACTION 'undo'");
$node->stop('immediate');
$node->start;
connected('the worker is back after a crash');
becomes('5', qr/^held - - 0 4:dora:$/, 'a committed hold outlives a crash');
like(record('6'), qr/^confirming/, 'so does what a prepared transaction has confirmed');
sql("COMMIT PREPARED 'open'");
sql("ROLLBACK PREPARED 'undo'");
becomes('6', qr/^confirmed/, 'it is confirmed when that is committed');
becomes('7', qr/^$/, 'and released when it is rolled back');

# ---------------------------------------------------------------------------
# a session that does not hear the answer

my $late = HybridCache::Proxy->new($redis);
$session = session("SET hybrid_cache.redis_url = '" . $late->url . "'", "SET hybrid_cache.command_timeout = '200 ms'",
	'SELECT redis_ping()');
$late->hold;
$session->query(hold('8', 'gil', '1 hour'));
like($session->{stderr}, qr/timed out/, 'a session gives up');
is(record('8'), '', 'before Redis has seen the command');
$late->abandon;
$late->release;
becomes('8', qr/^$/, 'what arrives later holds nothing');
is($redis->cli('EVAL', 'return redis.call("ZCARD", KEYS[1])', 1, marks()), '0', 'and is not remembered');
$session->quit;

sub marks { return $redis->cli('--scan', '--pattern', 'hybrid_cache:marks:*') || 'none'; }

# ---------------------------------------------------------------------------
# the worker has no Redis, sessions have

sql(hold('1,2', 'alice', '1 hour'));
$proxy->refuse;
$proxy->cut;
poll('SELECT NOT connected FROM hybrid_cache.status', 'the worker has lost Redis');
my $other = session($direct);
$session = session($direct, 'BEGIN', hold('9', 'hans', '1 hour'));
is($other->query(hold('9', 'ida', '1 hour')), '1', 'what another transaction holds is in the way');
$session->query('ROLLBACK');
is($other->query(hold('9', 'ida', '1 hour')), '0', 'until it is rolled back, worker or not');
$session->query($_) foreach ('BEGIN', confirm('alice'), 'COMMIT');
like(record('1'), qr/^confirming/, 'what is confirmed is frozen until the worker is back');
is($other->query("SELECT value FROM hybrid_cache.hold('seats', '{1}', 'ida', '1 hour')"), 'sold',
	'and taken');
is($other->query("SELECT state FROM hybrid_cache.holds('seats') WHERE item = '1'"), 'confirmed', 'sessions know it');
is($other->query("SELECT hybrid_cache.release('seats', 'alice')"), '2', 'it can be released');
$proxy->pass;
connected('the worker is back');
becomes('1', qr/^$/, 'which happens after it was confirmed');
$_->quit foreach $session, $other;

# ---------------------------------------------------------------------------
# the WAL with a confirmation is lost

foreach my $case ([ 'the server is the same', 0, qr/^confirmed/ ], [ 'it has been restarted', 1, qr/^held - - / ])
{
	my ($name, $restart, $state) = @$case;
	sql(hold('10', "gap$restart", '1 hour'));
	sql("ALTER SYSTEM SET hybrid_cache.max_wal_keep_size = '4MB'");
	sql("ALTER SYSTEM SET hybrid_cache.wal_keep_size = '0'");
	sql('SELECT pg_reload_conf()');
	$proxy->refuse;
	$proxy->cut;
	poll('SELECT NOT connected FROM hybrid_cache.status', "the worker has lost Redis: $name");
	$session = session($direct, 'BEGIN', confirm("gap$restart"), 'COMMIT');
	$session->quit;
	my $lsn = sql('SELECT pg_current_wal_lsn()');
	poll(<<"SQL", 'the slot moves on');
SELECT restart_lsn > '$lsn' FROM pg_replication_slots,
	(SELECT pg_logical_emit_message(false, 'wal', 'more'), pg_switch_wal() OFFSET 0) more
SQL
	like(record('10'), qr/^confirming/, 'nothing has happened');
	$node->restart if $restart;
	$proxy->pass;
	connected('the worker is back');
	becomes('10', $state, "what was confirmed in lost WAL: $name");
	sql("SELECT hybrid_cache.release('seats', 'gap$restart')");
	becomes('10', qr/^$/, 'it can be released');
}
sql('ALTER SYSTEM RESET ALL');
sql('SELECT pg_reload_conf()');

# The server has been started again, and its worker has no Redis yet.
$proxy->refuse;
$proxy->cut;
poll('SELECT NOT connected FROM hybrid_cache.status', 'the worker has lost Redis');
$session = session($direct, hold('40', 'uwe', '1 hour'));
$session->quit;
$node->restart;
$session = session($direct);
is($session->query(hold('40', 'vera', '1 hour')), '1', 'what was held before is in the way');
$session->query(confirm('uwe'));
like($session->{stderr}, qr/cannot be told yet/, 'and not confirmed without knowing');
$session->{stderr} = '';
$proxy->pass;
connected('the worker is back');
is($session->query(confirm('uwe')), 't', 'then it is');
$session->quit;

# ---------------------------------------------------------------------------
# time is over

sub events { return $redis->cli('XLEN', $_[0]); }

sub event_comes
{
	my ($stream, $n, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $patience = 2000;
	usleep(10_000) while events($stream) < $n && $patience-- > 0;
	is(events($stream), $n, $what);
	return;
}

sub brief { return "SELECT count(*) FROM hybrid_cache.hold('seats', '{$_[0]}', '$_[1]', '50 ms', expired => 'over')"; }

sql(brief('11,12', 'jo'));
event_comes('over', 1, 'a hold runs out: one event');
like($redis->cli('XRANGE', 'over', '-', '+'), qr/\nkey\nseats\nholder\njo\nat\n\d+\nitems\n\["11","12"\]$/, 'that says which');
is($redis->cli('EXISTS', 'hybrid_cache:holders:{other}') . record('11') . record('12'), '0', 'it is gone');
is(sql(confirm('jo')), 'f', 'and cannot be confirmed');

# Somebody takes one of the items before the worker comes by.
$proxy->refuse;
$proxy->cut;
poll('SELECT NOT connected FROM hybrid_cache.status', 'the worker has lost Redis');
$session = session($direct);
$session->query(brief('11,12', 'kim'));
my $tries = 1000;
usleep(10_000) while $session->query(hold('12', 'leo', '1 hour')) ne '0' && $tries-- > 0;
like(record('12'), qr/5?leo/, 'what ran out is free at once');
is(record('11'), '', 'all of it');
$proxy->pass;
event_comes('over', 2, 'the event comes when the worker is back');
$session->quit;

# Nobody was there.
sql(brief('13', 'mia'));
$node->stop;
usleep(100_000);
$redis->kill9;
$redis->start;
like(record('13'), qr/mia/, 'the servers were away when a hold ran out') if events('over') < 3;
$node->start;
event_comes('over', 3, 'its event comes later, once');

# Of what is not committed nothing is told.
$session = session('BEGIN', brief('14', 'nils'));
my $score = sub { $redis->cli('ZSCORE', 'hybrid_cache:ends:{seats}', 'nils') };
usleep(10_000) while $score->() ne '' && $score->() > 1000 * Time::HiRes::time();
$session->query('ROLLBACK');
becomes('14', qr/^$/, 'a hold that ran out before it was rolled back');
$session->query($_) foreach ('BEGIN', brief('14', 'olaf'));
$session->query('COMMIT');
event_comes('over', 4, 'and one that was committed');
unlike($redis->cli('XRANGE', 'over', '-', '+'), qr/nils/, 'only that of the latter is told');

# Many at once are not a matter of many looks.
sql("SELECT count(*) FROM generate_series(1, 2000) i, hybrid_cache.hold('many', ARRAY[i::text], 'h' || i, '50 ms', expired => 'crowd')");
my $begun = Time::HiRes::time();
event_comes('crowd', 2000, 'two thousand holds run out at the same time');
cmp_ok(Time::HiRes::time() - $begun, '<', 19, 'each look goes on where the last one stopped');

# A stream that is none.
$redis->cli('SET', 'none', 'string');
sql("SELECT count(*) FROM hybrid_cache.hold('seats', '{15}', 'paul', '50 ms', expired => 'none')");
becomes('15', qr/^$/, 'a hold whose event cannot be sent runs out');
$tries = 1000;
usleep(10_000) while $redis->cli('EXISTS', 'hybrid_cache:ranout:{seats}') ne '0' && $tries-- > 0;
in_log(qr/has lost the event of a hold that ran out/, 'the log says so');
sql(brief('15', 'paul'));
event_comes('over', 5, 'others go on');

# ---------------------------------------------------------------------------
# a holder of many items, to which one comes

sub settled
{
	my $patience = 2000;
	usleep(10_000) while marks() ne 'none' && $patience-- > 0;
	is(marks(), 'none', 'all transactions are settled');
	return;
}

sub reads_of_one
{
	my ($item, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$redis->cli('CONFIG', 'RESETSTAT');
	sql("SELECT count(*) FROM hybrid_cache.hold('hall', '{$item}', 'kiosk', '1 hour')");
	settled();
	my ($reads) = $redis->cli('INFO', 'commandstats') =~ /cmdstat_hget:calls=(\d+)/;
	cmp_ok($reads, '<', 100, $what);
	return;
}

sql("SELECT count(*) FROM hybrid_cache.hold('hall', (SELECT array_agg(i::text) FROM generate_series(1, 5000) i), 'kiosk', '1 hour')");
settled();
reads_of_one('one', 'the others are not read for it');
sql("SELECT hybrid_cache.confirm('hall', 'kiosk')");
sql("SELECT hybrid_cache.wait_for_sync('60s')");
settled();
reads_of_one('more', 'nor are they once they are confirmed');
sql("SELECT hybrid_cache.release('hall', 'kiosk')");
sql("SELECT hybrid_cache.wait_for_sync('60s')");
settled();
is($redis->cli('KEYS', 'hybrid_cache:*{hall}'), '', 'nothing is left of it');

# ---------------------------------------------------------------------------
# another client, which has the script alone

SKIP:
{
	my ($file) = grep { -f $_ } map { "$_/holds.lua" }
	  ($ENV{HYBRID_CACHE_LUA} || '', sql("SELECT setting || '/extension/hybrid_cache' FROM pg_config WHERE name = 'SHAREDIR'"));
	skip 'the script is not installed', 4 unless $file;
	my @keys = ('seats', map({ "hybrid_cache:$_:{seats}" } qw(holds holders ends ranout)), 'hybrid_cache:holds', 'hybrid_cache:holds');
	my $client = sub { return $redis->cli('--eval', $file, @keys, ',', @_); };
	is($client->('hold', '-', 'rosa', 0, 60000, '', 0, '', '20', '21'), '1', 'another client holds something');
	is(sql(hold('21', 'sam', '1 hour')), '1', 'for PostgreSQL, too');
	is($client->('confirm', '-', 'rosa', 0), "1\n20\n21", 'it confirms');
	is(sql("SELECT hybrid_cache.release('seats', 'rosa')"), '2', 'and PostgreSQL releases');
}

# ---------------------------------------------------------------------------
# a database that is dropped in the middle

sql('CREATE DATABASE passing');
$node->safe_psql('passing', 'CREATE EXTENSION hybrid_cache');
ok($node->poll_query_until('passing', "SELECT connected FROM hybrid_cache.status WHERE database = 'passing'"), 'another database has a worker');
$node->safe_psql('passing', hold('30', 'tom', '1 hour'));
$session = $node->background_psql('passing', on_error_stop => 0);
$session->query($_) foreach ('BEGIN', confirm('tom'));
like(record('30'), qr/^confirming/, 'it confirms something');
is(sql("SELECT hybrid_cache.release('seats', 'tom')"), '0', 'which nobody can release');
sql('DROP DATABASE passing WITH (FORCE)');
poll("SELECT hybrid_cache.release('seats', 'tom') > 0 OR NOT EXISTS (SELECT FROM hybrid_cache.holds('seats') WHERE item = '30')",
	'until that database is gone');
becomes('30', qr/^$/, 'then it is free');
eval { $session->quit };

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no process has failed');
$node->stop;
done_testing();
