# redis_geosearch with count searches a small circle where that finds the same:
# it has to find what the plain GEOSEARCH finds, and with less work.
#
# HYBRID_CACHE_SEED=N does the comparisons of another run again.

use strict;
use warnings;

use HybridCache::Redis;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant PI => 4 * atan2(1, 1);

my $comparisons = 4000;
my $max_latitude = 85.05112878;

my $seed = $ENV{HYBRID_CACHE_SEED} // int(rand(1e9));
srand($seed);
note("HYBRID_CACHE_SEED=$seed");

my $redis = HybridCache::Redis->new;
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
autovacuum = off
CONF
$redis->start;
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub pick { return $_[rand @_]; }

# From low to high, as many of each magnitude.
sub magnitude
{
	my ($low, $high) = @_;
	return exp(log($low) + rand() * log($high / $low));
}

sub gauss { return sqrt(-2 * log(1 - rand)) * cos(2 * PI * rand); }

# Somewhere near a position, at most about so many degrees away.
sub near
{
	my ($longitude, $latitude, $degrees) = @_;
	$longitude += gauss() * $degrees;
	$latitude += gauss() * $degrees;
	$longitude -= 360 if $longitude > 180;
	$longitude += 360 if $longitude < -180;
	return (clamp($longitude, 180), clamp($latitude, $max_latitude));
}

sub clamp
{
	my ($value, $limit) = @_;
	return $value > $limit ? $limit : $value < -$limit ? -$limit : $value;
}

my @towns = ([ 13.4, 52.5 ], [ 179.99, -17 ], [ -179.99, 65.5 ], [ 0, 0 ], [ 24.9, 66.01 ], [ -60, 80 ],
	[ 100, 85.04 ], [ -100, -85.05 ], map { [ rand(360) - 180, rand(170) - 85 ] } 1 .. 12);

my %place = (
	world => sub { return (rand(360) - 180, rand(170.1) - 85.05) },
	towns => sub { return near(@{ pick(@towns) }, magnitude(0.001, 3)) },
	polar => sub { return (rand(360) - 180, pick(-1, 1) * (rand() < 0.05 ? $max_latitude : $max_latitude - magnitude(0.0001, 8))) },
	antimeridian => sub { return (pick(-1, 1) * (rand() < 0.05 ? 180 : 180 - magnitude(0.0001, 3)), rand(170) - 85) },
	street => sub { return near(8.55, 47.37, 0.0005) },
	few => sub { return near(8.55, 47.37, 0.1) });
my %size = (world => 5000, towns => 5000, polar => 3000, antimeridian => 3000, street => 3000, few => 5);

# No two members at the same place: then hardly any two are equally far.
my %members;
my @points;
foreach my $key (sort keys %place)
{
	my %cells;
	while (keys %cells < $size{$key})
	{
		my ($longitude, $latitude) = map { sprintf '%.9f', $_ } $place{$key}->();
		my $cell = join ' ', int(($longitude + 180) / 360 * 2**26), int(($latitude / $max_latitude + 1) / 2 * 2**26);
		next if $cells{$cell}++;
		push @{ $members{$key} }, [ $longitude, $latitude ];
		push @points, "$key\t" . @{ $members{$key} } . "\t$longitude\t$latitude";
	}
}

sub random_position
{
	my ($key) = @_;
	my $kind = rand;

	return $place{world}->() if $kind < 0.1 || !$members{$key};
	return (pick(-180, 180, 0), pick(-$max_latitude, $max_latitude, 0)) if $kind < 0.12;
	return @{ pick(@{ $members{$key} }) } if $kind < 0.2;

	# where cells of Redis's grid meet, and where a circle over the pole makes it
	# forget some of them
	return (pick(-135, -90, -45, 0, 45, 90) + gauss() * magnitude(0.01, 3), pick(-1, 1) * (90 - pick(4.95 + rand(0.65), 10 + rand(1.3), 4.95 + rand(15))))
	  if $key eq 'polar' && $kind < 0.7;
	return near(@{ pick(@{ $members{$key} }) }, magnitude(0.00001, 10));
}

