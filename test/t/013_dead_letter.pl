# What Redis refuses: a change that it will never take becomes a dead letter and
# stops nothing else; a Redis that takes nothing for a while is waited for.

use strict;
use warnings;

use HybridCache::Redis;
use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = HybridCache::Redis->new;
my $node = PostgreSQL::Test::Cluster->new('main');

$redis->start;
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
wal_level = replica
max_prepared_transactions = 10
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub in_sync
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', $what);
}

sub poll
{
	my ($query, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until('postgres', $query), $what);
}

sub status { return sql("SELECT $_[0] FROM hybrid_cache.status"); }

# The dead letters, as one line each, and none of them left.
sub take_letters
{
	my $letters = sql(<<'SQL');
SELECT concat_ws(' ', op, key, member, sqlstate, attempts) FROM hybrid_cache.dead_letter
ORDER BY key, member COLLATE "C"
SQL
	sql('DELETE FROM hybrid_cache.dead_letter');
	return $letters;
}

# Every entry against its row.  Rows are in the groups 1 to 3.
sub is_equal
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(sql(<<'SQL'), '', $what);
WITH should AS (
	SELECT 'name:' || id AS key, NULL AS member, name AS value FROM player WHERE name IS NOT NULL
	UNION ALL SELECT 'board:' || grp, id::text, score::text FROM player
	UNION ALL SELECT 'names', id::text, name FROM player WHERE name IS NOT NULL
	UNION ALL SELECT 'player:' || id, 'score', score::text FROM player
), has AS (
	SELECT k AS key, NULL AS member, redis_get(k) AS value
	FROM jsonb_array_elements_text(redis_command('KEYS', 'name:*')) k
	UNION ALL SELECT 'board:' || g, m, redis_zscore('board:' || g, m)::text
	FROM generate_series(1, 3) g,
		jsonb_array_elements_text(redis_command('ZRANGE', 'board:' || g, 0, -1)) m
	UNION ALL SELECT 'names', field, value FROM redis_hgetall('names')
	UNION ALL SELECT k, 'score', redis_hget(k, 'score')
	FROM jsonb_array_elements_text(redis_command('KEYS', 'player:*')) k
)
(SELECT 'missing', * FROM (SELECT * FROM should EXCEPT SELECT * FROM has) m LIMIT 5)
UNION ALL
(SELECT 'too much', * FROM (SELECT * FROM has EXCEPT SELECT * FROM should) t LIMIT 5)
SQL
}

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE player (id int PRIMARY KEY DEFERRABLE, grp int NOT NULL, name text, score int NOT NULL);
SELECT hybrid_cache.attach('player', 'string', 'name:{id}', value => 'name', name => 'names');
SELECT hybrid_cache.attach('player', 'zset', 'board:{grp}', member => '{id}', score => 'score', name => 'board');
SELECT hybrid_cache.attach('player', 'field', 'names', field => '{id}', value => 'name', name => 'field');
SELECT hybrid_cache.attach('player', 'hash', 'player:{id}', name => 'hash');
INSERT INTO player SELECT i, i % 3 + 1, 'name ' || i, i FROM generate_series(1, 30) i;
SQL
in_sync('at the beginning');
is_equal('Redis is equal at the beginning');

# ---------------------------------------------------------------------------
# One key of many is of another type

$redis->cli('DEL', 'board:2');
$redis->cli('SET', 'board:2', 'foreign');
my $before = sql('SELECT pg_current_wal_lsn()');
sql(q{UPDATE player SET score = score + 100, name = 'secret ' || id WHERE id <= 6});
in_sync('a change with some poisonous ops');
is( sql(q{SELECT count(*) FROM player WHERE redis_get('name:' || id) <> name
	OR redis_hget('names', id::text) <> name OR grp <> 2 AND redis_zscore('board:' || grp, id::text) <> score}),
	'0', 'the others are applied');
is( sql(q{SELECT string_agg(concat_ws(' ', relation, mapping, op, key, member, sqlstate, attempts), E'\n' ORDER BY member)
	FROM hybrid_cache.dead_letter}),
	join("\n", map { "player board ZADD board:2 $_ 42809 1" } 1, 4),
	'there is a dead letter for each of these entries');
is( sql(qq{SELECT bool_and(error ~ '^WRONGTYPE ' AND lsn > '$before' AND lsn <= pg_current_wal_lsn()
	AND at <= now() AND since = at) FROM hybrid_cache.dead_letter}),
	't', 'with the error, the position and the time');
is(sql(q{SELECT count(*) FROM hybrid_cache.dead_letter d WHERE d::text ~ 'secret'}),
	'0', 'but without values');

