=pod

=head1 NAME

HybridCache::Torture::Faults - what can go wrong

=head1 DESCRIPTION

A fault is a list of steps, each with the time that has to pass before it, in
seconds.  After the last one everything works again.  A fault of PostgreSQL and
one of Redis may happen at the same time, two of one cannot.

=cut

package HybridCache::Torture::Faults;

use strict;
use warnings;

use HybridCache::Torture::Client;
use HybridCache::Torture::Schema;
use Time::HiRes ();

# name => [ of what, how often, code ].  The code gets numbers between 0 and 1
# that decide about details, and returns the steps.  A step gets the test.
# After those whose names say that something is lost, Redis has to be repaired.
my %faults = (
	'backend killed' => [ 'postgres', 3, sub { my @r = @_; return (0, sub { _kill($_[0], 'client backend', $r[0]) }) } ],
	'sync worker killed' => [ 'postgres', 3, sub { return (0, sub { _kill($_[0], 'hybrid_cache sync worker', 0) }) } ],
	'keeper killed' => [ 'postgres', 1, sub { return (0, sub { _kill($_[0], 'hybrid_cache keeper', 0) }) } ],
	'launcher killed' => [ 'postgres', 2, sub { return (0, sub { _kill($_[0], 'hybrid_cache launcher', 0) }) } ],
	'sync worker terminated' => [ 'postgres', 4, sub { return (0, sub { _terminate($_[0], 'hybrid_cache sync worker') }) } ],
	'launcher terminated' => [ 'postgres', 1, sub { return (0, sub { _terminate($_[0], 'hybrid_cache launcher') }) } ],
	'keeper terminated' => [ 'postgres', 1, sub { return (0, sub { _terminate($_[0], 'hybrid_cache keeper') }) } ],
	'backends terminated' => [ 'postgres', 1, sub { return (0, sub { _terminate($_[0], 'client backend') }) } ],
	'immediate shutdown' => [ 'postgres', 4, sub {
		return (0, sub { $_[0]{node}->stop('immediate') }, $_[0] * 0.4, sub { $_[0]{node}->start });
	} ],
	'restart' => [ 'postgres', 2, sub {
		return (0, sub { $_[0]{node}->stop('fast') }, $_[0] * 0.3, sub { $_[0]{node}->start });
	} ],
	'settings reloaded' => [ 'postgres', 2, \&_reload ],
	'prepared transactions ended' => [ 'postgres', 3, sub { my $r = $_[0]; return (0, sub { $_[0]->end_prepared($r) }) } ],
	'tables rewritten' => [ 'postgres', 2, \&_rewrite ],
	'mapping attached again' => [ 'postgres', 2, \&_reattach ],
	'mapping made and purged' => [ 'postgres', 2, \&_purge ],
	'runs cancelled' => [ 'postgres', 2, sub {
		return (0, sub { $_[0]->cancel_runs }, $_[0] * 0.5, sub { $_[0]->want_cancelled });
	} ],
	'checkpoint' => [ 'postgres', 1, sub { return (0, sub { $_[0]->sql('SELECT pg_switch_wal()'); $_[0]->sql('CHECKPOINT') }) } ],

	'Redis killed' => [ 'redis', 4, sub {
		return (0, sub { $_[0]{redis}->kill9 }, $_[0] * 0.6, sub { $_[0]{redis}->start });
	} ],
	'Redis restarted' => [ 'redis', 2, sub {
		return (0, sub { $_[0]{redis}->stop }, $_[0] * 1.2, sub { $_[0]{redis}->start });
	} ],
	'Redis killed (data lost)' => [ 'redis', 2, sub {
		return (0, sub { $_[0]{redis}->kill9 }, $_[0] * 0.5, sub { $_[0]->wipe($_[0]{redis}); $_[0]{redis}->start });
	} ],
	'FLUSHALL (data lost)' => [ 'redis', 2, sub { return (0, sub { $_[0]->redis('FLUSHALL') }) } ],
	'replica promoted (data lost)' => [ 'redis', 3, \&_promote ],
	'slot dropped (changes lost)' => [ 'postgres', 1, sub { return (0, \&_drop_slot) } ],
	'Redis frozen' => [ 'redis', 2, sub {
		return (0, sub { $_[0]{redis}->freeze }, $_[0] * 1.5, sub { $_[0]{redis}->thaw });
	} ],
	'DEBUG SLEEP' => [ 'redis', 2, sub {
		my $time = $_[0] * 1.5;
		return (0, sub { $_[0]->redis_later('DEBUG', 'SLEEP', $time) }, $time, sub { $_[0]->redis('PING') });
	} ],
	'CLIENT PAUSE' => [ 'redis', 2, sub {
		my $time = int($_[0] * 1500) + 1;
		return (0, sub { $_[0]->redis('CLIENT', 'PAUSE', $time) }, $time / 1000, sub { });
	} ],
	'CLIENT KILL' => [ 'redis', 3, sub { return (0, sub { $_[0]->redis('CLIENT', 'KILL', 'TYPE', 'normal') }) } ],
	'maxmemory reached' => [ 'redis', 3, sub {
		return (0, sub { $_[0]->redis('CONFIG', 'SET', 'maxmemory', 1) },
			0.1 + $_[0], sub { $_[0]->redis('CONFIG', 'SET', 'maxmemory', 0) });
	} ],
	'failing bgsave' => [ 'redis', 2, sub {
		return (0, sub { $_[0]->bgsave('err') }, 0.1 + $_[0], sub { $_[0]->bgsave('ok') });
	} ],
	'network cuts' => [ 'redis', 2, sub { return (0, sub { $_[0]{proxy}->cut }) } ],
	'network truncates' => [ 'redis', 3, sub {
		my $bytes = int $_[0]**3 * 50000;
		return (0, sub { $_[0]{proxy}->truncate($bytes) }, 0.3, sub { $_[0]{proxy}->pass });
	} ],
	'network delays' => [ 'redis', 2, sub {
		my $ms = int $_[1] * 100;
		return (0, sub { $_[0]{proxy}->delay($ms) }, $_[0], sub { $_[0]{proxy}->pass });
	} ],
	'network refuses' => [ 'redis', 1, sub {
		return (0, sub { $_[0]{proxy}->refuse; $_[0]{proxy}->cut }, $_[0], sub { $_[0]{proxy}->pass });
	} ],
	'replies lost' => [ 'redis', 2, sub {
		return (0, sub { $_[0]{proxy}->drop_replies }, $_[0] * 0.5, sub { $_[0]{proxy}->cut; $_[0]{proxy}->pass });
	} ],
	'bytes delivered late' => [ 'redis', 4, sub {
		return (0, sub { $_[0]{proxy}->hold }, 0.05 + $_[0] * 0.3, sub { $_[0]{proxy}->abandon },
			0.05 + $_[1] * 0.6, sub {
				# what they do must be seen before the worker can make up for it
				$_[0]{proxy}->delay(150);
				$_[0]{proxy}->release;
			}, 0.05 + $_[1] * 0.4, sub { $_[0]{proxy}->pass });
	} ]);

