=pod

=head1 NAME

HybridCache::Torture::Child - the processes of the torture test

=head1 SYNOPSIS

  my $child = HybridCache::Torture::Child->start(sub {
      my ($child) = @_;
      while (!$child->stopped) { ...; $child->answer(sub { my ($word) = @_; ... }); }
      return { found => 7 };
  });
  $child->ask('word');
  my $result = $child->stop;

=head1 DESCRIPTION

A forked process that works until it is told to stop, and returns a structure.
It leaves without the END blocks, since these end the test's servers.

=cut

package HybridCache::Torture::Child;

use strict;
use warnings;

use IO::Handle;
use IO::Select;
use POSIX ();
use Socket;
use Storable ();
use Time::HiRes ();

our $stopped;
my $psql;

=head1 METHODS

=over

=item HybridCache::Torture::Child->start($code, @arguments)

Runs $code in a process of its own.

=cut

sub start
{
	my ($class, $code, @arguments) = @_;
	socketpair my $mine, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die "socketpair: $!";
	$_->autoflush foreach $mine, $theirs;

	my $pid = fork;
	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		close $mine;
		$stopped = 0;
		$SIG{TERM} = sub { $stopped = 1; kill 'TERM', $psql if $psql; };
		$SIG{PIPE} = 'IGNORE';
		my $self = bless { handle => $theirs }, $class;
		my $result = eval { $code->($self, @arguments) } // { died => "$@" };
		eval { Storable::store_fd($result, $theirs); close $theirs; };
		POSIX::_exit(0);
	}
	close $theirs;
	return bless { pid => $pid, handle => $mine }, $class;
}

=item $child->stop

Tells it to stop, and returns what its code returned.

=item $child->result

Waits until it is done by itself, and returns the same.

=item $child->done

Is it?

=cut

sub stop
{
	my ($self) = @_;
	kill 'TERM', $self->{pid};
	return $self->result;
}

sub result
{
	my ($self) = @_;
	my $result = eval { Storable::fd_retrieve($self->{handle}) } // { died => 'gone' };

	close $self->{handle};
	local $?;
	waitpid $self->{pid}, 0;
	return $result;
}

sub done { return !!IO::Select->new($_[0]{handle})->can_read(0); }

=item $child->ask($word)

Says a word to a child that answers, and waits for the answer.

=cut

sub ask
{
	my ($self, $word) = @_;
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{handle} } "$word\n";
	return readline $self->{handle};
}

=item $child->answer($code)

In the child: calls the code with the word that was said, if one was.

=item $child->stopped

In the child: shall it stop?

=item $child->run(@command)

In the child: runs a program, which is ended when the child shall stop.

=cut

sub answer
{
	my ($self, $code) = @_;
	return unless IO::Select->new($self->{handle})->can_read(0);
	my $word = readline $self->{handle};
	if (!defined $word)
	{
		$stopped = 1;
		return;
	}
	chomp $word;
	$code->($word);
	print { $self->{handle} } "yes\n";
	return;
}

sub stopped { return $stopped; }

sub run
{
	my ($self, $redirect, @command) = @_;

	# Between here and the assignment, a signal would not end the program.
	my $blocked = POSIX::SigSet->new(POSIX::SIGTERM());
	POSIX::sigprocmask(POSIX::SIG_BLOCK(), $blocked);
	$psql = fork // die "could not fork: $!";
	if ($psql == 0)
	{
		$SIG{TERM} = 'DEFAULT';
		POSIX::sigprocmask(POSIX::SIG_UNBLOCK(), $blocked);
		$redirect->();
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	POSIX::sigprocmask(POSIX::SIG_UNBLOCK(), $blocked);
	kill 'TERM', $psql if $stopped;
	1 while waitpid($psql, 0) < 0 && $!{EINTR};
	$psql = undef;
	return $?;
}

=back

=cut

1;
