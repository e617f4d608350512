# The keeper: what Redis has lost, or was not told, is made good without a
# command, while others write, and whatever ends in between.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll settled in_log);
use IO::Socket::UNIX;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = HybridCache::Redis->new;
my $node = start_server($redis, <<'CONF');
hybrid_cache.command_timeout = 60s
# else it would replay what it has just applied
hybrid_cache.wal_keep_size = 0
log_min_messages = log
max_connections = 40
CONF

# Something may differ, and nobody says so by itself: a change that is not captured.
sub unnoticed
{
	my ($commands) = @_;
	sql("SET hybrid_cache.enabled = off; $commands");
	return;
}

# ---------------------------------------------------------------------------
# every kind

sql('CREATE EXTENSION hybrid_cache');
sql(<<'SQL');
-- everything in Redis but what is ours alone, as text
CREATE FUNCTION contents() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	k text;
	result text := '';
	kind text;
BEGIN
	FOR k IN SELECT e FROM jsonb_array_elements_text(redis_command('KEYS', '*')) e
		WHERE e NOT LIKE 'hybrid_cache:%' ORDER BY e COLLATE "C" LOOP
		kind := redis_command('TYPE', k) #>> '{}';
		result := result || k || ' ' || kind || ' ' || CASE kind
			WHEN 'string' THEN redis_get(k)
			WHEN 'hash' THEN (SELECT string_agg(field || '=' || value, ',' ORDER BY field COLLATE "C") FROM redis_hgetall(k))
			WHEN 'zset' THEN redis_command('ZRANGE', k, '0', '-1', 'WITHSCORES')::text
			WHEN 'set' THEN (SELECT string_agg(e, ',' ORDER BY e COLLATE "C") FROM jsonb_array_elements_text(redis_command('SMEMBERS', k)) e)
			END || ' ' || (redis_ttl(k) >= 0) || E'\n';
	END LOOP;
	RETURN result;
END $$;

CREATE TABLE kinds (id int PRIMARY KEY, name text, n int, town int, day date,
	lng float8, lat float8, until timestamptz);
INSERT INTO kinds SELECT i, 'name ' || i, i * 10, i % 3, date '2026-01-01' + i,
	i, i / 2.0, CASE i % 3 WHEN 0 THEN now() + interval '1 day' END
FROM generate_series(1, 60) i;
SELECT hybrid_cache.attach('kinds', 'string', 'k:string:{id}', value => 'name', filter => 'n <> 50');
SELECT hybrid_cache.attach('kinds', 'json', 'k:json:{id}', columns => 'id, name, n, day');
SELECT hybrid_cache.attach('kinds', 'hash', 'k:hash:{day}:{id}', columns => 'name, n');
SELECT hybrid_cache.attach('kinds', 'field', 'k:field', field => '{id}', value => 'name');
SELECT hybrid_cache.attach('kinds', 'geo', 'k:geo', member => 'm{id}', longitude => 'lng', latitude => 'lat');
SELECT hybrid_cache.attach('kinds', 'zset', 'k:zset:{town}', member => '{id}', score => 'n');
SELECT hybrid_cache.attach('kinds', 'set', 'k:set:{town}', member => '{id}');
SELECT hybrid_cache.attach('kinds', 'string', 'k:until:{id}', value => 'name', expires_at => 'until', name => 'kinds_until');
SELECT hybrid_cache.attach('kinds', 'string', 'k:hour:{id}', value => 'name', ttl => '1 hour', name => 'kinds_hour');
SELECT hybrid_cache.attach('kinds', 'invalidate', 'k:page:{id}');

CREATE TABLE parted (id int, region int, v text) PARTITION BY LIST (region);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2) PARTITION BY RANGE (id);
CREATE TABLE parted_2a PARTITION OF parted_2 FOR VALUES FROM (0) TO (50);
CREATE TABLE parted_2b PARTITION OF parted_2 FOR VALUES FROM (50) TO (1000);
INSERT INTO parted SELECT i, 1 + i % 2, 'v' || i FROM generate_series(1, 100) i;
SELECT hybrid_cache.attach('parted', 'string', 'p:{id}', value => 'v');

