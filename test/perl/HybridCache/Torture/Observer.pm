=pod

=head1 NAME

HybridCache::Torture::Observer - reads Redis all the time

=head1 DESCRIPTION

run() is the code of a HybridCache::Torture::Child.  It notes as a violation

=over

=item a value that was never committed

The generator marks what is going to be rolled back, and any key is looked at
now and then.  Besides, every value of the table ver that was seen is returned,
to be looked up in the table history.

=item a value that goes back

The numbers in the table ver only grow, so they must do in Redis.

=item half a transaction

The numbers of a group in the table grp are always the same.

=item an event that is missing, comes twice, or in the wrong place

The numbers that happened are 1, 2 and so on, so the last one is how many there are.

=back

To be absent is always right here, the comparison at the end looks for what is
missing.

What goes back and what is half are violations as long as Redis keeps what it
acknowledged.  So the observer answers two words: C<lax>, Redis loses data now,
and C<strict>, it has got everything again, but for events.

=cut

package HybridCache::Torture::Observer;

use strict;
use warnings;

use HybridCache::Torture::Client;
use HybridCache::Torture::Schema;
use Time::HiRes ();

sub run
{
	my ($child, %options) = @_;
	my $self = bless {
		%options,
		reads => 0,
		last => {},
		seen => {},
		violations => [],
		cursor => 0
	}, __PACKAGE__;
	my $client;

	while (!$child->stopped)
	{
		$child->answer(
			sub {
				my ($word) = @_;
				$self->{lax} = $word eq 'lax';
				$self->{lost} ||= $self->{lax};
				$self->{last} = {};

				# the server may be another one now
				undef $client;
			});
		my $ok = eval {
			local $SIG{ALRM} = sub { die "Redis does not answer\n" };
			Time::HiRes::alarm(0.5);
			$client //= HybridCache::Torture::Client->new($options{socket});
			$self->_look($client) foreach 1 .. 5;
			$self->_scan($client);
			Time::HiRes::alarm(0);
			1;
		};
		Time::HiRes::alarm(0);
		undef $client unless $ok;
		die $@ if !$ok && $@ !~ /Redis|connect|LOADING|READONLY|MASTERDOWN/;
		Time::HiRes::usleep($ok ? 3_000 : 10_000);
	}
	return {
		reads => $self->{reads},
		seen => [ keys %{ $self->{seen} } ],
		violations => $self->{violations}
	};
}

sub _violation
{
	my ($self, $text) = @_;

	# The first ones tell most.
	push @{ $self->{violations} }, sprintf '%s observer: %s', _time(), $text
	  if @{ $self->{violations} } < 20;
	return;
}

sub _time
{
	my $now = Time::HiRes::time();
	my @t = gmtime $now;
	return sprintf '%02d:%02d:%06.3f', $t[2], $t[1], $t[0] + $now - int $now;
}

