=pod

=head1 NAME

HybridCache::Proxy - a network that fails, between PostgreSQL and Redis

=head1 SYNOPSIS

  use HybridCache::Proxy;
  use HybridCache::Redis;

  my $redis = HybridCache::Redis->new;
  $redis->start;
  my $proxy = HybridCache::Proxy->new($redis);
  $node->append_conf('postgresql.conf', "hybrid_cache.redis_url = '" . $proxy->url . "'");

  $proxy->delay(20);        # every chunk takes 20 ms more, both ways
  $proxy->truncate(100);    # 100 bytes more reach Redis, then the line is cut
  $proxy->refuse;           # nobody gets in
  $proxy->cut;              # and nobody stays
  $proxy->pass;             # as if there were no proxy

  # Deliver the bytes of an old connection after a newer one has worked.
  $proxy->hold;
  ...;                      # the worker sends a batch, until $proxy->status->{held} > 0
  $proxy->abandon;          # the worker sees a closed connection, and opens another
  ...;
  my $replies = $proxy->release;    # what Redis said to the late bytes

=head1 DESCRIPTION

A process of its own that listens on a unix socket in the test's short temporary
folder and passes what it reads to the unix socket of a Redis server, one
connection there for each connection here.  The test rules it by method calls.
A call returns when the process has done it; no call waits for Redis or for a
client, except release() of connections whose clients are gone.  What
redis-cli does (see HybridCache::Redis) does not come this way.

The process ends with the test, however the test ends.

=cut

package HybridCache::Proxy;

use strict;
use warnings;

use Carp;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use IO::Select;
use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use POSIX ();
use Socket qw(AF_UNIX PF_UNSPEC SHUT_WR SOCK_STREAM);
use Time::HiRes ();

my @started;

# The time that a call may take, in seconds.
my $patience = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

# Of a connection that is not held, no more is read than this ahead of what was
# written.
use constant MAX_AHEAD => 4 * 1024 * 1024;

=head1 METHODS

=over

=item HybridCache::Proxy->new($redis)

A proxy that runs and passes everything.  $redis is a HybridCache::Redis or the
path of a unix socket; the server need not run.

=cut

sub new
{
	my ($class, $redis) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();

	my $self = bless {
		socket => "$dir/proxy.sock",
		upstream => ref $redis ? $redis->socket : $redis,
		owner => $$
	}, $class;
	my ($ours, $its) = IO::Socket->socketpair(AF_UNIX, SOCK_STREAM, PF_UNSPEC)
	  or croak "could not make a pair of sockets: $!";

	# Made here, so that whoever connects from now on finds it.
	my $listener = _listen($self->{socket})
	  or croak "could not listen on \"$self->{socket}\": $!";

	my $pid = fork;
	croak "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		# Nothing of the test may happen here: no END block, no handler, no
		# pipe that somebody else waits to see closed.
		$SIG{$_} = 'DEFAULT' foreach qw(TERM HUP CHLD ALRM);
		delete @SIG{qw(__DIE__ __WARN__)};
		$SIG{INT} = $SIG{PIPE} = 'IGNORE';
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', '/dev/null';
		close $ours;
		eval {
			_serve(
				{
					control => $its,
					listener => $listener,
					socket => $self->{socket},
					upstream => $self->{upstream}
				});
			1;
		} or print STDERR "proxy: $@";
		POSIX::_exit(0);
	}
	close $its;
	$self->{pid} = $pid;
	$self->{control} = $ours;
	push @started, $self;
	return $self;
}

=item $proxy->url($db)

The value for hybrid_cache.redis_url, without user and password.

=item $proxy->socket

The path of its unix socket.

=cut

sub socket { return $_[0]->{socket}; }

sub url
{
	my ($self, $db) = @_;
	return 'unix://' . $self->socket . ($db ? "?db=$db" : '');
}

=item $proxy->pass

From now on everything passes: takes back delay(), refuse(), truncate(), spoil()
and drop_replies().  Connections that are held stay held.

=item $proxy->delay($ms)

Each chunk that is read, of either direction, is passed on that much later.

=item $proxy->cut

Closes every connection that is not held, and forgets what it had not passed on.

=item $proxy->refuse

From now on connecting fails (ECONNREFUSED).  Connections that exist stay.

=item $proxy->truncate($bytes)

That many bytes more are passed to Redis, of all connections together; then the
connection that brings more is cut, and truncation is over.

=item $proxy->drop_replies($text)

From now on what Redis answers is thrown away; with a text, from when a client
sends that, so that it does not depend on what is under way.  pass() ends it; the
replies of a connection are out of step then, as on no real network: cut() it
before.

=item $proxy->spoil($n)

The next answer of Redis that is the integer $n becomes an error that nobody
knows, C<ERR spoiled>.

