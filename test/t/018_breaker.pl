# What is known about a Redis that is down is known to all sessions: one finds
# out, the others fail without trying, one at a time tries again.

use strict;
use warnings;

use HybridCache::Redis;
use IO::Select;
use IO::Socket::UNIX;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket qw(SOL_SOCKET SO_PEERCRED);
use Test::More;
use Time::HiRes ();

my $redis = HybridCache::Redis->new;
my $another = HybridCache::Redis->new;
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
wal_level = replica
max_wal_senders = 1
CONF
$redis->start;
$another->start;
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub poll
{
	my ($query, $what) = @_;
	ok($node->poll_query_until('postgres', $query), $what);
	return;
}

# What a new session gets to hear.
sub ping
{
	my ($settings) = @_;
	my ($out, $err);
	$node->psql('postgres', ($settings || '') . ' SELECT redis_ping()',
		stdout => \$out, stderr => \$err);
	return $out . $err;
}

my $closed = 'SELECT connected AND down_since IS NULL FROM hybrid_cache.status';
my $open = 'SELECT down_since IS NOT NULL FROM hybrid_cache.status';

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE row (id int PRIMARY KEY, v int);
SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v');
INSERT INTO row VALUES (1, 0);

-- pings n times; how often that failed at once, and how often it was tried
CREATE FUNCTION pings(n int, OUT known int, OUT tried int, OUT fine int) LANGUAGE plpgsql AS $$
BEGIN
	known := 0; tried := 0; fine := 0;
	FOR i IN 1 .. n LOOP
		BEGIN
			PERFORM redis_ping();
			fine := fine + 1;
		EXCEPTION WHEN SQLSTATE '08001' THEN
			IF SQLERRM ~ 'known to be down' THEN known := known + 1; ELSE tried := tried + 1; END IF;
		END;
	END LOOP;
END $$;

-- pings until there is an answer
CREATE PROCEDURE ping_until_fine() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM redis_ping();
			RETURN;
		EXCEPTION WHEN SQLSTATE '08001' THEN
			NULL;
		END;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
SQL
poll($closed, 'the worker is connected');
is(ping(), 'PONG', 'Redis answers');

# ---------------------------------------------------------------------------
# what does not open it

my $busy = 'for i = 1, 10000000 do end return 1';
my ($out, $err);
$node->psql('postgres',
	"SELECT redis_ping(); SET hybrid_cache.command_timeout = '1ms'; SELECT redis_command('EVAL', '$busy', 0)",
	stdout => \$out, stderr => \$err);
like($err, qr/timed out/, 'a command that is too slow');
is(sql($open), 'f', 'is no server that is down');

$redis->cli('CONFIG', 'SET', 'requirepass', 'secret');
like(ping(), qr/NOAUTH/, 'a server that asks for a password');
is(sql($open), 'f', 'is not down either');
$redis->cli('-a', 'secret', 'CONFIG', 'SET', 'requirepass', '');

like(ping("SET hybrid_cache.redis_url = 'unix:///nowhere';"), qr/could not connect/,
	'another server that cannot be reached');
is(sql($open), 'f', 'does not count');

# A session that has no patience: as long as the worker was just answered.  Where
# the machine is too slow for that, it is done again.
my ($begun, $is_open);
do
{
	$begun = Time::HiRes::time();
	sql("SET hybrid_cache.synchronous = on; SET hybrid_cache.sync_timeout = '60s'; UPDATE row SET v = v + 1");
	$redis->freeze;
	like(ping("SET hybrid_cache.connect_timeout = '1ms';"), qr/timed out|known to be down/,
		'a session that does not wait long enough');
	$is_open = sql($open);
	$redis->thaw;
	poll($closed, 'the worker is answered');
} while ($is_open eq 't' && Time::HiRes::time() - $begun > 2);
is($is_open, 'f', 'does not count while the worker is answered');

# ---------------------------------------------------------------------------
# Redis is killed

