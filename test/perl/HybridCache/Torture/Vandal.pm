=pod

=head1 NAME

HybridCache::Torture::Vandal - a stranger who changes mapped entries in Redis

=head1 DESCRIPTION

Only entries of rows that no session touches (HybridCache::Torture::Schema,
quiet rows), and such that no row has.  Each change makes a known number of
differences, which the next comparison has to find and to repair.

=cut

package HybridCache::Torture::Vandal;

use strict;
use warnings;

use HybridCache::Torture::Schema;

# What is counted, as hybrid_cache.reconcile() calls it.
my @counts = qw(missing stale orphaned conflicting repaired);

# Ids that no row ever has.
my $stranger = 7_000;

# For each kind: what is done to the entry of a row, and what is wrong then.  The
# code gets the key and the member, and returns commands.
my @keys = (
	[ 'missing', sub { [ 'DEL', $_[0] ] } ],
	[ 'stale', sub { [ 'SET', $_[0], 'foreign' ] } ],
	[ 'stale', sub { [ 'APPEND', $_[0], '!' ] } ],
	[ 'conflicting', sub { ([ 'DEL', $_[0] ], [ 'SADD', $_[0], 'foreign' ]) } ]);
my @scores = (
	[ 'missing', sub { [ 'ZREM', @_ ] } ],
	[ 'stale', sub { [ 'ZINCRBY', $_[0], 1, $_[1] ] } ],
	[ 'stale', sub { [ 'ZADD', $_[0], 12345678, $_[1] ] } ]);
my %changes = (
	string => \@keys,
	json => \@keys,
	hash => [
		[ 'missing', sub { [ 'DEL', $_[0] ] } ],
		[ 'stale', sub { [ 'HSET', $_[0], 'stray', 1 ] } ],
		[ 'stale', sub { [ 'HSET', $_[0], 'v', 'foreign' ] } ],
		[ 'stale', sub { [ 'HDEL', $_[0], 'v' ] } ],
		[ 'conflicting', sub { [ 'SET', $_[0], 'foreign' ] } ] ],
	field => [
		[ 'missing', sub { [ 'HDEL', @_ ] } ],
		[ 'stale', sub { [ 'HSET', @_, 'foreign' ] } ] ],
	geo => \@scores,
	zset => \@scores,
	set => [ [ 'missing', sub { [ 'SREM', @_ ] } ] ]);

# Entries that no row has.
my %strangers = (
	string => sub { [ 'SET', $_[0], 'foreign' ] },
	json => sub { [ 'SET', $_[0], '{}' ] },
	hash => sub { [ 'HSET', $_[0], 'v', 'foreign' ] },
	field => sub { [ 'HSET', @_, 'foreign' ] },
	geo => sub { [ 'ZADD', $_[0], 3000000000000000, $_[1] ] },
	zset => sub { [ 'ZADD', $_[0], 1, $_[1] ] },
	set => sub { [ 'SADD', @_ ] });

=head1 FUNCTIONS

=over

=item counts()

The names of what is counted.

=item nothing()

The counts of a run that finds no difference.

=item change($client, $number)

Changes entries of a mapping of quiet rows, and returns the counts of the run
that follows.  Dies if Redis does not take it.

=cut

sub counts { return @counts; }

sub nothing { return [ (0) x @counts ]; }

sub change
{
	my ($client, $number) = @_;
	my ($first, $last) = HybridCache::Torture::Schema::quiet_rows();
	my $kind = HybridCache::Torture::Schema::kind($number);
	my %want = map { $_ => 0 } @counts;
	my (%done, @commands);

	foreach (1 .. 1 + rand 12)
	{
		my $id = $first + int rand($last - $first + 1);
		next if $done{$id}++;
		my ($found, $code) = @{ $changes{$kind}[ rand @{ $changes{$kind} } ] };
		push @commands, $code->(HybridCache::Torture::Schema::place($number, $id));
		$want{$found}++;
	}
	foreach (1 .. rand 4)
	{
		push @commands, $strangers{$kind}->(HybridCache::Torture::Schema::place($number, $stranger++));
		$want{orphaned}++;
	}
	$want{repaired} = $want{missing} + $want{stale} + $want{orphaned} + $want{conflicting};

	# so that nothing sees a part of it
	my @replies = $client->pipeline(['MULTI'], @commands, ['EXEC']);
	die "Redis refuses\n" if ref $replies[-1] ne 'ARRAY' || grep { ref eq 'SCALAR' } @{ $replies[-1] };
	return [ @want{@counts} ];
}

=back

=cut

1;