=cut

sub pass { return $_[0]->_call('pass'); }
sub delay { return $_[0]->_call('delay', $_[1]); }
sub cut { return $_[0]->_call('cut'); }
sub refuse { return $_[0]->_call('refuse'); }
sub truncate { return $_[0]->_call('truncate', $_[1]); }
sub drop_replies { return $_[0]->_call('drop_replies', _text($_[1])); }
sub spoil { return $_[0]->_call('spoil', $_[1]); }

=item $proxy->hold($text)

The connections that exist now are held: what their clients send is kept and not
passed on.  With a text, the next one that sends that is held, from there on.
Their replies pass.  Connections made later pass.  When a client closes a
connection that is held, the connection to Redis stays open.

=item $proxy->abandon

Closes the held connections towards their clients, and keeps what they hold.

=item $proxy->release

Passes on what is held.  A connection whose client is still there works on.  Of
one whose client is gone, this closes the connection to Redis after the last
byte, and waits until Redis has read it all and closed it too: the late bytes
have had their effect then.  Returns what Redis replied to those, as it came.

=item $proxy->discard

Closes the held connections, at both ends, without passing on anything.

=cut

sub hold { return $_[0]->_call('hold', _text($_[1])); }
sub abandon { return $_[0]->_call('abandon'); }
sub discard { return $_[0]->_call('discard'); }
sub release { return pack 'H*', $_[0]->_call('release'); }

=item $proxy->status

A hash: connections (that a client has open now), accepted (connections so far),
refused (connections that failed because Redis refused), held (bytes), held_connections,
to_redis and to_client (bytes passed so far).

=cut

sub status
{
	my ($self) = @_;
	return { split /[= ]/, $self->_call('status') };
}

# A text as the argument of a call, or none.
sub _text { return defined $_[0] ? 'x' . unpack('H*', $_[0]) : undef; }

# Have the process do something: returns what it answers.
sub _call
{
	my ($self, $verb, $number) = @_;
	my $answer = '';

	croak "$verb: not a number" if defined $number && $number !~ /^(?:[0-9]+|x[0-9a-f]+)$/;
	croak 'the proxy belongs to another process' if $self->{owner} != $$;
	{
		local $SIG{PIPE} = 'IGNORE';
		syswrite $self->{control}, $verb . (defined $number ? " $number" : '') . "\n"
		  or croak "the proxy is gone: $!";
	}

	my $end = Time::HiRes::time() + $patience;
	while ($answer !~ /\n\z/)
	{
		my $left = $end - Time::HiRes::time();
		croak "$verb: the proxy does not answer" if $left <= 0;
		next if !IO::Select->new($self->{control})->can_read($left);
		sysread $self->{control}, $answer, 65536, length $answer
		  or croak "$verb: the proxy is gone";
	}
	chomp $answer;
	croak "$verb: $answer" if $answer !~ s/^ok ?//;
	return $answer;
}

sub _stop
{
	my ($self) = @_;

	# A process that was forked by the test has no part in this.
	return if $self->{owner} != $$;
	my $pid = delete $self->{pid} or return;

	kill 'KILL', $pid;
	waitpid $pid, 0;
	unlink $self->{socket};
	return;
}

END
{
	# Keep the test's exit status.
	local $?;
	$_->_stop foreach @started;
}

=back

=cut

# What follows runs in the process of the proxy.
#
# $p: control, listener, socket, upstream; delay (seconds), truncate (bytes left,
# or undef), mute (replies are dropped), spoil (an integer, or undef); mute_at and
# hold_at (what a client has to send for that to begin, or undef); connections;
# releasing (the test waits for an answer); accepted, refused, to_redis, to_client.
#
# A connection: client and redis (sockets, undef when closed), out (chunks for
# Redis: [due, bytes]), in (chunks for the client), eof (the client has closed),
# held, last (nothing more comes from the client, and Redis is told), replies
# (what came when no client was there).

sub _listen
{
	my ($path) = @_;

	unlink $path;
	return IO::Socket::UNIX->new(Local => $path, Listen => 64, Blocking => 0);
}

sub _serve
{
	my ($p) = @_;

	$p->{connections} = [];
	$p->{delay} = 0;
	$p->{$_} = 0 foreach qw(accepted refused to_redis to_client);

	for (;;)
	{
		my ($r, $w, $timeout) = _interest($p);
		my ($readable, $writable) =
		  IO::Select->select($r, $w, undef, $timeout);
		my %readable = map { $_ => 1 } @{ $readable || [] };
		my %writable = map { $_ => 1 } @{ $writable || [] };

		if ($readable{ $p->{control} })
		{
			# The test has ended.
			return unless _obey($p);
		}
		_accept($p) if $p->{listener} && $readable{ $p->{listener} };
		_serve_one($p, $_, \%readable, \%writable) foreach @{ $p->{connections} };
		@{ $p->{connections} } = grep { $_->{client} || $_->{redis} } @{ $p->{connections} };
		_answer_release($p) if $p->{releasing};
	}
}

