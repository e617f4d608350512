# Workers and databases: each database with the extension has a worker, and no
# command on a database is held up by it.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
my $node = PostgreSQL::Test::Cluster->new('main');

$redis->start;
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.repair = off
wal_level = replica
max_worker_processes = 20
CONF
$node->start;

sub sql
{
	my ($query, $database) = @_;
	return $node->safe_psql($database || 'postgres', $query);
}

sub poll
{
	my ($query, $what) = @_;
	ok($node->poll_query_until('postgres', $query), $what);
	return;
}

sub in_sync
{
	my ($database, $what) = @_;
	is(sql("SELECT hybrid_cache.wait_for_sync('60s')", $database), 't', $what);
	return;
}

# The rows that were there before the mapping are in Redis.
sub populated
{
	my ($database) = @_;
	ok($node->poll_query_until($database, 'SELECT count(*) = 0 FROM hybrid_cache.owed'),
		"the keeper populates in $database");
	in_sync($database, 'and that is in Redis');
	return;
}

# What redis-cli says about the Redis database of that number.
sub redis { my ($number, @args) = @_; return $redis->cli('-n', $number, @args); }

# A database with the extension, a mapping, and a Redis database of its own.
sub make_database
{
	my ($name, $number) = @_;
	sql("CREATE DATABASE $name");
	my $url = $redis->url($number);
	sql("ALTER DATABASE $name SET hybrid_cache.redis_url = '$url'");
	make_mapping($name);
	return;
}

sub make_mapping
{
	my ($name) = @_;
	sql(<<'SQL', $name);
CREATE EXTENSION IF NOT EXISTS hybrid_cache;
CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('t', 'string', 't:{id}', value => 'v');
SQL
	return;
}

my $workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'hybrid_cache sync worker'";
my $slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ '^hybrid_cache_'";

sub has_worker
{
	my ($name) = @_;
	return "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'hybrid_cache sync worker' AND datname = '$name')";
}

# ---------------------------------------------------------------------------
# no database has the extension

poll("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache launcher'",
	'there is a launcher');
poll("SELECT ($workers) = 0", 'and no worker stays where there is no extension');
is(sql($slots), '0', 'and no slot is made');
sql('CREATE DATABASE plain');
sql('DROP DATABASE plain');
ok(1, 'databases come and go');

# ---------------------------------------------------------------------------
# two databases at once

make_database('one', 1);
make_database('two', 2);
sql("INSERT INTO t SELECT i, 'one' FROM generate_series(1, 1000) i", 'one');
sql("INSERT INTO t SELECT i, 'two' FROM generate_series(1, 1000) i", 'two');
in_sync('one', 'the first database');
in_sync('two', 'the second database');
is(redis(1, 'GET', 't:1000'), 'one', 'what the first has written');
is(redis(2, 'GET', 't:1000'), 'two', 'what the second has written');
is(join(' ', map { scalar(() = redis($_, 'KEYS', 't:*') =~ /^t:/mg) } 1, 2),
	'1000 1000', 'each in its own Redis database');
is(sql($workers), '2', 'two workers');
is(sql($slots), '2', 'two slots');
is(sql("SELECT string_agg(database, ',' ORDER BY database) FROM hybrid_cache.status", 'one'),
	'one,two', 'two rows in the view');

# A setting of the database reaches its worker.
my $url = $redis->url(3);
sql("ALTER DATABASE two SET hybrid_cache.redis_url = '$url'");
sql("INSERT INTO t VALUES (2000, 'moved')", 'two');
poll("SELECT ($workers) = 2", 'workers come back');
in_sync('two', 'after ALTER DATABASE ... SET hybrid_cache.redis_url');
is(redis(3, 'GET', 't:2000'), 'moved', 'the change is in the other Redis database');
is(redis(2, 'EXISTS', 't:2000'), '0', 'and not where it was before');

# ---------------------------------------------------------------------------
# forged change records

# What SQL can write comes close to a record of ours, but for a length.
my $forged = q{
	SELECT pg_logical_emit_message(true, %s, %s || '\x01'::bytea ||
		set_byte('\x00', 0, (x.xid & 127 | 128)::int) || set_byte('\x00', 0, (x.xid >> 7)::int) ||
		'\x00010000'::bytea || '\x0100'::bytea || '\x06'::bytea || 'forged' || '\x01'::bytea || 'x')
	FROM (SELECT txid_current() AS xid) x WHERE x.xid BETWEEN 128 AND 16383};
is(sql(sprintf("SELECT count(*) FROM ($forged) f", "'hybrid_cache'", "'v1'::bytea || '\\x00'::bytea"), 'one'),
	'1', 'a forged record is written');
