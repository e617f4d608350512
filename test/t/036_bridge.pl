# Messages that Redis publishes become notifications: each once, in order, with
# what cannot be one left out; through restarts, silences and refusals.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll in_log);
use IO::Select;
use IO::Socket::UNIX;
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
my $node = start_server($redis, <<'CONF');
hybrid_cache.command_timeout = 1s
CONF
sql('CREATE EXTENSION hybrid_cache');

# Sessions that listen, and what they have heard: [channel, payload], ...

sub listen_to
{
	my ($database, @channels) = @_;
	my $listener = { in => '', out => '', heard => [] };
	$listener->{psql} = IPC::Run::start(
		[
			'psql', '-XAtq', '-d',
			$node->connstr($database) . ' client_encoding=UTF8'
		],
		'<', \$listener->{in}, '>', \$listener->{out},
		IPC::Run::timeout(5 * $PostgreSQL::Test::Utils::timeout_default));
	$listener->{in} .= "LISTEN $_;\n" for @channels;
	hear($listener);
	return $listener;
}

# psql prints what has come after each command.
sub hear
{
	my ($listener) = @_;
	$listener->{in} .= "SELECT 1;\n\\echo done\n";
	$listener->{psql}->pump until $listener->{out} =~ /^done\n\z/m;
	my $quote = qr/Asynchronous notification "(.*?)"(?: with payload "(.*?)")? received from server process with PID \d+\.\n/s;
	push @{ $listener->{heard} }, [ $1, $2 // '' ] while $listener->{out} =~ /$quote/g;
	$listener->{out} = '';
	return;
}

# What is heard, as "channel: payload"; waits until there are so many.
sub heard
{
	my ($listener, $count) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	hear($listener);
	while (@{ $listener->{heard} } < $count && time < $end)
	{
		select undef, undef, undef, 0.01;
		hear($listener);
	}
	my @heard = map { "$_->[0]: $_->[1]" } @{ $listener->{heard} };
	$listener->{heard} = [];
	return @heard;
}

# Tests: exactly this is heard, and nothing else, in this order or sorted.
sub hears
{
	my ($listener, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ heard($listener, scalar @$expected) ], $expected, $what);
	return;
}

sub hears_sorted
{
	my ($listener, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ sort(heard($listener, scalar @$expected)) ], $expected, $what);
	return;
}

sub publish { return $redis->cli('PUBLISH', @_); }