# What to wait for: the sockets to read, those to write, and until when.
sub _interest
{
	my ($p) = @_;
	my $r = IO::Select->new($p->{control});
	my $w = IO::Select->new;
	my $now = Time::HiRes::time();
	my $timeout;

	$r->add($p->{listener}) if $p->{listener};
	foreach my $c (@{ $p->{connections} })
	{
		$r->add($c->{client})
		  if $c->{client} && !$c->{eof} && ($c->{held} || _ahead($c->{out}) < MAX_AHEAD);
		$r->add($c->{redis}) if $c->{redis} && _ahead($c->{in}) < MAX_AHEAD;
		foreach ([ $c->{redis}, $c->{held} ? [] : $c->{out} ], [ $c->{client}, $c->{in} ])
		{
			my ($socket, $chunks) = @$_;
			next unless $socket && @$chunks;
			my $wait = $chunks->[0][0] - $now;
			if ($wait <= 0)
			{
				$w->add($socket);
			}
			elsif (!defined $timeout || $wait < $timeout)
			{
				$timeout = $wait;
			}
		}
	}
	return ($r, $w->count ? $w : undef, $timeout);
}

sub _ahead
{
	my ($chunks) = @_;
	my $bytes = 0;

	$bytes += length $_->[1] foreach @$chunks;
	return $bytes;
}

sub _accept
{
	my ($p) = @_;

	while (my $client = $p->{listener}->accept)
	{
		$p->{accepted}++;
		$client->blocking(0);

		# A unix socket connects at once or not at all.
		my $redis = IO::Socket::UNIX->new(Peer => $p->{upstream}, Blocking => 0);
		if (!$redis)
		{
			$p->{refused}++;
			close $client;
			next;
		}
		$redis->blocking(0);
		push @{ $p->{connections} },
		  { client => $client, redis => $redis, out => [], in => [], replies => '' };
	}
	return;
}

sub _serve_one
{
	my ($p, $c, $readable, $writable) = @_;

	if ($c->{client} && $readable->{ $c->{client} })
	{
		my $bytes = _read($c->{client});
		$p->{mute} = 1 if _contains($bytes, $p->{mute_at});
		if (_contains($bytes, $p->{hold_at}))
		{
			$c->{held} = 1;
			delete $p->{hold_at};
		}
		if (!defined $bytes)
		{
			$c->{eof} = 1;
			_close($c, 'client') if $c->{held};
		}
		elsif (defined $p->{truncate} && length $bytes >= $p->{truncate})
		{
			# What still passes is written at once, since the end follows.
			push @{ $c->{out} }, [ 0, substr $bytes, 0, $p->{truncate} ];
			$_->[0] = 0 foreach @{ $c->{out} };
			delete $p->{truncate};
			$c->{eof} = 1;
			$c->{cut} = 1;
		}
		elsif ($bytes ne '')
		{
			$p->{truncate} -= length $bytes if defined $p->{truncate};
			push @{ $c->{out} }, [ _due($p, $c->{out}), $bytes ];
		}
	}
	if ($c->{redis} && $readable->{ $c->{redis} })
	{
		my $bytes = _read($c->{redis});
		if (!defined $bytes)
		{
			_close($c, 'redis');
		}
		elsif (!$c->{client})
		{
			$c->{replies} .= $bytes;
		}
		elsif ($bytes ne '' && !$p->{mute})
		{
			delete $p->{spoil}
			  if defined $p->{spoil} && $bytes =~ s/^:$p->{spoil}\r$/-ERR spoiled\r/m;
			push @{ $c->{in} }, [ _due($p, $c->{in}), $bytes ];
		}
	}

	$p->{to_redis} += _write($c, 'redis', $c->{out}) unless $c->{held};
	$p->{to_client} += _write($c, 'client', $c->{in});

	# What one end has closed ends at the other after the last byte.
	return if $c->{held};
	if ($c->{eof} && $c->{redis} && !@{ $c->{out} })
	{
		if ($c->{late})
		{
			shutdown $c->{redis}, SHUT_WR unless $c->{last};
			$c->{last} = 1;
		}
		else
		{
			_close($c, 'redis');
		}
	}
	_close($c, 'client')
	  if $c->{client} && ($c->{cut} && !$c->{redis} || $c->{eof} || !$c->{redis} && !@{ $c->{in} });
	return;
}

