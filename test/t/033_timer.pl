# Timers: each event comes once, in time or as soon as it can, whoever was away
# when it was due.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll settled in_log);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $redis = HybridCache::Redis->new(appendonly => 'yes', appendfsync => 'always');
my $node = start_server($redis, <<'CONF');
log_min_messages = log
max_prepared_transactions = 10
CONF

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE task (id int PRIMARY KEY, due timestamptz, note text);
-- every time that a row was ever to be due, as an event has it
CREATE TABLE history (id int, at numeric);
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO history VALUES (NEW.id, ceil(extract(epoch FROM NEW.due) * 1000));
	RETURN NULL;
END $$;
CREATE TRIGGER remember AFTER INSERT OR UPDATE ON task FOR EACH ROW EXECUTE FUNCTION remember();
CREATE FUNCTION events(OUT ms numeric, OUT id int, OUT at numeric) RETURNS SETOF record LANGUAGE sql AS $$
	SELECT split_part(e ->> 0, '-', 1)::numeric, (e -> 1 ->> 1)::int, (e -> 1 ->> 3)::numeric
	FROM jsonb_array_elements(redis_command('XRANGE', 'q', '-', '+')) e;
$$;
SELECT hybrid_cache.attach('task', 'timer', 'q', member => '{id}', expires_at => 'due');
SQL
settled('a mapping');

# Nothing is due any more that was due when this is called: by a row that is due
# now, which comes after all that were due before it.
my $barrier = 1_000_000;

sub all_fired
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$barrier++;
	sql("INSERT INTO task VALUES ($barrier, clock_timestamp())");
	poll("SELECT EXISTS (SELECT FROM events() WHERE id = $barrier)", "$what: all has fired");
	return;
}

# Each time has one event at most, that was committed for its row, and none came
# early; each row that is there has its own, if it is due.
sub exactly_once
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql('SELECT count(*) FROM (SELECT FROM events() GROUP BY id, at HAVING count(*) > 1) d'),
		0, "$what: no event came twice");
	is(sql('SELECT count(*) FROM events() e WHERE NOT EXISTS (SELECT FROM history h WHERE h.id = e.id AND h.at = e.at)'),
		0, "$what: no event that no row has asked for");
	is(sql('SELECT count(*) FROM events() WHERE ms < at'), 0, "$what: no event came early");
	is(sql(<<'SQL'), 0, "$what: no event is missing");
SELECT count(*) FROM task t WHERE due < now() - interval '5 s' AND NOT EXISTS (
	SELECT FROM events() e WHERE e.id = t.id AND e.at = ceil(extract(epoch FROM due) * 1000))
SQL
	return;
}

sub empty
{
	sql('TRUNCATE task, history');
	sql("SELECT hybrid_cache.wait_for_sync('60s')");
	$redis->cli('DEL', 'q');
	return;
}

sub wait_until
{
	my ($time) = @_;
	usleep(10_000) while time() < $time;
	return;
}

# When the first timer is due, in seconds: far enough for what has to come before.
sub due
{
	return sql('SELECT extract(epoch FROM min(due)) FROM task');
}

# ---------------------------------------------------------------------------
# in time

sql("INSERT INTO task SELECT i, clock_timestamp() + interval '300 ms' + i * interval '20 ms' FROM generate_series(1, 50) i");
poll('SELECT count(*) = 50 FROM events()', 'fifty timers');
is(sql('SELECT count(*) FROM (SELECT id <> lag(id) OVER (ORDER BY ms, id) + 1 AS wrong FROM events()) e WHERE wrong'),
	0, '... in the order of their times');
note('late, in ms: ' . sql('SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ms - at) FROM events()'));
exactly_once('in time');

# ---------------------------------------------------------------------------
# somebody is away

empty();
sql("INSERT INTO task SELECT i, clock_timestamp() + interval '3 s' FROM generate_series(1, 3) i");
sql("SELECT hybrid_cache.wait_for_sync('60s')");
my $due = due();
$node->stop('fast');
wait_until($due + 0.2);
is($redis->cli('EXISTS', 'q'), 0, 'PostgreSQL is away when timers are due');
$node->start;
poll('SELECT count(*) = 3 FROM events()', '... and they fire when it is back');

sql("INSERT INTO task SELECT i, clock_timestamp() + interval '700 ms' FROM generate_series(4, 6) i");
$redis->kill9;
sql("INSERT INTO task SELECT i, clock_timestamp() + interval '100 ms' FROM generate_series(7, 9) i");
wait_until(sql('SELECT extract(epoch FROM max(due)) FROM task') + 0.2);
$redis->start;
poll('SELECT count(*) = 9 FROM events()', 'Redis is away when timers are due, and they fire when it is back');
all_fired('back');
exactly_once('back');

