# Reconciling: what differs is found, counted exactly, and made good; whatever
# happens to the table, the keeper or the mapping meanwhile.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll settled in_log);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
my $node = start_server($redis, <<'CONF');
hybrid_cache.command_timeout = 60s
hybrid_cache.wal_keep_size = 0
log_min_messages = log
max_prepared_transactions = 2
CONF

# checked, missing, stale, orphaned, conflicting, repaired
sub reconcile
{
	my ($table, $name) = @_;
	return sql("SELECT checked, missing, stale, orphaned, conflicting, repaired FROM hybrid_cache.reconcile('$table', '$name')");
}

sub counts
{
	my ($table, $name, $expected, $what) = @_;
	is(reconcile($table, $name), $expected, $what);
	return;
}

# ---------------------------------------------------------------------------
# every kind: missing, stale, orphaned, and keys of another type

sql('CREATE EXTENSION hybrid_cache');
sql(<<'SQL');
CREATE TABLE kinds (id int PRIMARY KEY, name text, n int, town int, lng float8, lat float8);
INSERT INTO kinds SELECT i, 'name ' || i, i * 10, i % 3, i, i / 2.0 FROM generate_series(1, 60) i;
SELECT hybrid_cache.attach('kinds', 'string', 'k:string:{id}', value => 'name', filter => 'n <> 50');
SELECT hybrid_cache.attach('kinds', 'json', 'k:json:{id}');
SELECT hybrid_cache.attach('kinds', 'hash', 'k:hash:{id}', columns => 'name, n');
SELECT hybrid_cache.attach('kinds', 'field', 'k:field', field => '{id}', value => 'name');
SELECT hybrid_cache.attach('kinds', 'geo', 'k:geo', member => 'm{id}', longitude => 'lng', latitude => 'lat');
SELECT hybrid_cache.attach('kinds', 'zset', 'k:zset:{town}', member => '{id}', score => 'n');
SELECT hybrid_cache.attach('kinds', 'set', 'k:set:{town}', member => '{id}');
SELECT hybrid_cache.attach('kinds', 'invalidate', 'k:page:{id}');
SQL
settled('what is attached is populated');

counts('kinds', 'kinds_string', '59|0|0|0|0|0', 'a string per row that passes: equal');
for my $kind (qw(json hash field geo zset set))
{
	counts('kinds', "kinds_$kind", '60|0|0|0|0|0', "$kind: equal");
}
$redis->cli('SET', 'k:page:7', 'a page');
isnt($node->psql('postgres', "SELECT hybrid_cache.reconcile('kinds', 'kinds_invalidate')"), 0, 'invalidated keys cannot be compared');
is($redis->cli('GET', 'k:page:7'), 'a page', 'and stay');

# 2 missing, 3 stale, 1 orphaned of each
$redis->cli('DEL', "k:$_:1", "k:$_:2") for qw(string json hash);
$redis->cli('SET', 'k:string:61', 'x');
$redis->cli('SET', 'k:json:61', '{}');
$redis->cli('HSET', 'k:hash:61', 'name', 'x');
$redis->cli('SET', "k:string:$_", 'x') for 11 .. 13;
$redis->cli('SET', "k:json:$_", '{}') for 11 .. 13;
$redis->cli('HSET', 'k:hash:11', 'name', 'x');
$redis->cli('HDEL', 'k:hash:12', 'n');
$redis->cli('HSET', 'k:hash:13', 'more', 'x');
$redis->cli('HDEL', 'k:field', 1, 2);
$redis->cli('HSET', 'k:field', 11, 'x', 12, 'x', 13, 'x', 61, 'x');
$redis->cli('ZREM', 'k:geo', 'm1', 'm2');
$redis->cli('GEOADD', 'k:geo', 1, 1, 'm11', 1, 1, 'm12', 1, 1, 'm13', 1, 1, 'm61');
$redis->cli('ZREM', 'k:zset:1', 1);
$redis->cli('ZREM', 'k:zset:2', 2);
$redis->cli('ZADD', 'k:zset:0', 1, 12, 1, 15, 1, 18, 1, 61);
$redis->cli('SREM', 'k:set:1', 1);
$redis->cli('SREM', 'k:set:2', 2);
$redis->cli('SADD', 'k:set:0', 61);