CREATE TABLE nothing (id int PRIMARY KEY);
SELECT hybrid_cache.attach('nothing', 'set', 'nothing', member => '{id}');

-- text does not read back
CREATE TABLE word (w text PRIMARY KEY);
INSERT INTO word VALUES ('a'), ('b');
SELECT hybrid_cache.attach('word', 'string', 'w:{w}', value => 'w');
SELECT hybrid_cache.wait_for_sync('60s');
SQL

my $lsn = sql('SELECT pg_switch_wal()');
poll("SELECT restart_lsn > '$lsn' FROM pg_replication_slots WHERE slot_name ~ '^hybrid_cache_'",
	'the WAL from the beginning is given up');

my $contents = sql('SELECT contents()');
is(() = $contents =~ /^k:string:/mg, 59, 'what is attached is in Redis');

# What a FLUSHALL takes comes back, and nothing else.
sub flushed
{
	my ($what) = @_;
	$redis->cli('FLUSHALL');
	poll("SELECT redis_exists('k:geo', 'p:1') = 2", "$what: rows come back");
	settled("$what: nothing is owed any more");
	is(sql('SELECT contents()'), $contents, "$what: as they were");
	return;
}
flushed('FLUSHALL');
flushed('another FLUSHALL');
poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'",
	'the keeper ends when nothing is owed');
is(sql("SELECT DISTINCT state FROM hybrid_cache.mapping"), 'ok', 'the view says so');
in_log(qr/mapping "kinds_json" of table "kinds" is equal to its table again/,
	'and the log');

# Rows that were deleted and changed without anybody noticing.  The entries of
# others that look similar stay.
$redis->cli('MSET', 'k:string:061', 'foreign', 'k:string:61:more', 'foreign',
	'k:string:x', 'foreign', 'k:until:', 'foreign', 'k:hash:2026-01-01', 'foreign',
	'w:a:b', 'foreign', 'foreign', 'foreign');
$redis->cli('ZADD', 'k:geo', 1, '61', 1, 'm', 1, 'm1x');
$redis->cli('HSET', 'k:field', 'x', 'foreign');
$redis->cli('SADD', 'k:set:9x', '61');
my $foreign = sql('SELECT contents()');
# what a row could have is the mapping's
$redis->cli('SET', 'k:string:61', 'no row has it');
$redis->cli('SADD', 'k:set:9', '61');
unnoticed(<<'SQL');
DELETE FROM kinds WHERE id BETWEEN 1 AND 20;
UPDATE kinds SET name = 'changed' WHERE id = 21;
UPDATE kinds SET town = 7 WHERE id = 22;
UPDATE kinds SET n = 50 WHERE id = 23;
DELETE FROM parted WHERE id < 10;
SQL
settled('changes that were not captured');
$contents = sql('SELECT contents()');
is(sql(<<'SQL'), '39|40|40|40|40|40|14', 'rows that are gone have no entries');
SELECT (SELECT count(*) FROM kinds WHERE redis_exists('k:string:' || id) = 1),
	jsonb_array_length(redis_command('KEYS', 'k:json:*')),
	jsonb_array_length(redis_command('KEYS', 'k:hash:*:*')),
	redis_command('HLEN', 'k:field')::int - 1,
	redis_command('ZCARD', 'k:geo')::int - 3,
	(SELECT sum(redis_command('ZCARD', 'k:zset:' || t)::int) FROM (SELECT DISTINCT town FROM kinds) d(t)),
	(SELECT count(*) FROM kinds WHERE until IS NOT NULL AND redis_exists('k:until:' || id) = 1)
