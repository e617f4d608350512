# What the commands make of answers that no Redis would give them, and of a
# connection that breaks off between many of them: an error, never a crash, and
# the session goes on.

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

my $redis = HybridCache::Redis->new;
$redis->start;
my $url = 'unix://' . $redis->socket;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'hybrid_cache'
log_statement = none
hybrid_cache.redis_url = '$url'
));
$node->start;

my @calls = (
	"redis_ping()", "redis_get('k')", "redis_get_bytea('k')", "redis_mget('{a,b}')", "redis_mget_bytea('{a,b}')",
	"redis_set('k', 'v')", "redis_getdel('k')", "redis_incrby('k')", "redis_incrbyfloat('k', 1)", "redis_del('a', 'b')",
	"redis_exists('k')", "redis_expire('k', 1)", "redis_ttl('k')", "redis_type('k')", "redis_scan()", "redis_hget('k', 'f')",
	"redis_hmget('k', 'a', 'b')", "redis_hgetall('k')", "redis_hset('k', 'f', 'v')", "redis_hdel('k', 'f')",
	"redis_hincrby('k', 'f')", "redis_sadd('k', 'm')", "redis_smembers('k')", "redis_sismember('k', 'm')",
	"redis_zadd('k', 1, 'm')", "redis_zadd_many('k', '{1}', '{m}')", "redis_zincrby('k', 1, 'm')", "redis_zrem('k', 'm')",
	"redis_zscore('k', 'm')", "redis_zrank('k', 'm')", "redis_zrange('k', 0, 1)", "redis_zrangebyscore('k', 0, 1)",
	"redis_lpush('k', 'e')", "redis_lpop('k')", "redis_lpop('k', 2)", "redis_lrange('k', 0, 1)", "redis_llen('k')",
	"redis_xadd('k', '*', 'f', 'v')", "redis_xrange('k')", "redis_xlen('k')", "redis_publish('c', 'm')",
	"redis_eval('return 1')", "redis_pipeline('[[\"GET\", \"k\"], [\"GET\", \"k\"]]')");

$node->safe_psql('postgres', q(
CREATE EXTENSION hybrid_cache;
CREATE FUNCTION outcome(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT count(x::text) FROM ' || call || ' x';
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
));

# A server that greets like Redis and answers the first $n commands of a
# connection with the same bytes.  Then it closes; without $n it never does.
my %fakes;

sub fake
{
	my ($bytes, $n) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 10, ReuseAddr => 1)
	  or die "could not listen: $@";
	my $pid = fork;
	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		$SIG{TERM} = 'DEFAULT';
		$SIG{PIPE} = 'IGNORE';
		while (my $client = $listener->accept)
		{
			my $left = $n;
			while (defined(my $first = <$client>))
			{
				my $command;
				foreach (1 .. substr($first, 1))
				{
					my $header = <$client>;
					read $client, my $word, substr($header, 1) + 2;
					$command //= substr($word, 0, -2);
				}
				if ($command eq 'PING') { syswrite $client, "+PONG\r\n"; next }
				last if defined $left && $left-- == 0;
				syswrite $client, $bytes;
			}
			close $client;
		}
		POSIX::_exit(0);
	}
	$fakes{$pid} = 1;
	return { pid => $pid, url => 'redis://127.0.0.1:' . $listener->sockport };
}

sub end_fake
{
	my ($fake) = @_;
	kill 'KILL', $fake->{pid};
	waitpid $fake->{pid}, 0;
	delete $fakes{ $fake->{pid} };
	return;
}

END
{
	local $?;
	kill 'KILL', keys %fakes if %fakes;
}

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query('SELECT pg_backend_pid()');

sub is_fine
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->query('RESET hybrid_cache.redis_url');
	return is($session->query('SELECT pg_backend_pid(), redis_ping()'), "$pid|PONG", "$name: the session goes on");
}

# The outcomes of all calls, each with how many there were.
sub outcomes
{
	my %outcomes;
	foreach my $call (@calls)
	{
		my $quoted = $call =~ s/'/''/gr;
		$outcomes{ $session->query("SELECT outcome('$quoted')") }++;
	}
	return join ' ', map { "$_:$outcomes{$_}" } sort keys %outcomes;
}

foreach my $case (
	[ 'a number', ":7\r\n" ],
	[ 'a string', "\$1\r\nx\r\n" ],
	[ 'an empty string', "\$0\r\n\r\n" ],
	[ 'bytes', "\$2\r\n\xff\0\r\n" ],
	[ 'a status', "+OK\r\n" ],
	[ 'nothing', "\$-1\r\n" ],
	[ 'no array', "*-1\r\n" ],
	[ 'an empty array', "*0\r\n" ],
	[ 'an odd array', "*1\r\n\$1\r\nx\r\n" ],
	[ 'an array of nothing', "*2\r\n\$-1\r\n\$-1\r\n" ],
	[ 'an array of numbers', "*2\r\n:1\r\n:2\r\n" ],
	[ 'an array of arrays', "*2\r\n*2\r\n:1\r\n*0\r\n*1\r\n:1\r\n" ],
	[ 'an array of errors', "*2\r\n-ERR one\r\n-ERR two\r\n" ],
	[ 'an error', "-ERR none of that\r\n" ])
{
	my ($name, $bytes) = @$case;
	my $fake = fake($bytes);

	# SCAN goes on for ever where 0 is never answered
	$session->query("SET hybrid_cache.redis_url = '$fake->{url}'");
	my $outcomes = outcomes();
	like($outcomes, qr/^((08P01|22021|38000|ok):\d+ ?)+$/, "$name instead of an answer: $outcomes");
	is_fine($name);
	end_fake($fake);
}

#---------------------------------------------------------------------------
# Breaking off between the answers to many commands
#---------------------------------------------------------------------------

foreach my $case (
	[ "redis_del(VARIADIC ARRAY(SELECT i::text FROM generate_series(1, 5000) i))", ":1\r\n" ],
	[ "redis_sadd('k', VARIADIC ARRAY(SELECT i::text FROM generate_series(1, 50000) i))", ":1\r\n" ],
	[ "redis_mget(ARRAY(SELECT i::text FROM generate_series(1, 50000) i))", "*1000\r\n" . "\$-1\r\n" x 1000 ],
	[ "redis_pipeline((SELECT jsonb_agg(jsonb_build_array('GET', i)) FROM generate_series(1, 20000) i))", "\$1\r\nx\r\n" ])
{
	my ($call, $bytes) = @$case;
	my $fake = fake($bytes, 3);
	my $name = $call =~ s/\(.*//r;

	$session->query("SET hybrid_cache.redis_url = '$fake->{url}'");
	is($session->query("SELECT outcome(\$\$$call\$\$)"), '08006', "$name: the connection is lost after three answers");
	is_fine($name);
	end_fake($fake);
}

# An error in the middle: the answers to what was sent with it answer nothing else.
$session->query("SELECT redis_set('string', 'value')");
foreach (1 .. 3)
{
	is($session->query("SELECT outcome(\$\$redis_sadd('string', VARIADIC ARRAY(SELECT i::text FROM generate_series(1, 30000) i))\$\$)"),
		'42809', 'an error of the first of many commands');
	is($session->query("SELECT redis_get('string')"), 'value', 'and the next command gets its own answer');
}

$session->quit;
$node->stop;
$redis->stop;
done_testing();
