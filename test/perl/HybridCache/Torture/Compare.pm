=pod

=head1 NAME

HybridCache::Torture::Compare - tables against Redis, in both directions

=cut

package HybridCache::Torture::Compare;

use strict;
use warnings;

use HybridCache::Torture::Client;
use HybridCache::Torture::Schema;

# So much later than planned may a time to live end, in milliseconds: the time
# between a trigger of the test and the one of the mapping.
use constant TTL_SLACK => 5_000;

# What Redis says of a key that is not there any more, and of one that stays.
use constant { GONE => -2, NEVER => -1 };

=head1 FUNCTIONS

=over

=item differences($torture, $lossy, $late)

What is wrong, as a list of sentences, and how many entries were compared.
With $lossy, Redis lost data in this round: what expires may be missing then,
or last longer.  With $late it may last longer, since it was populated.

=cut

sub differences
{
	my ($torture, $lossy, $late) = @_;
	my ($want, $count) = _expected($torture);
	my ($have, $now) = _held(HybridCache::Torture::Client->new($torture->socket));
	my @wrong;

	foreach my $key (sort keys %$have)
	{
		next if $want->{$key} || $key =~ /^hybrid_cache:|^f:|^happened:/;
		push @wrong, "phantom: Redis has $key = " . _show($have->{$key}{value});
	}
	foreach my $key (sort keys %$want)
	{
		my ($w, $h) = ($want->{$key}, $have->{$key});

		if (!$h)
		{
			next if defined $w->{expiry} && ($lossy || $w->{expiry} < $now + 1000);
			push @wrong, "missing: $key = " . _show($w->{value});
		}
		elsif ($w->{type} ne $h->{type})
		{
			push @wrong, "$key is a $h->{type}, not a $w->{type}";
		}
		else
		{
			push @wrong, map { "$key $_" } _unequal($w, $h), _expires($w, $h, $lossy || $late, $now);
		}
	}
	push @wrong, _invalidated($torture, $have, $lossy);
	return ($count, @wrong);
}