my %metres = (m => 1, km => 1000, ft => 0.3048, mi => 1609.34);
my @searches;
foreach my $id (1 .. $comparisons)
{
	my $key = rand() < 0.02 ? 'missing' : pick(keys %place, 'polar', 'polar');
	my $unit = pick('m', 'km', 'ft', 'mi');
	my $count = pick(1, 1, 2, 3, 5, 10, 10, 10, 50, 100, 300, 1000);
	my $shape = pick('radius', 'radius', 'member', 'box');
	my ($longitude, $latitude) = random_position($key);
	my $member = rand() < 0.05 ? 'nobody' : 1 + int rand($size{$key} // 1);
	my $a = (rand() < 0.02 ? 0 : magnitude($key eq 'polar' ? 1e5 : 1, 2.1e7)) / $metres{$unit};
	my $b = $a * magnitude(0.005, 200);

	$a = (90 - abs($latitude)) * 111226 * (0.99 + rand(0.2)) / $metres{$unit} if $key eq 'polar' && rand() < 0.3;

	# long boxes, shorter across than the way to the last one wanted
	if ($shape eq 'box' && $key eq 'world')
	{
		my $side = sqrt(magnitude(50, 5000) * 5.1e14 / $size{world}) / $metres{$unit};
		my $ratio = sqrt(magnitude(0.005, 200));
		($a, $b) = ($side * $ratio, $side / $ratio);
		$count = pick(1, 2, 5, 10);
	}
	push @searches, join "\t", $id, $key, $shape, $longitude, $latitude, $member, $a, $b, $unit, $count, pick('asc', 'asc', '\N');
}

sql('CREATE EXTENSION hybrid_cache');
sql(<<'SQL' . join("\n", @points) . "\n\\.\n");
CREATE TABLE point (key text, member text, longitude float8, latitude float8);
COPY point FROM STDIN;
SQL
sql('SELECT count(redis_command(\'GEOADD\', key, longitude, latitude, member)) FROM point');
sql(<<'SQL' . join("\n", @searches) . "\n\\.\n");
CREATE TABLE search (id int PRIMARY KEY, key text, shape text, longitude float8, latitude float8, member text,
	a float8, b float8, unit text, count int, sort text);
COPY search FROM STDIN;
SQL
sql(<<'SQL');
CREATE FUNCTION plain(s search) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	words text[] := ARRAY['GEOSEARCH', s.key];
BEGIN
	IF s.shape = 'member' THEN
		words := words || ARRAY['FROMMEMBER', s.member];
	ELSE
		words := words || ARRAY['FROMLONLAT', s.longitude::text, s.latitude::text];
	END IF;
	IF s.shape = 'box' THEN
		words := words || ARRAY['BYBOX', s.a::text, s.b::text, s.unit];
	ELSE
		words := words || ARRAY['BYRADIUS', s.a::text, s.unit];
	END IF;
	words := words || ARRAY['ASC', 'COUNT', s.count::text, 'WITHDIST', 'WITHCOORD'];
	RETURN coalesce((SELECT jsonb_agg(jsonb_build_array(e->>0, (e->>1)::float8, (e->2->>0)::float8, (e->2->>1)::float8) ORDER BY i)
		FROM jsonb_array_elements(redis_command(VARIADIC words)) WITH ORDINALITY x (e, i)), '[]');
EXCEPTION WHEN external_routine_exception THEN
	IF s.member = 'nobody' THEN
		RETURN '[]';
	END IF;
	RAISE;
END
$$;

CREATE FUNCTION fast(s search) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN coalesce(CASE s.shape
		WHEN 'radius' THEN (SELECT jsonb_agg(jsonb_build_array(member, distance, longitude, latitude))
			FROM redis_geosearch(s.key, s.longitude, s.latitude, s.a, s.unit, s.count, s.sort))
		WHEN 'member' THEN (SELECT jsonb_agg(jsonb_build_array(member, distance, longitude, latitude))
			FROM redis_geosearch_member(s.key, s.member, s.a, s.unit, s.count, s.sort))
		ELSE (SELECT jsonb_agg(jsonb_build_array(member, distance, longitude, latitude))
			FROM redis_geosearch_box(s.key, s.longitude, s.latitude, s.a, s.b, s.unit, s.count, s.sort))
		END, '[]');
END
$$;

-- What is not left to chance: members at the same distance come in any order, and
-- at the last one any of them.
CREATE FUNCTION settled(answer jsonb, count int) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_agg(CASE WHEN distance = last AND n = count THEN to_jsonb(distance) ELSE e END
		ORDER BY i - tied, e->>0)
	FROM (SELECT e, i, distance, max(distance) OVER () AS last, count(*) OVER () AS n,
			row_number() OVER (PARTITION BY distance ORDER BY i) AS tied
		FROM jsonb_array_elements(answer) WITH ORDINALITY x (e, i), float8(e->1) distance) y
$$;

CREATE FUNCTION differences() RETURNS TABLE (s search, plain jsonb, fast jsonb) LANGUAGE plpgsql AS $$
BEGIN
	FOR s IN SELECT * FROM search ORDER BY id LOOP
		plain := plain(s);
		fast := fast(s);
		IF plain <> fast AND settled(plain, s.count) <> settled(fast, s.count) THEN
			RETURN NEXT;
		END IF;
	END LOOP;
END
$$;
SQL

is(sql("SELECT s, left(plain::text, 200), left(fast::text, 200) FROM differences() LIMIT 3"),
	'', "$comparisons searches find what the plain command finds")
  or diag("HYBRID_CACHE_SEED=$seed does this again");

# It is a small circle that is searched, and nearly always the first one is large
# enough.  Redis tells what was searched.
$redis->cli('CONFIG', 'SET', 'slowlog-log-slower-than', '0');
$redis->cli('CONFIG', 'SET', 'slowlog-max-len', '10000');
$redis->cli('SLOWLOG', 'RESET');
sql(q{SELECT setseed(0.5); SELECT count(*) FROM (
		SELECT random() * 300 - 150 AS longitude, random() * 140 - 70 AS latitude FROM generate_series(1, 500)) p,
	LATERAL redis_geosearch('world', longitude, latitude, 20000, 'km', 10) g});
my @radius = $redis->cli('SLOWLOG', 'GET', '-1') =~ /^BYRADIUS\n(.+)$/mg;
cmp_ok(scalar(@radius), '>=', 500, '500 searches in a sparse world');
cmp_ok(scalar(@radius), '<', 600, 'nearly all of them with one circle');
cmp_ok(scalar(grep { $_ > 3000 } @radius), '<', 10, 'hardly any in a large one');
$redis->cli('CONFIG', 'SET', 'slowlog-log-slower-than', '-1');

# Members at the same place.
sql(q{SELECT count(redis_command('GEOADD', 'heap', 13.4 + (i / 100) * 0.001, 52.5, i)) FROM generate_series(0, 999) i});
is(sql(q{SELECT count(*), count(DISTINCT member), min(distance) = max(distance)
	FROM generate_series(1, 20) t, redis_geosearch('heap', 13.4 + t * 0, 52.5, 10, 'km', 60) g GROUP BY t}),
	join("\n", ('60|60|t') x 20), 'some of many at the same place');
is(sql(q{SELECT count(*) FILTER (WHERE member::int < 200), count(*)
	FROM generate_series(1, 20) t, redis_geosearch('heap', 13.4 + t * 0, 52.5, 10, 'km', 230) g GROUP BY t}),
	join("\n", ('200|230') x 20), 'all of the nearer ones, some of those at the last distance');

# The key becomes another one between two searches: what is remembered of it is
# no more than a guess.
sql(<<'SQL');
CREATE FUNCTION answer() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN coalesce((SELECT string_agg(member, ' ') FROM redis_geosearch('key', 0, 0, 5000, 'km', 3)), 'none');
EXCEPTION WHEN wrong_object_type THEN
	RETURN 'wrong type';
END
$$;
SQL
my $session = $node->background_psql('postgres');

sub key_is
{
	my ($what, $expected, @command) = @_;
	$redis->cli('DEL', 'key');
	$redis->cli(@command) if @command;
	is($session->query('SELECT answer();'), $expected, $what);
	is($session->query('SELECT answer();'), $expected, "$what, again");
	return;
}

sub copy_of { return ('EVAL', "return redis.call('COPY', '$_[0]', 'key')", 0); }

$redis->cli('EVAL', <<'LUA', 0);
for i = 1, 300 do
	redis.call('GEOADD', 'dense', i / 1e4, 0.00001, 'd' .. i)
	redis.call('GEOADD', 'sparse', i / 10, 0.00001, 's' .. i)
end
LUA
key_is('a dense key', 'd1 d2 d3', copy_of('dense'));
key_is('a sparse one', 's1 s2 s3', copy_of('sparse'));
key_is('none', 'none');
key_is('a dense one again', 'd1 d2 d3', copy_of('dense'));
key_is('two members', 'a b', 'GEOADD', 'key', 1, 1, 'a', 2, 2, 'b');
key_is('a sparse one again', 's1 s2 s3', copy_of('sparse'));
key_is('no geo index', 'wrong type', 'SET', 'key', 'text');
key_is('none again', 'none');
$session->quit;

# The key changes all the time: each answer is that of one moment.
$redis->cli(copy_of('dense'));
my $changes = IPC::Run::start(
	[ 'redis-cli', '-s', $redis->socket, '-r', '1000000000', 'EVAL',
		"return redis.call('COPY', redis.call('TIME')[2] % 2 == 0 and 'dense' or 'sparse', 'key', 'REPLACE')", 0 ],
	'>', '/dev/null');
is(sql(<<'SQL'), 'd1 d2 d3|s1 s2 s3', 'each answer is that of one moment');
SET statement_timeout = '180s';
CREATE FUNCTION answers() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
	seen text[] := '{}';
	n int := 0;
BEGIN
	-- so many changes seen
	WHILE n < 100 LOOP
		answer := answer();
		CONTINUE WHEN answer = seen[cardinality(seen)];
		seen := array_remove(seen, answer) || answer;
		n := n + 1;
	END LOOP;
	RETURN array_to_string(ARRAY(SELECT unnest(seen) ORDER BY 1), '|');
END
$$;
SELECT answers();
SQL
$changes->kill_kill;

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'no process has crashed');
$node->stop;
done_testing();
