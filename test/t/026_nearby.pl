# What is near is the same whether Redis or the table says it, all over the world;
# tables answer while Redis is down, and Redis when it is back.

use strict;
use warnings;

use HybridCache::Redis;
use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;

my $redis = HybridCache::Redis->new;
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
# else FLUSHALL is made good from the WAL, with nothing owed
hybrid_cache.wal_keep_size = 0
wal_level = replica
max_wal_senders = 1
CONF
$redis->start;
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# What a session gets to hear: output and messages.
sub hear
{
	my ($command) = @_;
	my ($out, $err);
	$node->psql('postgres', $command, stdout => \$out, stderr => \$err);
	return ($out, $err);
}

sub settled
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok( $node->poll_query_until('postgres',
			q{SELECT bool_and(state = 'ok') FROM hybrid_cache.mapping}),
		"$what: nothing is owed");
	is(sql(q{SELECT hybrid_cache.wait_for_sync('60s')}), 't', "$what: in sync");
	return;
}

sub fallbacks { return sql(q{SELECT fallbacks FROM hybrid_cache.status}); }

# ---------------------------------------------------------------------------
# Points: everywhere, dense in one place, along the 180th meridian, at the limits.
# Searches: around all of these, with every radius.

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE spot (id int PRIMARY KEY, lng float8, lat float8, mark int DEFAULT 0);
SELECT setseed(0.25);
INSERT INTO spot
	SELECT i, (random() - 0.5) * 360, (random() - 0.5) * 170.1 FROM generate_series(1, 3000) i
	UNION ALL SELECT i, 13 + random(), 52 + random() FROM generate_series(3001, 6000) i
	UNION ALL SELECT i, CASE i % 2 WHEN 0 THEN 180 - random() ELSE random() - 180 END, (random() - 0.5) * 170 FROM generate_series(6001, 7000) i
	UNION ALL SELECT i, (random() - 0.5) * 360, CASE i % 2 WHEN 0 THEN 85.05 - random() ELSE random() - 85.05 END FROM generate_series(7001, 8000) i;
INSERT INTO spot VALUES (9001, 180, 10), (9002, -180, 10), (9003, 0, 85.05112878), (9004, 180, 85.05112878),
	(9005, -180, -85.05112878), (9006, 180.1, 0), (9007, 0, 85.06), (9008, 'NaN', 0), (9009, 0, '-infinity'), (9010, NULL, 0);
CREATE INDEX ON spot (lng, lat);
ANALYZE spot;
SELECT hybrid_cache.attach('spot', 'geo', 'spots', member => 'p:{id}', longitude => 'lng', latitude => 'lat');

CREATE TABLE search AS
	SELECT i, CASE i % 4 WHEN 0 THEN 180 - random() * 0.01 WHEN 1 THEN random() * 0.01 - 180 WHEN 2 THEN 13.5 ELSE (random() - 0.5) * 360 END AS lng,
		CASE i % 5 WHEN 0 THEN 85.05 - random() WHEN 1 THEN random() - 85.05 WHEN 2 THEN 52.5 ELSE (random() - 0.5) * 170.1 END AS lat,
		exp(random() * ln(20100000)) AS radius, CASE i % 3 WHEN 1 THEN 10 WHEN 2 THEN 100 END AS count
	FROM generate_series(1, 200) i;
INSERT INTO search VALUES (1001, 180, 10, 100000, NULL), (1002, -180, 10, 100000, NULL), (1003, 0, 85.05112878, 1000, NULL),
	(1004, 180, 85.05112878, 10000, 5), (1005, 13.5, 52.5, 0, NULL), (1006, 13.5, 52.5, 3e7, 5), (1007, 13.5, 52.5, 3e7, NULL);

CREATE VIEW nearby AS
	SELECT i, row_number() OVER (PARTITION BY i) AS place, (n.item).id, n.distance, n.source
	FROM search, LATERAL hybrid_cache.nearby(NULL::spot, lng, lat, radius, 'm', count) n;
CREATE VIEW filtered AS
	SELECT i, row_number() OVER (PARTITION BY i) AS place, (n.item).id, n.distance, n.source
	FROM search, LATERAL hybrid_cache.nearby(NULL::spot, lng, lat, radius, 'm', count, 'id % 10 = 3') n
	WHERE i % 4 = 0;
