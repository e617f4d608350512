# Cached queries: fifty sessions that miss at once, invalidations that race with
# queries, and sessions that end in the middle of one.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
my $node = start_server($redis, <<'CONF');
max_connections = 80
restart_after_crash = on
CONF

my $number = 0;

sub start_pgbench
{
	my ($script, @options) = @_;
	my $file = $node->basedir . '/' . ++$number . '.sql';
	my $said = '';
	append_to_file($file, $script);
	my $run = IPC::Run::start(
		[
			'pgbench', '-n', '-f', $file, @options,
			'-h', $node->host, '-p', $node->port, 'postgres'
		],
		'>', \$said, '2>', \$said);
	return { run => $run, said => \$said };
}

# What it has said in the end.
sub finish
{
	my ($bench) = @_;
	eval { $bench->{run}->finish; };
	return ${ $bench->{said} };
}

# How often the query of a key has run, and how many wait for it.
sub runs { return $redis->cli('GET', "runs:$_[0]") || 0; }

sub waiting
{
	my ($n, $what) = @_;
	poll("SELECT count(*) = $n FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query LIKE '%cached(%' AND backend_type = 'client backend'",
		$what);
	return;
}

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE item (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO item SELECT i, 0 FROM generate_series(1, 10) i;
SELECT hybrid_cache.attach('item', 'invalidate', 'sum', name => 'sum');
-- a query that counts its runs, and stops while somebody has the lock
CREATE FUNCTION slow(name text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM redis_command('INCR', 'runs:' || name);
	PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1);
	RETURN (SELECT sum(v) FROM item);
END $$;
CREATE FUNCTION pause() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1);
	RETURN 0;
END $$;
SELECT hybrid_cache.wait_for_sync('60s');
SQL

my $gate = $node->background_psql('postgres');

sub close_gate { $gate->query('SELECT pg_advisory_lock(1)'); return; }
sub open_gate { $gate->query('SELECT pg_advisory_unlock(1)'); return; }

# ---------------------------------------------------------------------------
# one run for all

my $query = q{SELECT 1 / (hybrid_cache.cached('%s', '1 hour', 'SELECT slow(''%1$s'') AS s') = '[{"s": 0}]')::int;};
close_gate();
my $bench = start_pgbench(sprintf($query, 'sum'), '-c', 50, '-j', 2, '-t', 1);
waiting(49, 'of 50 sessions that miss at once, 49 wait');
is(runs('sum'), 1, 'one runs the query');
open_gate();
like(finish($bench), qr{actually processed: 50/50}, 'all 50 get the result');
is(runs('sum'), 1, 'of one run');
finish(start_pgbench(sprintf($query, 'sum'), '-c', 50, '-j', 2, '-t', 20));
is(runs('sum'), 1, 'and so do a thousand later ones');

# again and again
my $failed = 0;
foreach my $round (1 .. 20)
{
	my $said = finish(start_pgbench(sprintf($query, "round$round"), '-c', 20, '-j', 2, '-t', 5));
	$failed++ unless $said =~ m{actually processed: 100/100} && runs("round$round") == 1;
}
is($failed, 0, 'in 20 rounds, each query has run once');

# ---------------------------------------------------------------------------
# who computes ends

sub runner
{
	my ($name) = @_;
	my $pid;
	poll(sprintf(q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}), 'one runs the query');
	return sql(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted});
}

foreach my $way ('pg_cancel_backend', 'pg_terminate_backend')
{
	close_gate();
	$bench = start_pgbench(sprintf($query, $way), '-c', 10, '-j', 2, '-t', 1);
	waiting(9, "$way: nine wait");
	my $first = runner();
	sql("SELECT $way($first)");
	poll("SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid <> $first",
		'when the session that runs the query ends, another takes over');
	waiting(8, 'and the others go on waiting');
	is(runs($way), 2, 'so that is the second run');
	open_gate();
	like(finish($bench), qr{actually processed: 9/10}, 'all others get the result');
	is(runs($way), 2, 'of the second run');
}

