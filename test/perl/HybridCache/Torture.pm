=pod

=head1 NAME

HybridCache::Torture - a randomized comparison of PostgreSQL and Redis

=head1 SYNOPSIS

  my $torture = HybridCache::Torture->new;
  my $round = $torture->round(17);
  ok(!@{ $round->{violations} });
  note(HybridCache::Torture::line($round));
  note($torture->report);

=head1 DESCRIPTION

In a round, eleven sessions change tables while faults happen, an observer reads
Redis, and an auditor has mappings compared with their tables all the time.  Then everything is made to work, the sync worker catches up, and
Redis is compared with the tables.  A round depends on its seed alone: the seed
gives the statements of each session and the schedule of the faults.  What the
operating system makes of it, it cannot give.

The servers stay from round to round, the database and the data in Redis do not.

=cut

package HybridCache::Torture;

use strict;
use warnings;

use Fcntl qw(SEEK_SET);
use File::Path qw(remove_tree);
use HybridCache::Proxy;
use HybridCache::Redis;
use HybridCache::Torture::Auditor;
use HybridCache::Torture::Child;
use HybridCache::Torture::Client;
use HybridCache::Torture::Compare;
use HybridCache::Torture::Events;
use HybridCache::Torture::Faults;
use HybridCache::Torture::Filler;
use HybridCache::Torture::Observer;
use HybridCache::Torture::Schema;
use HybridCache::Torture::Vandal;
use HybridCache::Torture::Writer;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes ();

use constant SESSIONS => 8;

# How long anything may take until it counts as a violation, in seconds.
use constant PATIENCE => 60;

# What the sync worker may have beyond what it had, and at all.
use constant {
	MAX_DESCRIPTORS => 5,
	MAX_CONTEXTS => 64 * 1024 * 1024,
	MAX_CLIENTS => 4
};

=head1 METHODS

=over

=item HybridCache::Torture->new(%options)

Starts the servers.  Options: C<seconds>, for how long the sessions of a round
work; C<faults>, a list of the names of those that may happen; C<always_large>, the
chance of a statement with 100,000 rows, by default drawn for each round.

=cut

sub new
{
	my ($class, %options) = @_;
	my $self = bless {
		seconds => 6,
		faults => [ HybridCache::Torture::Faults::names() ],
		total => {},
		times => {},
		count => {},
		%options,
		dir => PostgreSQL::Test::Utils::tempdir_short()
	}, $class;

	$self->{$_} = _redis() foreach 'redis', 'replica';
	$self->{redis}->start;
	symlink $self->{redis}->socket, $self->socket or die "symlink: $!";
	$self->{proxy} = HybridCache::Proxy->new($self->socket);
	$self->{node} = PostgreSQL::Test::Cluster->new('torture');
	$self->{node}->init;
	$self->{node}->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $self->{proxy}->url ]}'
hybrid_cache.command_timeout = '1s'
track_commit_timestamp = on
wal_level = replica
max_wal_senders = 1
max_connections = 50
max_worker_processes = 20
max_prepared_transactions = 100
restart_after_crash = on
# what is not flushed at a crash is lost
wal_writer_delay = 10s
min_wal_size = 32MB
max_wal_size = 64MB
log_statement = none
log_min_error_statement = panic
CONF
	$self->{node}->start;

	# for psql
	@ENV{qw(PGHOST PGPORT PGDATABASE PGCONNECT_TIMEOUT)} =
	  ($self->{node}->host, $self->{node}->port, 'torture', 10);
	return $self;
}

# A server that loses nothing at a crash.
sub _redis
{
	my $version = `redis-server --version`;

	return HybridCache::Redis->new(
		port => PostgreSQL::Test::Cluster::get_free_port(),
		bind => '127.0.0.1',
		appendonly => 'yes',
		appendfsync => 'always',
		# so that the failure of a save counts
		save => '3600 100000000',
		'repl-diskless-sync-delay' => 0,
		$version =~ /v=6/ ? () : ('enable-debug-command' => 'yes'));
}

=item $torture->socket

The unix socket of whatever Redis is the one in use.

=cut

sub socket { return "$_[0]{dir}/redis.sock"; }

=item $torture->round($seed)

Returns a hash: seed, violations (a list of sentences), faults (names),
seconds, and numbers of what was done.

=cut

