# hybrid_cache.get(): entries that Redis does not have are filled in by the
# keeper, once, with nothing old; without Redis the table answers.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll);
use IO::Socket::UNIX;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = HybridCache::Redis->new;
my $node = start_server($redis, <<'CONF');
hybrid_cache.atomic_ops = 100
max_connections = 80
CONF

sub count_of
{
	my ($column) = @_;
	return sql("SELECT $column FROM hybrid_cache.status WHERE database = 'postgres'");
}

# The key comes back, since somebody has missed it.
sub filled
{
	my ($key, $what) = @_;
	poll("SELECT redis_exists('$key') = 1", $what);
	return;
}

# All that was asked for up to now is filled in: the keeper takes it in turn.
my $probe = 0;

sub served
{
	my ($what) = @_;
	$probe++;
	$redis->cli('DEL', "item:$probe");
	sql("SELECT hybrid_cache.get('item', 'item', $probe)");
	filled("item:$probe", $what);
	return;
}

my $pgbench;
my $said = '';

sub start_pgbench
{
	my ($script, @options) = @_;
	my $file = $node->basedir . '/' . ++$probe . '.sql';
	append_to_file($file, $script);
	$said = '';
	$pgbench = IPC::Run::start(
		[
			'pgbench', '-n', '-f', $file, @options,
			'-h', $node->host, '-p', $node->port, 'postgres'
		],
		'>', \$said, '2>', \$said);
	return;
}

sub stop_pgbench
{
	$pgbench->signal('INT');
	eval { $pgbench->finish; };
	return;
}

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE item (id int PRIMARY KEY, town int, v text);
CREATE INDEX ON item (town);
SELECT hybrid_cache.attach('item', 'string', 'item:{id}', value => 'v', name => 'item');
SELECT hybrid_cache.attach('item', 'hash', 'hash:{id}', name => 'hash');
SELECT hybrid_cache.attach('item', 'json', 'hour:{id}', ttl => '1 hour', name => 'hour');
SELECT hybrid_cache.attach('item', 'json', 'blink:{id}', ttl => '1 second', name => 'blink');
SELECT hybrid_cache.attach('item', 'set', 'town:{town}', member => '{id}', name => 'town');
SELECT hybrid_cache.attach('item', 'string', 'v:{v}', value => 'id', name => 'v');
INSERT INTO item SELECT i, i % 10, 'v' || i FROM generate_series(1, 200) i;
INSERT INTO item SELECT i, 10, repeat('x', 300) || i FROM generate_series(201, 350) i;
SELECT hybrid_cache.wait_for_sync('60s');
SQL

# ---------------------------------------------------------------------------
# what is missing is filled in

is(sql(q{SELECT hybrid_cache.get('item', 'item', 5)}), '"v5"', 'a hit');
is(count_of('concat(read_hits, read_misses, fills)'), '100', 'is counted');
$redis->cli('DEL', 'item:101', 'hash:101', 'town:1');
is(sql(<<'SQL'), '"v101"|{"v": "v101", "id": "101", "town": "1"}|20', 'misses are answered from the table');
SELECT hybrid_cache.get('item', 'item', 101), hybrid_cache.get('item', 'hash', 101),
	jsonb_array_length(hybrid_cache.get('item', 'town', 1))
SQL
filled('item:101', 'a string is filled in');
filled('hash:101', 'a hash');
filled('town:1', 'a set');
is($redis->cli('GET', 'item:101') . $redis->cli('HGET', 'hash:101', 'v') . $redis->cli('SCARD', 'town:1'),
	'v101v10120', 'as the rows are');
poll("SELECT fills = 3 FROM hybrid_cache.status WHERE database = 'postgres'", 'fills are counted');
is(count_of('read_misses'), 3, 'and misses');

# an hour is an hour from now on
$redis->cli('DEL', 'hour:102');
sql(q{SELECT hybrid_cache.get('item', 'hour', 102)});
filled('hour:102', 'an entry with a time to live is filled in');
my $ttl = $redis->cli('TTL', 'hour:102');
ok($ttl > 3500 && $ttl <= 3600, 'and lives as long again') || diag $ttl;
poll(q{SELECT redis_exists('blink:103') = 0}, 'an entry expires');
is(sql(q{SELECT hybrid_cache.get('item', 'blink', 103) ->> 'v'}), 'v103', 'it is read from the table');
filled('blink:103', 'and lives again');
poll(q{SELECT redis_exists('blink:103') = 0}, 'and expires again');

# what no row has is nobody's work
my $fills = count_of('fills');
is(sql(q{SELECT count(hybrid_cache.get('item', 'item', i)) FROM generate_series(1001, 2000) i}), 0,
	'a thousand keys that no row has');
is(sql(q{SELECT count(hybrid_cache.get('item', 'town', i)) FROM generate_series(1001, 1100) i}), 0,
	'and empty sets');
