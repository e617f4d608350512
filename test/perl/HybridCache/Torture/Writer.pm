=pod

=head1 NAME

HybridCache::Torture::Writer - a session that changes tables

=head1 DESCRIPTION

run() is the code of a HybridCache::Torture::Child: it lets psql run one script
of the generator after the other.  It returns how many transactions were
committed and how many rows their statements changed; what triggers and DO
blocks changed is not counted.

=cut

package HybridCache::Torture::Writer;

use strict;
use warnings;

use HybridCache::Torture::Generator;
use Time::HiRes ();

sub run
{
	my ($child, %options) = @_;
	my %total = (committed => 0, rolled_back => 0, prepared => 0, rows => 0);
	my $base = "$options{dir}/$options{name}";
	my $script = $options{script} // \&HybridCache::Torture::Generator::script;

	# A script depends on the seed and its number, not on how far others came.
	for (my $number = 0; !$child->stopped; $number++)
	{
		srand($options{seed} * 1000 + $number);
		open my $file, '>', "$base.sql" or die "$base.sql: $!";
		print $file $script->("$options{name}.$number", transactions => 30, large => $options{large});
		close $file or die "$base.sql: $!";

		$child->run(
			sub {
				open STDOUT, '>', "$base.out";
				open STDERR, '>>', "$base.err";
				$ENV{PGOPTIONS} = '-c log_min_messages=panic';
			},
			'psql', '-X', '-f', "$base.sql");
		_count("$base.out", \%total);

		# There may be no server now.
		Time::HiRes::usleep(20_000);
	}
	return \%total;
}

# Reads what psql printed.  The rows that a transaction has changed so far are
# kept for each of its open savepoints.
sub _count
{
	my ($name, $total) = @_;
	my @rows = (0);
	my $open = 0;

	open my $file, '<', $name or return;
	while (my $line = <$file>)
	{
		if ($line =~ /^transaction$/) { @rows = (0); $open = 0; }
		elsif ($line =~ /^BEGIN$/) { @rows = (0); $open = 1; }
		elsif ($line =~ /^SAVEPOINT$/) { push @rows, 0; }
		elsif ($line =~ /^RELEASE$/)
		{
			my $inner = pop @rows;
			if (@rows) { $rows[-1] += $inner; }
			else { @rows = ($inner); }
		}
		elsif ($line =~ /^to (\d+)$/) { @rows = (@rows[ 0 .. ($1 < $#rows ? $1 : $#rows) ], 0); }
		elsif ($line =~ /^(?:INSERT 0|UPDATE|DELETE|MERGE) (\d+)$/)
		{
			$rows[-1] += $1;
			_done('committed', \@rows, $total) unless $open;
		}
		elsif ($line =~ /^(TRUNCATE TABLE|DO|COMMIT PREPARED)$/)
		{
			$total->{committed}++ unless $open;
		}
		elsif ($line =~ /^PREPARE TRANSACTION$/)
		{
			_done('prepared', \@rows, $total);
			$open = 0;
		}
		elsif ($line =~ /^COMMIT$/)
		{
			_done('committed', \@rows, $total);
			$open = 0;
		}
		elsif ($line =~ /^end$/)
		{
			$total->{rolled_back}++ if $open;
			$open = 0;
		}
	}
	return;
}

sub _done
{
	my ($what, $rows, $total) = @_;
	$total->{$what}++;
	if ($what eq 'committed')
	{
		$total->{rows} += $_ foreach @$rows;
	}
	@$rows = (0);
	return;
}

1;