-- Redis itself searches only one side of the 180th meridian from there
CREATE VIEW geosearch AS
	SELECT 1 AS q, i, n.* FROM search, LATERAL redis_geosearch('spots', lng, lat, radius, 'm', count) n
	WHERE i <> 1001 AND (abs(lat) + radius / 111226 < 89.5 OR radius > 5020000)
	UNION ALL SELECT 2, i, n.* FROM search, LATERAL redis_geosearch('spots', lng, lat, radius, 'm', count, 'desc') n
	WHERE i <> 1001 AND (abs(lat) + radius / 111226 < 89.5 OR radius > 5020000) AND i % 5 = 0
	UNION ALL SELECT 3, i, n.* FROM search, LATERAL redis_geosearch_box('spots', lng, lat, radius / 500, radius / 1000, 'km', count) n
	WHERE i <> 1001 AND (abs(lat) + radius / 2 / 111226 < 89.5 OR radius > 10040000)
	UNION ALL SELECT 4, id, n.* FROM spot, LATERAL redis_geosearch_member('spots', 'p:' || id, 60, 'mi', 20) n
	WHERE id % 50 = 0 AND abs(lat) < 85
	UNION ALL SELECT 5, 0, n.* FROM redis_geosearch_member('spots', 'nobody', 60, 'mi', 20) n;
SQL
settled('at the beginning');

sql(<<'SQL');
CREATE TABLE nearby_redis AS SELECT * FROM nearby;
CREATE TABLE filtered_redis AS SELECT * FROM filtered;
CREATE TABLE geosearch_redis AS SELECT * FROM geosearch;
SQL
is(sql('SELECT source, count(*) > 100 FROM nearby_redis GROUP BY 1 ORDER BY 1'),
	"redis|t\ntable|t", 'Redis answers, but not where a circle comes near a pole');
is(sql(<<'SQL'), '', 'the table answers only there');
SELECT i FROM search WHERE EXISTS (SELECT FROM nearby_redis n WHERE n.i = search.i AND source = 'table')
	AND (abs(lat) + radius / 111226 < 89.4 OR radius > 5020000)
SQL
is(fallbacks(), '0', 'none of that is a fallback');

# Everything that is there, found by nobody's index: the Earth's radius is Redis's.
is(sql(<<'SQL'), '0|0', 'these are all the points that are near, with their distances');
WITH truth AS (
	SELECT i, id, count, distance, rank() OVER (PARTITION BY i ORDER BY distance) AS place
	FROM (SELECT i, id, count, radius, 2 * 6372797.560856 * asin(least(1, sqrt(
				sin(radians(p.lat - s.lat) / 2) ^ 2 +
				cos(radians(p.lat)) * cos(radians(s.lat)) * sin(radians(p.lng - s.lng) / 2) ^ 2))) AS distance
			FROM search s, spot p WHERE abs(p.lng) <= 180 AND abs(p.lat) <= 85.05112878) d
	WHERE distance <= radius)
SELECT count(*) FILTER (WHERE t.id IS NULL OR n.id IS NULL),
	count(*) FILTER (WHERE abs(t.distance - n.distance) > 0.05)
FROM (SELECT * FROM truth WHERE place <= coalesce(count, 100000)) t FULL JOIN nearby_redis n USING (i, id)
SQL

# Redis has each of them up to 0.33 m away from there: a point at the very edge.
is(sql(<<'SQL'), '200|200|redis', 'a point that is just within the radius is found');
SELECT count(*), count(n), min(source)
FROM (SELECT id, lng, lat, distance FROM nearby_redis JOIN search USING (i)
		WHERE source = 'redis' AND distance BETWEEN 1 AND 30000 ORDER BY id, i LIMIT 200) e
	LEFT JOIN LATERAL (SELECT source FROM hybrid_cache.nearby(NULL::spot, lng, lat, distance, filter => 'id = ' || e.id)) n ON true
SQL

# ---------------------------------------------------------------------------
# Redis is down

my ($out, $err);
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query(q{SELECT * FROM redis_geosearch('spots', 13.5, 52.5, 100)});
my $backend = $session->query('SELECT pg_backend_pid()');
$redis->stop;

