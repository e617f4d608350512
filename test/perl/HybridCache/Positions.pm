=pod

=head1 NAME

HybridCache::Positions - what tests of lost positions share

=head1 SYNOPSIS

  use HybridCache::Positions;

  my $t = HybridCache::Positions->new($node, $redis);
  $t->note_log;
  ... something that loses changes ...
  $t->owes(qr/has no watermark/, 'Redis without data');
  $t->equal('after that');

=head1 DESCRIPTION

The node has a table C<row (id int PRIMARY KEY, v text)> in the database
postgres, and a mapping of it as C<row:{id}>.

=cut

package HybridCache::Positions;

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

=head1 METHODS

=over

=item HybridCache::Positions->new($node, $redis)

=cut

sub new
{
	my ($class, $node, $redis) = @_;
	return bless { node => $node, redis => $redis, offset => 0 }, $class;
}

=item $t->create

Makes the extension, the table and the mapping.

=cut

sub create
{
	my ($self) = @_;
	$self->sql(<<'SQL');
CREATE EXTENSION IF NOT EXISTS hybrid_cache;
CREATE TABLE row (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v');
INSERT INTO row SELECT i, 'v' || i FROM generate_series(1, 10) i;
SQL
	return;
}

=item $t->sql($command)

=item $t->poll($query, $what)

=item $t->use_redis($redis)

The Redis that the next comparisons look at.

=cut

sub sql { return $_[0]{node}->safe_psql('postgres', $_[1]); }

sub poll
{
	my ($self, $query, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($self->{node}->poll_query_until('postgres', $query), $what);
	return;
}

sub use_redis { $_[0]{redis} = $_[1]; return; }

=item $t->note_log

From here on the log is looked at.

=item $t->log

What was logged since.

=item $t->logged($regexp, $what)

Waits for a message in the log.

=item $t->logged_times($regexp, $times, $what)

So many messages are there by now.

=cut

sub note_log { $_[0]{offset} = -s $_[0]{node}->logfile; return; }

sub log { return slurp_file($_[0]{node}->logfile, $_[0]{offset}); }

sub logged
{
	my ($self, $regexp, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $end = Time::HiRes::time() + $PostgreSQL::Test::Utils::timeout_default;
	Time::HiRes::usleep(20_000)
	  while $self->log !~ $regexp && Time::HiRes::time() < $end;
	like($self->log, $regexp, $what);
	return;
}

sub logged_times
{
	my ($self, $regexp, $times, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $found = () = $self->log =~ /$regexp/g;
	is($found, $times, $what);
	return;
}

=item $t->in_sync($what)

Everything committed so far is in Redis.

=item $t->equal($what)

So it is, and Redis has, or gets soon, what the table has, and nothing else.

=cut

sub in_sync
{
	my ($self, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($self->sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', $what);
	return;
}

# Row by row: the table, then Redis.
sub _compare
{
	my ($self) = @_;
	my %rows = map { split /\|/, $_, 2 }
	  split /\n/, $self->sql('SELECT id, v FROM row');
	my %entries;
	foreach my $key (split /\n/, $self->{redis}->cli('KEYS', 'row:*'))
	{
		$entries{ substr $key, 4 } = $self->{redis}->cli('GET', $key);
	}
	return (join("\n", map { "$_ $rows{$_}" } sort keys %rows),
		join("\n", map { "$_ $entries{$_}" } sort keys %entries));
}

sub equal
{
	my ($self, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$self->in_sync("$what: in sync");
	$self->_becomes_equal($what);
	return;
}

# A Redis that has just lost data is not noticed at once, nor compared at once.
sub _becomes_equal
{
	my ($self, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $end = Time::HiRes::time() + $PostgreSQL::Test::Utils::timeout_default;
	my ($rows, $entries) = $self->_compare;
	while ($rows ne $entries && Time::HiRes::time() < $end)
	{
		Time::HiRes::usleep(20_000);
		($rows, $entries) = $self->_compare;
	}
	is($entries, $rows, "$what: Redis is equal to the table");
	return;
}

=item $t->owes($regexp, $what)

Waits until the log says that everything must be compared, for this reason,
and then until that is done.

=item $t->owes_nothing($what)

The log does not say so.

=cut

sub owes
{
	my ($self, $regexp, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$self->logged(qr/may have missed changes: every mapping must be compared.*\n.*DETAIL:.*$regexp/,
		"$what: the log says why a comparison is owed");
	$self->poll('SELECT NOT EXISTS (SELECT FROM hybrid_cache.owed)', "$what: it is settled");
	$self->in_sync("$what: changes go on");
	$self->_becomes_equal($what);
	return;
}

sub owes_nothing
{
	my ($self, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike($self->log, qr/may have missed changes/, "$what: nothing is owed");
	is($self->sql('SELECT count(*) FROM hybrid_cache.owed'), '0', "$what: as the table says");
	return;
}

=item $t->change

Changes a row, so that a Redis without this change can be told.

=cut

sub change
{
	my ($self) = @_;
	my $id = 1 + $self->{changes}++;
	$self->sql("INSERT INTO row VALUES ($id % 17, 'change $id') ON CONFLICT (id) DO UPDATE SET v = excluded.v");
	return;
}

=item $t->fill_wal($segments)

Writes WAL that concerns nobody, in as many segments.

=cut

sub fill_wal
{
	my ($self, $segments) = @_;
	$self->sql("SELECT pg_logical_emit_message(false, '', 'x'); SELECT pg_switch_wal();")
	  foreach 1 .. $segments;
	return;
}

=item $t->without_worker($command)

Ends the sync worker and does something before the next one comes up.

=cut

sub without_worker
{
	my ($self, $command) = @_;
	$self->sql(<<"SQL");
DO \$do\$
BEGIN
	FOR i IN 1..1000 LOOP
		BEGIN
			PERFORM pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots
				WHERE slot_name ~ '^hybrid_cache_' AND active;
			$command;
			RETURN;
		EXCEPTION WHEN object_in_use THEN
			NULL;
		END;
	END LOOP;
	RAISE 'the worker always comes first';
END
\$do\$
SQL
	return;
}

=back

=cut

1;