sql('UPDATE player SET score = score + 1 WHERE id = 4');
sql('DELETE FROM player WHERE id = 1');
in_sync('the same entries again');
is(take_letters(), "ZREM board:2 1 42809 2\nZADD board:2 4 42809 2",
	'there is one letter per entry');

# ---------------------------------------------------------------------------
# Once more, when the foreign key is gone

sql('UPDATE player SET score = score + 1 WHERE grp = 2');
in_sync('more refusals');
my $letters = sql('SELECT count(*) FROM hybrid_cache.dead_letter');
cmp_ok($letters, '>', 5, 'are more letters');
sql('SELECT hybrid_cache.retry_dead_letter(id) FROM hybrid_cache.dead_letter');
in_sync('a retry that is refused');
is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), $letters, 'makes letters again');

$redis->cli('DEL', 'board:2');
sql('DELETE FROM player WHERE id = 4');
# as if it were from an earlier time
$redis->cli('ZADD', 'board:2', '7', '4');
is( sql('SELECT bool_and(hybrid_cache.retry_dead_letter(id)) FROM hybrid_cache.dead_letter'),
	't', 'a retry sends something for each');
in_sync('when the key is free');
is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), '0', 'the letters are gone');
is_equal('every entry is as its row is now, or is gone with it');

# A retry that is rolled back has not happened.
$redis->cli('SET', 'player:5', 'foreign');
$redis->cli('DEL', 'names');
$redis->cli('SET', 'names', 'foreign');
sql('UPDATE player SET score = score + 1, name = name WHERE id = 5');
sql(q{UPDATE player SET name = 'other' WHERE id = 5});
in_sync('a hash at a foreign key');
$redis->cli('DEL', 'names');
sql('BEGIN; SELECT hybrid_cache.retry_dead_letter(id) FROM hybrid_cache.dead_letter; ROLLBACK');
in_sync('a retry that is rolled back');
is($redis->cli('EXISTS', 'names'), '0', 'sends nothing');
is(take_letters(), 'HSET names 5 42809 1', 'and the letter is still there');
is($redis->cli('TYPE', 'player:5'), 'hash', 'a whole key is never in the way');
sql('UPDATE player SET name = name || id');
in_sync('the field is written again by changes of its rows');

# ---------------------------------------------------------------------------
# No permission on some keys: found while queueing

$redis->cli('ACL', 'SETUSER', 'default', 'resetkeys', '~hybrid_cache:*', '~board:*', '~player:*', '~name:2*');
sql(q{UPDATE player SET name = 'other ' || id WHERE id IN (2, 3, 20, 25)});
in_sync('keys that this user must not touch');
is( $redis->cli('MGET', 'name:2', 'name:20', 'name:25'),
	"other 2\nother 20\nother 25", 'the others are applied');
is( take_letters(),
	join("\n", 'SET name:3 42501 1', map { "HSET names $_ 42501 1" } 2, 20, 25, 3),
	'those are dead letters');

# A command that is not allowed concerns all.
$redis->cli('ACL', 'SETUSER', 'default', 'allkeys', '-zadd');
sql(q{UPDATE player SET score = score + 1, name = name || '.' WHERE id IN (2, 3)});
poll("SELECT last_error ~ 'does not take changes' FROM hybrid_cache.status",
	'a forbidden command is waited for');
$redis->cli('ACL', 'SETUSER', 'default', '+@all');
in_sync('until it is allowed');
is(take_letters(), '', 'and is no dead letter');

# ---------------------------------------------------------------------------
# Many of them

sub set_bound
{
	sql("ALTER SYSTEM SET hybrid_cache.max_dead_letters = $_[0]");
	$node->reload;
	poll(qq{SELECT pg_reload_conf() AND current_setting('hybrid_cache.max_dead_letters') = '$_[0]'},
		'another bound');
	return;
}

set_bound(7);
my $dropped = status('dropped_letters');
my $refused = status('refused');
$redis->cli('DEL', 'names');
$redis->cli('SET', 'names', 'foreign');
sql(q{INSERT INTO player SELECT i, i % 3 + 1, 'flood', i FROM generate_series(101, 3100) i});
sql(q{UPDATE player SET name = 'flood 2' WHERE id > 3090});
in_sync('a flood of refusals');
is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), '7', 'only so many letters are kept');
is( sql('SELECT count(*) FROM hybrid_cache.dead_letter WHERE member::int > 3090'),
	'7', 'the newest');
my $all = status('refused') - $refused;
cmp_ok($all, '>=', 3000, 'all are counted');
cmp_ok(status('dropped_letters') - $dropped, '>=', 3000 - 7, 'also those that are not kept');
is(sql(q{SELECT count(*) FROM player WHERE redis_get('name:' || id) IS DISTINCT FROM name}),
	'0', 'and nothing else is stopped');