SQL
is($redis->cli('EXISTS', 'k:string:61', 'k:set:9', 'p:5', 'k:json:3'), 0, 'nor has what no row ever had');
is($redis->cli('GET', 'k:string:21'), 'changed', 'changed rows have their new values');
is($redis->cli('ZSCORE', 'k:zset:7', '22') . $redis->cli('ZSCORE', 'k:zset:1', '22'), '220', 'and places');
is($redis->cli('EXISTS', 'k:string:23'), 0, 'a row that left the filter has no entry');
is($redis->cli('MGET', 'k:string:061', 'k:string:61:more', 'k:string:x', 'k:until:', 'w:a:b', 'foreign'),
	join("\n", ('foreign') x 6), 'the keys of others stay');
is($redis->cli('ZMSCORE', 'k:geo', '61', 'm', 'm1x') . $redis->cli('HGET', 'k:field', 'x')
	  . $redis->cli('SMEMBERS', 'k:set:9x'), "1\n1\n1foreign61", 'and their members');

unnoticed("DELETE FROM word WHERE w = 'b'");
settled('a template that does not read back');
is($redis->cli('EXISTS', 'w:b', 'w:a:b'), 2, 'nothing is removed where it could be wrong');
in_log(qr/2 entries in Redis look like those of mapping "word_string", but no row has them/,
	'but the log tells');

# An absent entry is right for a time to live, an old one is not.
sql("UPDATE kinds SET name = name || '!' WHERE id > 40; SELECT hybrid_cache.wait_for_sync('60s')");
is($redis->cli('EXISTS', 'k:hour:41', 'k:hour:42'), 2, 'entries with a time to live');
unnoticed("UPDATE kinds SET name = 'newer' WHERE id = 41");
settled('a change of such a row');
isnt($redis->cli('GET', 'k:hour:41'), 'name 41!', 'an old one does not stay');
is($redis->cli('EXISTS', 'k:hour:30'), 0, 'none is brought to life');
$redis->cli('SET', 'k:page:42', 'a page of the old row');
unnoticed("UPDATE kinds SET name = 'newest' WHERE id = 42");
settled('an invalidation that was missed');
is($redis->cli('EXISTS', 'k:page:42'), 0, 'is made up for');

# A value that cannot be computed.
sql(<<'SQL');
CREATE TABLE share (id int PRIMARY KEY, n int);
SELECT hybrid_cache.attach('share', 'string', 'share:{id}', value => '100 / n');
INSERT INTO share SELECT i, i FROM generate_series(1, 10) i;
SELECT hybrid_cache.wait_for_sync('60s');
SQL
unnoticed('UPDATE share SET n = n - 5');
settled('rows of which one cannot be rendered');
is($redis->cli('MGET', 'share:4', 'share:5', 'share:6'), "-100\n\n100", 'the others are equal');
in_log(qr/1 row was left out of mapping "share_string".*division by zero/s, 'and it is named');

# What shall not be settled, or cannot.
sql(<<'SQL');
SELECT hybrid_cache.attach('parted', 'string', 'lazy:{id}', value => 'v', populate => false, name => 'lazy');
ALTER TABLE share DISABLE TRIGGER share_string;
CREATE TABLE gone (id int PRIMARY KEY);
SELECT hybrid_cache.attach('gone', 'set', 'gone', member => '{id}');
SQL
$redis->cli('FLUSHALL');
poll("SELECT redis_exists('p:50', 'k:geo') = 2 AND state LIKE 'disabled, owes reconcile: Redis has %' FROM hybrid_cache.mapping WHERE name = 'share_string'",
	'a mapping that is disabled owes what it owes');
poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'",
	'and keeps no process');
sql('ALTER TABLE share ENABLE TRIGGER share_string');
settled('when it is enabled');
is($redis->cli('GET', 'share:6'), '100', 'it is equal again');

# Not asked to be populated, it stays so until something happens.
sql(q{SELECT hybrid_cache.attach('parted', 'string', 'lazier:{id}', value => 'v', populate => false, name => 'lazier');
	SET client_min_messages = error; SELECT hybrid_cache.detach('parted', 'lazy')});
is(sql("SELECT state FROM hybrid_cache.mapping WHERE name = 'lazier'"),
	'owes reconcile: not populated, as asked for', 'a mapping that is not to be populated');