served('after that');
poll("SELECT fills = $fills + 1 FROM hybrid_cache.status WHERE database = 'postgres'", 'nothing else was filled in');

# a row that is not committed
$node->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO item VALUES (999, 999, 'mine');
UPDATE item SET v = 'mine' WHERE id = 104;
SELECT redis_del('item:104');
SELECT hybrid_cache.get('item', 'item', 999), hybrid_cache.get('item', 'item', 104);
SELECT hybrid_cache.get('item', 'item', 105), pg_sleep(0.1);
ROLLBACK;
SQL
served('after a transaction that was rolled back');
is($redis->cli('EXISTS', 'item:999') . $redis->cli('GET', 'item:104'), '0v104', 'nothing of it is filled in');

# what is on its way to Redis comes by itself
$fills = count_of('fills');
my $worker = count_of('worker_pid');
kill 'STOP', $worker;
sql(q{INSERT INTO item VALUES (998, 998, 'new')});
is(sql(q{SELECT hybrid_cache.get('item', 'item', 998)}), '"new"', 'a row that is not in Redis yet');
kill 'CONT', $worker;
served('after that');
poll("SELECT fills > $fills FROM hybrid_cache.status WHERE database = 'postgres'", 'what was missing is filled in');
is(count_of('fills') - $fills, 1, 'that row is not');

# too long for the queue; too many for one MULTI
my $long = ('x' x 300) . '201';
$redis->cli('DEL', "v:$long");
is(sql("SELECT hybrid_cache.get('item', 'v', '$long')"), '"201"', 'a very long key is read from the table');
served('after that');
is($redis->cli('EXISTS', "v:$long"), 0, 'and not filled in');
$redis->cli('DEL', 'town:10');
is(sql(q{SELECT jsonb_array_length(hybrid_cache.get('item', 'town', 10))}), 150, 'a large set is read from the table');
poll(q{SELECT redis_command('SCARD', 'town:10')::int = 150}, 'a large set comes back by a run of the keeper');
poll('SELECT count(*) = 0 FROM hybrid_cache.owed', 'that ends');
is(sql(q{SELECT jsonb_array_length(hybrid_cache.get('item', 'town', 10))}), 150, 'it is read from Redis');

# half of it does not look like the whole
sql('ALTER DATABASE postgres SET hybrid_cache.repair = off');
poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'", 'the keeper ends');
$redis->cli('DEL', 'town:2', 'item:106');
is(sql(q{SELECT hybrid_cache.get('item', 'item', 106)}), '"v106"', 'without repair: from the table');
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'}), 0, 'and no keeper comes');
is($redis->cli('EXISTS', 'item:106'), 0, 'nothing is filled in');
sql(q{INSERT INTO hybrid_cache.owed SELECT oid, 'a test', now() FROM pg_trigger WHERE tgname = 'town'});
$redis->cli('SADD', 'town:2', '2');
is(sql(q{SELECT jsonb_array_length(hybrid_cache.get('item', 'town', 2))}), 20, 'a set of a mapping that owes is read from the table');
sql('ALTER DATABASE postgres RESET hybrid_cache.repair');
poll('SELECT count(*) = 0 FROM hybrid_cache.owed', 'until it owes nothing');
sql(q{SELECT hybrid_cache.wait_for_sync('60s')});
is($redis->cli('SCARD', 'town:2'), 20, 'and is whole');

# ---------------------------------------------------------------------------
# many at a time

$fills = count_of('fills');
my $misses = count_of('read_misses');
$worker = count_of('worker_pid');
$redis->cli('DEL', 'item:150');
kill 'STOP', $worker;
start_pgbench(q{SELECT 1 / (hybrid_cache.get('item', 'item', 150) = '"v150"')::int;}, '-c', 50, '-j', 2, '-t', 20);
$pgbench->finish;
like($said, qr{actually processed: 1000/1000}, 'a thousand readers of one key, and nobody fills it in');
is(count_of('read_misses') - $misses, 1000, 'they all miss');

# the keeper that was asked is not there any more
poll("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'", 'the keeper is at it');
is(sql("SELECT bool_and(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'"),
	't', 'it is terminated');
kill 'CONT', $worker;
filled('item:150', 'another fills in');
served('after that');
poll("SELECT fills = $fills + 2 FROM hybrid_cache.status WHERE database = 'postgres'", 'once');
sql(q{SELECT hybrid_cache.wait_for_sync('60s')});

# readers that come while it is filled in
$fills = count_of('fills');
start_pgbench(q{SELECT 1 / (hybrid_cache.get('item', 'item', 151) = '"v151"')::int;}, '-c', 8, '-j', 1, '-T', 600);
poll(q{SELECT count(*) > 8 FROM pg_stat_activity WHERE backend_type = 'client backend'}, 'readers that never stop');
foreach my $round (1 .. 10)
{
	$redis->cli('DEL', 'item:151');
	filled('item:151', "round $round: it is filled in");
	poll("SELECT fills >= $fills + $round FROM hybrid_cache.status WHERE database = 'postgres'", 'and counted');
}
stop_pgbench();
unlike($said, qr/ERROR/, 'they all read what is there');
served('after that');
poll("SELECT fills >= $fills + 11 FROM hybrid_cache.status WHERE database = 'postgres'", 'all is counted');
is(count_of('fills') - $fills, 11, 'once each time');

