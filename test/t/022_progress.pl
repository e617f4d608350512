# What the keeper is asked for: populating while others write, comparisons that
# sessions wait for, cancelling, what is due by the time, and what it says about
# how far it is.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = HybridCache::Redis->new;
my $node = start_server($redis, <<'CONF');
hybrid_cache.command_timeout = 60s
hybrid_cache.reconcile_interval = 0
log_min_messages = log
CONF

sub set
{
	my ($name, $value) = @_;
	sql("ALTER SYSTEM SET $name = $value");
	sql('SELECT pg_reload_conf()');
	return;
}

# Nothing is being done, nor is to be, and all of it is in Redis.
sub idle
{
	my ($what) = @_;
	poll('SELECT count(*) = 0 FROM hybrid_cache.progress', $what);
	is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', '... and it is in Redis');
	return;
}

# A session that waits for reconcile(); returns what finish_waiting() needs.
sub start_waiting
{
	my ($mapping) = @_;
	my %session = (out => '', err => '', mapping => $mapping);
	$session{run} = IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'VERBOSITY=verbose',
			'-c', "SELECT checked, missing, stale, repaired FROM hybrid_cache.reconcile('big', '$mapping')",
			'-h', $node->host, '-p', $node->port, 'postgres'
		],
		'<', \undef, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

sub finish_waiting
{
	my ($session) = @_;
	eval { $session->{run}->finish; };
	chomp $session->{out};
	return $session->{out} . $session->{err};
}

# Every row of big has its entry.
sub equal
{
	my ($what) = @_;
	is(sql(<<'SQL'), '0', $what);
WITH part AS (SELECT array_agg('big:' || id ORDER BY id) AS keys, array_agg(n ORDER BY id) AS n
	FROM big GROUP BY id / 5000)
SELECT count(*) FROM part, jsonb_array_elements_text(redis_command(VARIADIC array_prepend('MGET', keys))) WITH ORDINALITY e(v, i)
WHERE v::int IS DISTINCT FROM n[i]
SQL
	return;
}

my $waiting = "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'hybrid_cache.reconcile' AND wait_event_type = 'Extension' AND backend_type = 'client backend'";

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE big (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, other int NOT NULL DEFAULT 0);
INSERT INTO big SELECT i FROM generate_series(1, 60000) i;
CREATE TABLE small (id int PRIMARY KEY);
INSERT INTO small SELECT generate_series(1, 5);
ANALYZE;
SQL

# ---------------------------------------------------------------------------
# populating

# Writers that never stop.
append_to_file($node->basedir . '/write.sql', <<'SQL');
\set a random(1, 60000)
UPDATE big SET n = n + 1 WHERE id = :a;
UPDATE big SET other = other + 1 WHERE id = 60001 - :a;
SQL
my $written = '';
my $pgbench = IPC::Run::start(
	[
		'pgbench', '-n', '-c', 2, '-j', 1, '-T', 600, '-f', $node->basedir . '/write.sql',
		'-h', $node->host, '-p', $node->port, 'postgres'
	],
	'>', \$written, '2>', \$written);
poll('SELECT sum(n) > 100 FROM big', 'others write');

is(sql(q{SELECT hybrid_cache.attach('big', 'string', 'big:{id}', value => 'n')}),
	'big_string', 'attach() to a large table');
poll("SELECT state LIKE 'owes reconcile: not populated%' OR redis_get('big:60000') IS NOT NULL FROM hybrid_cache.mapping",
	'which is populated afterwards');