for my $kind (qw(string json hash field geo zset))
{
	my $n = $kind eq 'string' ? 59 : 60;
	counts('kinds', "kinds_$kind", "$n|2|3|1|0|6", "$kind: each difference is found once");
	counts('kinds', "kinds_$kind", "$n|0|0|0|0|0", "... and is gone");
}
counts('kinds', 'kinds_set', '60|2|0|1|0|3', 'set: members have no value');
counts('kinds', 'kinds_set', '60|0|0|0|0|0', '... equal');
is($redis->cli('GET', 'k:string:12') . $redis->cli('HGET', 'k:field', 12) . $redis->cli('HGET', 'k:hash:11', 'name')
	  . $redis->cli('ZSCORE', 'k:zset:0', 12), 'name 12name 12name 11120', 'the values are those of the rows');

# Keys of another type: a whole key is the mapping's, part of one is not.
$redis->cli('DEL', 'k:string:20', 'k:hash:20', 'k:zset:0');
$redis->cli('SADD', 'k:string:20', 'x');
$redis->cli('SET', 'k:hash:20', 'x');
$redis->cli('SET', 'k:zset:0', 'foreign');
counts('kinds', 'kinds_string', '59|0|0|0|1|1', 'a key of another type is overwritten');
counts('kinds', 'kinds_hash', '60|0|0|0|1|1', '... also by a hash');
is($redis->cli('GET', 'k:string:20') . $redis->cli('HGET', 'k:hash:20', 'n'), 'name 20200', '... with the row');
counts('kinds', 'kinds_zset', '60|0|0|0|20|0', 'members cannot be added to one');
is($redis->cli('GET', 'k:zset:0'), 'foreign', '... which stays as it is');
in_log(qr/mapping "kinds_zset" cannot have the Redis key "k:zset:0", which holds another type/, '... and is named');
is(() = slurp_file($node->logfile) =~ /cannot have the Redis key "k:zset:0"/g, 1, '... once');
$redis->cli('DEL', 'k:zset:0');
counts('kinds', 'kinds_zset', '60|20|0|0|0|20', 'when it is gone the members come back');

# Orphans that are not to be removed are counted all the same.
sql(q{SELECT hybrid_cache.attach('kinds', 'string', 'k:kept:{id}', value => 'name', orphans => 'report', name => 'kept')});
sql(q{SELECT hybrid_cache.attach('kinds', 'string', 'k:ignored:{id}', value => 'name', orphans => 'ignore', name => 'ignored')});
settled('two more');
$redis->cli('MSET', 'k:kept:100', 'x', 'k:kept:101', 'x', 'k:ignored:100', 'x');
counts('kinds', 'kept', '60|0|0|2|0|0', 'orphans=report: they are counted');
counts('kinds', 'ignored', '60|0|0|0|0|0', 'orphans=ignore: they are not');
is($redis->cli('EXISTS', 'k:kept:100', 'k:kept:101', 'k:ignored:100'), 3, 'and none is removed');

# ---------------------------------------------------------------------------
# where an absent entry is right

