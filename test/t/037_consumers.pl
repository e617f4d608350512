# Consumers: each message takes effect once and in order, wherever the process, the
# server or Redis is killed, and whatever becomes of the consumer group.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = HybridCache::Redis->new(appendonly => 'yes', appendfsync => 'always');
my $node = PostgreSQL::Test::Cluster->new('main');

$redis->start;
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
wal_level = replica
restart_after_crash = on
max_prepared_transactions = 2
log_min_messages = log
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub poll
{
	my ($query, $what, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until($database // 'postgres', $query), $what);
}

# Adds messages with the numbers from .. to.
sub add
{
	my ($stream, $from, $to) = @_;
	$redis->cli('EVAL', <<'LUA', 1, $stream, $from, $to);
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
	redis.call('XADD', KEYS[1], '*', 'n', i)
end
LUA
	return;
}

sub consumer_pid
{
	my $pid;
	for (1 .. 1800)
	{
		my ($rc, $out) = $node->psql('postgres',
			"SELECT pid FROM pg_stat_activity WHERE backend_type = 'hybrid_cache consumer' AND datname = 'postgres'");
		return $out if $rc == 0 && $out =~ /^\d+$/;
		usleep(100_000);
	}
	die 'no consumer process';
}

# What makes the whole server start again.
sub kill_consumer
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $pid = consumer_pid();
	kill 'KILL', $pid or die "kill: $!";
	for (1 .. 1800)
	{
		my ($rc, $out) = $node->psql('postgres',
			"SELECT count(*) FROM pg_stat_activity WHERE pid = $pid");
		return pass("killed $what") if $rc == 0 && $out eq '0';
		usleep(100_000);
	}
	return fail("killed $what");
}

# Each message up to n once, and in order.
sub is_even
{
	my ($n, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	poll("SELECT max(n) >= $n FROM got", "$what: all have come");
	return is(sql(<<'SQL'), "$n|$n|1|$n|t", "$what: each once and in order");
SELECT count(*), count(DISTINCT n), min(n), max(n), bool_and(n > before) IS NOT false
FROM (SELECT n, lag(n) OVER (ORDER BY at) AS before FROM got) g
SQL
}

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE got (at bigserial PRIMARY KEY, n int NOT NULL, id text NOT NULL);
CREATE TABLE gate (n int PRIMARY KEY);
CREATE FUNCTION on_message(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO got (n, id) VALUES ((fields->>'n')::int, id);
	IF EXISTS (SELECT FROM gate g WHERE g.n = (fields->>'n')::int) THEN
		PERFORM pg_advisory_xact_lock(37);
	END IF;
END
$$;
SELECT hybrid_cache.consume('events', 'on_message(text, jsonb)', 'events', batch => 10);
SQL

# --------------------------------------------------------------------------
# kill -9 at every step
# --------------------------------------------------------------------------

my $n = 25;
add('events', 1, $n);
is_even($n, 'at the beginning');

kill_consumer('while it waits for messages');
add('events', $n + 1, $n + 25);
$n += 25;
is_even($n, 'killed while it waited');

# in the middle of a batch: some handlers have run
{
	my $holder = $node->background_psql('postgres', on_error_die => 1);
	$holder->query_safe('SELECT pg_advisory_lock(37)');
	sql("INSERT INTO gate VALUES ($n + 5)");
	add('events', $n + 1, $n + 25);
	poll("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'hybrid_cache consumer' AND wait_event = 'advisory')",
		'the handler waits in mid-batch');
	kill_consumer('in the middle of a batch');
	eval { $holder->quit };
	$n += 25;
	is_even($n, 'killed in the middle of a batch');
}

# at the commit: the commit record is written, nobody has been told
{
	$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
	$node->reload;
	add('events', $n + 1, $n + 25);
	poll("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'hybrid_cache consumer' AND wait_event = 'SyncRep')",
		'the process waits in its commit');
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	kill_consumer('in its commit');
	$node->reload;
	$n += 25;
	is_even($n, 'killed in its commit');
}

# between the commit and XACK
{
	my $holder = $node->background_psql('postgres', on_error_die => 1);
	$holder->query_safe('SELECT pg_advisory_lock(37)');
	sql("TRUNCATE gate; INSERT INTO gate VALUES ($n + 5)");
	add('events', $n + 1, $n + 25);
	poll("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'hybrid_cache consumer' AND wait_event = 'advisory')",
		'the handler waits');
	$redis->cli('CLIENT', 'PAUSE', 600000, 'WRITE');
	$holder->query_safe('SELECT pg_advisory_unlock(37)');
	poll("SELECT count(*) = $n + 10 FROM got", 'a batch is committed');
	my ($pending) = split /\n/, $redis->cli('XPENDING', 'events', 'events');
	is($pending, 10, 'ten messages are not acknowledged');
	kill_consumer('between commit and XACK');
	eval { $holder->quit };
	$redis->cli('CLIENT', 'UNPAUSE');
	$n += 25;
	is_even($n, 'killed between commit and XACK');
	poll("SELECT (redis_command('XPENDING', 'events', 'events')->>0)::int = 0", 'all are acknowledged');
}

# while a message fails, and when it is put aside
sql(<<'SQL');
CREATE TABLE called (n int);
CREATE OR REPLACE FUNCTION on_message(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF fields->>'n' = 'bad' THEN
		RAISE EXCEPTION 'cannot use %', fields;
	END IF;
	INSERT INTO got (n, id) VALUES ((fields->>'n')::int, id);
END
$$;
SQL
$redis->cli('XADD', 'events', '*', 'n', 'bad');
add('events', $n + 1, $n + 5);
poll("SELECT attempts > 0 OR dead > 0 FROM hybrid_cache.consumers", 'the message has failed');
kill_consumer('while a message fails');
$n += 5;
is_even($n, 'killed while a message failed');
is(sql('SELECT consumer, fields, sqlstate, attempts FROM hybrid_cache.dead_message'),
	'events|{"n": "bad"}|P0001|3', 'it is put aside once');

# at any moment
{
	my $end = $n;
	for my $round (1 .. 8)
	{
		add('events', $end + 1, $end + 2000);
		$end += 2000;
		consumer_pid();
		usleep(rand(60_000));
		kill_consumer("at any moment, round $round");
	}
	is_even($end, 'killed at any moment');
	$n = $end;
	is(sql('SELECT count(*) FROM hybrid_cache.dead_message'), '1', 'no message was put aside');
}

# the server, and Redis
{
	add('events', $n + 1, $n + 3000);
	$node->stop('immediate');
	$node->start;
	add('events', $n + 3001, $n + 6000);
	$redis->kill9;
	$redis->start;
	$n += 6000;
	is_even($n, 'PostgreSQL and Redis killed');
}

# --------------------------------------------------------------------------
# the group in Redis is not what counts
# --------------------------------------------------------------------------

$redis->cli('XGROUP', 'SETID', 'events', 'events', '0');
add('events', $n + 1, $n + 10);
$n += 10;
is_even($n, 'the group was set back');
sql("SELECT hybrid_cache.pause_consumer('events')");
add('events', $n + 1, $n + 10);
$redis->cli('XREADGROUP', 'GROUP', 'events', 'stranger', 'COUNT', 5, 'STREAMS', 'events', '>');
sql("SELECT hybrid_cache.resume_consumer('events')");
$n += 10;
is_even($n, 'a stranger has read with the group');
sql("SELECT hybrid_cache.pause_consumer('events')");
add('events', $n + 1, $n + 10);
$redis->cli('XGROUP', 'SETID', 'events', 'events', '$');
sql("SELECT hybrid_cache.resume_consumer('events')");
$n += 10;
is_even($n, 'the group was set forward');
$redis->cli('XGROUP', 'DESTROY', 'events', 'events');
add('events', $n + 1, $n + 10);
$n += 10;
is_even($n, 'the group was removed');

# --------------------------------------------------------------------------
# another stream
# --------------------------------------------------------------------------

# with smaller ids
$redis->cli('DEL', 'events');
$redis->cli('XADD', 'events', '5-0', 'n', $n + 1);
$redis->cli('XADD', 'events', '6-0', 'n', $n + 2);
$n += 2;
is_even($n, 'made anew with smaller ids');

# with the same ids, while nobody looks
sql("SELECT hybrid_cache.pause_consumer('events')");
$redis->cli('DEL', 'events');
$redis->cli('XADD', 'events', '5-0', 'n', $n + 1);
$redis->cli('XADD', 'events', '6-0', 'n', $n + 2);
$redis->cli('XADD', 'events', '7-0', 'n', $n + 3);
sql("SELECT hybrid_cache.resume_consumer('events')");
$n += 3;
is_even($n, 'made anew with the same ids');

# with larger ids, after a time without one
$redis->cli('DEL', 'events');
poll("SELECT last_id = '7-0' AND lag IS NULL AND state = 'active' FROM hybrid_cache.consumers", 'there is no stream');
add('events', $n + 1, $n + 3);
$n += 3;
is_even($n, 'made anew');

# messages that were trimmed or deleted before they were read are just not there
sql("SELECT hybrid_cache.pause_consumer('events')");
$redis->cli('XADD', 'events', '*', 'n', 1000000 + $_) foreach (1 .. 3);
$redis->cli('XTRIM', 'events', 'MAXLEN', 0);
add('events', $n + 1, $n + 3);
sql("SELECT hybrid_cache.resume_consumer('events')");
$n += 3;
is_even($n, 'trimmed');

# --------------------------------------------------------------------------
# handlers
# --------------------------------------------------------------------------

# dropped: the messages wait for it
sql('ALTER FUNCTION on_message(text, jsonb) RENAME TO on_message_2');
add('events', $n + 1, $n + 3);
poll("SELECT state = 'failing' AND sqlstate = '42883' FROM hybrid_cache.consumers", 'there is no handler');
sql('ALTER FUNCTION on_message_2(text, jsonb) RENAME TO on_message');
$n += 3;
is_even($n, 'the handler came back');
is(sql('SELECT state, error FROM hybrid_cache.consumers'), 'active|', 'nothing is wrong any more');

# a role that loses its rights; deferred constraints; settings and temporary tables
# of one role are not seen by another
sql(<<'SQL');
CREATE ROLE app NOLOGIN;
CREATE ROLE other;
GRANT USAGE ON SCHEMA hybrid_cache TO app, other;
GRANT EXECUTE ON FUNCTION hybrid_cache.consume TO app, other;
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED, who name);
CREATE TABLE seen (who name, session text, path text, temporary regclass);
GRANT ALL ON parent, child, seen TO app, other;
CREATE FUNCTION app_handler(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO child VALUES ((fields->>'id')::int, current_user);
	INSERT INTO parent VALUES ((fields->>'id')::int);
	SET search_path = elsewhere, public;
	SET default_transaction_read_only = on;
	SET hybrid_cache.command_timeout = 1;
	CREATE TEMP TABLE IF NOT EXISTS seen (who name, session text, path text, temporary regclass);
END
$$;
CREATE FUNCTION other_handler(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen VALUES (current_user, session_user, current_setting('search_path'), to_regclass('pg_temp.seen'));
END
$$;
REVOKE ALL ON FUNCTION app_handler FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app_handler TO app;
SET ROLE app;
SELECT hybrid_cache.consume('app', 'app_handler(text, jsonb)', 'app');
SET ROLE other;
SELECT hybrid_cache.consume('other', 'other_handler(text, jsonb)', 'other');
SQL
$redis->cli('XADD', 'app', '*', 'id', 1);
poll('SELECT count(*) = 1 FROM parent', 'a handler with a deferred constraint');
$redis->cli('XADD', 'other', '*', 'x', 1);
poll('SELECT count(*) = 1 FROM seen', 'the handler of another role');
is(sql('SELECT who, session, path, temporary FROM seen'), 'other|other|"$user", public|', 'which finds nothing of the first one');
is(sql('SELECT who FROM child'), 'app', 'a handler runs as who has called consume()');
sql('REVOKE EXECUTE ON FUNCTION app_handler FROM app');
$redis->cli('XADD', 'app', '*', 'id', 2);
poll("SELECT sqlstate = '42501' FROM hybrid_cache.consumers WHERE name = 'app'", 'a role that lost its right');
sql('GRANT EXECUTE ON FUNCTION app_handler TO app');
poll('SELECT count(*) = 2 FROM parent', 'and has it again');

# a handler that fails only at the commit, one that commits, one that becomes
# another role
sql(<<'SQL');
CREATE OR REPLACE FUNCTION app_handler(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO child VALUES ((fields->>'id')::int, current_user);
END
$$;
CREATE PROCEDURE committing(id text, fields jsonb) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen VALUES ('committing');
	COMMIT;
END
$$;
CREATE FUNCTION climbing(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET ROLE postgres;
END
$$;
CREATE FUNCTION climbing_2(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET SESSION AUTHORIZATION DEFAULT;
END
$$;
SET ROLE app;
SELECT hybrid_cache.consume('other', 'committing(text, jsonb)', 'committing', max_attempts => 1);
SELECT hybrid_cache.consume('other', 'climbing(text, jsonb)', 'climbing', max_attempts => 1);
SELECT hybrid_cache.consume('other', 'climbing_2(text, jsonb)', 'climbing_2', max_attempts => 1);
SQL
$redis->cli('XADD', 'app', '*', 'id', 3);
poll("SELECT count(*) = 4 FROM hybrid_cache.dead_message WHERE consumer <> 'events'", 'handlers that do what they may not');
is(sql("SELECT consumer, sqlstate FROM hybrid_cache.dead_message WHERE consumer <> 'events' ORDER BY consumer"),
	"app|23503\nclimbing|42501\nclimbing_2|42501\ncommitting|2D000", 'each for its reason');

# deferred triggers are code of the role, too
sql(<<'SQL');
CREATE FUNCTION who_am_i() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE child SET who = current_user || '!' WHERE id = NEW.id;
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON parent DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION who_am_i();
CREATE OR REPLACE FUNCTION app_handler(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO child VALUES ((fields->>'id')::int, 'nobody');
	INSERT INTO parent VALUES ((fields->>'id')::int);
END
$$;
SQL
$redis->cli('XADD', 'app', '*', 'id', 4);
poll('SELECT who = \'app!\' FROM child WHERE id = 4', 'a deferred trigger runs as the role');

# what was put aside is tried again
is(sql("SELECT hybrid_cache.retry_message('app', message) FROM hybrid_cache.dead_message WHERE consumer = 'app'"),
	't', 'a message is tried again');
poll("SELECT who = 'app!' FROM child WHERE id = 3", 'and is taken now');
is(sql("SELECT count(*) FROM hybrid_cache.dead_message WHERE consumer = 'app'"), '0', 'and is dead no more');

# a handler that takes too long
sql('ALTER DATABASE postgres SET statement_timeout = 200');
sql(<<'SQL');
CREATE OR REPLACE FUNCTION app_handler(id text, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(600);
END
$$;
SQL
$redis->cli('XADD', 'app', '*', 'id', 5);
poll("SELECT bool_or(wait_event = 'PgSleep') FROM pg_stat_activity WHERE backend_type = 'hybrid_cache consumer'", 'a handler that takes long');
sql("SELECT pg_cancel_backend(@{[ consumer_pid() ]})");
poll("SELECT attempts = 1 AND sqlstate = '57014' FROM hybrid_cache.consumers WHERE name = 'app'", 'it can be cancelled');
sql("SELECT pg_terminate_backend(@{[ consumer_pid() ]})");
poll("SELECT count(*) = 1 FROM hybrid_cache.dead_message WHERE consumer = 'app' AND sqlstate = '57014'",
	'or ends by the statement_timeout of the database, which the next process has');
sql('ALTER DATABASE postgres RESET statement_timeout');

# --------------------------------------------------------------------------
# copies of the database
# --------------------------------------------------------------------------

sql("SELECT hybrid_cache.drop_consumer(name) FROM hybrid_cache.consumers WHERE name <> 'events'");
is(sql('SELECT name FROM hybrid_cache.consumers'), 'events', 'consumers are dropped');

# nobody tells the process, which runs for another consumer, of a COMMIT PREPARED
sql(<<'SQL');
BEGIN;
SELECT hybrid_cache.consume('prepared', 'other_handler(text, jsonb)', 'prepared');
PREPARE TRANSACTION 'consumer';
COMMIT PREPARED 'consumer';
SQL
$redis->cli('XADD', 'prepared', '*', 'x', 1);
poll("SELECT processed = 1 FROM hybrid_cache.consumers WHERE name = 'prepared'", 'a consumer of a prepared transaction');
sql("SELECT hybrid_cache.drop_consumer('prepared')");
sql('CREATE DATABASE copy TEMPLATE postgres');
my $dump = $node->basedir . '/dump.sql';
$node->run_log([ 'pg_dump', '-p', $node->port, '-h', $node->host, '-f', $dump, 'postgres' ]);
sql('CREATE DATABASE restored');
$node->run_log([ 'psql', '-X', '-q', '-p', $node->port, '-h', $node->host, '-d', 'restored', '-f', $dump ]);
foreach my $database ('copy', 'restored')
{
	is($node->safe_psql($database, 'SELECT name, state, (SELECT count(*) FROM hybrid_cache.dead_message) FROM hybrid_cache.consumers'),
		'events|copied|5', "a consumer in the database $database waits");
}
add('events', $n + 1, $n + 5);
$n += 5;
is_even($n, 'the original goes on');
is($node->safe_psql('copy', 'SELECT state, behind > interval \'0\' FROM hybrid_cache.consumers'), 'copied|t', 'the copy does not');
$node->safe_psql('copy', "SELECT hybrid_cache.resume_consumer('events')");
poll("SELECT count(*) = $n AND count(DISTINCT n) = $n FROM got", 'it goes on where it was when somebody wants it to', 'copy');
add('events', $n + 1, $n + 100);
$n += 100;
is_even($n, 'two databases with one group');
poll("SELECT count(*) = $n AND count(DISTINCT n) = $n FROM got", 'each message in each of them', 'copy');

sql('DROP DATABASE copy');
sql('DROP DATABASE restored');

# after pg_upgrade consumers are those of the former server, and go on unless that one
# is alive
$redis->cli('SET', 'hybrid_cache:lease:1:2', 'alive');
sql('UPDATE hybrid_cache.consumer SET system = 1, database = 2');
sql('UPDATE hybrid_cache.installation SET former_system = 1, former_database = 2');
sql("SELECT pg_terminate_backend(@{[ consumer_pid() ]})");
add('events', $n + 1, $n + 5);
$n += 5;
consumer_pid();
poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache consumer' AND datname = 'postgres'",
	'there is no consumer for the process while the former server is alive');
is(sql('SELECT state FROM hybrid_cache.consumers'), 'copied', 'it waits');
$redis->cli('DEL', 'hybrid_cache:lease:1:2');
is_even($n, 'pg_upgrade');
is(sql('SELECT state FROM hybrid_cache.consumers'), 'active', 'it is of this database now');

# nobody is in the way of DROP DATABASE and DROP EXTENSION
sql('DROP EXTENSION hybrid_cache CASCADE');
poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache consumer'", 'the process has left');

$node->stop;
$redis->stop;
done_testing();