sub round
{
	my ($self, $seed) = @_;
	my $begin = Time::HiRes::time();
	my $round = $self->{round} =
	  { seed => $seed, violations => [], faults => [], entries => 0, events => 0, committed => 0, rows => 0, settled => 0, lossy => 0, runs => 0, repaired => 0 };

	my $ok = eval {
		$self->_set_up($seed);
		$self->_load($seed);
		$self->_settle;
		$self->_check;
		1;
	};
	$self->_violation("the test itself failed: $@") unless $ok;
	$self->_stop_children;
	$self->_violation($_) foreach $self->_alarming_log;
	push @{ $round->{violations} }, $self->_log_end if @{ $round->{violations} };

	$round->{seconds} = Time::HiRes::time() - $begin;
	$self->{total}{$_} += $round->{$_} foreach qw(entries events committed rolled_back prepared rows reads runs repaired);
	$self->{total}{rounds}++;
	$self->{total}{violations} += @{ $round->{violations} } > 0;
	$self->{count}{$_}++ foreach @{ $round->{faults} };
	return $round;
}

sub _violation
{
	my ($self, $text) = @_;
	push @{ $self->{round}{violations} }, $text;
	return;
}

# ---------------------------------------------------------------------------
# The beginning of a round

sub _set_up
{
	my ($self, $seed) = @_;
	my $round = $self->{round};

	srand $seed;
	$self->{lax} = 0;
	my $large = rand() < 0.25 ? 0.004 : 0;
	$self->{large} = $self->{always_large} // $large;
	$self->{atomic} = rand() < 0.8;
	$self->{attached} = {};
	$self->{happened} = [];

	# Without a loss of data nothing may need to be repaired, so most rounds have
	# none.  A transaction that is too large to be resolved counts as one.
	my $lossy = $round->{lossy} = rand() < 0.3;
	my @faults = grep { $lossy || !HybridCache::Torture::Faults::loses($_) } @{ $self->{faults} };

	# A few kinds in a round, so that the time after each is known.
	@faults = map { splice @faults, rand @faults, 1 } 1 .. (@faults < 8 ? @faults : 8);
	$self->{plan} = [ HybridCache::Torture::Faults::plan($self->{seconds} - 0.5, @faults) ];

	$self->heal;
	$self->_empty;
	if (grep { $_->{name} =~ /^replica/ } @{ $self->{plan} })
	{
		$self->_follow;
	}
	my $made = $self->sql(HybridCache::Torture::Schema::create());
	die "the schema could not be made:\n" . slurp_file("$self->{dir}/sql.err") . "\n" unless defined $made;
	$self->_synced or die "the worker did not come up\n";
	$self->{worker} = $self->_worker;
	$self->_choose_runs;
	return;
}

# Whether mappings are still being populated when the load begins, and whether
# the keeper compares by itself.
sub _choose_runs
{
	my ($self) = @_;
	my ($populated, $interval, $rate) = (rand() < 0.6, rand() < 0.4 ? 1 + int rand 3 : 0, rand() < 0.6 ? 0 : 5000 + int rand 20_000);

	$self->{populated} = $populated;
	$self->{interval} = $interval;
	$self->sql($_) foreach "ALTER SYSTEM SET hybrid_cache.reconcile_interval = '${interval}s'",
	  "ALTER SYSTEM SET hybrid_cache.reconcile_rate = $rate", 'SELECT pg_reload_conf()';
	return unless $populated;

	my $end = Time::HiRes::time() + PATIENCE;
	until ($self->_equal('5s'))
	{
		die "the mappings are not populated\n" if Time::HiRes::time() > $end;
	}
	return;
}

# An empty database, an empty Redis.
sub _empty
{
	my ($self) = @_;

	$self->sql_soon("ALTER SYSTEM RESET $_", 'postgres')
	  foreach map { "hybrid_cache.$_" } qw(atomic_ops command_timeout connect_timeout);
	$self->sql("ALTER SYSTEM RESET hybrid_cache.$_", 'postgres') foreach qw(reconcile_interval reconcile_rate);
	$self->sql_soon('SELECT pg_reload_conf()', 'postgres');
	$self->sql_soon('DROP DATABASE IF EXISTS torture WITH (FORCE)', 'postgres');
	foreach my $redis (@$self{qw(redis replica)})
	{
		$redis->kill9;
		$self->wipe($redis);
	}
	$self->{redis}->start;
	$self->sql_soon('CREATE DATABASE torture', 'postgres');
	return;
}