# When a chunk that was read now is passed on: never before an older one.
sub _due
{
	my ($p, $chunks) = @_;
	my $due = $p->{delay} ? Time::HiRes::time() + $p->{delay} : 0;

	return @$chunks && $chunks->[-1][0] > $due ? $chunks->[-1][0] : $due;
}

sub _contains
{
	my ($bytes, $text) = @_;
	return defined $bytes && defined $text && index($bytes, $text) >= 0;
}

# The bytes that are there: '' for none, undef for the end.
sub _read
{
	my ($socket) = @_;
	my $count = sysread $socket, my $bytes, 65536;

	return $bytes if $count;
	return '' if !defined $count && ($! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR);
	return undef;
}

# Write the chunks that are due: the number of bytes that went.
sub _write
{
	my ($c, $end, $chunks) = @_;
	my $now = Time::HiRes::time();
	my $sum = 0;

	while ($c->{$end} && @$chunks && $chunks->[0][0] <= $now)
	{
		my $count = length $chunks->[0][1] ? syswrite $c->{$end}, $chunks->[0][1] : 0;
		if (!defined $count)
		{
			last if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
			_close($c, $end);
			last;
		}
		$sum += $count;
		substr $chunks->[0][1], 0, $count, '';
		shift @$chunks if $chunks->[0][1] eq '';
	}
	return $sum;
}

sub _close
{
	my ($c, $end) = @_;
	my $socket = delete $c->{$end} or return;

	close $socket;
	@{ $c->{ $end eq 'client' ? 'in' : 'out' } } = ();
	$c->{eof} = 1 if $end eq 'client';
	return;
}

# Do what the test says: false when the test has gone.
sub _obey
{
	my ($p) = @_;
	my $line = '';

	# One call at a time, so a line is all there is.
	sysread $p->{control}, $line, 256 or return 0;
	my ($verb, $number) = split ' ', $line;
	my @connections = @{ $p->{connections} };
	my @held = grep { $_->{held} } @connections;
	my $answer = '';

	if ($verb eq 'pass')
	{
		$p->{delay} = 0;
		delete @$p{qw(truncate mute mute_at spoil)};
		$p->{listener} ||= _listen($p->{socket}) or die "could not listen: $!\n";
	}
	elsif ($verb eq 'delay') { $p->{delay} = $number / 1000; }
	elsif ($verb eq 'truncate') { $p->{truncate} = $number; }
	elsif ($verb eq 'drop_replies')
	{
		$p->{mute_at} = defined $number ? pack('H*', substr $number, 1) : undef;
		$p->{mute} = !defined $number;
	}
	elsif ($verb eq 'spoil') { $p->{spoil} = $number; }
	elsif ($verb eq 'refuse')
	{
		# The file stays: who connects to it is refused.
		close delete $p->{listener} if $p->{listener};
	}
	elsif ($verb eq 'cut')
	{
		foreach my $c (grep { !$_->{held} } @connections)
		{
			_close($c, $_) foreach qw(client redis);
		}
	}
	elsif ($verb eq 'hold')
	{
		if (defined $number) { $p->{hold_at} = pack 'H*', substr $number, 1; }
		else { $_->{held} = 1 foreach @connections; }
	}
	elsif ($verb eq 'abandon') { _close($_, 'client') foreach @held; }
	elsif ($verb eq 'discard')
	{
		foreach my $c (@held)
		{
			_close($c, $_) foreach qw(client redis);
		}
	}
	elsif ($verb eq 'release')
	{
		foreach my $c (@held)
		{
			delete $c->{held};
			$_->[0] = 0 foreach @{ $c->{out} };
			$c->{late} = 1 unless $c->{client};
		}
		$p->{releasing} = [ grep { $_->{late} } @held ];
		return 1;
	}
	elsif ($verb eq 'status')
	{
		my $bytes = 0;
		$bytes += _ahead($_->{out}) foreach @held;
		$answer = join ' ',
		  'connections=' . (grep { $_->{client} } @connections),
		  "held=$bytes", 'held_connections=' . @held,
		  map { "$_=$p->{$_}" } qw(accepted refused to_redis to_client);
	}
	else { $answer = undef; }

	_answer($p, defined $answer ? "ok $answer" : 'unknown call');
	return 1;
}

# Answer release() when Redis has read all.
sub _answer_release
{
	my ($p) = @_;

	return if grep { $_->{redis} } @{ $p->{releasing} };
	_answer($p, 'ok ' . unpack 'H*', join '', map { $_->{replies} } @{ $p->{releasing} });
	delete $p->{releasing};
	return;
}

sub _answer
{
	my ($p, $line) = @_;

	$line .= "\n";
	while ($line ne '')
	{
		my $count = syswrite $p->{control}, $line;
		die "the test does not listen\n" unless defined $count;
		substr $line, 0, $count, '';
	}
	return;
}

1;