sub subscribed
{
	my ($pattern, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	poll("SELECT subscribed_at IS NOT NULL FROM hybrid_cache.bridges WHERE pattern = '$pattern'",
		$what);
	return;
}

sub shown
{
	my ($column, $pattern) = @_;
	return sql("SELECT $column FROM hybrid_cache.bridges WHERE pattern = '$pattern'");
}

my $bridge = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'hybrid_cache bridge'";
is(sql($bridge), '0', 'nobody needs a bridge process');

# ---------------------------------------------------------------- what arrives
sql("SELECT hybrid_cache.bridge('news:*', 'news')");
subscribed('news:*', 'a bridge is subscribed');
my $listener = listen_to('postgres', 'news', 'detail', 'twin', 'other');
publish('news:a', 'hello');
publish('elsewhere', 'not for us');
publish('news:b', '');
hears($listener, [ 'news: hello', 'news: ' ], 'messages arrive');

publish('news:a', $_) for 1 .. 20;
hears($listener, [ map { "news: $_" } 1 .. 20 ], '... in order');

# in one write of Redis, so that they share transactions
$redis->cli('EVAL',
	"for i = 1, 300 do redis.call('PUBLISH', 'news:a', math.floor(i / 3)) end", 0);
hears($listener, [ map { 'news: ' . int($_ / 3) } 1 .. 300 ], 'those that are the same count each');

my $longest = 'x' x 7999;
$redis->cli('EVAL', <<'LUA', 0);
redis.call('PUBLISH', 'news:a', string.rep('x', 7999))
redis.call('PUBLISH', 'news:a', string.rep('x', 8000))
redis.call('PUBLISH', 'news:a', string.rep('x', 1000000))
redis.call('PUBLISH', 'news:a', 'a\0b')
redis.call('PUBLISH', 'news:a', '\255')
redis.call('PUBLISH', 'news:a', 'ü')
LUA
hears($listener, [ "news: $longest", 'news: ü' ], 'what cannot be a notification is dropped');
is(shown('messages, dropped, interruptions', 'news:*'), '324|4|0', '... and counted');
in_log(qr/drops a message for channel "news": it is too long for a notification/, '... and logged');

# ---------------------------------------------------------------- several bridges
sql(q{SELECT hybrid_cache.bridge('news:*', 'detail', with_channel => true)});
sql(q{SELECT hybrid_cache.bridge('news:[st]*', 'twin')});
sql(q{SELECT hybrid_cache.bridge('o', 'other')});
poll('SELECT count(*) = 4 FROM hybrid_cache.bridges WHERE subscribed_at IS NOT NULL',
	'more bridges');
# Redis gives a message to the patterns in an order of its own
publish('news:sport', 'say "hi"');
hears_sorted(
	$listener,
	[
		'detail: {"channel": "news:sport", "message": "say \"hi\""}',
		'news: say "hi"',
		'twin: say "hi"'
	],
	'each has its own');
publish('o', '1');
hears($listener, ['other: 1'], '... and no other');

sql(q{BEGIN; SELECT hybrid_cache.drop_bridge('news:*', 'news');
	SELECT hybrid_cache.drop_bridge('news:[st]*', 'twin'); ROLLBACK});
sql(q{SELECT hybrid_cache.drop_bridge('news:[st]*', 'twin')});
poll("SELECT redis_command('PUBSUB', 'NUMPAT') = '2'", 'one is dropped');
sql(q{SELECT hybrid_cache.drop_bridge('news:*', 'detail')});
sql(q{SELECT hybrid_cache.bridge('last', 'other')});
subscribed('last', 'and one is added');
publish('news:sport', '2');
publish('last', '3');
hears($listener, [ 'news: 2', 'other: 3' ], 'the others go on');
is(shown('interruptions', 'news:*'), '0', '... without an interruption');

# ---------------------------------------------------------------- many
$redis->cli('EVAL',
	"for i = 1, 20000 do redis.call('PUBLISH', 'o', string.rep('y', 100) .. i) end", 0);
poll(q{SELECT messages = 20001 FROM hybrid_cache.bridges WHERE pattern = 'o'}, 'many messages');
hears($listener, [ map { 'other: ' . 'y' x 100 . $_ } 1 .. 20000 ], '... arrive');

# ---------------------------------------------------------------- Redis
$redis->stop;
poll('SELECT count(*) = 3 FROM hybrid_cache.bridges WHERE subscribed_at IS NULL',
	'Redis is away');
$redis->start;
subscribed('last', 'Redis is back');
publish('last', '4');
hears($listener, ['other: 4'], '... and is heard');
is(shown('interruptions', 'last'), '1', 'the interruption is counted');
my $log = slurp_file($node->logfile);
my %failures;
$failures{$_}++ for $log =~ /bridge for postgres fails: (.*)/g;
ok(%failures && !grep({ $_ > 1 } values %failures), 'a failure is logged once');
like($log, qr/bridge for postgres works again/, '... and its end');

$redis->freeze;
poll('SELECT count(*) = 3 FROM hybrid_cache.bridges WHERE subscribed_at IS NULL',
	'a Redis that says nothing is noticed');
$redis->thaw;
subscribed('last', '... until it answers');
publish('last', '5');
hears($listener, ['other: 5'], '... and is heard');

$redis->cli('CLIENT', 'KILL', 'TYPE', 'pubsub');
poll(q{SELECT interruptions = 3 AND subscribed_at IS NOT NULL FROM hybrid_cache.bridges WHERE pattern = 'last'},
	'a connection that is cut is made again');

# ---------------------------------------------------------------- rights in Redis
sql(q{SELECT hybrid_cache.bridge('forbidden', 'other')});
subscribed('forbidden', 'everything is allowed');
$redis->cli('ACL', 'SETUSER', 'default', 'resetchannels', '&news:*', '&last', '&o');
poll(q{SELECT subscribed_at IS NULL FROM hybrid_cache.bridges WHERE pattern = 'forbidden'},
	'a pattern is forbidden');
subscribed('last', 'others are not');
publish('last', '6');
hears($listener, ['other: 6'], '... and are heard');
in_log(qr/bridge for postgres cannot subscribe to "forbidden".*\n.*NOPERM/, '... which is logged');
$redis->cli('ACL', 'SETUSER', 'default', 'allchannels');
subscribed('forbidden', 'it is tried again');
is(scalar(() = slurp_file($node->logfile) =~ /cannot subscribe/g), 1, '... and was logged once');
sql(q{SELECT hybrid_cache.drop_bridge('forbidden', 'other')});

# ---------------------------------------------------------------- processes
my $pid = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'hybrid_cache bridge'");
sql("SELECT pg_terminate_backend($pid)");
poll("SELECT pid <> $pid FROM pg_stat_activity WHERE backend_type = 'hybrid_cache bridge'",
	'a process that is ended is started again');
subscribed('last', '... and subscribes');
publish('last', '7');
hears($listener, ['other: 7'], '... and is heard');
is(shown('messages >= 4', 'last'), 't', 'what was counted stays');

my $other = HybridCache::Redis->new;
$other->start;
sql(qq{ALTER SYSTEM SET hybrid_cache.redis_url = '@{[ $other->url ]}'});
sql('SELECT pg_reload_conf()');
poll("SELECT redis_command('PUBSUB', 'NUMPAT') = '3'", 'another server is listened to');
$other->cli('PUBLISH', 'last', '8');
publish('last', 'not any more');
hears($listener, ['other: 8'], '... and the first is not');
sql('ALTER SYSTEM RESET hybrid_cache.redis_url');
sql('SELECT pg_reload_conf()');
poll("SELECT redis_command('PUBSUB', 'NUMPAT') = '3'", 'and the first again');

# ---------------------------------------------------------------- nonsense
# A server between us and Redis that answers the first subscriptions with nonsense.
my @nonsense = (
	":5\r\n",
	"*1\r\n*1\r\n*1\r\n:1\r\n",
	"HTTP/1.1 400 Bad Request\r\n\r\n",
	"*4\r\n\$8\r\npmessage\r\n\$-1\r\n\$-1\r\n\$-1\r\n",
	"*4\r\n\$8\r\npmessage\r\n:1\r\n:2\r\n:3\r\n");
my $liar_path = PostgreSQL::Test::Utils::tempdir_short() . '/liar';
my $liar_socket = IO::Socket::UNIX->new(Local => $liar_path, Listen => 20)
  or die "could not listen: $!";
my $liar = fork // die "could not fork: $!";
if ($liar == 0)
{
	lie($_) while $_ = $liar_socket->accept;
	POSIX::_exit(0);
}
close $liar_socket;

# One connection, in a process of its own unless it was given nonsense.
sub lie
{
	my ($client) = @_;
	my $server = IO::Socket::UNIX->new(Peer => $redis->socket) or return;
	my ($from_client, $from_server) = ('', '');
	local $SIG{CHLD} = 'IGNORE';

	# the login says nothing of what follows; a bridge subscribes next
	sysread($client, $from_client, 65536) or return;
	syswrite($server, $from_client);
	sysread($server, $from_server, 65536) or return;
	syswrite($client, $from_server);
	if (@nonsense && IO::Select->new($client)->can_read(1))
	{
		sysread($client, $from_client, 65536) or return;
		if ($from_client =~ /PSUBSCRIBE/)
		{
			syswrite($client, shift @nonsense);
			IO::Select->new($client)->can_read(10);
			return;
		}
		syswrite($server, $from_client);
	}
	return if fork;
	my $select = IO::Select->new($client, $server);
	for (;;)
	{
		foreach my $from ($select->can_read)
		{
			my $bytes;
			sysread($from, $bytes, 65536) or POSIX::_exit(0);
			syswrite($from == $client ? $server : $client, $bytes);
		}
	}
}

sql(qq{ALTER SYSTEM SET hybrid_cache.redis_url = 'unix://$liar_path'});
sql('SELECT pg_reload_conf()');
poll(
	qq{SELECT count(*) = 3 FROM hybrid_cache.bridges WHERE subscribed_at IS NOT NULL
		AND pg_read_file('@{[ $node->logfile ]}') LIKE '%bridge for postgres fails: unexpected reply%works again%'},
	'nonsense ends connections, until there is sense');
in_log(qr/Expected a string, got nothing.|bridge for postgres fails: could not understand Redis/,
	'... and is called so');
$listener->{heard} = [];
publish('last', '9');
hears($listener, ['other: 9'], '... and is heard');
sql('ALTER SYSTEM RESET hybrid_cache.redis_url');
sql('SELECT pg_reload_conf()');
kill 'KILL', $liar;
waitpid $liar, 0;
poll("SELECT redis_command('PUBSUB', 'NUMPAT') = '3'", 'and the first again');

# ---------------------------------------------------------------- databases
$node->safe_psql('postgres',
	"CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
$node->safe_psql('latin', 'CREATE EXTENSION hybrid_cache');
$node->safe_psql('latin', "SELECT hybrid_cache.bridge('last', 'other')");
$node->poll_query_until('latin', 'SELECT subscribed_at IS NOT NULL FROM hybrid_cache.bridges');
my $latin = listen_to('latin', 'other');
publish('last', 'ü');
publish('last', '€');
publish('last', 'ok');
hears($latin, [ 'other: ü', 'other: ok' ], 'another encoding');
hears($listener, [ 'other: ü', 'other: €', 'other: ok' ], '... beside this one');
$latin->{psql}->kill_kill;

# a dump has the bridges
my $dump = $node->backup_dir . '/bridges.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ],
	'restore');
ok( $node->poll_query_until(
		'copy', 'SELECT count(*) = 3 FROM hybrid_cache.bridges WHERE subscribed_at IS NOT NULL'),
	'a restored database has the bridges');
$node->safe_psql('postgres', 'DROP DATABASE copy');
$node->safe_psql('postgres', 'DROP DATABASE latin');
pass('they do not block DROP DATABASE');

# ---------------------------------------------------------------- the end
sql('SELECT count(hybrid_cache.drop_bridge(pattern, channel)) FROM hybrid_cache.bridged');
poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache bridge'", 'without bridges there is no process');
sql("SELECT hybrid_cache.bridge('a', 'other')");
subscribed('a', 'it comes back');
sql('DROP EXTENSION hybrid_cache');
poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache bridge'",
	'it ends with the extension');
is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'hybrid_cache launcher'"),
	'1', 'the launcher stays');

$listener->{in} .= "\\q\n";
$listener->{psql}->finish;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'nothing crashed');
done_testing();