=head1 FUNCTIONS

=over

=item names()

Of all faults.

=item loses($name)

Does Redis lose data, or PostgreSQL what was to become of it?

=cut

sub names { return sort keys %faults; }

sub loses { return $_[0] =~ / lost\)\z/; }

=item plan($seconds, @names)

A schedule from rand(), of some of these faults: a list of { name, steps => [
[ time, code ] ... ] }, in their order.

=cut

sub plan
{
	my ($seconds, @names) = @_;
	my @often = map { ($_) x $faults{$_}[1] } @names;
	my %free = (postgres => 0, redis => 0);
	my @plan;

	for (my $at = 0.3 + rand 0.5; @often && $at < $seconds; $at += 0.1 + rand 1.0)
	{
		my $name = $often[ rand @often ];
		my ($of, undef, $code) = @{ $faults{$name} };
		my @steps = $code->(map { rand } 1 .. 5);
		my $time = $at;
		my @timed;

		next if $free{$of} > $at;
		while (my ($gap, $step) = splice @steps, 0, 2)
		{
			$time += $gap;
			push @timed, [ $time, $step ];
		}
		$free{$of} = $time + 0.2;
		push @plan, { name => $name, steps => \@timed };
	}
	return @plan;
}

# A process of PostgreSQL's, by kill -9.
sub _kill
{
	my ($torture, $type, $which) = @_;
	my @pids = $torture->pids($type);

	return unless @pids;
	my ($checkpointer) = $torture->pids('checkpointer');
	kill 'KILL', $pids[ $which * @pids ] or return;

	# PostgreSQL starts all its processes again, unless that one was ending.
	my $end = Time::HiRes::time() + 3;
	while (Time::HiRes::time() < $end)
	{
		my ($other) = $torture->pids('checkpointer');

		last if defined $other && $other != $checkpointer;
		Time::HiRes::usleep(20_000);
	}
	return;
}

sub _terminate
{
	my ($torture, $type) = @_;
	kill 'TERM', $torture->pids($type);
	return;
}

