=pod

=head1 NAME

HybridCache::Redis - a private Redis server for a test

=head1 SYNOPSIS

  use HybridCache::Redis;

  my $redis = HybridCache::Redis->new(requirepass => 'secret');
  $redis->start;
  $node->append_conf('postgresql.conf', "hybrid_cache.redis_url = '" . $redis->url . "'");
  is($redis->cli('GET', 'key'), 'value');
  $redis->stop;    # its files stay, start() continues with them
  $redis->kill9;

=head1 DESCRIPTION

The server listens on a unix socket in a folder of its own under the test's
short temporary folder; it has no port and saves nothing, unless the
configuration given to new() says otherwise.  Whatever still runs when the test
ends is stopped.

=cut

package HybridCache::Redis;

use strict;
use warnings;

use Carp;
use POSIX ();
use PostgreSQL::Test::Utils;
use Time::HiRes ();

my @started;

# The time that a server may take to come up or to go, in seconds.
my $patience = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

=head1 METHODS

=over

=item HybridCache::Redis->new(%conf)

A server that is not started.  %conf are redis.conf directives; a directive
that is given several times takes an array reference.

=cut

sub new
{
	my ($class, %conf) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();

	my $self = bless {
		dir => $dir,
		conf => {
			port => 0,
			save => '""',
			dir => $dir,
			unixsocket => "$dir/redis.sock",
			logfile => "$dir/redis.log",
			daemonize => 'no',
			%conf
		}
	}, $class;
	push @started, $self;
	return $self;
}

=item $redis->start

Starts the server and returns when it answers.

A Redis 7.0 that was killed while it wrote a transaction to its append-only file
leaves the part that it had written there.  It does not run that, but it runs it
together with the next transaction when it is started once more.  So the file is
written anew where that has happened.

=cut

sub start
{
	my ($self) = @_;
	croak 'this Redis server runs already' if $self->{pid};

	open my $fh, '>', "$self->{dir}/redis.conf" or croak "redis.conf: $!";
	foreach my $name (sort keys %{ $self->{conf} })
	{
		my $value = $self->{conf}{$name};
		print $fh "$name $_\n" foreach ref $value ? @$value : $value;
	}
	close $fh or croak "redis.conf: $!";

	# A socket file of a killed server would look like one that refuses.
	unlink $self->socket;
	my $log_end = -s "$self->{dir}/redis.log" || 0;

	my $pid = fork;
	croak "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$self->{dir}/redis.out";
		open STDERR, '>&', \*STDOUT;
		exec { _program('redis-server') }
		  'redis-server', "$self->{dir}/redis.conf"
		  or POSIX::_exit(127);
	}
	$self->{pid} = $pid;

	my $end = Time::HiRes::time() + $patience;
	while (($self->_run_cli('PING'))[0] !~ /^(PONG|NOAUTH|NOPERM)/)
	{
		if (waitpid($pid, POSIX::WNOHANG()) == $pid)
		{
			delete $self->{pid};
			croak 'redis-server did not start: '
			  . PostgreSQL::Test::Utils::slurp_file("$self->{dir}/redis.log");
		}
		croak 'redis-server does not answer' if Time::HiRes::time() > $end;
		Time::HiRes::usleep(20_000);
	}
	my $log = PostgreSQL::Test::Utils::slurp_file("$self->{dir}/redis.log", $log_end);
	$self->_rewrite if $log =~ /short read while loading the AOF/;
	return;
}

# Has the append-only file written anew.
sub _rewrite
{
	my ($self) = @_;
	my $end = Time::HiRes::time() + $patience;

	$self->cli('BGREWRITEAOF');
	while ($self->cli('INFO', 'persistence') !~ /aof_rewrite_in_progress:0.*aof_rewrites:[1-9]/s)
	{
		croak 'redis-server does not write its file anew' if Time::HiRes::time() > $end;
		Time::HiRes::usleep(20_000);
	}
	return;
}

=item $redis->stop

Stops the server in the orderly way, which saves if its configuration says so.

=item $redis->kill9

Kills it, as a crash would.

=cut

sub stop
{
	my ($self) = @_;
	$self->_end('TERM');
	return;
}

sub kill9
{
	my ($self) = @_;
	$self->_end('KILL');
	return;
}

sub _end
{
	my ($self, $signal) = @_;
	my $pid = delete $self->{pid} or return;

	# One that is stopped by freeze() would not see a SIGTERM.
	kill 'CONT', $pid;
	kill $signal, $pid;
	my $end = Time::HiRes::time() + $patience;
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		kill 'KILL', $pid if Time::HiRes::time() > $end;
		Time::HiRes::usleep(5_000);
	}
	return;
}

=item $redis->freeze

=item $redis->thaw

The server accepts connections and does not answer, until it is thawed.

=cut

sub freeze
{
	my ($self) = @_;
	kill 'STOP', $self->{pid} or croak "could not stop redis-server: $!";
	return;
}

sub thaw
{
	my ($self) = @_;
	kill 'CONT', $self->{pid} or croak "could not continue redis-server: $!";
	return;
}

=item $redis->pid

The process id, undef while it does not run.

=item $redis->dir

The folder of its files.

=item $redis->socket

The path of its unix socket.

=item $redis->port

Its TCP port, 0 if it has none.

=item $redis->url($db)

The value for hybrid_cache.redis_url, without user and password.

=cut

sub pid { return $_[0]->{pid}; }
sub dir { return $_[0]->{dir}; }
sub socket { return $_[0]->{conf}{unixsocket}; }
sub port { return $_[0]->{conf}{port}; }

sub url
{
	my ($self, $db) = @_;
	return 'unix://' . $self->socket . ($db ? "?db=$db" : '');
}

=item $redis->cli(@args)

What redis-cli prints for a command, without the last newline: raw, one line
per element, error replies included.  Options of redis-cli (such as -n 3) go
first.  Dies if the server cannot be reached.

=cut

sub cli
{
	my ($self, @args) = @_;
	my ($out, $err, $status) = $self->_run_cli(@args);

	croak "redis-cli @args: $err" if $status != 0 && $out eq '';
	return $out;
}

sub _run_cli
{
	my ($self, @args) = @_;
	my @auth;

	if (defined(my $password = $self->{conf}{requirepass}))
	{
		@auth = ('--no-auth-warning', '-a', $password);
	}

	# Read through files: a large reply must not fill a pipe that nobody reads.
	my $base = "$self->{dir}/cli";
	my $pid = fork;
	croak "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', "$base.out";
		open STDERR, '>', "$base.err";
		exec { _program('redis-cli') }
		  'redis-cli', '-s', $self->socket, @auth, @args
		  or POSIX::_exit(127);
	}
	{
		local $?;
		waitpid $pid, 0;
		my $status = $?;
		my $out = PostgreSQL::Test::Utils::slurp_file("$base.out");
		my $err = PostgreSQL::Test::Utils::slurp_file("$base.err");
		$out =~ s/\n\z//;
		return ($out, $err, $status);
	}
}

# The program of that name, or what the environment names instead of it:
# REDIS_SERVER, REDIS_CLI.
sub _program
{
	my ($name) = @_;
	(my $variable = uc $name) =~ tr/-/_/;
	return $ENV{$variable} || $name;
}

END
{
	# Keep the test's exit status.
	local $?;
	$_->_end('KILL') foreach @started;
}

=back

=cut

1;