sql(sprintf($forged, "'hybrid_cache'", "''::bytea"), 'one');
sql(sprintf($forged, "'hybrid_cache' || 'v1'", "''::bytea"), 'one');
sql("SELECT pg_logical_emit_message(false, 'hybrid_cache', 'garbage')", 'one');
sql("INSERT INTO t VALUES (2001, 'real')", 'one');
in_sync('one', 'after forged records');
is(redis(1, 'GET', 't:2001'), 'real', 'real changes go on');
is(redis(1, 'EXISTS', 'forged'), '0', 'forged ones have no effect');
is(sql("SELECT damaged FROM hybrid_cache.status WHERE database = 'one'", 'one'),
	'0', 'and are not even looked at');

# Settings that change while a worker starts, when nobody knows of it yet: what it
# looks at first is locked until then.
sql('CREATE DATABASE late');
{
	my $creator = $node->background_psql('late');
	my $locker = $node->background_psql('late');
	my $lock = 'LOCK TABLE pg_extension IN ACCESS EXCLUSIVE MODE';
	my $waits = "SELECT count(*) = 1 FROM pg_locks JOIN pg_stat_activity USING (pid)"
	  . " WHERE NOT granted AND relation = 'pg_extension'::regclass AND datname = 'late' AND backend_type";
	my $late_url = $redis->url(6);

	$creator->query_safe("BEGIN; $lock; CREATE EXTENSION hybrid_cache");
	$locker->query_until(qr/begun/, "BEGIN;\n\\echo begun\n$lock;\n");
	poll("$waits = 'client backend'", 'somebody waits for the lock');
	$creator->query_safe('COMMIT');
	poll("$waits = 'hybrid_cache sync worker'", 'a worker starts');
	sql("ALTER DATABASE late SET hybrid_cache.redis_url = '$late_url'");
	$locker->query_safe('ROLLBACK');
	$_->quit foreach $creator, $locker;
	make_mapping('late');
	sql("INSERT INTO t VALUES (1, 'late')", 'late');
	in_sync('late', 'the worker has settings that came while it started');
	is(redis(6, 'GET', 't:1'), 'late', 'and writes where they say');
	sql('DROP DATABASE late');
}

# ---------------------------------------------------------------------------
# commands that want a database for themselves

sql('CREATE DATABASE copy TEMPLATE one');
ok(1, 'CREATE DATABASE ... TEMPLATE is not held up');
$url = $redis->url(4);
sql("ALTER DATABASE copy SET hybrid_cache.redis_url = '$url'");
# What is changed before that is part of what is owed.
ok($node->poll_query_until('copy',
		"SELECT EXISTS (SELECT FROM hybrid_cache.owed WHERE reason ~ 'copy of another')"),
	'the rows of the copy were never written: a reconcile is owed');
in_sync('copy', 'it has a worker');
sql("INSERT INTO t VALUES (2002, 'copy')", 'copy');
in_sync('copy', 'that works');
is(redis(4, 'GET', 't:2002'), 'copy', 'and applies its changes');
poll("SELECT ($slots) = 3", 'and it has a slot');
sql("INSERT INTO t VALUES (2003, 'one')", 'one');
in_sync('one', 'the original goes on');

sql('ALTER DATABASE copy RENAME TO renamed');
sql("INSERT INTO t VALUES (2004, 'renamed')", 'renamed');
in_sync('renamed', 'after ALTER DATABASE ... RENAME');
is(redis(4, 'GET', 't:2004'), 'renamed', 'changes are applied');

my $folder = PostgreSQL::Test::Utils::tempdir();
sql("CREATE TABLESPACE elsewhere LOCATION '$folder'");
sql('ALTER DATABASE renamed SET TABLESPACE elsewhere');
sql("INSERT INTO t VALUES (2005, 'elsewhere')", 'renamed');
in_sync('renamed', 'after ALTER DATABASE ... SET TABLESPACE');
is(redis(4, 'GET', 't:2005'), 'elsewhere', 'changes are applied');

# A command that fails lets the worker come back too.
my ($ret, $stdout, $stderr) = $node->psql('postgres', 'ALTER DATABASE renamed RENAME TO one');
isnt($ret, 0, 'a command that fails');
sql("INSERT INTO t VALUES (2006, 'still here')", 'renamed');
in_sync('renamed', 'lets the worker come back');

# Those who may not drop it do not disturb the worker.
my $pid = sql("SELECT worker_pid FROM hybrid_cache.status WHERE database = 'renamed'", 'one');
sql('CREATE ROLE nobody LOGIN');
($ret, $stdout, $stderr) =
  $node->psql('postgres', 'DROP DATABASE renamed', extra_params => [ '-U', 'nobody' ]);
like($stderr, qr/must be owner/, 'somebody else may not drop a database');
is(sql("SELECT worker_pid FROM hybrid_cache.status WHERE database = 'renamed'", 'one'),
	$pid, 'nor disturb its worker');