($out, $err) = hear(<<'SQL');
CREATE TABLE nearby_table AS SELECT * FROM nearby;
CREATE TABLE filtered_table AS SELECT * FROM filtered;
SQL
is($err, '', 'nearby() says nothing when the table answers: the source does');
cmp_ok(fallbacks(), '>=', 200, 'it is counted');
is(sql('SELECT DISTINCT source FROM nearby_table UNION SELECT source FROM filtered_table'),
	'table', 'everything comes from the table');
my $differences = <<'SQL';
SELECT count(*) FROM %1$s_redis r FULL JOIN %1$s_table t USING (i, place)
WHERE r.id IS DISTINCT FROM t.id OR r.distance IS DISTINCT FROM t.distance
SQL
is(sql(sprintf $differences, 'nearby'), '0', 'the same rows in the same order at the same distances');
is(sql(sprintf $differences, 'filtered'), '0', 'also with a filter');

my $before = fallbacks();
($out, $err) = hear('CREATE TABLE geosearch_table AS SELECT * FROM geosearch');
is(scalar(() = $err =~ /WARNING:  Redis is down, tables answer in its place/g), 1,
	'redis_geosearch() warns once per session');
like($err, qr/\nDETAIL:  (?:could not connect|Since \d)/, 'and says why');
is(fallbacks() - $before,
	sql(<<'SQL'), 'each is counted');
SELECT (SELECT count(*) FROM search WHERE i <> 1001 AND (abs(lat) + radius / 111226 < 89.5 OR radius > 5020000)) +
	(SELECT count(*) FROM search WHERE i <> 1001 AND (abs(lat) + radius / 111226 < 89.5 OR radius > 5020000) AND i % 5 = 0) +
	(SELECT count(*) FROM search WHERE i <> 1001 AND (abs(lat) + radius / 2 / 111226 < 89.5 OR radius > 10040000)) +
	(SELECT count(*) FROM spot WHERE id % 50 = 0 AND abs(lat) < 85) + 1
SQL
is(sql('SELECT count(*) > 50000 FROM geosearch_redis'), 't', 'Redis had found much');
is(sql(<<'SQL'), '0', 'the tables find the same');
SELECT count(*) FROM geosearch_redis r FULL JOIN geosearch_table t USING (q, i, member)
WHERE r.distance IS NULL OR t.distance IS NULL OR abs(r.distance - t.distance) > 0.00011
	OR abs(r.longitude - t.longitude) > 1e-9 OR abs(r.latitude - t.latitude) > 1e-9
SQL

# A session that had a connection; nothing of it is left.
like($session->query(q{SELECT member FROM redis_geosearch('spots', 13.5, 52.5, 10, 'km', count => 1)}),
	qr/^p:\d+$/, 'a session that had a connection gets an answer');
like($session->{stderr}, qr/WARNING:  Redis is down/, 'and a warning');
my $fds = () = glob "/proc/$backend/fd/*";
$session->query(q{SELECT count(n) FROM generate_series(1, 300), LATERAL redis_geosearch('spots', 13.5, 52.5, 1) n});
is(scalar(() = glob "/proc/$backend/fd/*"), $fds, 'nothing is left open');

# In the middle of transactions and savepoints.
($out, $err) = hear(<<'SQL');
BEGIN;
UPDATE spot SET lng = 13.5, lat = 52.5, mark = 1 WHERE id = 1;
SAVEPOINT s;
SELECT member, distance < 1 FROM redis_geosearch('spots', 13.5, 52.5, 1, count => 1);
DO $$
BEGIN
	PERFORM redis_geosearch('spots', 13.5, 52.5, 1);
	PERFORM redis_geosearch('no such key', 13.5, 52.5, 1);
EXCEPTION WHEN connection_exception OR SQLSTATE '08001' THEN
	RAISE NOTICE 'no mapping has it';
END $$;
SELECT (item).mark, distance, source FROM hybrid_cache.nearby(NULL::spot, 13.5, 52.5, 1);
ROLLBACK TO s;
COMMIT;
SELECT mark FROM spot WHERE id = 1;
SQL
is($out, "p:1|t\n1|0|table\n1", 'the transaction goes on');
like($err, qr/NOTICE:  no mapping has it/, 'a key that no mapping has stays an error');