sql("SELECT hybrid_cache.detach('parted', 'lazier')");
sql(q{CREATE TRIGGER plain AFTER INSERT OR UPDATE OR DELETE ON parted FOR EACH ROW
	EXECUTE FUNCTION hybrid_cache.write_through('string', 'key=plain:{id}', 'value=v')});
settled('a mapping made by CREATE TRIGGER');
is($redis->cli('GET', 'plain:99'), 'v99', 'is populated');
sql('SET client_min_messages = error; DROP TRIGGER plain ON parted');

# ---------------------------------------------------------------------------
# while others write

sql(<<'SQL');
CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, other int NOT NULL DEFAULT 0, pad text);
INSERT INTO hot SELECT i, 0, 0, repeat('x', 40) FROM generate_series(1, 300000) i;
SELECT hybrid_cache.attach('hot', 'string', 'hot:{id}', value => 'n');
SELECT hybrid_cache.attach('hot', 'zset', 'hot', member => '{id}', score => 'n', filter => 'id <= 1000');
SELECT hybrid_cache.wait_for_sync('120s');
-- room at the front, where rows move to
DELETE FROM hot WHERE id BETWEEN 1001 AND 60000;
VACUUM hot;
SQL

# Counters of the first rows go up only; rows move in the table without a change
# of their entries; others come and go, and hand their keys on.
append_to_file($node->basedir . '/write.sql', <<'SQL');
\set a random(1, 300)
\set b random(1, 300000)
\set c random(400001, 400300)
\set d random(400001, 400300)
UPDATE hot SET n = n + 1 WHERE id = :a;
UPDATE hot SET other = other + 1 WHERE id BETWEEN :b AND :b + 20;
INSERT INTO hot VALUES (:c, 1) ON CONFLICT DO NOTHING;
DELETE FROM hot WHERE id = :d;
SQL

my $pgbench;
my $written = '';

sub write_on
{
	$pgbench = IPC::Run::start(
		[
			'pgbench', '-n', '-c', 4, '-j', 1, '-T', 600, '-f', $node->basedir . '/write.sql',
			'-h', $node->host, '-p', $node->port, 'postgres'
		],
		'>', \$written, '2>', \$written);
	return;
}

sub write_no_more
{
	$pgbench->signal('INT');
	eval { $pgbench->finish; };
	return;
}

# Reads the counters all the time; what it has to say ends up in a file.
my $observed = $node->basedir . '/observed';
my $observer;

