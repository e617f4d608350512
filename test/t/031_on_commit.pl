# Commands that are run after the commit: once each, whatever dies meanwhile.
#
# The rows of the table counter say what Redis must have: as each number is made
# under a lock that is held to the end of its transaction, the numbers are those
# of the commits, in their order, without a gap.

use strict;
use warnings;

use HybridCache::Proxy;
use HybridCache::Redis;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $patience = $PostgreSQL::Test::Utils::timeout_default;

# acknowledges nothing that a crash can take back
my $redis = HybridCache::Redis->new(appendonly => 'yes', appendfsync => 'always');
my $node = PostgreSQL::Test::Cluster->new('main');

$redis->start;
my $proxy = HybridCache::Proxy->new($redis);
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $proxy->url ]}'
hybrid_cache.command_timeout = '2s'
wal_level = replica
max_prepared_transactions = 10
restart_after_crash = on
wal_writer_delay = 10s
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub in_sync
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until('postgres', "SELECT hybrid_cache.wait_for_sync('5s')"), $what);
}

sub poll
{
	my ($query, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until('postgres', $query), $what);
}

sub set
{
	my ($name, $value) = @_;
	sql("ALTER SYSTEM SET $name = $value");
	sql('SELECT pg_reload_conf()');
	$node->poll_query_until('postgres', "SELECT setting = '$value' FROM pg_settings WHERE name = '$name'");
	return;
}

# For each counter: how many, the list, the number and the list that was pushed
# from the left.
sub comes_out_even
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	in_sync("$what: all is applied");
	my $total = 0;
	foreach my $line (split /\n/, sql('SELECT id, n FROM counter ORDER BY id'))
	{
		my ($id, $n) = split /\|/, $line;
		my $order = $redis->cli('LRANGE', "numbers:$id", 0, -1);
		my $reverse = $redis->cli('LRANGE', "reverse:$id", 0, -1);

		$total += $n;
		is($redis->cli('GET', "count:$id") || 0, $n, "$what: counter $id is counted once for each");
		ok($order eq join("\n", 1 .. $n), "$what: counter $id has all its numbers once, in order")
		  or diag(wrong($order, $n));
		ok($reverse eq join("\n", reverse 1 .. $n), "$what: also from the left");
		is($redis->cli('GET', "row:$id"), $n, "$what: the row as well");
	}
	is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), '0', "$what: nothing was refused");
	is(sql('SELECT count(*) FROM hybrid_cache.owed'), '0', "$what: nothing is owed");
	return $total;
}

