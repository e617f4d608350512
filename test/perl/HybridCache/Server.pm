=pod

=head1 NAME

HybridCache::Server - one PostgreSQL and its Redis, and what tests ask of them

=head1 SYNOPSIS

  use HybridCache::Redis;
  use HybridCache::Server qw(start_server sql settled);

  my $redis = HybridCache::Redis->new;
  my $node = start_server($redis, <<'CONF');
  hybrid_cache.command_timeout = 60s
  CONF
  sql('CREATE EXTENSION hybrid_cache');
  settled('all is populated');

=head1 DESCRIPTION

For tests with one server.  The functions are about the node that was started
last, and its database postgres.

=cut

package HybridCache::Server;

use strict;
use warnings;

use Exporter qw(import);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT_OK = qw(start_server sql poll settled in_sync in_log);

my $node;

=head1 FUNCTIONS

=over

=item start_server($redis, $conf)

Starts the Redis and a PostgreSQL that uses it, with these settings; returns the
node.

=cut

sub start_server
{
	my ($redis, $conf) = @_;
	$node = PostgreSQL::Test::Cluster->new('main');
	$node->init;
	$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
log_statement = none
wal_level = replica
max_worker_processes = 20
$conf
CONF
	$redis->start;
	$node->start;
	return $node;
}

=item sql($command)

What it prints; dies if it fails.

=item poll($query, $what)

A test: the query returns true soon.

=item in_log($pattern, $what)

A test: that was logged.

=cut

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub poll
{
	my ($query, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until('postgres', $query), $what);
	return;
}

sub in_log
{
	my ($pattern, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like(slurp_file($node->logfile), $pattern, $what);
	return;
}

=item settled($what)

Tests: soon nothing is owed any more, and all that was done about it is in Redis.

=item in_sync()

The same, but only dies if it is not so.

=cut

sub settled
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	poll('SELECT count(*) = 0 FROM hybrid_cache.owed', $what);
	is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', '... and is in Redis');
	return;
}

sub in_sync
{
	$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM hybrid_cache.owed')
	  or die 'something stays owed';
	sql("SELECT hybrid_cache.wait_for_sync('60s')") eq 't' or die 'Redis does not follow';
	return;
}

=back

=cut

1;