# ---------------------------------------------------------------------------
# Redis is back

$redis->start;
ok($node->poll_query_until('postgres', <<'SQL'), 'Redis answers again when it is back and has everything');
SELECT (SELECT bool_and(state = 'ok') FROM hybrid_cache.mapping) AND
	(SELECT count(*) = 1 AND min(source) = 'redis' FROM hybrid_cache.nearby(NULL::spot, 13.5, 52.5, 1, 'm', filter => 'mark = 1'))
SQL
$before = fallbacks();
is(sql(q{SELECT member FROM redis_geosearch('spots', 13.5, 52.5, 1, count => 1)}), 'p:1', 'redis_geosearch() too');
is(fallbacks(), $before, 'that is no fallback');

# What was lost is not searched in: the table answers until it is repaired.
sql(q{ALTER SYSTEM SET hybrid_cache.repair = off; SELECT pg_reload_conf()});
$redis->cli('FLUSHALL');
ok($node->poll_query_until('postgres', <<'SQL'), 'the table answers when Redis is known to have lost its data');
SELECT count(*) = 1 AND min(source) = 'table' FROM hybrid_cache.nearby(NULL::spot, 13.5, 52.5, 1, 'm', filter => 'mark = 1')
SQL
sql(q{ALTER SYSTEM RESET hybrid_cache.repair; SELECT pg_reload_conf()});
settled('after a loss');
is(sql(q{SELECT count(*), min(source) FROM hybrid_cache.nearby(NULL::spot, 13.5, 52.5, 1, 'm', filter => 'mark = 1')}),
	'1|redis', 'Redis answers when it is repaired');

# ---------------------------------------------------------------------------
# A Redis that does not answer in time, and a cancel that is no failure of Redis

$redis->freeze;
($out, $err) = hear(q{SET hybrid_cache.command_timeout = '100ms'; SET hybrid_cache.connect_timeout = '100ms';
	SELECT member FROM redis_geosearch('spots', 13.5, 52.5, 1, count => 1);
	SELECT source FROM hybrid_cache.nearby(NULL::spot, 13.5, 52.5, 1, count => 1)});
is($out, "p:1\ntable", 'the table answers where Redis takes too long');
($out, $err) = hear("SET hybrid_cache.redis_url = '@{[ $redis->url ]}?db=0'; SET statement_timeout = '100ms';
	SET hybrid_cache.connect_timeout = '60s'; SET hybrid_cache.command_timeout = '60s';
	SELECT member FROM redis_geosearch('spots', 13.5, 52.5, 1, count => 1)");
like($err, qr/canceling statement due to statement timeout/, 'who is cancelled is not answered');
$redis->thaw;

# Servers that say something else.
sub impostor
{
	my ($answer, $command) = @_;
	my $path = PostgreSQL::Test::Utils::tempdir_short() . '/impostor.sock';
	my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 10)
	  or die "could not listen: $!";
	my $pid = fork // die "could not fork: $!";
	if ($pid == 0)
	{
		alarm 100;
		while (my $socket = $listener->accept)
		{
			while (sysread $socket, my $buffer, 10000)
			{
				syswrite $socket, $answer;
			}
		}
		POSIX::_exit(0);
	}
	close $listener;
	my @heard = hear("SET hybrid_cache.redis_url = 'unix://$path'; $command");
	kill 'KILL', $pid;
	waitpid $pid, 0;
	return @heard;
}

my $search = q{SELECT member FROM redis_geosearch('spots', 13.5, 52.5, 1, count => 1)};
($out, $err) = impostor("-LOADING Redis is loading the dataset in memory\r\n", $search);
is($out, 'p:1', 'the table answers while Redis is loading its data');
($out, $err) = impostor("-NOPERM this user has no permissions\r\n", $search);
like($err, qr/ERROR:.*refused the command\nDETAIL:  NOPERM/, 'but not for another error of a Redis that is up');
($out, $err) = impostor("what?\r\n", $search);
like($err, qr/^psql.*ERROR: /, 'nor for something that is no Redis');
is($out, '', 'it gets no answer');

$session->quit;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal|leak/, 'no process has crashed, nothing leaked');
$node->stop;
done_testing();