# ---------------------------------------------------------------------------
# while others change the rows

sql(<<'SQL');
CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL);
-- so that others write while the keeper reads
CREATE FUNCTION slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.001); RETURN n; END $$;
SELECT hybrid_cache.attach('hot', 'string', 'hot:{id}', value => 'n', name => 'hot');
SELECT hybrid_cache.attach('hot', 'zset', 'hot', member => '{id}', score => 'slow(n)', name => 'hot_z');
INSERT INTO hot SELECT i, 0 FROM generate_series(1, 20) i;
SELECT hybrid_cache.wait_for_sync('60s');
SQL

# Reads the counters all the time; what it has to say ends up in a file.
my $observed = $node->basedir . '/observed';
my $observer = fork;
die "could not fork: $!" unless defined $observer;
if (!$observer)
{
	my $socket = IO::Socket::UNIX->new(Peer => $redis->socket);
	my ($n, $absent, %last, $problem) = (0, 0);
	my @keys = map { "hot:$_" } 1 .. 20;
	until (-e "$observed.end" || $problem)
	{
		foreach my $command ("MGET @keys", 'ZMSCORE hot ' . join(' ', 1 .. 20))
		{
			print $socket "$command\r\n";
			$socket->flush;
			<$socket>;
			for my $id (1 .. 20)
			{
				my $place = substr($command, 0, 1) . $id;
				my ($length) = <$socket> =~ /^\$(-?\d+)/;
				if ($length < 0)
				{
					$absent++;
					next;
				}
				my $value = <$socket> + 0;
				$problem = "$place went from $last{$place} to $value"
				  if defined $last{$place} && $last{$place} > $value;
				$last{$place} = $value;
			}
		}
		$n++;
	}
	append_to_file($observed, $problem // ($absent > 1000 ? "nothing wrong in $n readings" : 'no key was absent'));
	POSIX::_exit(0);
}

$fills = count_of('fills');
start_pgbench(<<'SQL', '-c', 6, '-j', 1, '-T', 600);
\set a random(1, 20)
\set b random(1, 20)
UPDATE hot SET n = n + 1 WHERE id = :a;
SELECT redis_del('hot:' || :b, 'hot');
SELECT hybrid_cache.get('hot', 'hot', :b), hybrid_cache.get('hot', 'hot_z');
SQL
poll("SELECT fills > $fills + 200 FROM hybrid_cache.status WHERE database = 'postgres'", 'hundreds of fills while others write');
stop_pgbench();
unlike($said, qr/ERROR/, 'nobody was disturbed');
append_to_file("$observed.end", '');
waitpid $observer, 0;
like(slurp_file($observed), qr/^nothing wrong in \d\d+/, 'no reader saw a value go back');
sql(q{SELECT hybrid_cache.wait_for_sync('60s')});
served('after that');
$redis->cli('DEL', 'hot');
sql(q{SELECT hybrid_cache.get('hot', 'hot', id) FROM hot; SELECT hybrid_cache.get('hot', 'hot_z')});
poll(q{SELECT count(redis_get('hot:' || id)) = 20 FROM hot}, 'in the end all rows are in Redis');
filled('hot', 'and the sorted set');
is(sql(q{SELECT count(*) FROM hot WHERE redis_get('hot:' || id)::int <> n OR redis_zscore('hot', id::text) IS DISTINCT FROM n}),
	0, 'as they are');

# ---------------------------------------------------------------------------
# Redis is away

my $fallbacks = count_of('fallbacks');
$fills = count_of('fills');
$redis->kill9;
is(sql(q{SELECT hybrid_cache.get('item', 'item', 107), hybrid_cache.get('hot', 'hot_z') IS NOT NULL}), '"v107"|t',
	'Redis was killed: the table answers');
my $session = $node->background_psql('postgres');
is($session->query(q{SELECT hybrid_cache.get('item', 'item', 107)}), '"v107"', 'also in a session that goes on');
is(count_of('fallbacks') - $fallbacks, 3, 'that is counted');
$redis->start;
poll(q{SELECT redis_exists('item:107') = 1 AND NOT EXISTS (SELECT FROM hybrid_cache.owed)}, 'Redis comes back');
my $hits = count_of('read_hits');
is($session->query(q{SELECT hybrid_cache.get('item', 'item', 107)}), '"v107"', 'the session goes on');
is(count_of('read_hits') - $hits, 1, 'with what Redis has');
$session->quit;

unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP/, 'no process has crashed');
$node->stop;
done_testing();
