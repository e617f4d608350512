=pod

=head1 NAME

HybridCache::Torture::Events - what has happened in Redis against what was
committed

=head1 DESCRIPTION

Numbers that are made in the order of commits (the table tally) are all there, in
that order.  The stream of the table e is, transaction by transaction, what a
trigger of the test's own has noted.  Each time of a row of the table due
has its event once, if it was not taken back before.

=cut

package HybridCache::Torture::Events;

use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use HybridCache::Torture::Client;
use HybridCache::Torture::Schema;
use Time::HiRes ();

# By so much a time has to be later than the commit that takes it back, in
# milliseconds: the commit's timestamp is older than the commit.
use constant CANCEL_SLACK => 1_000;

# In such a time an event must come that is due, in seconds; and a pending one be
# compared with its row, in milliseconds.
use constant { PATIENCE => 60, NEAR => 1_000 };

=head1 FUNCTIONS

=over

=item differences($torture, $lossy)

What is wrong, as a list of sentences, and how many events were compared.  With
$lossy, Redis lost data in this round: events may be missing, or come again.

=cut

sub differences
{
	my ($torture, $lossy) = @_;
	my $self = bless { torture => $torture, lossy => $lossy, count => 0, wrong => [] }, __PACKAGE__;

	$self->{client} = HybridCache::Torture::Client->new($torture->socket);
	$self->_tally unless $lossy;
	$self->_changes unless $lossy;
	$self->_timers;
	return ($self->{count}, @{ $self->{wrong} });
}

sub _wrong
{
	my ($self, @sentences) = @_;
	push @{ $self->{wrong} }, @sentences;
	return;
}

# The answer of a query: a list of rows, each a list.
sub _rows
{
	my ($self, $query) = @_;
	return map { [ split /\|/, $_, -1 ] } split /\n/, $self->{torture}->sql_soon($query);
}