take_letters();
set_bound(0);
sql(q{UPDATE player SET name = 'none' WHERE id = 200});
in_sync('with a bound of zero');
is(take_letters(), '', 'no letters are kept');
set_bound(10000);

# ---------------------------------------------------------------------------
# Nobody who looks at the letters stops the worker

sql(q{UPDATE player SET name = 'seen' WHERE id = 200});
in_sync('one letter');
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; SELECT * FROM hybrid_cache.dead_letter FOR UPDATE');
sql(q{UPDATE player SET name = 'seen again' WHERE id = 200});
in_sync('while somebody has locked the letter');
is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), '2', 'it comes a second time');
$reader->query_safe('ROLLBACK; BEGIN; LOCK TABLE hybrid_cache.dead_letter');
$dropped = status('dropped_letters');
sql(q{UPDATE player SET name = 'not seen' WHERE id = 201});
in_sync('while somebody has locked the table');
$reader->query_safe('COMMIT');
is(status('dropped_letters') - $dropped, '1', 'it is counted');
is($redis->cli('GET', 'name:201'), 'not seen', 'and the rest is applied');
$reader->quit;

# ---------------------------------------------------------------------------
# A crash

sql('DELETE FROM hybrid_cache.dead_letter');
sql(q{UPDATE player SET name = 'before' WHERE id = 202});
in_sync('a refusal before a crash');
$node->stop('immediate');
$node->start;
in_sync('after the crash');
is(take_letters(), 'HSET names 202 42809 1', 'it is still there, once');
$redis->cli('DEL', 'names');
sql('DELETE FROM player WHERE id > 100; UPDATE player SET name = name || id');
in_sync('all names again');
is_equal('and Redis is equal');

# ---------------------------------------------------------------------------
# A Redis that takes nothing for a while

# Changes go on, nothing is skipped, and when it is over all is applied.
my $turn = 0;
sub trouble
{
	my ($what, $error, $begin, $end) = @_;
	my $failures = status('failures');
	$turn++;
	$begin->();
	sql("UPDATE player SET score = score + 1, name = '$what' WHERE id BETWEEN 10 AND 20");
	sql("INSERT INTO player VALUES (10000 + $turn, 1, '$what', 1)");
	poll("SELECT failures > $failures AND last_error ~ '$error' FROM hybrid_cache.status",
		"$what: the worker sees it");
	is(sql("SELECT hybrid_cache.wait_for_sync('10ms')"), 'f', "$what: nothing is skipped");
	sql("DELETE FROM player WHERE id = 25 + $turn");
	$end->();
	in_sync("$what: it goes on by itself");
	is_equal("$what: Redis is equal");
	is(take_letters(), '', "$what: no dead letters");
	return;
}

trouble('a killed Redis', 'Redis', sub {
	sql('UPDATE player SET score = score + 1');
	in_sync('before');
	$redis->cli('CONFIG', 'SET', 'save', '3600 1');
	$redis->cli('SAVE');
	$redis->kill9;
}, sub { $redis->start });

# the first error is about changes, the next ones about connecting
my $refuses = 'does not take changes|refused the command';
trouble('a bgsave that fails', $refuses, sub {
	unlink $redis->dir . '/dump.rdb';
	mkdir $redis->dir . '/dump.rdb' or die "mkdir: $!";
	$redis->cli('CONFIG', 'SET', 'save', '3600 1');
	$redis->cli('BGSAVE');
	until ($redis->cli('INFO', 'persistence') =~ /rdb_last_bgsave_status:err/) { }
}, sub {
	rmdir $redis->dir . '/dump.rdb' or die "rmdir: $!";
	$redis->cli('CONFIG', 'SET', 'save', '');
});

trouble('a replica', $refuses,
	sub { $redis->cli('REPLICAOF', '127.0.0.1', '1') },
	sub { $redis->cli('REPLICAOF', 'NO', 'ONE') });

trouble('no replicas', $refuses,
	sub { $redis->cli('CONFIG', 'SET', 'min-replicas-to-write', '1') },
	sub { $redis->cli('CONFIG', 'SET', 'min-replicas-to-write', '0') });

my $busy;
trouble('a busy script', "$refuses|in time", sub {
	$redis->cli('CONFIG', 'SET', 'busy-reply-threshold', '10');
	$busy = IO::Socket::UNIX->new($redis->socket) or die "connect: $!";
	syswrite $busy, qq{EVAL "while true do end" 0\r\n};
	until ($redis->cli('PING') =~ /^BUSY/) { }
}, sub { $redis->cli('SCRIPT', 'KILL') });