sub wrong
{
	my ($order, $n) = @_;
	my @have = split /\n/, $order;
	my $i = 0;

	$i++ while $i < @have && $have[$i] == $i + 1;
	return sprintf '%d of %d; at %d: %s', scalar @have, $n, $i + 1, join ' ', @have[ $i .. ($i + 9 < $#have ? $i + 9 : $#have) ];
}

# The numbers of the transaction that is cut are in the watermark.
sub ops_done
{
	my ($key) = $redis->cli('KEYS', 'hybrid_cache:watermark:*');
	my @fields = split / /, $redis->cli('GET', $key);
	return $fields[5] eq '0/0' ? 0 : $fields[6];
}

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE counter (id int PRIMARY KEY, n bigint NOT NULL);
INSERT INTO counter SELECT i, 0 FROM generate_series(1, 3) i;
SELECT hybrid_cache.attach('counter', 'string', 'row:{id}', value => 'n');
CREATE FUNCTION happen(i int, times int DEFAULT 1) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	last bigint;
BEGIN
	UPDATE counter SET n = n + times WHERE id = i RETURNING n INTO last;
	FOR number IN last - times + 1 .. last LOOP
		PERFORM redis_on_commit('RPUSH', 'numbers:' || i, number);
		PERFORM redis_on_commit('LPUSH', 'reverse:' || i, number);
		PERFORM redis_on_commit('INCR', 'count:' || i);
	END LOOP;
END
$$;
CREATE FUNCTION happen_not(i int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM happen(i);
	PERFORM redis_on_commit('SET', 'count:' || i, 'rolled back');
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	NULL;
END
$$;
SQL
in_sync('at the beginning');

# ---------------------------------------------------------------------------
# Many sessions, and things that die

my $script = PostgreSQL::Test::Utils::tempdir() . '/happen.sql';
append_to_file($script, <<'SQL');
\set i random(1, 3)
\set j random(1, 3)
\set times random(1, 30)
BEGIN;
SELECT happen(least(:i, :j));
SAVEPOINT a;
SELECT happen(:j, :times), happen_not(:i);
ROLLBACK TO a;
SELECT happen_not(:i), happen(greatest(:i, :j), 2);
COMMIT;
SQL

# Runs the script in four sessions meanwhile.
sub meanwhile
{
	my ($what, $code) = @_;
	my ($out, $err) = ('', '');
	my $before = sql('SELECT sum(n) FROM counter');
	my $bench = IPC::Run::start(
		[ 'pgbench', '-n', '-c', '4', '-T', '600', '-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);

	$node->poll_query_until('postgres', "SELECT sum(n) > $before + 200 FROM counter");
	$code->();
	$node->poll_query_until('postgres', "SELECT true");
	$bench->signal('INT');
	$bench->finish;

	# what it was doing when it was told to end
	poll(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'}, "$what: the sessions have ended");
	$before = comes_out_even($what) - $before;
	cmp_ok($before, '>', 100, "$what: $before numbers");
	return;
}

sub more
{
	my $n = sql('SELECT sum(n) FROM counter');
	return $node->poll_query_until('postgres', "SELECT sum(n) > $n + 300 FROM counter");
}

sub worker { return sql('SELECT worker_pid FROM hybrid_cache.status'); }

meanwhile('nothing happens', \&more);

meanwhile('the worker is terminated', sub {
	foreach (1 .. 5)
	{
		my $pid = worker();
		sql("SELECT pg_terminate_backend($pid)") if $pid;
		more();
	}
});

meanwhile('Redis is killed', sub {
	foreach (1 .. 3)
	{
		$redis->kill9;
		more();
		$redis->start;
		more();
	}
});

meanwhile('connections break at any byte', sub {
	foreach (1 .. 20)
	{
		$proxy->truncate(int rand 3000);
		more();
		$proxy->pass;
	}
});

meanwhile('replies are lost', sub {
	foreach (1 .. 3)
	{
		$proxy->drop_replies;
		more();
		$proxy->cut;
		$proxy->pass;
		more();
	}
});

meanwhile('batches arrive late', sub {
	foreach (1 .. 3)
	{
		$proxy->hold;
		my $tries = 10 * $patience;
		usleep(100_000) while !$proxy->status->{held} && $tries-- > 0;
		$proxy->abandon;
		in_sync('another connection goes on');
		$proxy->release;
		$proxy->pass;
	}
});

# kill -9 of the worker restarts PostgreSQL, and ends the sessions
foreach my $turn (1 .. 3)
{
	meanwhile("the worker is killed, turn $turn", sub {
		more();
		my $pid = worker();
		kill 'KILL', $pid or die "kill: $!";
		poll("SELECT worker_pid IS NOT NULL AND worker_pid <> $pid FROM hybrid_cache.status", 'another one comes');
	});
}

meanwhile('PostgreSQL is stopped at once', sub {
	more();
	$node->stop('immediate');
	$node->start;
});

# ---------------------------------------------------------------------------
# A transaction that is cut in the middle of its events

set('hybrid_cache.atomic_ops', 7);
my %cuts = (
	'the worker is terminated' => sub {
		my $pid = worker();
		$redis->freeze;
		sql("SELECT pg_terminate_backend($pid)");
		poll("SELECT worker_pid <> $pid FROM hybrid_cache.status", 'another worker');
		$redis->thaw;
	},
	'Redis is killed' => sub { $redis->kill9; $redis->start; },
	'PostgreSQL is stopped at once' => sub { $node->stop('immediate'); $node->start; },
	'a reply is lost' => sub {
		my $failures = sql('SELECT failures FROM hybrid_cache.status');
		$proxy->drop_replies;
		poll("SELECT failures > $failures FROM hybrid_cache.status", 'the worker has waited in vain');
		$proxy->cut;
		$proxy->pass;
	});

foreach my $what (sort keys %cuts)
{
	# slow enough to be found in the middle
	$proxy->delay(5);
	sql('SELECT happen(1, 2500)');
	my $tries = 100 * $patience;
	usleep(10_000) while ops_done() < 100 && $tries-- > 0;
	my $done = ops_done();
	cmp_ok($done, '>', 0, "cut after $done ops: $what");
	$cuts{$what}->();
	$proxy->pass;
	comes_out_even("in a cut transaction $what");
}
set('hybrid_cache.atomic_ops', 10000);

# ---------------------------------------------------------------------------
# Prepared transactions

sql("BEGIN; SELECT happen(1, 3); PREPARE TRANSACTION 'yes'");
sql("BEGIN; SELECT happen(2, 3); PREPARE TRANSACTION 'no'");
sql('SELECT happen(3, 3)');
my $before = $redis->cli('GET', 'count:1');
comes_out_even('beside prepared transactions');
$node->stop('immediate');
$node->start;
comes_out_even('after a crash beside prepared transactions');
sql("COMMIT PREPARED 'yes'");
sql("ROLLBACK PREPARED 'no'");
comes_out_even('when they have ended');
is($redis->cli('GET', 'count:1'), $before + 3, 'the one is run');

# ---------------------------------------------------------------------------
# What Redis refuses beside what it takes

# Some are refused while they are queued, which discards the others with them.
sub letters
{
	my $letters = sql(q{SELECT op || ' ' || count(*) FROM hybrid_cache.dead_letter GROUP BY op ORDER BY op});
	sql('DELETE FROM hybrid_cache.dead_letter');
	$letters =~ s/\n/, /g;
	return $letters;
}

$redis->cli('SET', 'text', 'no number');
sql(<<'SQL');
BEGIN;
SELECT redis_on_commit('NOSUCHCOMMAND', i), happen(1), redis_on_commit('INCR', 'text'),
	redis_on_commit('INCR', 'too', 'many') FROM generate_series(1, 5) i;
COMMIT;
SQL
in_sync('what is refused stops nothing');
is(letters(), 'INCR 10, NOSUCHCOMMAND 5', 'it is kept, each for itself');
comes_out_even('beside what is refused');

set('hybrid_cache.atomic_ops', 3);
sql(<<'SQL');
BEGIN;
SELECT redis_on_commit('NOSUCHCOMMAND', i), happen(1), redis_on_commit('INCR', 'text') FROM generate_series(1, 50) i;
COMMIT;
SQL
in_sync('also in a transaction that is cut');
is(letters(), 'INCR 50, NOSUCHCOMMAND 50', 'each once');
comes_out_even('beside what is refused, cut');
set('hybrid_cache.atomic_ops', 10000);

# Nobody who has locked the letters makes them be lost, nor stops the others.
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE hybrid_cache.dead_letter');
sql(q{SELECT redis_on_commit('INCR', 'text'), redis_on_commit('RPUSH', 'text', i), happen(1) FROM generate_series(1, 3) i});
in_sync('letters that cannot be written stop nothing');
my $count = $redis->cli('GET', 'count:1');
sql(q{SELECT redis_on_commit('INCR', 'text'), happen(1)});
in_sync('nor do more of them');
is($redis->cli('GET', 'count:1'), $count + 1, 'the others are run');
$locker->query_safe('COMMIT');
$locker->quit;
poll('SELECT count(*) = 7 FROM hybrid_cache.dead_letter', 'they are written when they can be');
is(letters(), 'INCR 4, RPUSH 3', 'each once');
comes_out_even('beside letters that waited');

# Without the right to a command, a command that somebody wrote is refused; one
# to a key, likewise.
$redis->cli('ACL', 'SETUSER', 'default', '-getset', 'resetkeys', '~hybrid_cache:*', '~[nrc]*:*');
sql(q{SELECT redis_on_commit('GETSET', 'count:1', '0'), redis_on_commit('INCR', 'other'), happen(1)});
in_sync('what Redis does not permit stops nothing');
$redis->cli('ACL', 'SETUSER', 'default', '+@all', 'allkeys');
is(letters(), 'GETSET 1, INCR 1', 'and is kept');
comes_out_even('beside what is not permitted');

# A word that is longer than this Redis takes would end the connection.
$redis->cli('CONFIG', 'SET', 'proto-max-bulk-len', '1048576');
sql(q{SELECT worker_pid, pg_terminate_backend(worker_pid) FROM hybrid_cache.status});
poll(q{SELECT worker_pid IS NOT NULL AND hybrid_cache.wait_for_sync('5s') FROM hybrid_cache.status}, 'another worker');
sql(q{SELECT redis_on_commit('SET', 'long', repeat('x', 2000000)), happen(1)});
in_sync('what is too long stops nothing');
$redis->cli('CONFIG', 'SET', 'proto-max-bulk-len', '536870912');
is(sql('SELECT sum(length(payload)) > 2000000 FROM hybrid_cache.dead_letter'), 't', 'and is kept');
is(letters(), 'SET 1', 'once');
comes_out_even('beside what is too long');

# ---------------------------------------------------------------------------
# A change that is executed with an error that nobody knows

# It is tried again.  Beside events that would have them happen twice, so then it
# is left to a comparison.
sql(q{CREATE TABLE spoiled (id int PRIMARY KEY)});
sql(q{SELECT hybrid_cache.attach('spoiled', 'zset', 'spoiled', member => '{id}', score => 'id')});
in_sync('a mapping');
poll('SELECT count(*) = 0 FROM hybrid_cache.owed', 'it is populated');
foreach my $events (0, 1)
{
	my $from = -s $node->logfile;
	my $n = 77 + $events;

	$proxy->spoil($n);
	sql("BEGIN; INSERT INTO spoiled SELECT 1000 * $n + i FROM generate_series(1, $n) i;"
		  . ($events ? 'SELECT happen(1, 3);' : '') . 'COMMIT');
	in_sync('an error that nobody knows is waited out');
	poll('SELECT count(*) = 0 FROM hybrid_cache.owed', 'and nothing is owed in the end');
	like(slurp_file($node->logfile, $from), $events ? qr/may have missed changes.*\n.*a reason that may pass/
		: qr/a reason that may pass.*\n.*ERR spoiled/, 'the log says so');
	comes_out_even("an error that nobody knows, events: $events");
}
is($redis->cli('ZCARD', 'spoiled'), 77 + 78, 'all is there');

# ---------------------------------------------------------------------------
# Changes that share a command, which is refused, are tried again one by one

# What was executed beside them does not happen again if that is refused as well,
# and none of them is forgotten if it has an error that nobody knows.
sql(q{CREATE TABLE part (id int PRIMARY KEY)});
sql(q{SELECT hybrid_cache.attach('part', 'field', 'part', field => '{id}', value => 'id')});
in_sync('another mapping');
poll('SELECT count(*) = 0 FROM hybrid_cache.owed', 'that is populated');

# Commits both; returns between the attempts.
sub first_attempt
{
	my ($id, $command) = @_;

	$redis->cli('SET', 'part', 'of another type');
	$proxy->delay(500);
	sql("BEGIN; INSERT INTO part VALUES ($id), ($id + 1); SELECT $command; COMMIT");
	until ($redis->cli('EXISTS', 'beside')) { usleep(1000); }
	return;
}

first_attempt(1, q{redis_on_commit('RPUSH', 'beside', 'x')});
$redis->cli('ACL', 'SETUSER', 'default', 'resetkeys', '~[^p]*');
$proxy->delay(0);
in_sync('a right that is lost between two attempts');
$redis->cli('ACL', 'SETUSER', 'default', 'allkeys');
is($redis->cli('LLEN', 'beside'), 1, 'an event beside is not sent again');
is(sql(q{SELECT count(*) FROM hybrid_cache.dead_letter WHERE relation = 'part'::regclass}), '2',
	'there is a letter of each change');

$redis->cli('DEL', 'beside');
my $before = -s $node->logfile;
first_attempt(3, q{redis_on_commit('SET', 'beside', 'x')});
$redis->cli('DEL', 'part');
$proxy->spoil(1);
$proxy->delay(0);
in_sync('an error that nobody knows, in the second attempt');
poll('SELECT count(*) = 0 FROM hybrid_cache.owed', 'is settled');
like(slurp_file($node->logfile, $before), qr/may have missed changes.*\n.*a reason that may pass/,
	'by a comparison');
is($redis->cli('HLEN', 'part'), 4, 'which finds what is missing');
sql('DELETE FROM hybrid_cache.dead_letter');
comes_out_even('with changes that are tried again');

# ---------------------------------------------------------------------------
# A Redis that takes nothing for a while

$redis->cli('CONFIG', 'SET', 'maxmemory', 1);
sql('SELECT happen(1), happen(2, 5)');
sql('SELECT happen(1), happen(2, 5)');
poll(q{SELECT last_error ~ 'no memory' FROM hybrid_cache.status}, 'Redis has no memory');
$redis->cli('CONFIG', 'SET', 'maxmemory', 0);
comes_out_even('when it has some again');

$redis->cli('CONFIG', 'SET', 'min-replicas-to-write', 1);
sql('SELECT happen(1), happen(2, 5)');
# a batch is refused, and later what is written on connecting
poll(q{SELECT last_error ~ 'does not take changes|refused the command' FROM hybrid_cache.status}, 'Redis lacks replicas');
$redis->cli('CONFIG', 'SET', 'min-replicas-to-write', 0);
comes_out_even('when it wants none');

# ---------------------------------------------------------------------------
# A Redis that has lost all comes back: what it has not had yet is not lost

sql('SELECT happen(3, 10)');
comes_out_even('before Redis loses all');
$redis->kill9;
sql(q{SELECT redis_on_commit('RPUSH', 'new', 'while it was away'), happen(3, 10)});
PostgreSQL::Test::Utils::system_log('rm', '-r', $redis->dir . '/appendonlydir', $redis->dir . '/appendonly.aof');
$redis->start;
in_sync('Redis comes back empty');
is($redis->cli('LRANGE', 'new', 0, -1), 'while it was away', 'and gets it');

done_testing();
