# A Redis that is absent, hangs, breaks off, talks nonsense or refuses: each
# time an error with the right SQLSTATE, in time, without the password, and the
# backend and its next query are fine.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use HybridCache::Redis;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $password = 's3cr3t/pass@word';
my $encoded = 's3cr3t%2Fpass%40word';

my $redis = HybridCache::Redis->new(
	requirepass => $password,
	user => "teller on >$encoded ~* +get +geosearch");
$redis->start;
my $socket = $redis->socket;
my $url = "unix://:$encoded\@$socket";

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'hybrid_cache'
log_statement = none
hybrid_cache.redis_url = '$url'
hybrid_cache.connect_timeout = 1h
hybrid_cache.command_timeout = 1h
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION hybrid_cache;
CREATE FUNCTION failure(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws('|', SQLSTATE, message, detail, hint);
END
$$;
));

# All that was said, to look for secrets in.
my @said;

#---------------------------------------------------------------------------
# A server that does what a test wants: for each connection it calls $greet
# with the socket, then for each command $answer with the socket and the
# command's words, until either returns false.
#---------------------------------------------------------------------------

my %fakes;

sub fake
{
	my ($greet, $answer) = @_;
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1', Listen => 10, ReuseAddr => 1)
	  or die "could not listen: $@";
	my $pid = fork;
	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		POSIX::setpgid(0, 0);
		$SIG{TERM} = 'DEFAULT';
		$SIG{PIPE} = 'IGNORE';
		$SIG{CHLD} = 'IGNORE';
		while (1)
		{
			my $client = $listener->accept or next;
			my $child = fork;
			if (defined $child && $child == 0)
			{
				my $go_on = $greet->($client);
				while ($go_on && defined(my $first = <$client>))
				{
					my @words;
					foreach (1 .. substr($first, 1))
					{
						my $header = <$client>;
						read $client, my $word, substr($header, 1) + 2;
						push @words, substr($word, 0, -2);
					}
					$go_on = $answer->($client, @words);
				}
				POSIX::_exit(0);
			}
			close $client;
		}
	}
	# Its processes, one for each connection, end together.
	POSIX::setpgid($pid, $pid);
	$fakes{$pid} = 1;
	return { pid => $pid, url => 'redis://127.0.0.1:' . $listener->sockport };
}

sub end_fake
{
	my ($fake) = @_;
	kill '-KILL', $fake->{pid};
	waitpid $fake->{pid}, 0;
	delete $fakes{ $fake->{pid} };
	return;
}

# One that answers PING, and anything else with the given bytes; then it closes
# the connection, or not.
sub fake_answer
{
	my ($bytes, $stay) = @_;
	return fake(
		sub { 1 },
		sub {
			my ($client, $command) = @_;
			syswrite $client, $command eq 'PING' ? "+PONG\r\n" : $bytes;
			return $command eq 'PING' || $stay;
		});
}

END
{
	local $?;
	kill '-KILL', keys %fakes if %fakes;
}

#---------------------------------------------------------------------------
# The session under test
#---------------------------------------------------------------------------

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query('SELECT pg_backend_pid()');