# ---------------------------------------------------------------------------
# Load and faults

sub _load
{
	my ($self, $seed) = @_;
	my %common = (dir => $self->{dir}, socket => $self->socket, large => 0);
	my $begin = Time::HiRes::time();
	my @steps;

	$self->{observer} = HybridCache::Torture::Child->start(\&HybridCache::Torture::Observer::run,
		%common, atomic => $self->{atomic} && $self->{populated});
	$self->{filler} = HybridCache::Torture::Child->start(\&HybridCache::Torture::Filler::run,
		%common, seed => $seed);
	$self->{writers} = [ map {
		HybridCache::Torture::Child->start(\&HybridCache::Torture::Writer::run,
			%common, name => "w$_", seed => $seed * SESSIONS + $_, large => $self->{large})
	} 1 .. SESSIONS ];
	push @{ $self->{writers} }, HybridCache::Torture::Child->start(\&HybridCache::Torture::Writer::run,
		%common, name => 'quiet', seed => $seed, script => \&HybridCache::Torture::Generator::neighbours);
	push @{ $self->{writers} }, map {
		HybridCache::Torture::Child->start(\&HybridCache::Torture::Writer::run,
			%common, name => "due$_", seed => $seed * SESSIONS + $_, script => \&HybridCache::Torture::Generator::timetable)
	} 1 .. 2;
	$self->{auditor} = HybridCache::Torture::Child->start(\&HybridCache::Torture::Auditor::run, %common, seed => $seed);

	foreach my $fault (@{ $self->{plan} })
	{
		foreach my $i (0 .. $#{ $fault->{steps} })
		{
			push @steps, [ @{ $fault->{steps}[$i] }, $fault, $i == 0, $i == $#{ $fault->{steps} } ];
		}
	}

	my $active = 0;
	my %skipped;
	foreach my $step (sort { $a->[0] <=> $b->[0] } @steps)
	{
		my ($time, $code, $fault, $first, $last) = @$step;
		my $name = $fault->{name};

		$self->_wait_until($begin + $time);

		# On a slow machine the schedule is cut.
		$skipped{$fault} = 1 if $first && Time::HiRes::time() > $begin + 1.5 * $self->{seconds};
		next if $skipped{$fault};
		if ($first)
		{
			$self->_stop_watch;
			$active++;
			push @{ $self->{round}{faults} }, $name;
			$self->_lose if HybridCache::Torture::Faults::loses($name);
			$self->_note("fault: $name");
			$fault->{from} = Time::HiRes::time();
		}
		$code->($self);
		push @{ $self->{happened} }, [ $fault->{from}, Time::HiRes::time() ] if $last;
		$active-- if $last;
		$self->_start_watch($name) if $last && $active == 0;
	}
	$self->_wait_until($begin + $self->{seconds});
	return;
}

# Redis is about to lose data.
sub _lose
{
	my ($self) = @_;
	$self->{lax} = 1;
	$self->{observer}->ask('lax');
	return;
}

# Into the server's log, so that it can be read with what happened.
sub _note
{
	my ($self, $text) = @_;
	append_to_file($self->{node}->logfile, sprintf "%s torture: %s\n", HybridCache::Torture::Observer::_time(), $text);
	return;
}

sub _wait_until
{
	my ($self, $time) = @_;
	for (;;)
	{
		my $left = $time - Time::HiRes::time();

		$self->_read_watch if $self->{watch} && $self->{watch}->done;
		last if $left <= 0;
		Time::HiRes::usleep(1e6 * ($left < 0.02 ? $left : 0.02));
	}
	return;
}

# A watch measures how long it takes after a fault until Redis has everything.
sub _start_watch
{
	my ($self, $name) = @_;

	$self->{watched} = $name;
	$self->{watch} = HybridCache::Torture::Child->start(
		sub {
			my ($child) = @_;
			my $begin = Time::HiRes::time();
			until ($child->stopped)
			{
				return { seconds => Time::HiRes::time() - $begin } if $self->_equal('0.5s');
				Time::HiRes::usleep(10_000);
			}
			return {};
		});
	return;
}

sub _stop_watch
{
	my ($self) = @_;
	my $watch = delete $self->{watch} or return;
	$watch->stop;
	return;
}

sub _read_watch
{
	my ($self) = @_;
	my $result = (delete $self->{watch})->result;

	return unless defined $result->{seconds};
	push @{ $self->{times}{ $self->{watched} } }, $result->{seconds};
	$self->{observer}->ask('strict') if $self->{lax};
	$self->{lax} = 0;
	return;
}

# ---------------------------------------------------------------------------
# The end of a round

# Stops the load, makes everything work and waits until Redis is equal.
sub _settle
{
	my ($self) = @_;
	my $round = $self->{round};

	foreach my $child (@{ delete $self->{writers} }, delete $self->{filler})
	{
		my $result = $child->stop;
		$self->_violation("a session failed: $result->{died}") if $result->{died};
		$round->{$_} += $result->{$_} // 0 foreach qw(committed rolled_back prepared rows);
	}
	my $audit = (delete $self->{auditor})->stop;
	$self->heal;
	$self->sql_soon(q{SELECT hybrid_cache.detach(relation, name) FROM hybrid_cache.mapping WHERE name = 'visitor'});
	$self->purge(1) or $self->_violation('leftovers cannot be purged');
	$self->want_cancelled;

	my $begin = Time::HiRes::time();
	my $end = $begin + PATIENCE;
	$self->_note('settle');
	until ($self->_equal('5s'))
	{
		next if Time::HiRes::time() < $end;
		$self->_violation('Redis is not equal after ' . PATIENCE . ' s: '
			  . $self->sql_soon('SELECT to_jsonb(s) FROM hybrid_cache.status s')
			  . $self->sql_soon('SELECT json_agg(o) FROM hybrid_cache.owed o')
			  . $self->sql_soon('SELECT json_agg(l) FROM hybrid_cache.leftover l'));
		last;
	}
	$round->{settled} = Time::HiRes::time() - $begin;
	$self->_audit($audit);
	if ($self->{watch})
	{
		$self->_stop_watch;
		push @{ $self->{times}{ $self->{watched} } }, $round->{settled};
	}
	return;
}

# What the auditor's runs have found.  A run counts what was wrong in Redis, so
# nothing unless a stranger was there.
sub _audit
{
	my ($self, $audit) = @_;
	my $round = $self->{round};

	$self->_violation("the auditor failed: $audit->{died}") if $audit->{died};
	foreach my $message (keys %{ $audit->{failures} || {} })
	{
		my $failure = $audit->{failures}{$message};
		my $all = $self->{failures}{$message} //= { times => 0, seconds => 0 };

		$all->{times} += $failure->{times};
		$all->{seconds} = $failure->{seconds} if $failure->{seconds} > $all->{seconds};
	}
	$self->{audited} = [ keys %{ $audit->{seen} || {} } ];
	foreach my $run (@{ $audit->{runs} || [] })
	{
		$round->{runs}++;
		$round->{repaired} += $run->{got}[-1];
		next if $round->{lossy} || !$self->{populated} || $self->{attached}{ $run->{number} };
		$self->_false_count($run);
	}

	# What is left to be found is repaired now, and after that there is nothing.
	return unless $self->_can_reconcile;
	foreach my $pass (1, 2)
	{
		foreach my $number ($pass == 1 ? HybridCache::Torture::Schema::quiet() : HybridCache::Torture::Schema::compared())
		{
			my $got = $self->sql_soon('SELECT '
				  . join(q{ || ' ' || }, HybridCache::Torture::Vandal::counts())
				  . ' FROM ' . HybridCache::Torture::Schema::call('reconcile', $number));
			$self->_violation("the run after a run of m$number ($got) still finds something")
			  if $pass == 2 && $got =~ /[1-9]/;
		}
	}
	return;
}

sub _can_reconcile
{
	my ($self) = @_;
	return $self->sql_soon(q{SELECT EXISTS (SELECT FROM pg_proc WHERE oid = to_regproc('hybrid_cache.reconcile'))}) eq 't';
}

# While nothing else was wrong, a run finds what the stranger did, and all of it;
# else what others, or an earlier run, have repaired before may be missing.
sub _false_count
{
	my ($self, $run) = @_;
	my @names = HybridCache::Torture::Vandal::counts();
	my $disturbed = $self->{interval} || $run->{again}
	  || grep { $_->[0] - 0.5 < $run->{to} && $_->[1] + 0.5 > $run->{from} } @{ $self->{happened} };

	return if $run->{again} && grep { $_ == $run->{number} } HybridCache::Torture::Schema::quiet();
	foreach my $i (0 .. $#names)
	{
		my ($want, $got) = ($run->{want}[$i], $run->{got}[$i]);
		next if $got == $want || ($disturbed && $got < $want);
		$self->_violation("a run of m$run->{number} counts @{$run->{got}}, not @{$run->{want}} (@names)");
		last;
	}
	return;
}

# Has Redis got everything, and is nothing left to be repaired?  Nor will be,
# when transactions end that were open while changes were lost?  Twice, since
# what was applied in between may have left something to be repaired.
sub _equal
{
	my ($self, $timeout) = @_;
	my $look = "SELECT hybrid_cache.wait_for_sync('$timeout');"
	  . ' SELECT NOT EXISTS (SELECT FROM hybrid_cache.owed)'
	  . ' AND NOT EXISTS (SELECT FROM hybrid_cache.leftover)'
	  . ' AND NOT EXISTS (SELECT FROM hybrid_cache.installation WHERE unsettled_xid IS NOT NULL);';
	my $answer = $self->sql("$look $look");
	return defined $answer && $answer eq "t\nt\nt\nt";
}

sub _synced
{
	my ($self) = @_;
	my $end = Time::HiRes::time() + PATIENCE;

	until (($self->sql("SELECT hybrid_cache.wait_for_sync('5s')") // '') eq 't')
	{
		return 0 if Time::HiRes::time() > $end;
	}
	return 1;
}

=item $torture->heal

Ends whatever may be wrong now with the servers.

=cut

sub heal
{
	my ($self) = @_;

	$self->{proxy}->pass;
	$self->{proxy}->discard;
	$self->{redis}->start unless $self->{redis}->pid;
	$self->{redis}->thaw;
	$self->redis('CONFIG', 'SET', 'maxmemory', 0);
	$self->redis('CLIENT', 'UNPAUSE');
	$self->{node}->start unless defined $self->{node}{_pid};

	# one op at a time could take minutes
	$self->sql_soon("ALTER SYSTEM RESET hybrid_cache.$_", 'postgres') foreach qw(atomic_ops reconcile_rate);
	$self->sql_soon('SELECT pg_reload_conf()', 'postgres');
	$self->end_prepared(1);
	return;
}

sub _check
{
	my ($self) = @_;
	my $round = $self->{round};

	my $seen = (delete $self->{observer})->stop;
	$self->_violation("the observer failed: $seen->{died}") if $seen->{died};
	$self->_violation($_) foreach @{ $seen->{violations} || [] };
	$round->{reads} = $seen->{reads};
	$self->_never_committed(@{ $seen->{seen} || [] }, @{ delete $self->{audited} || [] });

	my ($entries, @wrong) = HybridCache::Torture::Compare::differences($self, $round->{lossy}, !$self->{populated});
	my ($events, @happened) = HybridCache::Torture::Events::differences($self, $round->{lossy});
	push @wrong, @happened;
	@$round{qw(entries events)} = ($entries, $events);
	$self->_violation(@wrong . ' differences at the end') if @wrong;
	$self->_violation($_) foreach @wrong > 15 ? @wrong[ 0 .. 14 ] : @wrong;

	# A record that begins before a slot that was made anew is cut.
	$self->_violation("status: $_") foreach grep { $_ ne '' && !($round->{lossy} && /^damaged/) } split /\n/, $self->sql_soon(<<'SQL');
SELECT key || ' is ' || value FROM hybrid_cache.status s, jsonb_each_text(to_jsonb(s))
WHERE database = current_database() AND key IN ('refused', 'oversize', 'damaged', 'dropped_letters') AND value <> '0'
UNION ALL SELECT to_jsonb(l)::text FROM hybrid_cache.dead_letter l
SQL
	$self->_leaks;
	$self->_refuse;
	return;
}

# No fault makes Redis refuse a change for good, since that would not be equal at
# the end.  So here is one: it must be kept, and sent again when it is asked for.
sub _refuse
{
	my ($self) = @_;

	$self->redis('SET', 'refusal', 'foreign');
	$self->sql_soon($_) foreach 'CREATE TABLE refusal (id int PRIMARY KEY)',
	  q{SELECT hybrid_cache.attach('refusal', 'set', 'refusal', member => '{id}')},
	  'INSERT INTO refusal VALUES (1) ON CONFLICT DO NOTHING';
	$self->_synced or $self->_violation('a change that Redis refuses stops the others');
	$self->_violation('a change that Redis refused was not kept as a dead letter')
	  if $self->sql_soon(q{SELECT count(*) FROM hybrid_cache.dead_letter WHERE key = 'refusal'}) ne '1';
	$self->redis('DEL', 'refusal');
	$self->sql_soon('SELECT hybrid_cache.retry_dead_letter(id) FROM hybrid_cache.dead_letter');
	$self->_synced or $self->_violation('dead letters that are sent again do not arrive');
	$self->_violation('a dead letter that was sent again is not in Redis')
	  if ($self->redis('SISMEMBER', 'refusal', '1') // 0) ne '1';
	return;
}

sub _never_committed
{
	my ($self, @seen) = @_;
	my %history = map { $_ => 1 } split /\n/,
	  $self->sql_soon(q{SELECT id || ' ' || n || ' ' || note FROM history UNION SELECT id || ' 0 first' FROM ver});

	$self->_violation("a value that was never committed: ver:$_") foreach grep { !$history{$_} } @seen;
	return;
}

sub _leaks
{
	my ($self) = @_;
	my $worker = $self->_worker;
	my ($keys, $clients);

	$keys = grep { $_ } @{ $self->redis('KEYS', 'hybrid_cache:*') };
	$self->_violation("$keys keys of our own in Redis")
	  if $keys > 10 + 2 * HybridCache::Torture::Schema::mappings();

	# Those of sessions that have just ended may still be there.
	foreach (1 .. 100)
	{
		$clients = () = $self->redis('CLIENT', 'LIST', 'TYPE', 'normal') =~ /^id=/mg;
		last if $clients <= MAX_CLIENTS;
		Time::HiRes::usleep(50_000);
	}
	$self->_violation("$clients connections to Redis") if $clients > MAX_CLIENTS;

	my $before = $self->{worker};
	$self->_violation("the worker has $worker->{descriptors} file descriptors, and had $before->{descriptors}")
	  if $worker->{pid} == $before->{pid} && $worker->{descriptors} > $before->{descriptors} + MAX_DESCRIPTORS;

	my $from = -s $self->{node}->logfile;
	my $total;
	$self->sql_soon("SELECT pg_log_backend_memory_contexts($worker->{pid})");
	foreach (1 .. 400)
	{
		($total) = $self->_log_from($from) =~ /Grand total: (\d+) bytes/;
		last if $total;
		Time::HiRes::usleep(50_000);
	}
	$self->_violation(defined $total ? "the worker uses $total bytes" : 'the worker does not tell its memory')
	  if !defined $total || $total > MAX_CONTEXTS;
	$self->{total}{contexts} = $total if defined $total && $total > ($self->{total}{contexts} // 0);
	return;
}

sub _worker
{
	my ($self) = @_;
	my $pid = 0;

	foreach (1 .. 200)
	{
		$pid = $self->sql_soon('SELECT worker_pid FROM hybrid_cache.status WHERE database = current_database()');
		last if $pid;
		Time::HiRes::usleep(50_000);
	}
	my @descriptors = glob "/proc/$pid/fd/*";
	return { pid => $pid, descriptors => scalar @descriptors };
}

sub _stop_children
{
	my ($self) = @_;

	$_->stop foreach grep { $_ } @{ delete $self->{writers} || [] }, map { delete $self->{$_} } qw(filler auditor observer watch);
	return;
}

# What the server's log must not have.
sub _alarming_log
{
	my ($self) = @_;
	my $from = $self->{log_read} // 0;

	$self->{log_read} = -s $self->{node}->logfile;

	# While Redis keeps its data nothing can be missed, so nothing needs a repair.
	my $missed = $self->{round}{lossy} ? '' : '|damaged|may have missed changes';
	return map { "log: $_" } $self->_log_from($from) =~
	  /^(.*(?:TRAP:|PANIC:|terminated by signal (?!9\b)|cannot be decoded|could not read WAL$missed).*\n.*)/mg;
}

sub _log_from
{
	my ($self, $from) = @_;
	open my $log, '<', $self->{node}->logfile or die "log: $!";
	seek $log, $from, SEEK_SET;
	local $/;
	return readline($log) // '';
}

sub _log_end
{
	my ($self) = @_;
	my @lines = grep { !/checkpoint|level: |max_wal_size|connection to client|data to client|two-phase state/ }
	  split /\n/, $self->_log_from($self->{log_read} > 20000 ? $self->{log_read} - 20000 : 0);

	splice @lines, 0, @lines - 40 if @lines > 40;
	return map { "log: $_" } @lines;
}

# ---------------------------------------------------------------------------
# For faults

=item $torture->redis(@command)

The reply of Redis.

=item $torture->redis_later(@command)

Does not wait for it.

=cut

sub redis
{
	my ($self, @command) = @_;
	return HybridCache::Torture::Client->new($self->{redis}->socket)->call(@command);
}

sub redis_later
{
	my ($self, @command) = @_;
	my $client = HybridCache::Torture::Client->new($self->{redis}->socket);

	$client->send(@command);
	$self->{later} = $client;
	return;
}

=item $torture->bgsave($result)

Has Redis save its data, which ends in C<err> or C<ok>.

=cut

sub bgsave
{
	my ($self, $result) = @_;

	chmod $result eq 'ok' ? 0755 : 0555, $self->{redis}->dir;
	foreach my $turn (0 .. 500)
	{
		my ($state) = $self->redis('INFO', 'persistence') =~ /rdb_last_bgsave_status:(\w+)/;
		return if $state eq $result;
		eval { $self->redis('BGSAVE') } if $turn % 50 == 0;
		Time::HiRes::usleep(10_000);
	}
	die "a save does not end in $result\n";
}

=item $torture->wipe($redis)

Removes the data of a Redis that does not run.

=cut

sub wipe
{
	my ($self, $redis) = @_;
	remove_tree($redis->dir . '/appendonlydir');
	unlink map { $redis->dir . "/$_" } 'appendonly.aof', 'dump.rdb';
	return;
}

# Starts the replica, empty.
sub _follow
{
	my ($self) = @_;
	my ($redis, $replica) = @$self{qw(redis replica)};

	$replica->kill9;
	$self->wipe($replica);
	$replica->start;
	HybridCache::Torture::Client->new($replica->socket)
	  ->call('REPLICAOF', '127.0.0.1', $redis->port);
	return;
}

=item $torture->part_replica

From now on the replica does not follow.

=item $torture->promote_replica

Redis is killed, and what was its replica takes its place.

=cut

sub part_replica
{
	my ($self) = @_;
	my $client = HybridCache::Torture::Client->new($self->{replica}->socket);

	foreach (1 .. 1000)
	{
		# until it has written its log anew, a crash would lose what it got
		last if $client->call('INFO') =~ /^aof_rewrite_in_progress:0.*^master_link_status:up/ms;
		Time::HiRes::usleep(10_000);
	}
	$client->call('REPLICAOF', 'NO', 'ONE');
	return;
}

sub promote_replica
{
	my ($self) = @_;

	$self->{redis}->kill9;
	@$self{qw(redis replica)} = @$self{qw(replica redis)};
	unlink $self->socket;
	symlink $self->{redis}->socket, $self->socket or die "symlink: $!";
	$self->_follow;
	return;
}

=item $torture->end_prepared($share)

Ends this share of the prepared transactions, as their names say.

=cut

sub end_prepared
{
	my ($self, $share) = @_;
	my @names = split /\n/, $self->sql_soon('SELECT gid FROM pg_prepared_xacts ORDER BY gid', 'postgres');

	foreach my $name (@names[ 0 .. $share * @names - 1 ])
	{
		$self->sql(($name =~ /^c/ ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$name'");
	}
	return;
}

=item $torture->cancel_runs

Cancels what the keeper does, and what it is going to do.

=item $torture->want_cancelled

Asks for what was cancelled, since nobody else does.

=cut

sub cancel_runs
{
	my ($self) = @_;
	$self->sql(q{SELECT hybrid_cache.cancel(relation, name) FROM hybrid_cache.progress WHERE kind <> 'purge'});
	return;
}

sub want_cancelled
{
	my ($self) = @_;
	$self->sql(q{SELECT hybrid_cache.populate(m.relation, m.name) FROM hybrid_cache.mapping m WHERE m.state LIKE '%cancelled%'});
	return;
}

=item $torture->purge($force)

Has the entries of dropped visitors removed; false if it was refused.

=cut

sub purge
{
	my ($self, $force) = @_;
	$force = $force ? 'true' : 'false';
	return defined $self->sql("SELECT hybrid_cache.purge(id, false, $force) FROM hybrid_cache.leftover WHERE mapping = 'visitor'");
}

=item $torture->attached($number)

This mapping may differ from its table until the end of the round.

=cut

sub attached { $_[0]{attached}{ $_[1] } = 1; return; }

=item $torture->pids($type)

The processes of PostgreSQL that are of this type, as in pg_stat_activity.

=cut

sub pids
{
	my ($self, $type) = @_;
	my $pids = $self->sql(
		"SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND pid <> pg_backend_pid() ORDER BY 1",
		'postgres');
	return split /\n/, $pids // '';
}

=item $torture->sql($query, $database)

What psql prints, without the last newline; undef if anything fails.

=item $torture->sql_soon($query, $database)

The same, and tries until it succeeds.

=item $torture->psql_lines($script)

A function that returns a line of the output of a script with each call.

=cut

sub sql
{
	my ($self, $query, $database) = @_;
	my $lines = $self->_psql($database, '-c', $query);
	my $out = '';

	while (defined(my $line = readline $lines))
	{
		$out .= $line;
	}
	local $?;
	return unless close $lines;
	chomp $out;
	return $out;
}

sub sql_soon
{
	my ($self, @query) = @_;
	my $end = Time::HiRes::time() + PATIENCE;

	while (Time::HiRes::time() < $end)
	{
		my $answer = $self->sql(@query);
		return $answer if defined $answer;
		Time::HiRes::usleep(20_000);
	}
	die "PostgreSQL does not do \"$query[0]\": " . slurp_file("$self->{dir}/sql.err") . "\n";
}

sub psql_lines
{
	my ($self, $script) = @_;
	my $name = "$self->{dir}/script.sql";

	open my $file, '>', $name or die "$name: $!";
	print $file $script;
	close $file;
	my $lines = $self->_psql(undef, '-f', $name);
	return sub {
		my $line = readline $lines;
		chomp $line if defined $line;
		return $line;
	};
}

sub _psql
{
	my ($self, $database, @what) = @_;
	my $pid = open my $lines, '-|' // die "could not fork: $!";

	if ($pid == 0)
	{
		open STDERR, '>', "$self->{dir}/sql.err";
		$ENV{PGOPTIONS} = '-c statement_timeout=120s -c client_min_messages=error';
		exec { 'psql' } 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $database // 'torture', @what
		  or POSIX::_exit(127);
	}
	return $lines;
}

# ---------------------------------------------------------------------------
# What was done

=item line($round)

A round in one line.

=item $torture->report

All rounds so far.

=cut

sub line
{
	my ($round) = @_;
	return sprintf 'seed %d: %s, %.1f s, %d transactions committed, %d rows changed, %d runs, equal after %.1f s, %d entries and %d events compared, faults: %s',
	  $round->{seed}, @{ $round->{violations} } ? 'VIOLATIONS' : 'ok', @$round{qw(seconds committed rows runs settled entries events)},
	  join(', ', @{ $round->{faults} }) || 'none';
}

sub report
{
	my ($self) = @_;
	my $total = $self->{total};
	my @lines = (
		sprintf('%d rounds, %d with violations', $total->{rounds} // 0, $total->{violations} // 0),
		sprintf('%d transactions committed, %d prepared, %d rolled back; %d rows changed by their statements',
			map { $_ // 0 } @$total{qw(committed prepared rolled_back rows)}),
		sprintf('%d entries and %d events compared at the ends of rounds, %d looks at Redis in between',
			map { $_ // 0 } @$total{qw(entries events reads)}),
		sprintf('%d runs asked for while that went on, which repaired %d entries', map { $_ // 0 } @$total{qw(runs repaired)}),
		sprintf('at most %d bytes of memory used by the sync worker at the end of a round', $total->{contexts} // 0),
		sprintf('%-30s %8s %8s %8s', 'fault', 'times', 'p50', 'max'));

	foreach my $name (sort keys %{ $self->{count} })
	{
		my @times = sort { $a <=> $b } @{ $self->{times}{$name} || [] };
		push @lines, sprintf '%-30s %8d %8s %8s', $name, $self->{count}{$name},
		  map { defined ? sprintf '%.2f s', $_ : '-' } $times[ $#times / 2 ], $times[-1];
	}
	push @lines, '(p50 and max: from the end of a fault until nothing is missing in Redis, while the load goes on)';
	push @lines, map { sprintf '%d times, for %.1f s at most, the auditor got: %s', @{ $self->{failures}{$_} }{qw(times seconds)}, $_ }
	  sort keys %{ $self->{failures} || {} };
	return join "\n", @lines;
}

=back

=cut

1;