sql('DROP DATABASE renamed');
ok(1, 'DROP DATABASE is not held up by a worker that sleeps');
poll("SELECT ($slots) = 2", 'its slot is dropped');
poll("SELECT ($workers) = 2", 'and its worker is gone');

# A worker that works: it waits for a Redis that does not answer.
$redis->freeze;
sql("INSERT INTO t SELECT i, 'more' FROM generate_series(3001, 23000) i", 'two');
sql('DROP DATABASE two');
ok(1, 'DROP DATABASE is not held up by a worker that works');
$redis->thaw;
poll("SELECT ($slots) = 1", 'its slot is dropped');
sql("INSERT INTO t VALUES (2007, 'one')", 'one');
in_sync('one', 'the other database goes on');

# A database that vanishes while nobody looks after slots.
make_database('three', 3);
sql("INSERT INTO t VALUES (1, 'three')", 'three');
in_sync('three', 'another database');
$node->stop;
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
sql('DROP DATABASE three');
is(sql($slots), '2', 'without the library nobody drops the slot');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'hybrid_cache'");
$node->restart;
poll("SELECT ($slots) = 1", 'with it the slot is dropped');

# ---------------------------------------------------------------------------
# DROP EXTENSION and CREATE EXTENSION

sql("INSERT INTO t VALUES (2008, 'one')", 'one');
in_sync('one', 'before DROP EXTENSION');
sql('BEGIN; DROP EXTENSION hybrid_cache CASCADE; ROLLBACK', 'one');
sql("INSERT INTO t VALUES (2009, 'rolled back')", 'one');
in_sync('one', 'a DROP EXTENSION that is rolled back changes nothing');
sql('DROP EXTENSION hybrid_cache CASCADE', 'one');
poll("SELECT ($workers) = 0", 'after DROP EXTENSION the worker leaves');
poll("SELECT ($slots) = 0", 'and drops its slot');
sql("INSERT INTO t VALUES (2010, 'not mapped')", 'one');

make_mapping('one');
sql("INSERT INTO t VALUES (2011, 'mapped again')", 'one');
in_sync('one', 'after CREATE EXTENSION a worker comes');
is(sql('SELECT reason FROM hybrid_cache.owed', 'one'),
	'not populated', 'the watermark of the former installation is no reason to worry');
sql('ALTER DATABASE one SET hybrid_cache.repair = on');
populated('one');
is(redis(1, 'MGET', 't:2010', 't:2011'), "not mapped\nmapped again", 'and applies everything');

# In one transaction, with the mapping and rows.
sql('CREATE DATABASE four');
$url = $redis->url(5);
sql("ALTER DATABASE four SET hybrid_cache.redis_url = '$url'");
sql(<<'SQL', 'four');
BEGIN;
CREATE EXTENSION hybrid_cache;
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'there before');
SELECT hybrid_cache.attach('t', 'string', 't:{id}', value => 'v');
INSERT INTO t VALUES (2, 'at once');
COMMIT;
CHECKPOINT;
SQL
in_sync('four', 'extension, mapping and rows in one transaction');
sql('ALTER DATABASE four SET hybrid_cache.repair = on');
populated('four');
is(redis(5, 'MGET', 't:1', 't:2'), "there before\nat once", 'all of it is in Redis');

unlike(slurp_file($node->logfile), qr/terminated by signal [^1]|PANIC|TRAP/,
	'no process has crashed');
$node->stop;

# ---------------------------------------------------------------------------
# servers that have no place for workers or slots: commits do not care

sub try_server
{
	my ($name, $conf, $pattern, $what) = @_;
	my $small = PostgreSQL::Test::Cluster->new($name);

	$small->init;
	$small->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.repair = off
hybrid_cache.redis_url = '@{[ $redis->url(6) ]}'
wal_level = replica
max_wal_senders = 0
$conf
CONF
	$small->start;
	$small->safe_psql('postgres', <<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('t', 'string', 't:{id}', value => 'v');
INSERT INTO t VALUES (1, 'v');
CREATE DATABASE another;
SQL
	$small->safe_psql('another', 'CREATE EXTENSION hybrid_cache');
	$small->wait_for_log(qr/HINT:  .*$pattern/);
	ok(1, $what);
	is($small->safe_psql('postgres', "INSERT INTO t VALUES (2, 'v') RETURNING id"),
		'2', 'and commits go on');
	my $count = () = slurp_file($small->logfile) =~ /HINT:  .*$pattern/g;
	is($count, 1, 'it is said once');
	$small->stop;
	return;
}

try_server('workers', 'max_worker_processes = 2',
	'might need to increase max_worker_processes',
	'out of background workers');
try_server('places', 'hybrid_cache.max_databases = 1',
	'Increase hybrid_cache.max_databases', 'out of places');
try_server('slots', 'max_replication_slots = 1',
	'Free one or increase "?max_replication_slots', 'out of replication slots');

done_testing();