sql(<<'SQL');
CREATE TABLE lives (id int PRIMARY KEY, v text, until timestamptz);
INSERT INTO lives SELECT i, 'v' || i, CASE WHEN i <= 10 THEN now() - interval '1 day' WHEN i <= 20 THEN now() + interval '1 day' END
FROM generate_series(1, 30) i;
SELECT hybrid_cache.attach('lives', 'string', 'l:ttl:{id}', value => 'v', ttl => '1 hour', name => 'ttl');
SELECT hybrid_cache.attach('lives', 'string', 'l:cache:{id}', value => 'v', missing => 'ignore', name => 'cache');
SELECT hybrid_cache.attach('lives', 'string', 'l:until:{id}', value => 'v', expires_at => 'until', name => 'until');
SQL
settled('mappings whose entries may be absent');
is($redis->cli('EXISTS', map { "l:ttl:$_" } 1 .. 30), 0, 'ttl: nothing is populated by itself');
is($redis->cli('EXISTS', map { "l:until:$_" } 1 .. 30), 20, 'expires_at: what has expired is not written');
counts('lives', 'ttl', '30|0|0|0|0|0', 'ttl: an absent entry is not missing');
counts('lives', 'until', '30|0|0|0|0|0', 'expires_at: nor is an expired one');
sql("SELECT hybrid_cache.populate('lives', 'ttl'), hybrid_cache.populate('lives', 'cache')");
settled('asked to be populated');
is($redis->cli('EXISTS', (map { "l:ttl:$_" } 1 .. 30), map { "l:cache:$_" } 1 .. 30), 60, 'they have all entries');
cmp_ok($redis->cli('TTL', 'l:ttl:5'), '>', 3000, '... with their time to live');
counts('lives', 'ttl', '30|0|0|0|0|0', '... and are equal');
$redis->cli('DEL', 'l:ttl:1', 'l:cache:1', 'l:until:11');
$redis->cli('SET', 'l:ttl:2', 'x', 'EX', 1000);
$redis->cli('SET', 'l:ttl:3', 'v3');
$redis->cli('SET', 'l:cache:2', 'x');
$redis->cli('SET', 'l:until:2', 'v2');
$redis->cli('SET', 'l:until:12', 'v12');
$redis->cli('EXPIRE', 'l:until:25', 1000);
counts('lives', 'ttl', '30|0|2|0|0|2', 'ttl: what is old or lives for ever is stale');
is($redis->cli('EXISTS', 'l:ttl:1', 'l:ttl:2', 'l:ttl:3'), 0, '... and is removed');
counts('lives', 'cache', '30|0|1|0|0|1', 'missing=ignore: what is old is stale');
is($redis->cli('GET', 'l:cache:2') . $redis->cli('EXISTS', 'l:cache:1'), 'v20', '... and written, what is absent is not');
counts('lives', 'until', '30|1|3|0|0|4', 'expires_at: a wrong expiry is stale, what should live is missing');
is($redis->cli('EXISTS', 'l:until:2', 'l:until:11'), 1, '... and right after that');
is($redis->cli('TTL', 'l:until:25'), -1, '... for ever where the row says so');

# ---------------------------------------------------------------------------
# several rows with one entry