# The entries of a stream, each a hash of its fields with the id as "ms".
sub _stream
{
	my ($self, $key) = @_;
	my $entries = $self->{client}->call('XRANGE', $key, '-', '+');

	return map { { @{ $_->[1] }, ms => $_->[0] =~ s/-.*//r } } @$entries;
}

# Each number that was made has happened once, in the order in which they were
# made.
sub _tally
{
	my ($self) = @_;

	foreach ($self->_rows('SELECT id, n, changes FROM tally'))
	{
		my ($id, $n, $changes) = @$_;
		my $count = $self->{client}->call('GET', "happened:count:$id") // 0;

		$self->_wrong("happened:count:$id is $count, not $n") if $count != $n;
		$self->_in_order("happened:$id", $n, @{ $self->{client}->call('LRANGE', "happened:$id", 0, -1) });
		$self->_in_order("happened:list:$id", $changes, @{ $self->{client}->call('LRANGE', "happened:list:$id", 0, -1) });
		$self->_in_order("happened:stream:$id", $changes, map { $_->{changes} } $self->_stream("happened:stream:$id"));
		$self->{count} += $n + 2 * $changes;
	}
	return;
}

# Are these the numbers from 1 to n?
sub _in_order
{
	my ($self, $key, $n, @numbers) = @_;
	my ($place) = grep { $numbers[$_] ne $_ + 1 } 0 .. $#numbers;

	$self->_wrong("$key has " . @numbers . " numbers, not $n") if @numbers != $n;
	$self->_wrong("$key has $numbers[$place] at place " . ($place + 1)) if defined $place;
	return;
}

# Whoever changes a row has it to the end of the transaction, so the numbers of
# the changes of one id are in the order of commits.  That and the changes of each
# transaction leave one sequence to transactions that have met.
sub _changes
{
	my ($self) = @_;
	my (%transactions, %next, @stream);
	my ($lsn, $number) = (0, 0);

	foreach ($self->_rows('SELECT xid, id, op, md5(data), md5(old) FROM audit ORDER BY seq'))
	{
		my ($xid, $id, @change) = @$_;
		push @{ $transactions{$xid} }, [ $id, "@change" ];
		push @{ $next{$id} }, $xid;
	}
	foreach my $event ($self->_stream('happened:changes'))
	{
		my ($id) = $event->{data} =~ /^\{"id":(\d+),/;
		my $at = _lsn($event->{lsn});

		if (@stream && $at < $lsn)
		{
			$self->_wrong("happened:changes goes back to $event->{lsn}");
			return;
		}
		push @stream, [] if $at > $lsn;
		$lsn = $at;
		$self->{count}++;
		push @{ $stream[-1] }, [ $id, join ' ', $event->{op}, md5_hex($event->{data}),
			defined $event->{old} ? md5_hex($event->{old}) : '' ];
	}
	foreach my $transaction (@stream)
	{
		my $xid = ($next{ $transaction->[0][0] } || [])->[0] // 0;
		my $want = delete $transactions{$xid} || [];

		$number++;
		foreach my $place (0 .. (@$want > @$transaction ? $#$want : $#$transaction))
		{
			my ($w, $h) = map { $_->[$place] ? "@{ $_->[$place] }" : 'nothing' } $want, $transaction;
			my $first = $transaction->[$place] ? shift @{ $next{ $transaction->[$place][0] } || [] } : undef;

			next if $w eq $h && $first eq $xid;
			$self->_wrong("happened:changes has $h where transaction $xid has $w, at place $place of the $number. transaction"
				  . ($w eq $h ? ', before transaction ' . ($first // '-') : ''));
			return;
		}
	}
	my $missing = keys %transactions;
	$self->_wrong("happened:changes lacks $missing transactions, such as " . (sort keys %transactions)[0]) if $missing;
	return;
}

sub _lsn
{
	my ($high, $low) = map { hex } split m{/}, $_[0];
	return $high * 2**32 + $low;
}

# ---------------------------------------------------------------------------
# Timers

sub _timers
{
	my ($self) = @_;
	my @streams = map { "happened:due:$_" } 0 .. HybridCache::Torture::Schema::DUE_STREAMS() - 1;
	my $until = $self->_all_fired(@streams) // return;
	my %times = $self->_times;
	my %had;

	foreach my $key (@streams)
	{
		foreach my $event ($self->_stream($key))
		{
			$self->{count}++;
			$had{"$key $event->{member} $event->{at}"}++;
			$self->_wrong("$key has $event->{member} at $event->{ms}, before its time $event->{at}")
			  if $event->{ms} < $event->{at};
		}
	}
	foreach my $name (sort keys %had)
	{
		my $time = $times{$name};

		if (!$time) { $self->_wrong("$name was never committed"); }
		elsif ($self->{lossy}) { next; }
		elsif ($had{$name} > $time->{times}) { $self->_wrong("$name came $had{$name} times, not $time->{times}"); }
		elsif ($time->{at} > $time->{end} + CANCEL_SLACK) { $self->_wrong("$name came, but was taken back at $time->{end}"); }
	}
	foreach my $name ($self->{lossy} ? () : sort keys %times)
	{
		my $time = $times{$name};
		$self->_wrong("$name did not come") if !$had{$name} && $time->{end} == 9**9**9 && $time->{at} <= $until;
	}
	$self->_pending($_) foreach 0 .. $#streams;
	return;
}

# Nothing was due before the time that is returned, in milliseconds: events of rows
# that are due then have come.
sub _all_fired
{
	my ($self, @streams) = @_;
	my $at = $self->{torture}->sql_soon('SELECT ceil(extract(epoch FROM clock_timestamp()) * 1000)');
	my $end = Time::HiRes::time() + PATIENCE;

	$self->{torture}->sql_soon("INSERT INTO due SELECT @{[ HybridCache::Torture::Schema::DUE_LAST() ]} + g, g,"
		  . " to_timestamp($at / 1000.0), true FROM generate_series(0, $#streams) g ON CONFLICT DO NOTHING");
	foreach my $g (0 .. $#streams)
	{
		my $member = HybridCache::Torture::Schema::DUE_LAST() + $g;

		until (grep { $_->{member} eq $member } $self->_stream($streams[$g]))
		{
			if (Time::HiRes::time() > $end)
			{
				$self->_wrong("$streams[$g] does not get what is due");
				return;
			}
			Time::HiRes::usleep(20_000);
		}
	}
	return $at;
}

# Every time that a row was to be due, by the name of its event: how often it was
# given to the row, and when it was taken back at last.
sub _times
{
	my ($self) = @_;
	my (%times, %last);

	# of each transaction the last version of a row
	foreach ($self->_rows(<<'SQL'))
SELECT id, coalesce('happened:due:' || g || ' ' || id || ' ' || at, ''), coalesce(at, 0),
	extract(epoch FROM pg_xact_commit_timestamp(xid::xid)) * 1000
FROM (SELECT DISTINCT ON (id, xid) * FROM due_history ORDER BY id, xid, seq DESC) h
ORDER BY id, seq
SQL
	{
		my ($id, $name, $at, $done) = @$_;
		my $before = $last{$id} // '';

		next if $name eq $before;
		$times{$before}{end} = $done if $before ne '';
		if ($name ne '')
		{
			$times{$name}{times}++;
			@{ $times{$name} }{qw(at end)} = ($at, 9**9**9);
		}
		$last{$id} = $name;
	}
	return %times;
}

# What is still to come.
sub _pending
{
	my ($self, $g) = @_;
	my $time = $self->{client}->call('TIME');
	my $soon = $time->[0] * 1000 + $time->[1] / 1000 + NEAR;
	my %pending = @{ $self->{client}->call('ZRANGE', "hybrid_cache:timers:{happened:due:$g}", 0, -1, 'WITHSCORES') };
	my %want = map { @$_ } $self->_rows(<<"SQL");
SELECT id, ceil(extract(epoch FROM at) * 1000) FROM due WHERE g = $g AND on_ AND isfinite(at)
SQL

	foreach my $id (sort keys %{ { %pending, %want } })
	{
		my ($h, $w) = map { ($_->{$id} // 0) < $soon ? 0 : $_->{$id} } \%pending, \%want;
		$self->_wrong("happened:due:$g has $id pending for $h, not $w") if $h != $w;
	}
	return;
}

=back

=cut

1;