# Changes that were committed before a timer was due, which Redis does not know
# when the time comes.
empty();
sql("INSERT INTO task SELECT i, clock_timestamp() + interval '4 s' FROM generate_series(1, 5) i");
sql("SELECT hybrid_cache.wait_for_sync('60s')");
$due = due();
$redis->freeze;
sql("UPDATE task SET due = '2100-01-01' WHERE id = 1");
sql('DELETE FROM task WHERE id = 2');
sql(q{BEGIN; SET LOCAL synchronous_commit = off; UPDATE task SET id = 33, due = '2100-01-01' WHERE id = 3; COMMIT});
sql(q{BEGIN; UPDATE task SET due = '2100-01-01' WHERE id = 4; ROLLBACK});
cmp_ok(time(), '<', $due, 'changes are in time');
wait_until($due + 0.2);
$redis->thaw;
all_fired('moved');
is(sql('SELECT array_agg(id ORDER BY id) FROM events() WHERE id < 1000000'), '{4,5}',
	'what was moved and cancelled while Redis was away has not fired');
is($redis->cli('ZRANGE', 'hybrid_cache:timers:{q}', 0, -1), "1\n33", '... and is pending as moved');
exactly_once('moved');

# The same with a PostgreSQL that crashes before the worker has read them.
empty();
sql("INSERT INTO task SELECT i, clock_timestamp() + interval '4 s' FROM generate_series(1, 3) i");
sql("SELECT hybrid_cache.wait_for_sync('60s')");
$due = due();
$redis->freeze;
sql(q{UPDATE task SET due = '2100-01-01' WHERE id = 1});
sql(q{BEGIN; UPDATE task SET due = '2100-01-01' WHERE id = 2; PREPARE TRANSACTION 'later'});
cmp_ok(time(), '<', $due, 'changes are in time');
$node->stop('immediate');
wait_until($due + 0.2);
$redis->thaw;
$node->start;
all_fired('crashed');
is(sql('SELECT array_agg(id ORDER BY id) FROM events() WHERE id < 1000000'), '{2,3}',
	'a crash does not bring back what was moved before');
sql(q{COMMIT PREPARED 'later'});
sql("SELECT hybrid_cache.wait_for_sync('60s')");
is($redis->cli('ZRANGE', 'hybrid_cache:timers:{q}', 0, -1), "1\n2",
	'a prepared transaction moves when it commits');
exactly_once('crashed');

# ---------------------------------------------------------------------------
# transactions of any size, and versions that follow each other in them

for my $atomic_ops (1, 3, 100000)
{
	empty();
	sql("ALTER SYSTEM SET hybrid_cache.atomic_ops = $atomic_ops");
	sql('SELECT pg_reload_conf()');
	sql(<<'SQL');
DROP TRIGGER IF EXISTS a_again ON task;
CREATE OR REPLACE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE task SET note = note || 'x' WHERE id = NEW.id AND length(note) < 2;
	RETURN NULL;
END $$;
CREATE TRIGGER a_again AFTER INSERT OR UPDATE ON task FOR EACH ROW EXECUTE FUNCTION again();
BEGIN;
INSERT INTO task SELECT i, clock_timestamp() - interval '6 s', '' FROM generate_series(1, 200) i;
UPDATE task SET note = 'twice';
UPDATE task SET note = '';
UPDATE task SET due = due - interval '1 h' WHERE id % 2 = 0;
UPDATE task SET note = 'again';
DELETE FROM task WHERE id % 10 = 0;
COMMIT;
SQL
	poll('SELECT count(*) = 180 FROM events()', "a transaction with atomic_ops = $atomic_ops");
	sql(q{UPDATE task SET note = ''});
	sql(q{BEGIN; UPDATE task SET note = ''; UPDATE task SET note = ''; UPDATE task SET id = -id WHERE id = 1; COMMIT});
	all_fired('changed in other columns');
	is(sql('SELECT count(*) FROM events() WHERE id < 1000000'), 181, '... has an event per row');
	sql(q{UPDATE task SET note = '', due = due - interval '1 h' WHERE id BETWEEN 1 AND 10});
	all_fired('moved to the past');
	exactly_once("atomic_ops = $atomic_ops");
}
sql('ALTER SYSTEM RESET hybrid_cache.atomic_ops');
sql('SELECT pg_reload_conf()');
sql('DROP TRIGGER a_again ON task');

# ---------------------------------------------------------------------------
# want of memory