# What the keeper has and what others wait for.
my ($locks, $blocked, $seen, %phases) = ('', 0, 0);
for (1 .. 2000)
{
	my ($count, $mode, $waits, $phase) = split /\|/, sql(<<'SQL');
SELECT (SELECT count(*) FROM hybrid_cache.progress),
	(SELECT string_agg(DISTINCT l.mode, ',') FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE a.backend_type = 'hybrid_cache keeper' AND l.relation = 'big'::regclass),
	(SELECT count(*) FROM pg_stat_activity a WHERE a.backend_type = 'client backend'
		AND EXISTS (SELECT FROM pg_stat_activity k WHERE k.backend_type = 'hybrid_cache keeper'
			AND k.pid = ANY (pg_blocking_pids(a.pid)))),
	(SELECT phase FROM hybrid_cache.progress LIMIT 1)
SQL
	last if $count == 0;
	$seen++;
	$blocked += $waits;
	$phases{$phase} = 1 if defined $phase;
	$locks .= "$mode " if $mode;
}
cmp_ok($seen, '>', 0, 'the keeper was seen at work');
unlike($locks, qr/\b(?!AccessShareLock)\w*Lock/, 'it locks the table against nobody but DROP and its like');
is($blocked, 0, 'nobody waited for it');
idle('populating ends');
$pgbench->signal('INT');
eval { $pgbench->finish; };
idle('others write no more');
equal('every row has its entry, as it is now');
is(sql("SELECT state FROM hybrid_cache.mapping WHERE name = 'big_string'"), 'ok', 'the view says so');

# ---------------------------------------------------------------------------
# how far it is