# The sockets that the backend has open.
sub sockets
{
	my @sockets = grep { (readlink($_) // '') =~ /^socket:/ } glob "/proc/$pid/fd/*";
	return scalar @sockets;
}

sub failure
{
	my ($command) = @_;
	$command =~ s/'/''/g;
	my $result = $session->query("SELECT failure('SELECT $command')");
	push @said, $result;
	return $result;
}

sub fails
{
	my ($command, $expected, $name) = @_;
	return like(failure($command), $expected, $name);
}

# The backend is the same one, and its next query and command work.
sub is_fine
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->query('RESET hybrid_cache.redis_url');
	return is(
		$session->query('SELECT pg_backend_pid(), redis_ping()'),
		"$pid|PONG", "$name: the backend is fine");
}

sub use_url
{
	$session->query("SET hybrid_cache.redis_url = '$_[0]'");
	return;
}

is_fine('at the beginning');
my $sockets = sockets();
cmp_ok($sockets, '>=', 2, 'open sockets can be counted');

#---------------------------------------------------------------------------
# Absent
#---------------------------------------------------------------------------

my $gone = fake(sub { 1 }, sub { 1 });
end_fake($gone);
use_url($gone->{url});
fails('redis_ping()', qr/^08001\|could not connect to Redis server "\Q$gone->{url}\E": Connection refused\|/,
	'a port where nobody listens');
is_fine('absent');

#---------------------------------------------------------------------------
# Hung
#---------------------------------------------------------------------------

my $hung = fake(sub { sleep 600 }, sub { 0 });

use_url($hung->{url});
$session->query("SET hybrid_cache.connect_timeout = '300ms'");
my $began = time;
fails('redis_ping()', qr/^08001\|could not connect .* timed out\|.*connect_timeout/,
	'a server that accepts and never answers');
my $took = time() - $began;
cmp_ok($took, '>=', 0.3, 'not before connect_timeout');
cmp_ok($took, '<', 60, 'and soon after it');
is_fine('hung');

my $mute = fake(
	sub { 1 },
	sub {
		my ($client, $command) = @_;
		syswrite $client, "+PONG\r\n" if $command eq 'PING';
		return 1;
	});
use_url($mute->{url});
$session->query("SET hybrid_cache.command_timeout = '300ms'");
$began = time;
fails(q(redis_get('k')), qr/^08006\|lost the connection .* timed out\|.*command_timeout/,
	'a server that stops answering');
$took = time() - $began;
cmp_ok($took, '>=', 0.3, 'not before command_timeout');
cmp_ok($took, '<', 60, 'and soon after it');
is_fine('stopped answering');
$session->query('RESET hybrid_cache.connect_timeout');
$session->query('RESET hybrid_cache.command_timeout');

# From here on the time limits are hours: only what is tested ends the wait.
foreach my $case ([ $hung, 'connecting' ], [ $mute, 'waiting for an answer' ])
{
	my ($fake, $when) = @$case;

	use_url($fake->{url});
	$session->query("SET statement_timeout = '200ms'");
	like(failure(q(redis_get('k'))), qr/^57014\|canceling statement due to statement timeout/,
		"statement_timeout while $when");
	$session->query('RESET statement_timeout');
	is_fine("statement_timeout while $when");

	use_url($fake->{url});
	$session->query_until(qr/started/,
		"\\echo started\nSELECT failure(\$\$SELECT redis_get('k')\$\$);\n");
	wait_until_waiting($pid);
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	like($session->query('SELECT 1'), qr/^57014\|canceling statement due to user request/,
		"a cancel while $when");
	is_fine("a cancel while $when");

	my $victim = $node->background_psql('postgres', on_error_stop => 0);
	my $victim_pid = $victim->query('SELECT pg_backend_pid()');
	$victim->query("SET hybrid_cache.redis_url = '$fake->{url}'");
	$victim->query_until(qr/started/,
		"\\echo started\nSELECT redis_get('k');\n");
	wait_until_waiting($victim_pid);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($victim_pid)");
	ok($node->poll_query_until('postgres',
			"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $victim_pid)"),
		"the backend ends when told to while $when");
	$victim->{run}->finish;
}
end_fake($hung);
end_fake($mute);

# An answer whose next byte is always there, but never the last one.
my $endless = fake(
	sub { 1 },
	sub {
		my ($client, $command) = @_;
		syswrite $client, $command eq 'PING' ? "+PONG\r\n" : "\$500000000\r\n";
		my $end = time + 60;
		while ($command ne 'PING' && time < $end)
		{
			syswrite $client, 'x' or last foreach 1 .. 1000;
		}
		return $command eq 'PING';
	});
use_url($endless->{url});
$session->query("SET statement_timeout = '200ms'");
like(failure(q(redis_get('k'))), qr/^57014\|canceling statement due to statement timeout/,
	'statement_timeout while an answer comes without end');
$session->query('RESET statement_timeout');
is_fine('statement_timeout while an answer comes without end');
use_url($endless->{url});
$session->query("SET hybrid_cache.command_timeout = '200ms'");
fails(q(redis_get('k')), qr/^08006\|lost the connection .* timed out\|/,
	'command_timeout while an answer comes without end');
$session->query('RESET hybrid_cache.command_timeout');
is_fine('command_timeout while an answer comes without end');
end_fake($endless);

sub wait_until_waiting
{
	my ($waiting_pid) = @_;
	$node->poll_query_until('postgres',
		"SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $waiting_pid")
	  or die 'the session does not wait for Redis';
	return;
}

# A real server that is stopped in between.
$redis->freeze;
$session->query("SET hybrid_cache.command_timeout = '300ms'");
fails(q(redis_get('k')), qr/^08006\|.*timed out/, 'a Redis that is frozen');
$session->query('RESET hybrid_cache.command_timeout');
$redis->thaw;
is_fine('frozen');

#---------------------------------------------------------------------------
# Breaking off, and nonsense
#---------------------------------------------------------------------------

my $closing = fake(sub { 0 }, sub { 0 });
use_url($closing->{url});
fails('redis_ping()', qr/^08001\|could not connect/, 'closing at once');
is_fine('closing at once');
end_fake($closing);

foreach my $case (
	[ '$100' . "\r\nabc", 'a string', qr/^08006\|lost the connection .*the server closed it/ ],
	[ "*3\r\n:1\r\n", 'an array', qr/^08006\|lost the connection .*the server closed it/ ],
	[ '', 'nothing', qr/^08006\|lost the connection/ ],
	[ "HTTP/1.1 400 Bad Request\r\n\r\n", 'what a web server says',
		qr/^08P01\|could not understand .*Protocol error, got "H"/ ],
	[ "\x16\x03\x01\x00", 'what a TLS server says', qr/^08P01\|/ ],
	[ ":12x\r\n", 'a number that is none', qr/^08P01\|/ ],
	[ '$-5' . "\r\n", 'a negative length', qr/^08P01\|/ ],
	[ "*99999999999999999999\r\n", 'a length beyond all bounds', qr/^08P01\|/ ],
	[ "*2000000000\r\n", 'an array beyond all memory', qr/^(53200|08P01)\|/ ],
	[ "*1\r\n" x 100, 'deep nesting', qr/^08P01\|/ ],
	[ "*1\r\n" x 1_000_000, 'nesting without end', qr/^08P01\|/ ],
	[ ":1\r\n", 'a number for a string', qr/^08P01\|unexpected reply.*Expected a string, got an integer/ ],
	[ "*0\r\n", 'an array for a string', qr/^08P01\|unexpected reply/ ],
	[ "-LOADING Redis is loading the dataset in memory\r\n", 'LOADING',
		qr/^38000\|.*\|LOADING Redis is loading/ ],
	[ "-READONLY You can't write against a read only replica.\r\n", 'READONLY', qr/^38000\|.*READONLY/ ],
	[ "-ERR\r\n", 'an error without words', qr/^38000\|.*\|ERR\|?$/ ],
	[ "-\r\n", 'an error without anything', qr/^38000\|/ ],
	[ "-NOPERM User teller has no permissions to run the 'get' command\r\n", 'NOPERM of Redis 7.2',
		qr/^42501\|.*This user has no permissions to run/ ])
{
	my ($bytes, $name, $expected) = @$case;
	my $fake = fake_answer($bytes);
	use_url($fake->{url});
	fails(q(redis_get('k')), $expected, $name);
	is_fine($name);
	end_fake($fake);
}

foreach my $case (
	[ "*3\r\n+a\r\n+b\r\n+c\r\n", q(redis_hgetall('k')), 'a field without value' ],
	[ "*2\r\n+a\r\n\$-1\r\n", q(redis_hgetall('k')), 'a field with nothing' ],
	[ "+OK\r\n", q(redis_hgetall('k')), 'no fields' ],
	[ "*1\r\n+m\r\n", q(redis_geosearch('k', 0, 0, 1)), 'a member without a place' ],
	[ "*1\r\n*3\r\n+m\r\n+1\r\n*1\r\n+1\r\n", q(redis_geosearch('k', 0, 0, 1)), 'a member with half a place' ],
	[ "*1\r\n*3\r\n+m\r\n+far\r\n*2\r\n+1\r\n+1\r\n", q(redis_geosearch('k', 0, 0, 1)), 'a member that is far' ],
	[ "+1.5x\r\n", q(redis_zscore('k', 'm')), 'a score that is no number' ],
	[ "+\r\n", q(redis_zscore('k', 'm')), 'an empty score' ],
	[ "+1\r\n", q(redis_ttl('k')), 'a string for a number' ])
{
	my ($bytes, $command, $name) = @$case;
	my $fake = fake_answer($bytes);
	use_url($fake->{url});
	fails($command, qr/^08P01\|unexpected reply from Redis\|Expected/, $name);
	is_fine($name);
	end_fake($fake);
}

# An answer too many is not taken for the next one.
my $talking = fake(
	sub { 1 },
	sub {
		my ($client, @words) = @_;
		syswrite $client, $words[0] eq 'PING' ? "+PONG\r\n" : "+$words[1]\r\n+surplus\r\n";
		return 1;
	});
use_url($talking->{url});
is($session->query(q(SELECT redis_get('a'), redis_get('b'))), 'a|b', 'surplus answers are no answers');
is_fine('surplus answers');
end_fake($talking);

# An answer in pieces is one answer.
my $slow = fake(
	sub { 1 },
	sub {
		my ($client, $command) = @_;
		foreach my $byte (split //, $command eq 'PING' ? "+PONG\r\n" : "*2\r\n\$5\r\nfield\r\n\$5\r\nvalue\r\n")
		{
			syswrite $client, $byte;
			Time::HiRes::usleep(1000);
		}
		return 1;
	});
use_url($slow->{url});
is($session->query(q(SELECT * FROM redis_hgetall('k'))), 'field|value', 'an answer in pieces');
is_fine('an answer in pieces');
end_fake($slow);

# One that turns us away says why.
my $full = fake(
	sub { 1 },
	sub { syswrite $_[0], "-ERR max number of clients reached\r\n"; 0 });
use_url($full->{url});
fails('redis_ping()', qr/^38000\|.*\|ERR max number of clients reached/, 'no more clients');
is_fine('no more clients');
end_fake($full);

#---------------------------------------------------------------------------
# Passwords and privileges.  The URLs with a password come as an option at
# connecting: PostgreSQL may log a SET.
#---------------------------------------------------------------------------

# The session's own log lines count too, so its errors are not caught.
sub psql_with_url
{
	my ($with, $query) = @_;
	local $ENV{PGOPTIONS} = "-c hybrid_cache.redis_url=$with";
	my ($status, $out, $err) =
	  $node->psql('postgres', $query, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	push @said, $out, $err;
	return ($out, $err);
}

my ($out, $err) = psql_with_url("unix://:wrong-$encoded\@$socket", 'SELECT redis_ping()');
like($err, qr/28P01: could not log in to Redis server "unix:\/\/\Q$socket\E"\nDETAIL:  WRONGPASS/, 'a wrong password');

($out, $err) = psql_with_url("unix://$socket", 'SELECT redis_ping()');
like($err, qr/28P01: .*\nDETAIL:  NOAUTH.*\nHINT:  Put the password into hybrid_cache.redis_url/, 'no password');

($out, $err) = psql_with_url("unix://teller:wrong-$encoded\@$socket", 'SELECT redis_ping()');
like($err, qr/28P01: could not log in/, 'a wrong password of a user');
unlike($err, qr/teller/, 'the user is not named');

my $tellers_url = "unix://teller:" . ($encoded =~ s/%/%25/gr) . "\@$socket";
($out, $err) = psql_with_url($tellers_url, q(SELECT redis_get('nothing') IS NULL));
is($out, 't', 'a user who may GET');
($out, $err) = psql_with_url($tellers_url, q(SELECT redis_set('k', 'v')));
like($err, qr/42501: .* refused the command\nDETAIL:  NOPERM .*no permissions to run.*\nHINT:/, 'and may not SET');
unlike($err, qr/teller/, 'the user is not named');

# A server that does not know AUTH repeats what it was sent.
my $old = fake(
	sub { 1 },
	sub {
		my ($client, $command, @arguments) = @_;
		syswrite $client, "-ERR unknown command '$command', with args beginning with: "
		  . join('', map { "'$_', " } @arguments) . "\r\n";
		return 1;
	});
($out, $err) = psql_with_url("redis://somebody:$encoded\@" . substr($old->{url}, 8), 'SELECT redis_ping()');
like($err, qr/38000: could not log in .*\nDETAIL:  ERR unknown command/, 'a server without AUTH');
unlike($err, qr/somebody/, 'the user is not repeated');
end_fake($old);

my $blunt = fake(sub { 1 }, sub { syswrite $_[0], "-DENIED $_[3] for $_[2]\r\n"; 1 });
($out, $err) = psql_with_url("redis://somebody:$encoded\@" . substr($blunt->{url}, 8), 'SELECT redis_ping()');
like($err, qr/38000: could not log in .*\nDETAIL:  DENIED\n/, 'a server that says it without quotes');
end_fake($blunt);

($out, $err) = psql_with_url("unix://:$encoded\@/nonexistent/redis.sock", 'SELECT redis_ping()');
like($err, qr/08001: could not connect to Redis server "unix:\/\/\/nonexistent\/redis.sock"/, 'no such socket');

($out, $err) = psql_with_url("redis://:$password\@localhost", 'SELECT 1');
like($err, qr/invalid value for parameter "hybrid_cache.redis_url"/, 'a password that is not encoded');

#---------------------------------------------------------------------------
# What a real Redis refuses
#---------------------------------------------------------------------------

is($redis->cli('RPUSH', 'list', 'a'), 1, 'a list');
fails(q(redis_get('list')), qr/^42809\|.*\|WRONGTYPE /, 'WRONGTYPE');
is_fine('WRONGTYPE');

$redis->cli('CONFIG', 'SET', 'maxmemory', '1');
fails(q(redis_set('k', 'v')), qr/^53200\|.*\|OOM .*\|.*maxmemory/, 'OOM');
is($session->query(q(SELECT redis_exists('list'))), '1', 'what needs no memory goes on');
$redis->cli('CONFIG', 'SET', 'maxmemory', '0');
is($session->query(q(SELECT redis_set('k', 'v'))), 't', 'and so does the rest when there is some');

# A connection that Redis closed between two calls is replaced unseen.
my $id = $session->query(q(SELECT redis_command('CLIENT', 'ID')));
$redis->cli('CLIENT', 'KILL', 'ID', $id);
for (my $i = 0; $redis->cli('CLIENT', 'LIST') =~ /^id=$id /m; $i++)
{
	die 'the client does not go' if $i > 1000;
	Time::HiRes::usleep(10_000);
}
isnt($session->query(q(SELECT redis_command('CLIENT', 'ID'))), $id, 'a new connection instead of a closed one');

$redis->kill9;
fails('redis_ping()', qr/^08001\|could not connect/, 'a Redis that was killed');
$redis->start;
is_fine('a Redis that came back');

#---------------------------------------------------------------------------
# Nothing is left behind, nothing was told
#---------------------------------------------------------------------------

use_url($gone->{url});
$session->query(q(SELECT count(failure('SELECT redis_ping()')) FROM generate_series(1, 200)));
is_fine('two hundred failures later');
is(sockets(), $sockets, 'no socket is left open');
is($session->query(q(SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'hybrid_cache connection')),
	'1', 'and no memory of a connection');

$session->quit;
$node->stop('fast');

my $log = slurp_file($node->logfile);
unlike($log, qr/s3cr3t|somebody|teller/, 'no password and no user in the server log');
unlike(join("\n", @said), qr/s3cr3t|somebody|teller/, 'nor in an error');
unlike($log, qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');

$redis->stop;
done_testing();
