=pod

=head1 NAME

HybridCache::Torture::Filler - fills the cache that mappings invalidate

=head1 DESCRIPTION

run() is the code of a HybridCache::Torture::Child.  While it holds the lock of
a row of the table f, it writes the row's value to Redis: whoever changes the
row commits later, and takes that key out of Redis.  So a key that is there at
the end must have the value of its row.

=cut

package HybridCache::Torture::Filler;

use strict;
use warnings;

use HybridCache::Torture::Client;
use IPC::Open2;
use Time::HiRes ();

sub run
{
	my ($child, %options) = @_;
	my $filled = 0;

	srand($options{seed});
	until ($child->stopped)
	{
		my ($out, $in);
		local $ENV{PGOPTIONS} = '-c log_min_messages=panic';
		my $pid = open2($out, $in, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', '-');

		until ($child->stopped)
		{
			$filled++ if _fill($out, $in, $options{socket}) // last;
			Time::HiRes::usleep(10_000);
		}
		close $in;
		close $out;
		waitpid $pid, 0;
		Time::HiRes::usleep(20_000);
	}
	return { filled => $filled };
}

# One row.  False if there is no such row or no Redis now, undef if there is no
# session.
sub _fill
{
	my ($out, $in, $socket) = @_;
	my $id = int rand 20;
	my $client = eval { HybridCache::Torture::Client->new($socket) };
	my @row = _ask($out, $in,
		"BEGIN; SET LOCAL lock_timeout = '100ms';"
		  . " SELECT encode(convert_to(v, 'UTF8'), 'hex') FROM f WHERE id = $id FOR UPDATE;") or return;
	my $ok = 0;

	if ($client && @row > 1 && $row[0] ne '')
	{
		# Whatever happens to the connection, either the command is done while
		# the row is locked, or it is not done at all: so no time limit here.
		$ok = eval { $client->call('SET', "f:$id", pack 'H*', $row[0]); 1 };
	}
	return $ok if _ask($out, $in, 'COMMIT;');

	# The lock went away before its time.
	while ($ok)
	{
		last if eval { HybridCache::Torture::Client->new($socket)->call('DEL', "f:$id"); 1 };
		Time::HiRes::usleep(10_000);
	}
	return;
}

# The lines of the answer and a last one; nothing if the session is gone.
sub _ask
{
	my ($out, $in, $query) = @_;
	my @lines;

	syswrite $in, "$query\n\\echo end\n" or return;
	while (defined(my $line = readline $out))
	{
		chomp $line;
		push @lines, $line;
		return @lines if $line eq 'end';
	}
	return;
}

1;
