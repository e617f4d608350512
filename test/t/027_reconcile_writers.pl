# Mappings are compared with their tables again and again while sessions write all
# the time.  Redis is equal, as far as anybody can say, so nothing may be counted
# nor repaired; and nothing in Redis may go back.  Then a stranger changes entries of
# rows that no session touches: exactly these are counted and repaired.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Torture::Child;
use HybridCache::Torture::Client;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# Rows of the large table: those that only grow, those that come and go, and those
# that are moved but not changed, as far as their entries are concerned.
use constant { GROWING => 15_000, BUSY => 30_000, ALL => 40_000 };

# At least so long, and so often.
use constant { SECONDS => 10, ROUNDS => 3 };

my $redis = HybridCache::Redis->new;
$redis->start;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
hybrid_cache.reconcile_interval = 0
hybrid_cache.reconcile_rate = 0
wal_level = replica
max_wal_senders = 0
max_prepared_transactions = 20
deadlock_timeout = 20ms
log_statement = none
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(<<"SQL");
CREATE EXTENSION hybrid_cache;
CREATE TABLE b (id int PRIMARY KEY, v text, n bigint DEFAULT 0, lng float8, lat float8, other int DEFAULT 0);
-- too much for one chunk
INSERT INTO b SELECT i, repeat('v' || i, 60), 0, i % 180, i % 80 FROM generate_series(1, @{[ ALL ]}) i;
SELECT hybrid_cache.attach('b', 'json', 'b:{id}', columns => 'id, v, n', name => 'json');
SELECT hybrid_cache.attach('b', 'geo', 'bgeo', member => '{id}', longitude => 'lng', latitude => 'lat', name => 'geo');
SELECT hybrid_cache.attach('b', 'zset', 'bz:{lat}', member => '{id}', score => 'n', filter => 'lng > 90', name => 'zset');

CREATE TABLE s (id int PRIMARY KEY DEFERRABLE, g int, v text);
INSERT INTO s SELECT i, i % 5, 's' || i FROM generate_series(1, 300) i;
INSERT INTO s SELECT i, i % 5, 's' || i FROM generate_series(1001, 1100) i;
SELECT hybrid_cache.attach('s', 'string', 's:{id}', value => 'v', name => 'string');
SELECT hybrid_cache.attach('s', 'set', 'ss:{g}', member => '{id}', name => 'set');
SELECT hybrid_cache.attach('s', 'field', 'sf', field => '{id}', value => 'v', name => 'field');

CREATE TABLE p (id int PRIMARY KEY, v text, e timestamptz) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (MINVALUE) TO (1000);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (2000);
CREATE TABLE p3 PARTITION OF p DEFAULT;
CREATE SEQUENCE moved START 100000;
INSERT INTO p SELECT i, 'p' || i FROM generate_series(1, 300) i;
INSERT INTO p SELECT i, 'p' || i FROM generate_series(1001, 1100) i;
SELECT hybrid_cache.attach('p', 'hash', 'p:{id}', columns => 'id, v', name => 'hash');
SELECT hybrid_cache.attach('p', 'string', 'pe:{id}', value => 'v', expires_at => 'e', name => 'expiring');
SQL
ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM hybrid_cache.owed)'), 'everything is populated')
  or BAIL_OUT('the mappings are not populated');

# While it waits for the keeper, others can queue for a table that it has locked,
# and the keeper behind them.
is(sql(<<'SQL'), 'f', 'reconcile() keeps no lock that somebody could wait for');
BEGIN;
DO $$ BEGIN PERFORM hybrid_cache.reconcile('p', 'hash'); END $$;
SELECT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid()
	AND relation IN (SELECT 'p'::regclass UNION SELECT relid FROM pg_partition_tree('p') UNION SELECT 'hybrid_cache.owed'::regclass));
SQL