# Comparing them all takes minutes at this rate.
set('hybrid_cache.reconcile_rate', 100);
is(sql("SET statement_timeout = '90s'; SET hybrid_cache.reconcile_rate = 0;
	SELECT missing, stale FROM hybrid_cache.reconcile('big', 'big_string')"), '0|0', 'a session can have it quicker');
set('hybrid_cache.reconcile_rate', 1000);
my $session = start_waiting('big_string');
poll("SELECT rows_done > 0 AND kind = 'reconcile' AND reason = 'asked for' AND rows_estimated BETWEEN 30000 AND 90000
	AND time_left > '10s' AND rate BETWEEN 1 AND 5000 AND started <= now() FROM hybrid_cache.progress", 'progress is shown');
my $done = sql('SELECT rows_done FROM hybrid_cache.progress');
poll("SELECT rows_done > $done FROM hybrid_cache.progress", 'and moves');
$redis->cli('SET', 'big:60000', '-1');

# What waits behind it.
sql("SELECT hybrid_cache.attach('small', 'set', 'small', member => '{id}')");
is(sql("SELECT name, kind, reason, phase, rows_done FROM hybrid_cache.progress WHERE phase = 'waiting'"),
	'small_set|repair|not populated|waiting|', 'a mapping that waits is shown, too');
my $second = start_waiting('big_string');
poll("SELECT ($waiting) = 2", 'another session asks for the same');
is(sql("SELECT count(*) FROM hybrid_cache.progress WHERE name = 'big_string'"), '1', 'its mapping is shown once');

# ---------------------------------------------------------------------------
# cancelling

is(sql("SELECT hybrid_cache.cancel('big', 'big_string')"), 't', 'a run is cancelled');
like(finish_waiting($session), qr/57014.*was cancelled/, 'who waited for it is told');
like(finish_waiting($second), qr/57014.*was cancelled/, 'and who waited for the next one');
poll("SELECT count(*) = 0 FROM hybrid_cache.progress", 'what waited behind is done');
is($redis->cli('SCARD', 'small'), 5, '... really');
is(sql("SELECT hybrid_cache.cancel('big', 'big_string')"), 'f', 'there is nothing more to cancel');

# Populating is at full speed, so it is stopped in the middle by Redis.
$redis->freeze;
sql("SELECT hybrid_cache.populate('big', 'big_string')");
poll("SELECT phase <> 'waiting' FROM hybrid_cache.progress", 'populating again');
is(sql("SELECT hybrid_cache.cancel('big', 'big_string')"), 't', 'is cancelled');
$redis->thaw;
poll("SELECT state = 'owes reconcile: cancelled: not populated' FROM hybrid_cache.mapping WHERE name = 'big_string'",
	'what it owes is still to be seen');
is(sql('SELECT count(*) FROM hybrid_cache.progress'), '0', 'but nothing is done about it');
set('hybrid_cache.reconcile_rate', 0);
like(sql("SELECT checked, missing, stale, repaired FROM hybrid_cache.reconcile('big', 'big_string')"),
	qr/^60000\|0\|1\|1$/, 'until it is asked for');
is(sql("SELECT state FROM hybrid_cache.mapping WHERE name = 'big_string'"), 'ok', 'and then it is over');

# ---------------------------------------------------------------------------
# sessions that wait

# Both ask while another mapping is being compared: one run serves them.
set('hybrid_cache.reconcile_rate', 1000);
sql("SELECT hybrid_cache.attach('big', 'set', 'slow', member => '{id}', filter => 'id <= 3', name => 'slow')");
poll("SELECT count(*) = 0 FROM hybrid_cache.progress", 'another mapping');
my $first = start_waiting('slow');
poll("SELECT name = 'slow' AND phase <> 'waiting' FROM hybrid_cache.progress", 'is compared');
$redis->cli('DEL', 'big:7', 'big:8');
my @both = map { start_waiting('big_string') } 1, 2;
poll("SELECT ($waiting) = 3", 'two sessions ask for the same');
set('hybrid_cache.reconcile_rate', 0);
is(finish_waiting($first), '3|0|0|0', 'the first is served');
is(finish_waiting($_), '60000|2|0|2', 'both get what one run has found') for @both;

# A session that leaves takes its request along.
set('hybrid_cache.reconcile_rate', 1000);
$first = start_waiting('big_string');
poll("SELECT phase <> 'waiting' FROM hybrid_cache.progress", 'a session waits for the run');
$second = start_waiting('slow');
poll("SELECT count(*) = 1 FROM hybrid_cache.progress WHERE name = 'slow' AND phase = 'waiting'", 'and one for the next');
is(sql("SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'reconcile.*slow' AND pid <> pg_backend_pid()) x"),
	'1', 'it is terminated');
like(finish_waiting($second), qr/57P01/, 'at once');
poll("SELECT count(*) = 0 FROM hybrid_cache.progress WHERE name = 'slow'", 'and asks for nothing any more');
is(sql("SELECT count(*) FROM (SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ 'reconcile.*big_string' AND pid <> pg_backend_pid()) x"),
	'1', 'the other one is cancelled');
like(finish_waiting($first), qr/57014.*user request/, 'at once');

# More than there are places for: each is freed.
my @many = map { start_waiting('slow') } 1 .. 32;
poll("SELECT ($waiting) = 32", 'as many sessions as can wait');
my ($ret, $out, $err) = $node->psql('postgres', "SELECT hybrid_cache.reconcile('big', 'slow')");
like($err, qr/32 sessions wait for comparisons already/, 'one more is refused');

# The keeper is terminated while they wait: the next one goes on.
is(sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'"),
	'1', 'the keeper is terminated');
set('hybrid_cache.reconcile_rate', 0);
is(join(' ', map { finish_waiting($_) } @many), join(' ', ('3|0|0|0') x 32), 'all are served by the next one');
is(sql("SELECT checked FROM hybrid_cache.reconcile('big', 'slow')"), '3', 'there is room again');

# A table that somebody has locked.
my $locker = IPC::Run::start(
	[ 'psql', '-XAtq', '-c', 'BEGIN; LOCK TABLE big; SELECT pg_sleep(600)', '-h', $node->host, '-p', $node->port, 'postgres' ],
	'<', \undef, '>', \my $locker_out, '2>', \my $locker_err);
poll("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'big'::regclass AND mode = 'AccessExclusiveLock')", 'a table is locked');
$first = start_waiting('slow');
like(finish_waiting($first), qr/55P03.*lock timeout.*HINT/s, 'who waits is told that somebody has locked it');
sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'pg_sleep.600' AND pid <> pg_backend_pid()");
eval { $locker->finish; };
idle('the lock is gone');

# Redis that is away.
$redis->stop;
poll('SELECT NOT connected FROM hybrid_cache.status', 'Redis is down');
($ret, $out, $err) = $node->psql('postgres', "SELECT hybrid_cache.reconcile('big', 'slow')", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/0800[16].*HINT:.*populate\(\)/s, 'reconcile() says so');
sql("SELECT hybrid_cache.populate('big', 'slow')");
poll("SELECT phase = 'waiting' FROM hybrid_cache.progress", 'populate() waits');
$redis->start;
idle('until Redis is back');
is($redis->cli('SCARD', 'slow'), 3, 'then it is done');

# ---------------------------------------------------------------------------
# what is due

set('hybrid_cache.reconcile_interval', "'1s'");
$redis->cli('SADD', 'small', 'foreign');
$redis->cli('SADD', 'small', '77');
$redis->cli('SREM', 'small', '3');
my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
usleep(100_000)
  while join(' ', sort split /\n/, $redis->cli('SMEMBERS', 'small')) ne '1 2 3 4 5 foreign' && $patience-- > 0;
is(join(' ', sort split /\n/, $redis->cli('SMEMBERS', 'small')), '1 2 3 4 5 foreign',
	'foreign changes are found and repaired without a word');
like(slurp_file($node->logfile), qr/mapping "small_set".*\n.*missing: 1, stale: 0, orphaned: 1/,
	'the log has what was repaired');
poll("SELECT ended > now() - interval '5s' FROM hybrid_cache.run WHERE mapping = (SELECT oid FROM pg_trigger WHERE tgname = 'small_set')",
	'again and again');

# Not where nobody wants it.
sql("SELECT hybrid_cache.attach('small', 'string', 'lazy:{id}', name => 'lazy', value => 'id', populate => false)");
my $count = sql("SELECT count(*) FROM hybrid_cache.run r JOIN pg_trigger t ON t.oid = r.mapping WHERE tgname = 'small_set'");
my $ended = sql("SELECT ended FROM hybrid_cache.run WHERE mapping = (SELECT oid FROM pg_trigger WHERE tgname = 'small_set')");
poll("SELECT ended > '$ended'::timestamptz + interval '3s' FROM hybrid_cache.run WHERE mapping = (SELECT oid FROM pg_trigger WHERE tgname = 'small_set')",
	'others are compared');
is($redis->cli('EXISTS', 'lazy:1'), 0, 'a mapping that was not to be populated is not');
set('hybrid_cache.reconcile_interval', 0);
idle('never again');

# One that is cancelled is not due again at once.
set('hybrid_cache.reconcile_rate', 1000);
sql("UPDATE hybrid_cache.run SET full_started = now() - interval '2h' WHERE mapping = (SELECT oid FROM pg_trigger WHERE tgname = 'big_string')");
set('hybrid_cache.reconcile_interval', "'1h'");
poll("SELECT name = 'big_string' AND reason = 'periodic' AND rows_done > 0 FROM hybrid_cache.progress", 'one is due');
is(sql("SELECT hybrid_cache.cancel('big', 'big_string')"), 't', 'and cancelled');
idle('it ends');
is(sql("SELECT phase FROM hybrid_cache.run WHERE ended IS NOT NULL AND mapping = (SELECT oid FROM pg_trigger WHERE tgname = 'big_string')"),
	'rows', 'and no other one was begun');
set('hybrid_cache.reconcile_interval', 0);
set('hybrid_cache.reconcile_rate', 0);

# ---------------------------------------------------------------------------
# a crash empties unlogged tables

sql(<<'SQL');
CREATE UNLOGGED TABLE flash (id int PRIMARY KEY);
SELECT hybrid_cache.attach('flash', 'set', 'flash', member => '{id}');
INSERT INTO flash SELECT generate_series(1, 3);
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
CREATE UNLOGGED TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
SELECT hybrid_cache.attach('parts', 'set', 'parts', member => '{id}');
INSERT INTO parts VALUES (1), (11);
CHECKPOINT;
SQL
idle('unlogged tables');
is($redis->cli('SCARD', 'flash') . $redis->cli('SCARD', 'parts'), '32', 'have their entries');
$node->restart;
idle('a restart');
is($redis->cli('SCARD', 'flash') . $redis->cli('SCARD', 'parts'), '32', 'does not matter to them');
my $log = -s $node->logfile;
$node->stop('immediate');
$node->start;
is(sql('SELECT count(*) FROM flash'), '0', 'a crash empties them');
poll("SELECT redis_exists('flash') = 0", 'and Redis follows');
idle('by itself');
is($redis->cli('SMEMBERS', 'parts'), '11', 'with partitions, too');
my $text = slurp_file($node->logfile, $log);
like($text, qr/finds unlogged tables emptied by recovery: 2 mappings must be compared/, 'the log says why');
is(() = $text =~ /mapping "big_string" of table "big" is equal/, 0, 'ordinary tables need no comparison');

unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP/, 'no process has crashed');
$node->stop;
done_testing();