sql(<<'SQL');
CREATE TABLE shared (id int PRIMARY KEY, town int, v text);
INSERT INTO shared SELECT i, CASE WHEN i <= 3 THEN 1 ELSE i END, 'v' || i FROM generate_series(1, 10) i;
SELECT hybrid_cache.attach('shared', 'string', 'shared:{town}', value => 'v');
SQL
settled('rows that share an entry');
is(reconcile('shared', 'shared_string') =~ s/\|[01]$//r, '10|0|0|0|1', 'such an entry is counted') or diag(reconcile('shared', 'shared_string'));
my $value = $redis->cli('GET', 'shared:1');
counts('shared', 'shared_string', '10|0|0|0|1|0', 'and not written again and again');
is($redis->cli('GET', 'shared:1'), $value, '... it stays');
in_log(qr/1 entry of mapping "shared_string" belongs to several rows.*One is the Redis key "shared:1"/s, 'and it is named');
$redis->cli('SET', 'shared:5', 'x');
counts('shared', 'shared_string', '10|0|1|0|1|1', 'others are repaired');

# ---------------------------------------------------------------------------
# rows that cannot be rendered

sql(<<'SQL');
CREATE TABLE share (id int PRIMARY KEY, n int);
CREATE FUNCTION part(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 100 / n; END $$;
INSERT INTO share SELECT i, i FROM generate_series(1, 10) i;
SELECT hybrid_cache.attach('share', 'json', 'share:{id}', columns => 'id, public.part(n) AS p');
SQL
settled('expressions that can fail');
sql(q{SET hybrid_cache.enabled = off; UPDATE share SET n = 0 WHERE id IN (4, 5); UPDATE share SET n = 50 WHERE id = 6});
settled('rows whose expressions raise do not end the run');
is($redis->cli('GET', 'share:6'), '{"id":6,"p":2}', 'the others are equal');
is($redis->cli('EXISTS', 'share:4', 'share:5', 'share:7'), 1, 'what they had is removed');
is(sql(q{SELECT relation, mapping, op, key, sqlstate, error FROM hybrid_cache.dead_letter ORDER BY key}),
	"share|share_json|render|share:4|22012|division by zero\nshare|share_json|render|share:5|22012|division by zero",
	'they are dead letters');
counts('share', 'share_json', '8|0|0|0|0|0', 'at the next run');
is(sql('SELECT count(*), min(attempts), max(attempts) FROM hybrid_cache.dead_letter'), '2|2|2', '... there are no more of them');
is(sql(q{SELECT failed FROM hybrid_cache.run r JOIN pg_trigger t ON t.oid = r.mapping WHERE tgname = 'share_json'}), 2, '... counted');
my ($first) = split /\n/, sql('SELECT min(id) FROM hybrid_cache.dead_letter');
isnt($node->psql('postgres', "SELECT hybrid_cache.retry_dead_letter($first)"), 0, 'trying again fails as long as it raises');

# not after it has committed: then the keeper may come first
is(sql(<<"SQL"), 't', 'a dead letter is tried again');
BEGIN;
CREATE OR REPLACE FUNCTION part(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql
AS 'BEGIN RETURN 100 / nullif(n, 0); END';
SELECT hybrid_cache.retry_dead_letter($first);
COMMIT;
SQL
is(sql("SELECT hybrid_cache.wait_for_sync('60s')") . $redis->cli('GET', 'share:4'), 't{"id":4,"p":null}', '... and the row is there');
settled('once they can be rendered they come back');
counts('share', 'share_json', '10|0|0|0|0|0', '... and are equal');
is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), 0, '... and are no dead letters any more');

# An error of the moment says nothing about a row.
sql(q{CREATE OR REPLACE FUNCTION part(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now' USING ERRCODE = 'lock_not_available'; END $$});
my (undef, undef, $why) = $node->psql('postgres', "SELECT hybrid_cache.reconcile('share', 'share_json')");
like($why, qr/could not compare.*not now/, 'a run that meets such an error fails');
is($redis->cli('EXISTS', map { "share:$_" } 1 .. 10), 10, '... and removes nothing');
is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), 0, '... nor are there dead letters');
sql('CREATE OR REPLACE FUNCTION part(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 100 / nullif(n, 0); END $$');
counts('share', 'share_json', '10|0|0|0|0|0', 'then it is as before');

# ---------------------------------------------------------------------------
# a keeper that ends in the middle; a table and a mapping that change

sql(<<'SQL');
CREATE TABLE large (id int PRIMARY KEY, n int NOT NULL, other int NOT NULL DEFAULT 0);
INSERT INTO large SELECT i, i FROM generate_series(1, 200000) i;
SELECT hybrid_cache.attach('large', 'string', 'large:{id}', value => 'n');
SQL
settled('a large table');

# Starts to reconcile at this rate; the answer comes later.
my ($asked, $answer, $error);

sub ask
{
	my ($rate, $name, $table) = @_;
	$table //= 'large';
	$name //= "${table}_string";
	sql("ALTER SYSTEM SET hybrid_cache.reconcile_rate = $rate; SELECT pg_reload_conf()");
	poll("SELECT current_setting('hybrid_cache.reconcile_rate')::int = $rate", "at most $rate rows per second");
	($answer, $error) = ('', '');
	$asked = IPC::Run::start(
		[ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c',
			"SELECT checked, missing, stale, orphaned, conflicting, repaired FROM hybrid_cache.reconcile('$table', '$name')" ],
		'>', \$answer, '2>', \$error);
	return;
}

# At full speed from now on; what was the answer?
sub answered
{
	sql('ALTER SYSTEM SET hybrid_cache.reconcile_rate = 0; SELECT pg_reload_conf()');
	$asked->finish;
	chomp $answer;
	return $answer . ($error =~ /^ERROR: +(.*)/ ? $1 : '');
}

# It has come so far in the large table, and that is noted.
sub come_to
{
	my ($rows, $what) = @_;
	poll("SELECT EXISTS (SELECT FROM hybrid_cache.run JOIN pg_trigger t ON t.oid = mapping WHERE tgname = 'large_string' AND ended IS NULL AND checked >= $rows)", $what);
	return;
}

# What is damaged is counted once, whoever finds it.
$redis->cli('DEL', map { "large:$_" } 1 .. 10, 199_991 .. 200_000);
ask(40000);
come_to(10000, 'the keeper is on its way');
is(sql("SELECT bool_and(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'"),
	't', 'it is terminated');
is(answered(), '200000|20|0|0|0|20', 'another one goes on where it was');

$redis->cli('DEL', map { "large:$_" } 1 .. 10, 199_991 .. 200_000);
ask(40000);
come_to(10000, 'the keeper is on its way');
$node->stop('immediate');
eval { $asked->finish; };
$node->start;
poll("SELECT EXISTS (SELECT FROM hybrid_cache.run JOIN pg_trigger t ON t.oid = mapping WHERE tgname = 'large_string' AND ended IS NOT NULL)",
	'after a crash of PostgreSQL what was begun is brought to its end');
is(sql("SELECT checked, missing, stale, orphaned, conflicting, repaired FROM hybrid_cache.run JOIN pg_trigger t ON t.oid = mapping WHERE tgname = 'large_string'"),
	'200000|20|0|0|0|20', '... and what was found before counts');

# A run was ended in the middle, more is owed since, and the keeper that was to
# make up for it was ended before it had begun: all is looked at.
my $large = "(SELECT oid FROM pg_trigger WHERE tgname = 'large_string')";
sql("UPDATE hybrid_cache.run SET kind = 'repair', phase = 'rows', ended = NULL, pass = 0, since = 0, started = now() WHERE mapping = $large");
is(sql("SELECT position > '(100,1)' AND NOT populate FROM hybrid_cache.run WHERE mapping = $large"), 't', 'as if a repair had come to the end of the table');
$redis->cli('DEL', map { "large:$_" } 1 .. 10);
my $holder = $node->background_psql('postgres', on_error_stop => 0);
$holder->query_safe('BEGIN; LOCK TABLE hybrid_cache.owed IN ROW EXCLUSIVE MODE');
sql("INSERT INTO hybrid_cache.owed VALUES ($large, 'a test', now(), NULL)");
poll("SELECT EXISTS (SELECT FROM hybrid_cache.owed WHERE started IS NOT NULL) AND EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper' AND wait_event_type = 'Lock')",
	'more is owed, and waited for');
sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'");
$holder->quit;
settled('the next keeper');
is($redis->cli('EXISTS', map { "large:$_" } 1 .. 10), 10, 'begins anew');

# Changed in the middle.
for my $change (
	[ 'VACUUM FULL large', 'rewritten' ],
	[ 'CLUSTER large USING large_pkey', 'clustered' ],
	[ 'ALTER TABLE large ADD COLUMN more int', 'altered' ],
	[ 'ALTER TABLE large RENAME TO renamed', 'renamed' ])
{
	my ($command, $what) = @$change;
	ask(40000);
	come_to(10000, "a table that is $what");
	sql($command);
	is(answered(), '200000|0|0|0|0|0', '... is compared from its beginning, or on');
}
sql('ALTER TABLE renamed RENAME TO large');

ask(40000);
come_to(10000, 'a table that is truncated');
sql('TRUNCATE large');
like(answered(), qr/^\d+\|0\|0\|0\|0\|0$/, '... has no entries, and none is missed');
settled('nothing is owed');
is($redis->cli('--scan', '--pattern', 'large:*'), '', 'and Redis has none');
sql('INSERT INTO large SELECT i, i FROM generate_series(1, 200000) i');
is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'rows again');

ask(40000);
come_to(10000, 'a mapping that is disabled');
sql('ALTER TABLE large DISABLE TRIGGER large_string');
like(answered(), qr/large_string/, '... ends the comparison');
sql('ALTER TABLE large ENABLE TRIGGER large_string');
settled('enabled');

ask(40000);
come_to(10000, 'a mapping that is dropped');
sql('SET client_min_messages = error; DROP TRIGGER large_string ON large');
like(answered(), qr/large_string/, '... ends the comparison');
sql("SELECT hybrid_cache.attach('large', 'string', 'large:{id}', value => 'n')");
settled('attached again');

# Without rights the mapping is left as it is, and others go on.
sql(<<'SQL');
CREATE ROLE poor;
CREATE FUNCTION secret(n int) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT n $$;
REVOKE ALL ON FUNCTION secret(int) FROM PUBLIC;
GRANT ALL ON FUNCTION secret(int) TO poor;
GRANT CREATE ON SCHEMA public TO poor;
GRANT USAGE ON SCHEMA hybrid_cache TO poor;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hybrid_cache TO poor;
SET ROLE poor;
CREATE TABLE poor_table (id int PRIMARY KEY);
INSERT INTO poor_table SELECT generate_series(1, 5);
SELECT hybrid_cache.attach('poor_table', 'string', 'poor:{id}', value => 'public.secret(id)');
SQL
settled('a table of somebody else');
sql('REVOKE ALL ON FUNCTION secret(int) FROM poor');
$redis->cli('DEL', 'k:json:1');
counts('kinds', 'kinds_json', '60|1|0|0|0|1', 'whose rights are taken away: the others go on');
sql('SET client_min_messages = error; DROP TABLE poor_table');

# Without memory for the entries of all rows; and without rows.
sql("ALTER SYSTEM SET maintenance_work_mem = '1MB'; SELECT pg_reload_conf()");
$redis->cli('MSET', map { ("large:$_" => 'x') } 300_001 .. 300_010);
$redis->cli('DEL', 'large:77');
ask(0);
is(answered(), '200000|1|0|10|0|11', 'with little memory orphans are found all the same');
sql("ALTER SYSTEM RESET maintenance_work_mem; SELECT pg_reload_conf()");
sql(q{CREATE TABLE nothing (id int PRIMARY KEY); SELECT hybrid_cache.attach('nothing', 'string', 'nothing:{id}', value => 'id')});
$redis->cli('SET', 'nothing:1', 'x');
counts('nothing', 'nothing_string', '0|0|0|1|0|1', 'without rows every entry is an orphan');

# Partitions that come and go.
sql(<<'SQL');
CREATE TABLE parted (id int, region int, v text) PARTITION BY LIST (region);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
CREATE TABLE parted_3 (id int, region int, v text);
INSERT INTO parted SELECT i, 1 + i % 2, 'v' || i FROM generate_series(1, 100) i;
INSERT INTO parted_3 SELECT i, 3, 'v' || i FROM generate_series(101, 120) i;
SELECT hybrid_cache.attach('parted', 'string', 'p:{id}', value => 'v');
SQL
settled('partitions');
counts('parted', 'parted_string', '100|0|0|0|0|0', 'all partitions are compared');
$redis->cli('DEL', 'p:1', 'p:2');
ask(100, 'parted_string', 'parted');
poll("SELECT EXISTS (SELECT FROM hybrid_cache.run JOIN pg_trigger t ON t.oid = mapping WHERE tgname = 'parted_string' AND ended IS NULL AND checked > 0)",
	'while they are compared');
sql('ALTER TABLE parted ATTACH PARTITION parted_3 FOR VALUES IN (3); ALTER TABLE parted DETACH PARTITION parted_1');
answered();
settled('one is attached and one detached');
is($redis->cli('EXISTS', map { "p:$_" } 1 .. 120), 70, 'the entries are those of the partitions');
counts('parted', 'parted_string', '70|0|0|0|0|0', 'and are equal');

# ---------------------------------------------------------------------------
# while others write: windows that serve many chunks, and no false counts

append_to_file($node->basedir . '/write.sql', <<'SQL');
\set a random(1, 200000)
\set b random(1, 200000)
\set c random(300001, 300300)
\set d random(300001, 300300)
UPDATE large SET n = n + 1 WHERE id = :a;
UPDATE large SET other = other + 1 WHERE id BETWEEN :b AND :b + 20;
INSERT INTO large VALUES (:c, 1) ON CONFLICT DO NOTHING;
DELETE FROM large WHERE id = :d;
SQL
my $written = '';
my $pgbench = IPC::Run::start(
	[ 'pgbench', '-n', '-c', 3, '-j', 1, '-T', 600, '-f', $node->basedir . '/write.sql',
		'-h', $node->host, '-p', $node->port, 'postgres' ],
	'>', \$written, '2>', \$written);
for my $round (1 .. 4)
{
	ask($round % 2 ? 0 : 100000);
	like(answered(), qr/^\d+\|0\|0\|0\|0\|0$/, "nothing is wrong while others write, $round");
}
$redis->cli('DEL', map { "large:$_" } 1 .. 1000);
ask(0);
my ($checked, $missing, @others) = split /\|/, answered();
cmp_ok($missing, '<=', 1000, 'what was removed is found, unless it was written since');
cmp_ok($missing, '>', 500, '... most of it');
is("@others", "0 0 0 $missing", '... and nothing else');
$pgbench->signal('INT');
eval { $pgbench->finish; };
is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'the last of it');
counts('large', 'large_string', sql('SELECT count(*) FROM large') . '|0|0|0|0|0', 'after that all is equal');

unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP/, 'no process has crashed');
$node->stop;
done_testing();