# How often a script is run, and the script.  What is rolled back can be told from
# what is committed.
my @scripts = (
	[ 20, 'UPDATE b SET n = n + 1, v = md5(random()::text) WHERE id = :growing;' ],
	[ 8, 'UPDATE b SET n = n + 1 WHERE id BETWEEN :growing AND :growing + 20;' ],
	# rows move, and no entry changes; quiet is the entry, not the row
	[ 10, 'UPDATE b SET other = other + 1 WHERE id BETWEEN :all AND :all + 100;' ],
	[ 10, 'DELETE FROM b WHERE id = :busy;' ],
	[ 10, q{INSERT INTO b VALUES (:busy, 'new', 1, :client_id, 7) ON CONFLICT (id) DO UPDATE SET lng = -b.lng, lat = (b.lat + 1)::int % 80;} ],
	[ 10, q{BEGIN; UPDATE b SET n = n + 1 WHERE id = :growing; SAVEPOINT x;
		UPDATE b SET n = n + 1000000, v = 'ROLLED BACK' WHERE id BETWEEN :growing AND :growing + 5;
		DELETE FROM b WHERE id BETWEEN :busy AND :busy + 10; ROLLBACK TO x;
		UPDATE s SET v = 'after' || :growing WHERE id = :small; COMMIT;} ],
	[ 5, q{BEGIN; UPDATE b SET n = n + 1000000, v = 'ROLLED BACK' WHERE id = :growing; DELETE FROM s WHERE id <= 300; ROLLBACK;} ],
	[ 5, q{BEGIN; UPDATE b SET n = n + 1 WHERE id = :growing; UPDATE s SET v = v || 'p' WHERE id = :small;
		PREPARE TRANSACTION 'p:client_id'; COMMIT PREPARED 'p:client_id';} ],
	[ 3, q{BEGIN; UPDATE b SET v = 'ROLLED BACK', n = n + 1000000 WHERE id = :growing;
		PREPARE TRANSACTION 'p:client_id'; ROLLBACK PREPARED 'p:client_id';} ],
	[ 10, q{DO $$ BEGIN UPDATE s SET id = CASE id WHEN :small THEN :small2 ELSE :small END, g = g + 1 WHERE id IN (:small, :small2);
		EXCEPTION WHEN unique_violation THEN NULL; END $$;} ],
	[ 5, q{DO $$ BEGIN INSERT INTO s VALUES (:small, 1, 'again'); EXCEPTION WHEN unique_violation THEN NULL; END $$;} ],
	[ 5, 'DELETE FROM s WHERE id = :small;' ],
	[ 5, q{UPDATE s SET v = left(v, 5) || 'x', g = (g + 1) % 5 WHERE id <= 300;} ],
	[ 10, q{INSERT INTO p VALUES (:small, 'p', now() + :client_id * interval '0.2 s') ON CONFLICT (id) DO UPDATE SET v = left(p.v, 5) || 'u', e = excluded.e;} ],
	# to another partition
	[ 5, q{UPDATE p SET id = nextval('moved') WHERE id = :small;} ],
	[ 0.2, 'TRUNCATE p3;' ],
	[ 0.2, q{BEGIN; LOCK TABLE s IN SHARE ROW EXCLUSIVE MODE; DELETE FROM s WHERE id <= 300;
		INSERT INTO s SELECT i, 1, 'all' FROM generate_series(1, 300) i; COMMIT;} ],
	[ 0.2, "UPDATE b SET v = left(v, 5) || '.', n = n + 1 WHERE id <= @{[ GROWING ]};" ]);