sub _reload
{
	my ($r, $which) = @_;
	my @settings = (
		[ 'hybrid_cache.atomic_ops', 1, 3, 50, 1000, 10000 ],
		[ 'hybrid_cache.command_timeout', 300, 1000, 5000 ],
		[ 'hybrid_cache.connect_timeout', 300, 1000 ]);
	my ($name, @values) = @{ $settings[ $which * @settings ] };
	my $value = $values[ $r * @values ];

	return (0, sub {
		my ($torture) = @_;

		# With fewer, groups of the observer need not become visible together.
		$value = 100 if $name =~ /atomic/ && $torture->{atomic} && $value < 100;
		$torture->sql("ALTER SYSTEM SET $name = $value");
		$torture->sql('SELECT pg_reload_conf()');
	});
}

# The mapping goes and comes, with changes around it, in one transaction or two.  It
# comes by the function, or by plain triggers.
sub _reattach
{
	my ($which, $r, $how, $end, $by) = @_;

	return (0, sub {
		my ($torture) = @_;
		my $number = int $which * HybridCache::Torture::Schema::mappings();
		my $table = HybridCache::Torture::Schema::table($number);
		my $how_attached = $by < 0.4 && HybridCache::Torture::Schema::is_plain($number) ? 'triggers' : 'attach';
		my ($attach, $detach) = map { "$_;" } HybridCache::Torture::Schema->can($how_attached)->($number),
		  HybridCache::Torture::Schema::detach($number);

		# What the observer reads is to stay, and what the auditor counts.
		return if $table =~ /^(ver|grp|tally|due|t|f|q|r)$/ || HybridCache::Torture::Schema::kind($number) eq 'stream';
		$torture->attached($number);
		my $change = $r < 0.3 ? '' : $table eq 'l' || $r < 0.6 ? "DELETE FROM $table WHERE id % 5 = 1;"
		  : "UPDATE $table SET on_ = NOT on_ WHERE id < 50;";
		my $set = "SET client_min_messages = error; SET lock_timeout = '1s';";

		if ($how < 0.7)
		{
			$torture->sql("$set BEGIN; $change $detach $attach $change "
				  . ($end < 0.3 ? 'ROLLBACK' : 'COMMIT'));
			return;
		}
		return unless defined $torture->sql("$set $detach");
		until (defined $torture->sql("$set $attach"))
		{
			$torture->end_prepared(1);
		}
	});
}

# Rows get other places, in another file.
sub _rewrite
{
	my ($which, $how) = @_;
	my $table = (qw(a b1 b2 c d e l t ver grp due q r1))[ $which * 13 ];
	my $command = $how < 0.5 ? "VACUUM FULL $table" : "CLUSTER $table USING ${table}_pkey";

	return (0, sub {
		my $lines = $_[0]->psql_lines("SET lock_timeout = '1s';\n$command;\n");

		1 while defined $lines->();
	});
}

# A mapping comes and goes, and its entries with it.
sub _purge
{
	my ($which, $r, $how, $by) = @_;
	my $table = (qw(a b c d e l t))[ $which * 7 ];

	return (0, sub { $_[0]->sql(HybridCache::Torture::Schema::attach_visitor($table)) }, $r * 0.8, sub {
		my ($torture) = @_;
		my $set = "SET client_min_messages = error; SET lock_timeout = '1s';";

		if ($how < 0.3)
		{
			$torture->sql("$set SELECT hybrid_cache.detach('$table', 'visitor')");
			return;
		}
		$torture->sql($how < 0.6 ? "$set DROP TRIGGER visitor ON $table"
			: "$set SELECT hybrid_cache.detach('$table', 'visitor', purge => false)");
		$torture->purge($by < 0.5);
	});
}

# The worker keeps its slot busy, so it takes a moment without one.
sub _drop_slot
{
	my ($torture) = @_;
	my $slot = $torture->sql(q{SELECT 'hybrid_cache_' || oid FROM pg_database WHERE datname = 'torture'}, 'postgres') // return;

	foreach (1 .. 20)
	{
		$torture->sql("SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = '$slot'", 'postgres');
		last if defined $torture->sql("SELECT pg_drop_replication_slot('$slot')", 'postgres');
	}
	return;
}

# The replica stops to follow, and takes over a while later.
sub _promote
{
	my ($r) = @_;

	return (
		0, sub { my ($torture) = @_; $torture->part_replica; },
		0.1 + $r * 0.8, sub { my ($torture) = @_; $torture->promote_replica; });
}

=back

=cut

1;
