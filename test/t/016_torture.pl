# PostgreSQL and Redis compared under load and faults, see HybridCache::Torture.
#
# Without arguments a fixed set of seeds.  test/torture gives others:
#
# --seeds N,N,...	these seeds
# --minutes N		new seeds until so much time is over
# --seed N			the first of them, by default a random one
# --faults NAME,NAME,...	only these faults; "none": none
# --seconds N		for how long the sessions of a round work

use strict;
use warnings;

use Getopt::Long;
use HybridCache::Torture;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# Seeds with which every fault happens.
my %option = (seeds => '7,122,126,339,418,1366,2086');
GetOptions(\%option, 'seeds=s', 'minutes=f', 'seed=i', 'faults=s', 'seconds=f')
  or BAIL_OUT('unknown option');

my @seeds = split /,/, $option{seeds};
my $end;
if ($option{minutes})
{
	$end = time + 60 * $option{minutes};
	@seeds = $option{seed} // int rand 1e9;
}
elsif (defined $option{seed})
{
	@seeds = $option{seed};
}

my $torture = HybridCache::Torture->new(
	$option{faults} ? (faults => [ grep { $_ ne 'none' } split /, */, $option{faults} ]) : (),
	$option{seconds} ? (seconds => $option{seconds}) : ());

while (defined(my $seed = shift @seeds))
{
	my $round = $torture->round($seed);

	ok(!@{ $round->{violations} }, HybridCache::Torture::line($round))
	  or diag(join "\n", "seed $seed:", @{ $round->{violations} });
	push @seeds, $seed + 1 if defined $end && time < $end;
}
note($torture->report);

done_testing();