sub _show
{
	my ($value) = @_;
	my $text = ref $value ? join ' ', map { "$_=" . ($value->{$_} // '') } sort keys %$value : $value;

	$text =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ge;
	return length $text > 150 ? substr($text, 0, 150) . '...' : $text;
}

sub _unequal
{
	my ($w, $h) = @_;

	if (!ref $w->{value})
	{
		return if $w->{value} eq $h->{value};
		return 'is ' . _show($h->{value}) . ', not ' . _show($w->{value});
	}
	my @wrong;
	foreach my $member (sort keys %{ { %{ $w->{value} }, %{ $h->{value} } } })
	{
		my ($x, $y) = ($w->{value}{$member}, $h->{value}{$member});

		if (!defined $y) { push @wrong, "lacks $member = " . _show($x); }
		elsif (!defined $x) { push @wrong, "has $member = " . _show($y) . ', which no row has'; }
		elsif ($w->{type} eq 'zset' ? $x != $y : $x ne $y)
		{
			push @wrong, "has $member = " . _show($y) . ', not ' . _show($x);
		}
	}
	return @wrong;
}

sub _expires
{
	my ($w, $h, $late, $now) = @_;
	my ($x, $y) = ($w->{expiry}, $h->{expiry});

	return if !defined $x && $y == NEVER;
	return "expires at $y, but should not" if !defined $x;
	return if $y == GONE && $x < $now + 1000;
	return "never expires, but should at $x" if $y < 0;

	# A time to live begins when the row is captured.
	my $slack = $w->{kind} ne 'string' ? 0 : $late ? 3_600_000 : TTL_SLACK;
	return if $y >= $x - 1 && $y <= $x + 1 + $slack;
	return "expires at $y, not at $x";
}

# What the filler wrote and nothing has invalidated.  Which keys rows had that
# are gone cannot be found out later.
sub _invalidated
{
	my ($torture, $have, $lossy) = @_;
	my %rows = map { split /\t/, $_, 2 } split /\n/,
	  $torture->sql(q{SELECT id || chr(9) || coalesce(encode(convert_to(v, 'UTF8'), 'hex'), 'null') FROM f});

	return map { "$_ = " . _show($have->{$_}{value}) . ' was not invalidated' }
	  grep { /^f:(\d+)$/ && unpack('H*', $have->{$_}{value}) ne ($rows{$1} // ($lossy ? unpack 'H*', $have->{$_}{value} : '')) }
	  sort keys %$have;
}

# What the tables say: key -> { type, kind, value, expiry }, where the value of a
# collection is a hash of its members; and the number of entries.
sub _expected
{
	my ($torture) = @_;
	my @entries = HybridCache::Torture::Schema::entries();
	my $script = "SET TimeZone = 'UTC';\nBEGIN ISOLATION LEVEL REPEATABLE READ;\n";
	my (%want, $entry);
	my $count = 0;

	foreach my $number (0 .. $#entries)
	{
		my $query = $entries[$number][2];
		my $names = $query =~ /expiry|epoch/ ? 'key, member, value, expiry' : 'key, member, value';

		$query =~ s/\s+/ /g;
		$script .= "\\echo mapping $number\n"
		  . "COPY (SELECT * FROM ($query) q($names) WHERE key IS NOT NULL AND member IS NOT NULL"
		  . " AND value IS NOT NULL) TO STDOUT;\n";
	}
	my $lines = $torture->psql_lines("$script COMMIT;\n");
	while (defined(my $line = $lines->()))
	{
		if ($line =~ /^mapping (\d+)$/)
		{
			$entry = $entries[$1];
			next;
		}
		my ($key, $member, $value, $expiry) = map { _unescape($_) } split /\t/, $line, -1;
		my $w = $want{$key} //= { type => $entry->[0], kind => $entry->[1], expiry => $expiry };

		$count++;
		if ($entry->[0] eq 'string')
		{
			die "two rows have the entry $key\n" if exists $w->{value};
			$w->{value} = $value;
		}
		else
		{
			$w->{value}{$member} = $value;
		}
	}
	die "the tables could not be read\n" if $entry != $entries[-1];
	return (\%want, $count);
}

my %escapes = (b => "\b", f => "\f", n => "\n", r => "\r", t => "\t", v => "\x0b");

# Of COPY's text format.
sub _unescape
{
	my ($text) = @_;
	return if $text eq '\N';
	$text =~ s/\\(.)/$escapes{$1} \/\/ $1/ge if index($text, '\\') >= 0;
	return $text;
}

# What Redis holds, in the same form, and its time in milliseconds.
sub _held
{
	my ($client) = @_;
	my (%keys, %have);
	my $cursor = 0;

	do
	{
		my $reply = $client->call('SCAN', $cursor, 'COUNT', 1000);

		$cursor = $reply->[0];
		$keys{$_} = 1 foreach @{ $reply->[1] };
	} while ($cursor);

	my @keys = sort keys %keys;
	my @values = $client->pipeline(map { [ 'GET', $_ ] } @keys);
	my @others = @keys[ grep { ref $values[$_] } 0 .. $#keys ];
	my %types;

	@types{@others} = $client->pipeline(map { [ 'TYPE', $_ ] } @others);
	my @members = $client->pipeline(map {
			$types{$_} eq 'hash' ? [ 'HGETALL', $_ ]
			  : $types{$_} eq 'zset' ? [ 'ZRANGE', $_, 0, -1, 'WITHSCORES' ]
			  : $types{$_} =~ /^(?:list|stream)$/ ? [ 'EXISTS', $_ ]
			  : [ 'SMEMBERS', $_ ]
	} @others);

	foreach my $i (0 .. $#keys)
	{
		$have{ $keys[$i] } = { type => 'string', value => $values[$i] } if defined $values[$i] && !ref $values[$i];
	}
	foreach my $i (0 .. $#others)
	{
		next if ref $members[$i] ne 'ARRAY' || !@{ $members[$i] };
		$have{ $others[$i] } = {
			type => $types{ $others[$i] },
			value => $types{ $others[$i] } eq 'set' ? { map { $_ => '' } @{ $members[$i] } } : { @{ $members[$i] } }
		};
	}

	# Redis tells the time of expiry since version 7, before it only the time left.
	my @had = grep { !/^l:/ } keys %have;
	my ($time) = $client->pipeline(['TIME']);
	my $now = $time->[0] * 1000 + int $time->[1] / 1000;
	my @expiries = $client->pipeline(map { [ 'PEXPIRETIME', $_ ] } @had);

	if (@expiries && ref $expiries[0])
	{
		@expiries = map { $_ < 0 ? $_ : $_ + $now } $client->pipeline(map { [ 'PTTL', $_ ] } @had);
	}
	$have{ $had[$_] }{expiry} = $expiries[$_] foreach 0 .. $#had;
	$_->{expiry} //= NEVER foreach values %have;
	return (\%have, $now);
}

=back

=cut

1;