# One consistent look at versions and groups.
sub _look
{
	my ($self, $client) = @_;
	my @versions = 0 .. HybridCache::Torture::Schema::VERSIONS() - 1;
	my @groups = 0 .. HybridCache::Torture::Schema::GROUPS() - 1;
	my @members = 0 .. HybridCache::Torture::Schema::GROUP_SIZE() - 1;
	my @replies = $client->pipeline(
		['MULTI'],
		[ 'MGET', map { "ver:$_" } @versions ],
		[ 'ZRANGE', 'verz', 0, -1, 'WITHSCORES' ],
		(map { my $g = $_; [ 'MGET', map { "grp:$g:$_" } @members ] } @groups),
		(map { [ 'ZRANGE', "grpz:$_", 0, -1, 'WITHSCORES' ] } @groups),
		(map { [ 'HVALS', "grph:$_" ] } @groups),
		['EXEC']);
	my $result = $replies[-1];

	$self->_happened($client);
	return unless ref $result eq 'ARRAY';
	my ($texts, $scores, @rest) = @$result;
	return if grep { ref ne 'ARRAY' } $texts, $scores, @rest;
	$self->{reads}++;

	foreach my $id (grep { defined $texts->[$_] } @versions)
	{
		$self->{seen}{"$id $texts->[$id]"} = 1;
		$self->_grows("ver:$id", split / /, $texts->[$id], 2);
	}
	while (my ($id, $n) = splice @$scores, 0, 2)
	{
		$self->_grows("verz $id", $n, '');
	}
	foreach my $g (@groups)
	{
		my @scores = @{ $rest[ @groups + $g ] };
		my %numbers = map { $_ => 1 } (grep { defined } @{ $rest[$g] }),
		  (map { $scores[ 2 * $_ + 1 ] } 0 .. $#scores / 2), @{ $rest[ 2 * @groups + $g ] };

		$self->_violation("a value that was never committed: group $g has -666") if $numbers{-666};
		$self->_violation("half a transaction: group $g has " . join ' ',
			(map { $_ // '-' } @{ $rest[$g] }), '|', @scores, '|', @{ $rest[ 2 * @groups + $g ] })
		  if keys %numbers > 1 && $self->{atomic} && !$self->{lax};
	}
	return;
}

sub _grows
{
	my ($self, $key, $n, $note) = @_;
	my $last = $self->{last}{$key};

	$self->_violation("a value that was never committed: $key $n $note") if $note eq 'ROLLED BACK';
	$self->_violation("a value that goes back: $key was $last and is $n $note")
	  if defined $last && $n < $last && !$self->{lax};
	$self->{last}{$key} = $n;
	return;
}

# The lists of what happened.
sub _happened
{
	my ($self, $client) = @_;
	my @keys = map { ("happened:$_", "happened:list:$_") } 0 .. HybridCache::Torture::Schema::TALLIES() - 1;
	my @replies = $client->pipeline(
		['MULTI'], (map { ([ 'LLEN', $_ ], [ 'LINDEX', $_, -1 ]) } @keys), ['EXEC']);
	my $result = $replies[-1];

	return unless ref $result eq 'ARRAY';
	foreach my $i (0 .. $#keys)
	{
		my ($n, $last) = @$result[ 2 * $i, 2 * $i + 1 ];

		next if !defined $last || ref $last || ref $n;
		$self->_violation("an event that was never committed: $keys[$i] has $last") if $last < 0;
		$self->_violation("an event that is missing, twice, or in the wrong place: $keys[$i] has $n, the last is $last")
		  if $n != $last && !$self->{lax} && !$self->{lost};
		$self->_grows($keys[$i], $n, '');
	}
	return;
}

# Some keys of the others.
sub _scan
{
	my ($self, $client) = @_;
	my $reply = $client->call('SCAN', $self->{cursor}, 'COUNT', 20);
	my @keys = grep { !/^(hybrid_cache:|l:)/ } @{ $reply->[1] };

	$self->{cursor} = $reply->[0];
	$self->_violation("a key that was never committed: $_")
	  foreach grep { /:66(\D|$)/ && /^(aj|ageo|bs|bf|cz|cs|ef|eh):/ && !/^(aj:66:|eh:66:)/ } @keys;

	my @strings = $client->pipeline(map { [ 'GET', $_ ] } @keys);
	my @hashes = grep { HybridCache::Torture::Client::is_error($strings[$_]) } 0 .. $#keys;
	my @values = $client->pipeline(map { [ 'HGETALL', $keys[$_] ] } @hashes);
	$strings[ $hashes[$_] ] = join ' ', map { $_ // '' } @{ $values[$_] }
	  foreach grep { ref $values[$_] eq 'ARRAY' } 0 .. $#hashes;
	foreach my $i (grep { !ref $strings[$_] && defined $strings[$_] } 0 .. $#keys)
	{
		$self->_violation("a value that was never committed: $keys[$i] " . substr $strings[$i], 0, 100)
		  if $strings[$i] =~ /ROLLED BACK/;
	}
	return;
}

1;