# an old value will do only while somebody computes the new one
my $stale = q{SET hybrid_cache.stale_ttl = '1h'; SELECT hybrid_cache.cached('stale', '1 ms', 'SELECT slow(''stale'') AS s')};
sql($stale);
poll(q{SELECT redis_hget('hybrid_cache:cached:{stale}', 'until')::numeric < extract(epoch FROM clock_timestamp()) * 1000},
	'the value is old');
close_gate();
$bench = start_pgbench(($stale =~ s/; /;\n/r) . ';', '-c', 1, '-t', 1);
my $first = runner();
like(sql($stale), qr{"s": 0}, 'while one computes, another takes the old value');
is(runs('stale'), 2, '... without running the query');
sql("SELECT pg_terminate_backend($first)");
finish($bench);
open_gate();
sql($stale);
is(runs('stale'), 3, 'once that has ended, another runs it');

# who waits can be cancelled, and waits no longer than it may
close_gate();
$bench = start_pgbench(sprintf($query, 'patience'), '-c', 1, '-t', 1);
runner();
my ($ret, $out, $err) = $node->psql('postgres', sprintf("SET statement_timeout = 200; $query", 'patience'));
like($err, qr/statement timeout/, 'who waits can be cancelled');
my $impatient = start_pgbench("SET hybrid_cache.lease_timeout = 100;\n" . sprintf($query, 'patience'), '-c', 1, '-t', 1);
poll(q{SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 'who has waited long enough runs the query');
open_gate();
like(finish($bench), qr{actually processed: 1/1}, 'both get ...');
like(finish($impatient), qr{actually processed: 1/1}, '... a result');
is($redis->cli('GET', 'patience'), '[{"s": 0}]', 'which is stored');

# everybody ends
close_gate();
$bench = start_pgbench(sprintf($query, 'crash'), '-c', 5, '-j', 1, '-t', 1);
waiting(4, 'four wait');
kill 'KILL', runner();
finish($bench);
poll('SELECT true', 'after a crash the server comes back');
eval { $gate->quit; };
$gate = $node->background_psql('postgres');
poll('SELECT connected FROM hybrid_cache.status', 'and its worker');
$bench = start_pgbench(sprintf($query, 'crash'), '-c', 5, '-j', 1, '-t', 1);
like(finish($bench), qr{actually processed: 5/5}, 'the lease of before is taken over at once');
is(runs('crash'), 2, 'one runs the query');

# ---------------------------------------------------------------------------
# somebody else has the lease

sql(q{SELECT hybrid_cache.cached('else', '1 hour', 'SELECT 1 AS a')});
my $of = $redis->cli('HGET', 'hybrid_cache:cached:{else}', 'of');
$redis->cli('DEL', 'else', 'hybrid_cache:cached:{else}');
my $lua = sql(q{SELECT setting || '/extension/hybrid_cache' FROM pg_config WHERE name = 'SHAREDIR'});
my $script = slurp_file("$lua/cached_get.lua");
my $store = slurp_file("$lua/cached_store.lua");
my @keys = (2, 'else', 'hybrid_cache:cached:{else}');
is($redis->cli('EVAL', $script, @keys, $of, 0, 'another client', 60000, '', ''), 'lease', 'another client gets the lease');
$bench = start_pgbench(q{SELECT 1 / (hybrid_cache.cached('else', '1 hour', 'SELECT 1 AS a') = '[{"a": "of the client"}]')::int;}, '-c', 5, '-j', 1, '-t', 1);
waiting(5, 'five sessions wait for it');
is($redis->cli('EVAL', $store, @keys, 'another client', '[{"a": "of the client"}]', 60000, 0), 1, 'it stores');
like(finish($bench), qr{actually processed: 5/5}, 'they get what it has stored');
$redis->cli('DEL', 'else', 'hybrid_cache:cached:{else}');
is($redis->cli('EVAL', $script, @keys, $of, 0, 'another client', 300, '', ''), 'lease', 'it takes the lease again, for a moment');
is(sql(q{SELECT hybrid_cache.cached('else', '1 hour', 'SELECT 1 AS a')}), '[{"a": 1}]', 'and does not come back: a session takes over');
is($redis->cli('EVAL', $store, @keys, 'another client', 'too late', 60000, 0), 0, 'so it comes too late');
is($redis->cli('GET', 'else'), '[{"a": 1}]', 'and stores nothing');

# ---------------------------------------------------------------------------
# a query that an invalidation has overtaken

close_gate();
$bench = start_pgbench(q{SELECT hybrid_cache.cached('sum', '1 hour', 'SELECT slow(''overtaken'') AS s');}, '-c', 1, '-t', 1);
runner();
sql("UPDATE item SET v = v + 1 WHERE id = 1; SELECT hybrid_cache.wait_for_sync('60s')");
open_gate();
like(finish($bench), qr{actually processed: 1/1}, 'a query that an invalidation has overtaken has its result');
is(sql(q{SELECT redis_get('sum') IS NULL}), 't', '... which is not stored');

# invalidations race with queries

sql('UPDATE item SET v = 0');
my $writers = start_pgbench(<<'SQL', '-c', 4, '-j', 1, '-T', 600);
\set a random(1, 10)
UPDATE item SET v = v + 1 WHERE id = :a;
SQL
my $readers = start_pgbench(
	q{SELECT hybrid_cache.cached('sum', '1 hour', 'SELECT sum(v) AS s FROM item');}, '-c', 8, '-j', 1, '-T', 600);

# the writers pause from time to time: then what is stored must be what is there
my $wrong = 0;
my $seen = 0;
foreach my $round (1 .. 30)
{
	my $is = sql(<<'SQL');
BEGIN;
LOCK TABLE item IN SHARE MODE;
SELECT hybrid_cache.wait_for_sync('60s');
SELECT count(redis_get('sum')) > 0 AS stored, count(*) FILTER (WHERE (redis_get('sum')::jsonb -> 0 ->> 's')::int <> (SELECT sum(v) FROM item)) AS wrong;
COMMIT;
SQL
	$wrong++ unless $is =~ /^t\n[tf]\|0$/m;
	$seen++ if $is =~ /^t\n[t]\|/m;
}
is($wrong, 0, 'what is stored is never older than the last invalidation');
ok($seen > 0, 'and there is something stored');
foreach my $b ($writers, $readers)
{
	$b->{run}->signal('INT');
	unlike(finish($b), qr/ERROR/, 'nobody has met an error');
}
sql(q{SELECT hybrid_cache.wait_for_sync('60s')});
is(sql(q{SELECT hybrid_cache.cached('sum', '1 hour', 'SELECT sum(v) AS s FROM item')}),
	'[{"s": ' . sql('SELECT sum(v) FROM item') . '}]', 'in the end it is right');

# ---------------------------------------------------------------------------
# Redis is full, is away, comes back

$redis->cli('CONFIG', 'SET', 'maxmemory', 1);
is(sql(q{SELECT hybrid_cache.cached('full', '1 hour', 'SELECT 1 AS a')}), '[{"a": 1}]', 'Redis takes no writes: the query runs');
is(sql(q{SELECT hybrid_cache.cached('else', '1 hour', 'SELECT 1 AS a')}), '[{"a": 1}]', 'and what is there is read');
$redis->cli('CONFIG', 'SET', 'maxmemory', 0);
is(sql(q{SELECT hybrid_cache.cached('full', '1 hour', 'SELECT 1 AS a')}), '[{"a": 1}]', 'it takes writes again');
is($redis->cli('GET', 'full'), '[{"a": 1}]', 'and has them');
close_gate();
$bench = start_pgbench(q{SELECT 1 / (hybrid_cache.cached('away', '1 hour', 'SELECT pause() AS s') = '[{"s": 0}]')::int;},
	'-c', 5, '-j', 1, '-t', 1);
waiting(4, 'four wait');
$redis->kill9;
open_gate();
like(finish($bench), qr{actually processed: 5/5}, 'Redis is killed: all get the result');
is(sql(q{SELECT hybrid_cache.cached('away2', '1 hour', 'SELECT 1 AS a')}), '[{"a": 1}]', 'the query runs');
$redis->start;
poll(q{SELECT hybrid_cache.cached('back', '1 hour', 'SELECT 1 AS a') IS NOT NULL AND redis_get('back') = '[{"a": 1}]'},
	'Redis is back, and results are stored');

$gate->quit;
$node->stop;
done_testing();
