=pod

=head1 NAME

HybridCache::Torture::Client - a connection to Redis

=head1 SYNOPSIS

  my $client = HybridCache::Torture::Client->new('/path/of/socket');
  my $value = $client->call('GET', 'key');
  my @values = $client->pipeline([ 'GET', 'a' ], [ 'GET', 'b' ]);

=head1 DESCRIPTION

What redis-cli cannot do: one connection for many commands, values as their
bytes.  Everything that goes wrong with the connection dies.

=cut

package HybridCache::Torture::Client;

use strict;
use warnings;

use Carp;
use IO::Socket::UNIX;

# So many commands are sent before their replies are read; both must fit into
# the buffers in between.
use constant PIPELINE => 500;

=head1 METHODS

=over

=item HybridCache::Torture::Client->new($socket)

Connects.

=cut

sub new
{
	my ($class, $socket) = @_;
	my $handle = IO::Socket::UNIX->new(Peer => $socket)
	  or die "could not connect to $socket: $!\n";

	return bless { handle => $handle, buffer => '', at => 0 }, $class;
}

=item $client->call(@command)

The reply: a string, a number, undef, or an array reference.  An error reply
dies.

=cut

sub call
{
	my ($self, @command) = @_;
	my ($reply) = $self->pipeline(\@command);

	die "$$reply\n" if is_error($reply);
	return $reply;
}

=item $client->pipeline([@command], ...)

The replies to many commands.  An error reply is among them as a reference to
its message; see is_error().

=cut

sub pipeline
{
	my ($self, @commands) = @_;
	my @replies;

	while (my @some = splice @commands, 0, PIPELINE)
	{
		$self->_write(join '', map { _encode(@$_) } @some);
		push @replies, scalar $self->_reply foreach @some;
	}
	return @replies;
}

=item $client->send(@command)

Does not wait for the reply.

=cut

sub send
{
	my ($self, @command) = @_;
	$self->_write(_encode(@command));
	return;
}

sub _encode
{
	my (@command) = @_;
	return join '', '*' . @command . "\r\n", map { '$' . length($_) . "\r\n$_\r\n" } @command;
}

=item is_error($reply)

Is this an error reply?  A function.

=cut

sub is_error { return ref $_[0] eq 'SCALAR'; }

sub _write
{
	my ($self, $bytes) = @_;
	my $at = 0;

	local $SIG{PIPE} = 'IGNORE';
	while ($at < length $bytes)
	{
		my $n = syswrite $self->{handle}, $bytes, length($bytes) - $at, $at;
		next if !defined $n && $!{EINTR};
		die "Redis closed the connection: $!\n" unless defined $n;
		$at += $n;
	}
	return;
}

sub _fill
{
	my ($self) = @_;

	if ($self->{at} > 65536)
	{
		substr $self->{buffer}, 0, $self->{at}, '';
		$self->{at} = 0;
	}
	my $n = sysread $self->{handle}, $self->{buffer}, 65536, length $self->{buffer};
	return if !defined $n && $!{EINTR};
	die "Redis closed the connection\n" unless $n;
	return;
}

sub _reply
{
	my ($self) = @_;
	my $end;

	while (($end = index $self->{buffer}, "\r\n", $self->{at}) < 0)
	{
		$self->_fill;
	}
	my $type = substr $self->{buffer}, $self->{at}, 1;
	my $rest = substr $self->{buffer}, $self->{at} + 1, $end - $self->{at} - 1;
	$self->{at} = $end + 2;

	if ($type eq '$')
	{
		return if $rest < 0;
		$self->_fill while length($self->{buffer}) < $self->{at} + $rest + 2;
		my $value = substr $self->{buffer}, $self->{at}, $rest;
		$self->{at} += $rest + 2;
		return $value;
	}
	return $rest if $type eq '+' || $type eq ':';
	return \$rest if $type eq '-';
	return if $type eq '*' && $rest < 0;
	return [ map { scalar $self->_reply } 1 .. $rest ] if $type eq '*';
	croak "reply of an unknown type \"$type\"";
}

=back

=cut

1;