my $session = $node->background_psql('postgres', on_error_stop => 0);
is($session->query('SELECT redis_ping()'), 'PONG', 'a session with a connection');
$redis->kill9;
$session->query('SELECT redis_ping()');
like($session->{stderr}, qr/could not connect|known to be down/, 'finds out');
$session->{stderr} = '';
poll($open, 'and so everybody knows');
my ($known, $tried, $fine) = split /\|/, sql('SELECT * FROM pings(2000)');
is($fine, 0, 'nobody is answered');
cmp_ok($tried, '<', 20, 'few of 2000 calls try');
cmp_ok($known, '>', 1980, 'the others fail at once');

# Those that fail at once say since when and why.
my $message = '';
for (1 .. 1000)
{
	$message = ping();
	last if $message =~ /known/;
}
like($message, qr/ERROR:  Redis is known to be down\nDETAIL:  Since \d.*: could not connect to Redis server/,
	'the message says since when and why');
is(ping("SET hybrid_cache.redis_url = '@{[ $another->url ]}';"), 'PONG',
	'another server is not concerned');

# ---------------------------------------------------------------------------
# a server that takes connections and never answers, and sees who comes

unlink $redis->socket;
my $listener = IO::Socket::UNIX->new(Local => $redis->socket, Listen => 100)
  or die "could not listen: $!";
$listener->blocking(0);
my %open;        # connections of sessions: pid -> socket
my $overlaps = 0;
my @seen;        # pids in the order in which they came
my @worker_connections;

sub is_closed
{
	my ($socket) = @_;
	my $n;
	while (defined($n = sysread($socket, my $buffer, 1000)))
	{
		return 1 if $n == 0;
	}
	return !$!{EAGAIN};
}

# Takes those that have come; which processes have a connection open now.
sub look
{
	my $worker = shift;
	while (my $socket = $listener->accept)
	{
		my ($pid) = unpack 'i', getsockopt($socket, SOL_SOCKET, SO_PEERCRED);
		$socket->blocking(0);
		if ($pid == $worker)
		{
			push @worker_connections, $socket;
			next;
		}

		# Who came later must find the others gone.
		foreach (keys %open)
		{
			delete $open{$_} if is_closed($open{$_});
		}
		$overlaps++ if %open;
		$open{$pid} = $socket;
		push @seen, $pid;
	}
	return;
}

my $worker = sql('SELECT worker_pid FROM hybrid_cache.status');

# Looks until as many have come since.
sub look_until
{
	my ($n) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $target = @seen + $n;
	while (@seen < $target && time < $deadline)
	{
		IO::Select->new($listener)->can_read(0.1);
		look($worker);
	}
	return scalar @seen >= $target;
}

my @runs;
for (1 .. 8)
{
	my %run = (out => '', err => '');
	$run{handle} = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'CALL ping_until_fine()' ],
		'>', \$run{out}, '2>', \$run{err});
	push @runs, \%run;
}
ok(look_until(3), 'sessions try again');
is($overlaps, 0, 'one at a time');

# A probe that is cancelled or killed gives way to the next one.
ok(look_until(1), 'a session tries');
my $pid = $seen[-1];
sql("SELECT pg_cancel_backend($pid)");
ok(look_until(1), 'it is cancelled: another one tries');
isnt($seen[-1], $pid, 'another one');
$pid = $seen[-1];
sql("SELECT pg_terminate_backend($pid)");
ok(look_until(1), 'that is terminated: yet another one tries');
is($overlaps, 0, 'still one at a time');

# ---------------------------------------------------------------------------
# Redis comes back

close $listener;
%open = @worker_connections = ();
$redis->start;
my $failed = 0;
foreach my $run (@runs)
{
	$run->{handle}->finish;
	$failed++ if $run->{err} ne '';
}
is($failed, 2, 'all sessions but the two are answered when Redis is back');
poll($closed, 'it is known to be back');
is(ping(), 'PONG', 'everybody is answered');
is(sql('SELECT fine FROM pings(100)'), '100', 'always');

# The worker notices without any session.
$redis->kill9;
poll($open, 'the worker notices that Redis is down');
$redis->start;
poll($closed, 'and that it is back');
$session->{stderr} = '';
is($session->query('SELECT redis_ping()'), 'PONG', 'a session that was told before is answered');
$session->quit;

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'no process has crashed');
$node->stop;
done_testing();
