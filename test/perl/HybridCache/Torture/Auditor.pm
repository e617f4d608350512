=pod

=head1 NAME

HybridCache::Torture::Auditor - has mappings compared with their tables all the
time

=head1 DESCRIPTION

run() is the code of a HybridCache::Torture::Child.  It asks for runs of the
keeper, one after the other, and reads through the extension.  Now and then it
changes entries in Redis itself, those of rows that nobody else touches, and
remembers how many differences of what sort the next run has to find.

It returns C<runs>: a list of { number, want, got, from, to, again }, where
number is that of the mapping, want and got are the counts (in the order of
COUNTS), and again is true if the run before has failed.  What they mean is for
the caller to say, who knows what happened meanwhile.  C<failures> has, for each
message, how often it came and how long that took at most.

=cut

package HybridCache::Torture::Auditor;

use strict;
use warnings;

use HybridCache::Torture::Client;
use HybridCache::Torture::Schema;
use HybridCache::Torture::Vandal;
use Time::HiRes ();

sub run
{
	my ($child, %options) = @_;
	my $self = bless { populates => 1, again => {}, %options,
		runs => [], seen => {}, failures => {} }, __PACKAGE__;

	srand($options{seed} * 7 + 1);
	until ($child->stopped)
	{
		$child->answer(sub { });
		$self->{child} = $child;
		$self->_step;
		Time::HiRes::usleep(10_000);
	}
	return { map { $_ => $self->{$_} } qw(runs failures seen) };
}

sub _step
{
	my ($self) = @_;
	my @compared = HybridCache::Torture::Schema::compared();
	my $number = $compared[ rand @compared ];
	my $r = rand;

	if (my @again = sort keys %{ $self->{again} })
	{
		# what was changed is to be repaired first
		return $self->_reconcile($again[0], HybridCache::Torture::Vandal::nothing());
	}
	if ($r < 0.3)
	{
		my @quiet = HybridCache::Torture::Schema::quiet();
		return $self->_vandalize($quiet[ rand @quiet ]);
	}
	return $self->_reconcile($number, HybridCache::Torture::Vandal::nothing()) if $r < 0.75;
	return $self->_populate($number) if $r < 0.8 && $self->{populates};
	return $self->_look($number) if $r < 0.9;
	return $self->_get($number);
}

# The answer of psql, undef if anything fails.
sub _sql
{
	my ($self, $query) = @_;
	my $out = "$self->{dir}/auditor.out";
	my $begin = Time::HiRes::time();

	my $status = $self->{child}->run(
		sub {
			open STDOUT, '>', $out;
			open STDERR, '>', "$self->{dir}/auditor.err";
			$ENV{PGOPTIONS} = '-c log_min_messages=panic -c client_min_messages=error -c statement_timeout=20s';
		},
		'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', $query);
	if ($status != 0)
	{
		$self->_note_failure(Time::HiRes::time() - $begin);
		return;
	}
	open my $file, '<', $out or return;
	local $/;
	return (readline($file) // '') =~ s/\n\z//r;
}

# What goes wrong, how often and for how long.
sub _note_failure
{
	my ($self, $seconds) = @_;

	open my $file, '<', "$self->{dir}/auditor.err" or return;
	my ($message) = map { /(?:ERROR|FATAL): +(.*)/ ? $1 : () } <$file>;
	$message = defined $message ? $message =~ s/"[^"]*"/"..."/gr : 'no connection';
	my $failure = $self->{failures}{$message} //= { times => 0, seconds => 0 };
	$failure->{times}++;
	$failure->{seconds} = $seconds if $seconds > $failure->{seconds};
	return;
}

# Some entries are changed by a stranger, and must be found.
sub _vandalize
{
	my ($self, $number) = @_;
	my $client = eval { HybridCache::Torture::Client->new($self->{socket}) } // return;

	# A command whose reply does not come may have been done or not.
	my $want = eval { HybridCache::Torture::Vandal::change($client, $number) };
	$self->{again}{$number} = 1 unless defined $want;
	return $self->_reconcile($number, $want // HybridCache::Torture::Vandal::nothing());
}

sub _reconcile
{
	my ($self, $number, $want) = @_;
	my $from = Time::HiRes::time();
	my $answer = $self->_sql('SELECT '
		  . join(q{ || ' ' || }, HybridCache::Torture::Vandal::counts())
		  . ' FROM ' . HybridCache::Torture::Schema::call('reconcile', $number));

	if (!defined $answer)
	{
		$self->{again}{$number} = 1 if grep { $_ == $number } HybridCache::Torture::Schema::quiet();
		return;
	}
	push @{ $self->{runs} }, {
		number => $number, want => $want, got => [ split / /, $answer ],
		from => $from, to => Time::HiRes::time(), again => delete $self->{again}{$number}
	};
	return;
}

# Not of quiet rows, whose differences are to be found by reconcile().
sub _populate
{
	my ($self, $number) = @_;
	return if grep { $_ == $number } HybridCache::Torture::Schema::quiet();
	$self->_sql('SELECT ' . HybridCache::Torture::Schema::call('populate', $number));
	return;
}

sub _look
{
	my ($self, $number) = @_;
	my @queries = ('SELECT count(*) FROM hybrid_cache.progress', 'SELECT count(*) FROM hybrid_cache.mapping',
		'SELECT count(*) FROM ' . HybridCache::Torture::Schema::call('orphans', $number));

	$self->_sql($queries[ rand @queries ]);
	return;
}

# Through the extension, which may take it from the table.
sub _get
{
	my ($self) = @_;
	my $id = int rand HybridCache::Torture::Schema::VERSIONS();
	my ($number) = grep { HybridCache::Torture::Schema::table($_) eq 'ver' } 0 .. HybridCache::Torture::Schema::mappings() - 1;
	my $answer = $self->_sql('SELECT ' . HybridCache::Torture::Schema::call('get', $number, $id) . q{ #>> '{}'}) // return;

	$self->{seen}{"$id $answer"} = 1 if $answer ne '';
	return;
}

1;
