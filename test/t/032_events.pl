# What a team's own service relies on: each change of a row is in a stream and in
# a list once, in the order of the commits, with the position of its commit; a
# subscriber hears of it; whatever stops in between.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $redis = HybridCache::Redis->new(appendonly => 'yes', appendfsync => 'always');
my $node = start_server($redis, <<'CONF');
max_prepared_transactions = 5
hybrid_cache.atomic_ops = 1000
CONF

sub synced { return is(sql("SELECT hybrid_cache.wait_for_sync('120s')"), 't', $_[0]); }

# How many rows a query finds among the entries of the stream, as table e(ord,
# lsn, op, id), or of the list, as table q of the same columns.
my $stored = <<'SQL';
WITH e AS (
	SELECT ord, (entry #>> '{1,5}')::pg_lsn AS lsn, entry #>> '{1,1}' AS op,
		((entry #>> '{1,7}')::jsonb ->> 'id')::bigint AS id
	FROM jsonb_array_elements(redis_command('XRANGE', 'events', '-', '+')) WITH ORDINALITY e (entry, ord)
), q AS (
	SELECT ord, (element::jsonb ->> 'lsn')::pg_lsn AS lsn, element::jsonb ->> 'op' AS op,
		(element::jsonb #>> '{data,id}')::bigint AS id
	FROM jsonb_array_elements_text(redis_command('LRANGE', 'queue', '0', '-1')) WITH ORDINALITY q (element, ord)
)
SQL
sub found { return sql("$stored SELECT count(*) FROM ($_[0]) found"); }

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE job (id bigserial PRIMARY KEY, state text);
CREATE TABLE happened (id bigint, op text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO happened VALUES (coalesce(NEW.id, OLD.id), lower(TG_OP));
	RETURN NULL;
END
$$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON job FOR EACH ROW EXECUTE FUNCTION note();
SELECT hybrid_cache.attach('job', 'stream', 'events');
SELECT hybrid_cache.attach('job', 'list', 'queue');
SELECT hybrid_cache.attach('job', 'publish', channel => 'job:{state}', value => $$id || ' ' || coalesce(old.state, '-')$$);
CREATE TABLE hot (id int, n bigint);
INSERT INTO hot SELECT generate_series(1, 3), 0;
SELECT hybrid_cache.attach('hot', 'stream', 'hot:{id}', operations => 'update', columns => 'n');
SQL

# A subscriber.
my ($heard, $said_nothing) = ('', '');
my $subscriber = IPC::Run::start(
	[ 'redis-cli', '-s', $redis->socket, 'PSUBSCRIBE', 'job:*' ],
	'<', \$said_nothing, '>', \$heard, '2>', \my $ignored,
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$subscriber->pump until $heard =~ /psubscribe\njob:\*\n1\n/;
sql("INSERT INTO job (id, state) VALUES (0, 'new'); UPDATE job SET state = 'done' WHERE id = 0");
$subscriber->pump until $heard =~ /job:done\n0 new\n/;
like($heard, qr/pmessage\njob:\*\njob:new\n0 -\npmessage\njob:\*\njob:done\n0 new\n/,
	'a subscriber hears of each change, in order');

# A prefix is for keys, not for channels.
sql("SET hybrid_cache.key_prefix = 'app:'; DELETE FROM job WHERE id = 0");
$subscriber->pump until $heard =~ /job:done\n0 done\n/;
is($redis->cli('XLEN', 'events') . ' ' . $redis->cli('XLEN', 'app:events'), '2 1',
	'with a prefix, another stream has the entry and the same channel the message');
$subscriber->kill_kill;

# The order is that of the commits, whoever began first.
my $early = $node->background_psql('postgres');
$early->query_safe("BEGIN; INSERT INTO job (id, state) VALUES (-1, 'began first')");
sql("INSERT INTO job (id, state) VALUES (-2, 'committed first')");
$early->query_safe('COMMIT');
$early->quit;

# A prepared transaction has its events when it is committed.
sql("BEGIN; INSERT INTO job (id) VALUES (-3); PREPARE TRANSACTION 'p'");
sql("BEGIN; INSERT INTO job (id) VALUES (-4); PREPARE TRANSACTION 'no'");
sql("INSERT INTO job (id) VALUES (-5)");
sql("COMMIT PREPARED 'p'");
sql("ROLLBACK PREPARED 'no'");
synced('all is sent');
is( sql("$stored SELECT string_agg(id::text, ' ' ORDER BY ord) FROM e WHERE id < 0"),
	'-2 -1 -5 -3', 'events have the order of the commits');

# Many sessions, with savepoints that are rolled back, while the worker and Redis
# are stopped again and again.
PostgreSQL::Test::Utils::append_to_file($node->basedir . '/job.sql', <<'SQL');
\set hot random(1, 3)
BEGIN;
INSERT INTO job (state) VALUES ('new') RETURNING id \gset
UPDATE job SET state = 'taken' WHERE id = :id;
SAVEPOINT s;
UPDATE job SET state = 'never' WHERE id = :id;
INSERT INTO job (state) VALUES ('never');
UPDATE hot SET n = n + 100 WHERE id = :hot;
ROLLBACK TO s;
UPDATE hot SET n = n + 1 WHERE id = :hot;
DELETE FROM job WHERE id = :id - 40;
COMMIT;
SQL

sub start_writers
{
	return IPC::Run::start(
		[
			'pgbench', '-n', '-c', 4, '-j', 1, '-T', 600, '-f', $node->basedir . '/job.sql',
			'-h', $node->host, '-p', $node->port, 'postgres'
		],
		'>', \my $out, '2>', \my $err);
}

sub stop_writers
{
	my ($writers) = @_;
	$writers->signal('INT');
	eval { $writers->finish; };
	return;
}

sub length_of { return $redis->cli('XLEN', 'events'); }

# Waits until so many events more have arrived.
sub more
{
	my ($n) = @_;
	my $wanted = length_of() + $n;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	while (length_of() < $wanted)
	{
		die 'no events arrive' if time > $end;
		Time::HiRes::usleep(10_000);
	}
	return;
}

# All that is committed was sent once, and nothing else; transactions are not mixed.
sub is_exact
{
	my ($what) = @_;
	for my $table ('e', 'q')
	{
		is( found("(SELECT id, op FROM $table WHERE id > 0 EXCEPT ALL SELECT id, op FROM happened)
			UNION ALL (SELECT id, op FROM happened WHERE id > 0 EXCEPT ALL SELECT id, op FROM $table)"),
			0, "$what: each change has one event ($table)");
		is( found("SELECT FROM (SELECT lsn < lag(lsn) OVER (ORDER BY ord) AS back FROM $table) t WHERE back"),
			0, '... in the order of the commits');
		is( found("SELECT FROM (SELECT id, array_agg(op ORDER BY ord) AS ops FROM $table WHERE id > 0 GROUP BY id) t
			WHERE ops NOT IN ('{insert,update}', '{insert,update,delete}')"),
			0, '... and of the changes of a row');
	}
	is( sql(<<'SQL'), 'f', '... whoever changes the same row');
SELECT bool_or(ARRAY(SELECT (entry #>> '{1,1}')::bigint
		FROM jsonb_array_elements(redis_command('XRANGE', 'hot:' || id, '-', '+')) WITH ORDINALITY e (entry, ord)
		ORDER BY ord) <> ARRAY(SELECT generate_series(1, n)) OR n < 50)
FROM hot
SQL
	return;
}

my $writers = start_writers();
more(500);
for my $i (1 .. 3)
{
	sql('SELECT pg_terminate_backend(worker_pid) FROM hybrid_cache.status WHERE worker_pid IS NOT NULL');
	more(500);
	$redis->kill9;
	$redis->start;
	more(500);
	sql('SELECT redis_command(\'CLIENT\', \'KILL\', \'TYPE\', \'normal\', \'SKIPME\', \'yes\')');
	more(500);
}

# Redis is away, and then PostgreSQL crashes.
$redis->kill9;
my $before = sql('SELECT count(*) FROM happened');
$node->poll_query_until('postgres', "SELECT count(*) > $before + 100 FROM happened")
  or die 'the writers have stopped';
$node->stop('immediate');
stop_writers($writers);
$node->start;
$writers = start_writers();
$node->poll_query_until('postgres', "SELECT count(*) > $before + 300 FROM happened")
  or die 'the writers have stopped';
$redis->start;
more(500);
stop_writers($writers);
synced('what was to be sent is sent');
ok(sql('SELECT count(*) > 2000 FROM happened'), 'a good number of changes was made');
is_exact('after all that');
is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), 0, 'nothing was refused');
is(sql("SELECT string_agg(state, ' ') FROM hybrid_cache.mapping"), 'ok ok ok ok', 'nothing is owed');

# A transaction with more events than are sent at once, and with a part rolled
# back that was written to the WAL.
sql('ALTER TABLE job DISABLE TRIGGER note; DELETE FROM job; TRUNCATE job');
synced('the events of a table that is emptied');
$redis->cli('DEL', 'events', 'queue');
sql(<<'SQL');
BEGIN;
INSERT INTO job SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i;
SAVEPOINT s;
UPDATE job SET state = 'never';
ROLLBACK TO s;
UPDATE job SET state = 'last' WHERE id % 4 = 0;
COMMIT;
SQL
synced('a large transaction');
is( sql("$stored SELECT op, count(*), min(id), max(id), count(DISTINCT lsn), max(ord) - min(ord) + 1 FROM e GROUP BY op ORDER BY op"),
	"insert|20000|1|20000|1|20000\nupdate|5000|4|20000|1|5000", 'is sent whole, in order');
is(found('SELECT FROM e JOIN q USING (ord, lsn, op, id)'), 25000, 'the same in the list');

# A stream that is kept short, on the other side of a restart of the worker.
sql(<<'SQL');
CREATE TABLE tick (n int);
SELECT hybrid_cache.attach('tick', 'stream', 'ticks', maxlen => 100, columns => 'n');
INSERT INTO tick SELECT generate_series(1, 3000);
SQL
synced('many events');
my $kept = $redis->cli('XLEN', 'ticks');
cmp_ok($kept, '<', 400, 'of which the older ones are gone');
cmp_ok($kept, '>=', 100, 'but not too many');
like($redis->cli('XREVRANGE', 'ticks', '+', '-', 'COUNT', 1), qr/\nn\n3000$/, 'and the last one is there');

# A change that logical replication applies has an event if the mapping says so.
sql(<<'SQL');
CREATE TABLE applied (n int);
SELECT hybrid_cache.attach('applied', 'list', 'applied', value => 'n');
SELECT hybrid_cache.attach('applied', 'list', 'applied', value => 'n + 100', name => 'always', always => true);
SET session_replication_role = replica;
INSERT INTO applied VALUES (1);
SQL
synced('a change by a replica');
is($redis->cli('LRANGE', 'applied', 0, -1), '101', 'is only for a mapping that is made for it');

# Dumped and restored: the same mappings, and no event of rows that were there
# before.
my $mappings = 'SELECT relation, name, kind, options, fires, state FROM hybrid_cache.mapping ORDER BY relation::text, name';
my $triggers = 'SELECT tgrelid::regclass, tgname, tgtype, tgenabled, tgargs FROM pg_trigger ORDER BY 1::text, 2';
my $n_events = $redis->cli('XLEN', 'events');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_dump', '-f', $node->basedir . '/dump.sql', 'postgres' ], 'a database is dumped');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', $node->basedir . '/dump.sql', 'restored' ],
	'and restored');
is($node->safe_psql('restored', $mappings), sql($mappings), 'it has the same mappings');
is($node->safe_psql('restored', $triggers), sql($triggers), 'and triggers');
$node->safe_psql('restored', 'INSERT INTO job (id) VALUES (-9)');
is($node->safe_psql('restored', "SELECT hybrid_cache.wait_for_sync('120s')"), 't', 'a new row there');
is($redis->cli('XLEN', 'events'), $n_events + 1, 'is the only one that has an event');

# A database that is not in UTF-8: the payload is, and the position is where it
# belongs.
$node->safe_psql('postgres', "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
$node->safe_psql('latin', <<"SQL");
SET client_encoding = 'UTF8';
CREATE EXTENSION hybrid_cache;
CREATE TABLE "K\xc3\xa4se" (id int, "gr\xc3\xb6\xc3\x9fe" text);
SELECT hybrid_cache.attach('"K\xc3\xa4se"', 'list', 'latin');
SELECT hybrid_cache.attach('"K\xc3\xa4se"', 'stream', '\xc3\xa4', columns => '"gr\xc3\xb6\xc3\x9fe"');
INSERT INTO "K\xc3\xa4se" VALUES (1, '\xc3\xbc');
SQL
is($node->safe_psql('latin', "SELECT hybrid_cache.wait_for_sync('120s')"), 't', 'a table with letters of its own');
like($redis->cli('LRANGE', 'latin', 0, -1),
	qr/^\{"op":"insert","table":"public\.\\"K\xc3\xa4se\\"","lsn":"[0-9A-F]+\/[0-9A-F]+","data":\{"id":1,"gr\xc3\xb6\xc3\x9fe":"\xc3\xbc"\}\}$/,
	'is sent in UTF-8');
like($redis->cli('XRANGE', "\xc3\xa4", '-', '+'), qr/\ngr\xc3\xb6\xc3\x9fe\n\xc3\xbc$/, 'also in a stream');

# A row that is too long for Redis is changed, but not sent.
sql('CREATE TABLE long (v text); SELECT hybrid_cache.attach(\'long\', \'list\', \'long\', value => \'v || v\')');
my ($status, undef, $warning) = $node->psql('postgres', "INSERT INTO long SELECT repeat('x', 300 * 1024 * 1024)");
is($status, 0, 'a row whose event is too long');
like($warning, qr/WARNING:  the value for Redis key "long" is too long.*The event is not sent/s, 'is warned of');
sql("INSERT INTO long VALUES ('x')");
synced('the next one is sent');
is($redis->cli('LRANGE', 'long', 0, -1), 'xx', 'and nothing else');
is(sql('SELECT oversize FROM hybrid_cache.status WHERE database = current_database()'), 1, 'it is counted');

$node->stop;
$redis->stop;
done_testing();