sub observe
{
	unlink $observed, "$observed.end";
	$observer = fork;
	die "could not fork: $!" unless defined $observer;
	return if $observer;

	my $socket = IO::Socket::UNIX->new(Peer => $redis->socket);
	my ($n, @last, $problem) = (0);
	until (-e "$observed.end" || $problem)
	{
		print $socket 'MGET ' . join(' ', map { "hot:$_" } 1 .. 300) . "\r\n";
		$socket->flush;
		<$socket>;
		for my $id (1 .. 300)
		{
			my ($length) = <$socket> =~ /^\$(-?\d+)/;
			next if $length < 0;
			my $value = <$socket> + 0;
			$problem = "hot:$id went from $last[$id] to $value"
			  if defined $last[$id] && $last[$id] > $value;
			$last[$id] = $value;
		}
		$n++;
	}
	append_to_file($observed, $problem // "nothing wrong in $n readings");
	POSIX::_exit(0);
}

sub observe_no_more
{
	my ($what) = @_;
	append_to_file("$observed.end", '');
	waitpid $observer, 0;
	like(slurp_file($observed), qr/^nothing wrong in \d\d+/, $what);
	return;
}

# Every row has its entry, and there are no others.
sub equal
{
	my ($what) = @_;
	is(sql(<<'SQL'), '0|t|t', "$what: table and Redis are equal");
WITH part AS (SELECT array_agg('hot:' || id ORDER BY id) AS keys, array_agg(n ORDER BY id) AS counters
	FROM hot GROUP BY id / 5000)
SELECT (SELECT count(*) FROM part, jsonb_array_elements_text(redis_command(VARIADIC array_prepend('MGET', keys))) WITH ORDINALITY e(v, i)
	WHERE v::int IS DISTINCT FROM counters[i]),
	redis_command('ZCARD', 'hot')::int = (SELECT count(*) FROM hot WHERE id <= 1000),
	(SELECT count(*) FROM hot) + 1 = jsonb_array_length(redis_command('KEYS', 'hot*'))
SQL
	return;
}

# A keeper that is at work with the table.
sub keeper_at_work
{
	my ($what) = @_;
	poll("SELECT EXISTS (SELECT FROM hybrid_cache.owed JOIN pg_trigger t ON t.oid = mapping WHERE started IS NOT NULL AND tgname = 'hot_string')
		AND EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper')", $what);
	return;
}

write_on();
for my $round (1, 2)
{
	$redis->cli('FLUSHALL');
	poll("SELECT redis_exists('hot:1', 'hot:150000', 'hot:300000', 'hot') = 4",
		"FLUSHALL $round while others write: rows come back");
	poll("SELECT count(*) = 0 FROM hybrid_cache.owed", 'and nothing is owed');
}
write_no_more();
settled('after that');
equal('FLUSHALL while others write');

# Values are written over ones that are there, and newer ones are not lost for a
# moment.
write_on();
observe();
for my $round (1 .. 3)
{
	unnoticed("UPDATE hot SET n = n + 1 WHERE id BETWEEN 70000 AND 71000");
	poll('SELECT count(*) = 0 FROM hybrid_cache.owed', "a repair over what is there, $round");
}
observe_no_more('no reader saw a value go back');

# Ended in the middle.
$redis->cli('FLUSHALL');
keeper_at_work('the keeper is at work');
is(sql("SELECT bool_and(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'"),
	't', 'it is terminated');
keeper_at_work('another is at work');
is(sql("SELECT pg_terminate_backend(worker_pid) FROM hybrid_cache.status"), 't',
	'the sync worker is terminated');
poll('SELECT count(*) = 0 FROM hybrid_cache.owed', 'nothing is owed in the end');
write_no_more();
settled('after both have been terminated');
equal('keeper and sync worker terminated');

write_on();
$redis->cli('FLUSHALL');
keeper_at_work('the keeper is at work again');
$node->stop('immediate');
write_no_more();
$node->start;
settled('after a crash of PostgreSQL');
equal('crash of PostgreSQL');

# A table that is rewritten while it is read.
write_on();
$redis->cli('FLUSHALL');
keeper_at_work('the keeper is at work, and the table is rewritten');
sql('VACUUM FULL hot');
poll('SELECT count(*) = 0 FROM hybrid_cache.owed', 'nothing is owed in the end');
write_no_more();
settled('after that');
equal('VACUUM FULL');

# ---------------------------------------------------------------------------
# commands that want the database alone, or take the table away

sql('CREATE DATABASE other');
$node->safe_psql('other', <<'SQL');
CREATE EXTENSION hybrid_cache;
ALTER DATABASE other SET hybrid_cache.key_prefix = 'other:';
CREATE TABLE t AS SELECT i AS id, pg_sleep(0) IS NULL AS v FROM generate_series(1, 200000) i;
SELECT hybrid_cache.attach('t', 'string', 't:{id}', value => 'v');
SELECT hybrid_cache.wait_for_sync('60s');
SQL
$redis->cli('FLUSHALL');
ok($node->poll_query_until('other', 'SELECT EXISTS (SELECT FROM hybrid_cache.owed WHERE started IS NOT NULL)'),
	'the keeper of another database is at work');
sql('DROP DATABASE other');
pass('the database can be dropped');

$redis->cli('FLUSHALL');
keeper_at_work('the keeper is at work');
sql('SET client_min_messages = error; DROP TABLE hot');
settled('a table that is dropped meanwhile');
is($redis->cli('EXISTS', 'k:geo', 'p:50'), 2, 'does not keep the others waiting');

unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP/, 'no process has crashed');
$node->stop;
done_testing();