empty();
sql("INSERT INTO task SELECT i, clock_timestamp() + interval '3 s' FROM generate_series(1, 5) i");
sql("SELECT hybrid_cache.wait_for_sync('60s')");
$redis->cli('CONFIG', 'SET', 'maxmemory', '1');
poll("SELECT last_error LIKE '%timers: OOM%' FROM hybrid_cache.status", 'Redis has no memory for events');
sql("UPDATE task SET due = '2100-01-01' WHERE id = 1");
$redis->cli('CONFIG', 'SET', 'maxmemory', '0');
poll('SELECT count(*) >= 4 FROM events()', 'they come when it has');
all_fired('memory');
exactly_once('memory');
is($redis->cli('ZRANGE', 'hybrid_cache:timers:{q}', 0, -1), '1', 'and nothing pending was lost');

# ---------------------------------------------------------------------------
# Redis loses its data: what is to come is in the WAL that is kept, or in the table

for my $keep ('1GB', '0')
{
	empty();
	sql("ALTER SYSTEM SET hybrid_cache.wal_keep_size = '$keep'");
	sql('SELECT pg_reload_conf()');
	sql("INSERT INTO task SELECT i, '2100-01-01' FROM generate_series(1, 5) i");
	sql("INSERT INTO task VALUES (6, '2000-01-01')");
	all_fired('before');
	sql("UPDATE task SET due = '2000-01-02' WHERE id = 5");
	all_fired('before');
	$redis->cli('FLUSHALL');
	poll("SELECT redis_command('EXISTS', 'hybrid_cache:timers:{q}') = '1' AND redis_command('ZCARD', 'hybrid_cache:timers:{q}') = '4'",
		"Redis has lost its data, wal_keep_size = $keep: timers are pending again");
	settled('... and nothing is owed');
	sql("UPDATE task SET due = '2026-01-01' WHERE id = 1");
	poll("SELECT redis_command('EXISTS', 'q') = '1' AND EXISTS (SELECT FROM events() WHERE id = 1)",
		'... and they fire');
}

# ---------------------------------------------------------------------------
# somebody removes what says which streams have timers

empty();
sql(<<'SQL');
SELECT hybrid_cache.attach('task', 'timer', 'q:{note}', member => '{id}', expires_at => 'due', name => 'by_note',
	filter => 'note IS NOT NULL');
INSERT INTO task SELECT i, clock_timestamp() + interval '1 s', CASE WHEN i > 3 THEN 'n' || i END FROM generate_series(1, 6) i;
SELECT hybrid_cache.wait_for_sync('60s');
SQL
my @registry = grep { !/\{/ } split /\n/, $redis->cli('KEYS', 'hybrid_cache:timers:*');
is(scalar @registry, 1, 'there is a registry');
$redis->cli('DEL', @registry);
sql('SELECT pg_terminate_backend(worker_pid) FROM hybrid_cache.status');
poll('SELECT count(*) >= 6 FROM events()', 'the next worker finds out which streams have timers');
poll("SELECT redis_command('XLEN', 'q:n' || i) = '1' FROM generate_series(4, 6) i GROUP BY 1", '... of any name');
all_fired('found');
exactly_once('found');
sql("SELECT hybrid_cache.detach('task', 'by_note')");

# ---------------------------------------------------------------------------
# everything at once

empty();
sql("INSERT INTO task SELECT i, clock_timestamp() + i * interval '3 ms' FROM generate_series(1, 2000) i");
my $end = time() + 8;
my @faults = (
	sub { sql('SELECT pg_terminate_backend(worker_pid) FROM hybrid_cache.status') },
	sub { $redis->kill9; $redis->start },
	sub { $node->stop('immediate'); $node->start },
	sub { $redis->freeze; usleep(200_000); $redis->thaw });
my $n_faults = 0;
while (time() < $end)
{
	my $i = int(rand(2000)) + 1;
	sql("UPDATE task SET note = 'x' WHERE id BETWEEN $i AND $i + 50");
	sql("BEGIN; UPDATE task SET note = 'y' WHERE id BETWEEN $i AND $i + 50; UPDATE task SET note = 'z' WHERE id BETWEEN $i AND $i + 50; COMMIT");
	sql("UPDATE task SET due = clock_timestamp() + interval '500 ms' WHERE id BETWEEN $i AND $i + 5");
	sql("DELETE FROM task WHERE id = $i");
	$faults[$n_faults++ % @faults]->() if rand() < 0.2;
}
all_fired('faults');
usleep(1_000_000) while sql("SELECT count(*) FROM task WHERE due > now() - interval '5 s'") > 1;
all_fired("$n_faults faults");
exactly_once("$n_faults faults");

is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), 0, 'no dead letters');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal (?!9|3)/, 'nothing has crashed');

done_testing();