# ---------------------------------------------------------------------------
# A value that is longer than this Redis takes, which would end the connection

$redis->cli('CONFIG', 'SET', 'proto-max-bulk-len', '1048576');
sql(q{UPDATE player SET name = repeat('x', 2000000) WHERE id = 12; UPDATE player SET name = 'beside' WHERE id = 14});
in_sync('a value that is too long');
is($redis->cli('GET', 'name:14'), 'beside', 'does not stop the others');
is($redis->cli('EXISTS', 'name:12', 'player:12'), '0', 'its old value is gone');
is(take_letters(), "UNLINK name:12 54000 1\nHDEL names 12 54000 1\nUNLINK player:12 54000 1",
	'it is a dead letter');
sql(q{UPDATE player SET name = 'shorter' WHERE id = 12});
in_sync('a shorter value');
is_equal('is there again');
$redis->cli('CONFIG', 'SET', 'proto-max-bulk-len', '536870912');

# ---------------------------------------------------------------------------
# No memory: no entry that is not true any more may be read

# The reader of Redis asks for all that has changed.
sub stale
{
	return sql(<<'SQL');
SELECT count(*) FROM player
WHERE redis_get('name:' || id) <> name OR redis_zscore('board:' || grp, id::text) <> score
	OR redis_hget('names', id::text) <> name OR redis_hget('player:' || id, 'name') <> name
SQL
}

sub no_memory
{
	$redis->cli('CONFIG', 'SET', 'maxmemory', '1');
	return;
}

sub nothing_stale
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
	my $stale;

	while (($stale = stale()) && $patience-- > 0) { usleep(100_000) }
	return is($stale, '0', $what);
}

no_memory();
sql(q{UPDATE player SET name = name || '!', score = score + 1 WHERE id % 2 = 0});
nothing_stale('no memory: what changes is not read in its old state');
is(sql("SELECT hybrid_cache.wait_for_sync('10ms')"), 'f', 'the change is not taken for applied');
is( sql(q{SELECT count(*) FROM player WHERE id % 2 = 1 AND (redis_get('name:' || id) IS NULL
	OR redis_zscore('board:' || grp, id::text) IS NULL OR redis_hget('names', id::text) IS NULL)}),
	'0', 'what does not change stays');
sql(q{UPDATE player SET name = name || '?' WHERE id = 11; DELETE FROM player WHERE id = 13});
nothing_stale('no memory: nor what changes later');
$node->poll_query_until('postgres', q{SELECT redis_zscore('board:' || 13 % 3 + 1, '13') IS NULL})
  or die 'a deleted row is still there';

# a transaction that leaves everything as it was takes no entry away for good
sql(q{BEGIN; UPDATE player SET id = -id WHERE id BETWEEN 25 AND 28; UPDATE player SET id = -id WHERE id < 0; COMMIT});

my $worker = status('worker_pid');
sql("SELECT pg_terminate_backend($worker)");
poll("SELECT worker_pid <> $worker AND connected FROM hybrid_cache.status", 'another worker, still no memory');
sql(q{UPDATE player SET name = name || '+' WHERE id = 17});
nothing_stale('another worker goes on with that');
$redis->cli('CLIENT', 'KILL', 'TYPE', 'normal');
sql(q{UPDATE player SET name = name || '+' WHERE id = 19});
nothing_stale('and so it does after another connection');
sql(q{BEGIN; UPDATE player SET name = name || '~' WHERE id = 21; PREPARE TRANSACTION 'p'});
sql(q{UPDATE player SET name = name || '+' WHERE id = 23});
nothing_stale('a prepared transaction is not in the way');
isnt(sql(q{SELECT redis_get('name:21')}), '', 'and its changes are none yet');
sql(q{COMMIT PREPARED 'p'});
nothing_stale('until it commits');

$redis->cli('CONFIG', 'SET', 'maxmemory', '0');
in_sync('memory again');
is_equal('Redis is equal');
is(take_letters(), '', 'and there are no dead letters');

# A user of Redis who may not run scripts waits all the same.
$redis->cli('ACL', 'SETUSER', 'default', '-eval');
no_memory();
sql(q{UPDATE player SET name = name || '-' WHERE id = 23});
ok( $node->wait_for_log(qr/does not let old entries be removed/), 'without EVAL the log says so');
$redis->cli('CONFIG', 'SET', 'maxmemory', '0');
in_sync('and it goes on when there is memory');
$redis->cli('ACL', 'SETUSER', 'default', '+@all');
is_equal('Redis is equal');

done_testing();