my $dir = PostgreSQL::Test::Utils::tempdir();
my @files;
foreach my $i (0 .. $#scripts)
{
	my ($weight, $script) = @{ $scripts[$i] };

	PostgreSQL::Test::Utils::append_to_file("$dir/$i.sql", <<"SQL");
\\set growing random(1, @{[ GROWING - 20 ]})
\\set busy random(@{[ GROWING + 1 ]}, @{[ BUSY - 10 ]})
\\set all random(1, @{[ ALL - 100 ]})
\\set small random(1, 300)
\\set small2 random(1, 300)
$script
SQL
	push @files, '-f', "$dir/$i.sql\@" . int 5 * $weight;
}
my ($pgbench_out, $pgbench_err) = ('', '');
my $pgbench = IPC::Run::start(
	[ 'pgbench', '-n', '-c', 4, '-T', 600, '--max-tries', 1000, @files, $node->connstr('postgres') ],
	'>', \$pgbench_out, '2>', \$pgbench_err);

my $observer = HybridCache::Torture::Child->start(
	sub {
		my ($child) = @_;
		my $client = HybridCache::Torture::Client->new($redis->socket);
		my (%last, %seen);
		my $reads = 0;

		until ($child->stopped)
		{
			my @ids = map { 1 + int rand GROWING } 1 .. 100;
			my @values = $client->pipeline(map { [ 'GET', "b:$_" ] } @ids);

			foreach my $i (0 .. $#ids)
			{
				# a row that only grows always has an entry
				my ($n) = ($values[$i] // '') =~ /"n":(\d+)/;
				$reads++;
				$seen{"b:$ids[$i] is " . ($values[$i] // 'missing')} = 1 if !defined $n || $values[$i] =~ /ROLLED BACK/;
				next unless defined $n;
				$seen{"b:$ids[$i] goes back from $last{$ids[$i]} to $n"} = 1 if $n < ($last{ $ids[$i] } // 0);
				$last{ $ids[$i] } = $n;
			}
		}
		return { reads => $reads, wrong => [ sort keys %seen ] };
	});

my %table = ((map { $_ => 'b' } qw(json geo zset)), (map { $_ => 's' } qw(string set field)), (map { $_ => 'p' } qw(hash expiring)));

sub counts
{
	my ($mapping) = @_;
	return sql(q{SELECT concat_ws(' ', missing, stale, orphaned, conflicting, repaired)}
		  . " FROM hybrid_cache.reconcile('$table{$mapping}', '$mapping')");
}

# ---------------------------------------------------------------------------
# nothing is wrong

my %false;
my $rounds = 0;
for (my $begin = time; time < $begin + SECONDS || $rounds < ROUNDS; $rounds++)
{
	foreach my $mapping (sort keys %table)
	{
		my $counts = counts($mapping);
		$false{"$mapping: $counts"}++ if $counts ne '0 0 0 0 0';
	}
}
note("$rounds runs of each mapping");
is(join("\n", sort keys %false), '', 'runs count nothing while Redis is equal');

# ---------------------------------------------------------------------------
# a stranger

# mapping, commands, counts: missing, stale, orphaned, conflicting, repaired
my @strange = (
	[ 'json', '20 30 5 3 58',
		(map { [ 'DEL', "b:$_" ] } 30101 .. 30120),
		(map { [ 'SET', "b:$_", '{"id":0}' ] } 31101 .. 31115),
		(map { [ 'APPEND', "b:$_", ' ' ] } 39986 .. 40000),
		(map { [ 'SET', 'b:' . (50000 + $_), 'no row' ] } 1 .. 5),
		map { ([ 'DEL', "b:$_" ], [ 'HSET', "b:$_", 'a', 1 ]) } 33001 .. 33003 ],
	[ 'json', '8000 0 0 0 8000', map { [ 'DEL', "b:$_" ] } 31001 .. 39000 ],
	[ 'geo', '10 12 7 0 29',
		(map { [ 'ZREM', 'bgeo', $_ ] } 30101 .. 30110),
		(map { [ 'ZADD', 'bgeo', 3_000_000_000_000_000, $_ ] } 32001 .. 32012),
		map { [ 'ZADD', 'bgeo', 3_000_000_000_000_000, 50000 + $_ ] } 1 .. 7 ],
	[ 'string', '3 4 2 1 10',
		(map { [ 'DEL', "s:$_" ] } 1001 .. 1003),
		(map { [ 'SET', "s:$_", 'old' ] } 1005 .. 1008),
		(map { [ 'SET', "s:$_", 'no row' ] } 7001 .. 7002),
		[ 'DEL', 's:1099' ], [ 'ZADD', 's:1099', 1, 'x' ] ],
	[ 'set', '0 0 3 0 3', map { [ 'SADD', 'ss:2', $_ ] } 7001 .. 7003 ],
	[ 'field', '2 2 1 0 5',
		(map { [ 'HDEL', 'sf', $_ ] } 1001, 1002),
		(map { [ 'HSET', 'sf', $_, 'old' ] } 1003, 1004), [ 'HSET', 'sf', '7001', 'no row' ] ],
	[ 'hash', '2 3 2 1 8',
		(map { [ 'DEL', "p:$_" ] } 1001, 1002),
		[ 'HSET', 'p:1003', 'stray', 1 ], [ 'HDEL', 'p:1004', 'v' ], [ 'HSET', 'p:1005', 'v', 'old' ],
		[ 'HSET', 'p:7001', 'v', 'no row' ], [ 'HSET', 'p:7002', 'v', 'no row' ],
		[ 'DEL', 'p:1006' ], [ 'SET', 'p:1006', 'a string' ] ]);

my $client = HybridCache::Torture::Client->new($redis->socket);
foreach my $strange (@strange)
{
	my ($mapping, $want, @commands) = @$strange;
	my ($exec) = grep { ref eq 'ARRAY' } $client->pipeline(['MULTI'], @commands, ['EXEC']);

	is(scalar(grep { ref } @$exec), 0, "a stranger changes entries of $mapping");
	is(counts($mapping), $want, 'exactly these are found and repaired');
	is(counts($mapping), '0 0 0 0 0', '... once');
}

# ---------------------------------------------------------------------------
# the end

my $seen = $observer->stop;
is($seen->{died}, undef, 'the observer has seen everything');
cmp_ok($seen->{reads}, '>', 10_000, 'and looked often');
is(join("\n", @{ $seen->{wrong} || [] }), '', 'nothing goes back, is missing, or was never committed');

$pgbench->signal('INT');
$pgbench->finish;
unlike($pgbench_err, qr/ERROR|aborted/, 'the writers went on until now');
is(sql('SELECT count(*) FROM pg_prepared_xacts'), sql(<<'SQL'), 'all transactions are ended');
DO $$
DECLARE
	x record;
BEGIN
	FOR i IN 1..1000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pgbench');
		PERFORM pg_sleep(0.01);
		PERFORM pg_stat_clear_snapshot();
	END LOOP;
END
$$;
SELECT count(*) FROM pg_prepared_xacts
SQL
sql("ROLLBACK PREPARED '$_'") foreach split /\n/, sql('SELECT gid FROM pg_prepared_xacts');
is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'all is applied');
is(counts($_), '0 0 0 0 0', "$_ is equal") foreach sort keys %table;

# What a run says, by other means.
is(sql(<<'SQL'), 't|t|t', 'as Redis says');
SELECT (SELECT bool_and(redis_get('b:' || id) = row_to_json((SELECT x FROM (SELECT id, v, n) x))::text) FROM b),
	(SELECT bool_and(redis_get('s:' || id) = v) FROM s),
	(SELECT bool_and(redis_command('HGETALL', 'p:' || id) = jsonb_build_array('id', id::text, 'v', v)) FROM p)
SQL
is($client->call('ZCARD', 'bgeo'), sql('SELECT count(*) FROM b'), 'and the number of members');
is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), '0', 'nothing was refused');
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP/, 'no process has crashed');

$node->stop;
done_testing();
