# Bad input: what others do to the keys of the extension in Redis, a Redis that
# refuses, and settings that are wrong.  The log names it once and says what to
# do, and all of it is recovered from without a restart of PostgreSQL.

use strict;
use warnings;

use HybridCache::Positions;
use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new(save => '3600 1');
$redis->start;
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init(extra => ['--wal-segsize=1']);
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
hybrid_cache.wal_keep_size = 4MB
wal_recycle = off
min_wal_size = 2MB
wal_level = replica
max_wal_senders = 1
autovacuum = off
CONF
$node->start;

my $t = HybridCache::Positions->new($node, $redis);
$t->create;
$t->equal('at the beginning');
my $started = $t->sql('SELECT pg_postmaster_start_time()');

# The slot leaves the place where the extension was created: from now on nobody
# has all there ever was.
$t->fill_wal(9);
$t->poll('SELECT restart_lsn > created_lsn FROM pg_replication_slots, hybrid_cache.installation',
	'the slot has moved on');

sub set
{
	my ($name, $value) = @_;
	$t->sql("ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	return;
}

# At once: the worker is not to see that there is nothing.
sub make_list
{
	my ($name) = @_;
	$redis->cli('EVAL', "redis.call('DEL', KEYS[1]) return redis.call('RPUSH', KEYS[1], 'a', 'b')", 1, $name);
	return;
}

sub restart_worker
{
	my $pid = $t->sql('SELECT worker_pid FROM hybrid_cache.status');
	$t->sql("SELECT pg_terminate_backend($pid)");
	$t->poll("SELECT worker_pid <> $pid FROM hybrid_cache.status", 'another worker');
	return;
}

# ---------------------------------------------------------------------------
# a foreign value in place of the watermark

my $key = $redis->cli('KEYS', 'hybrid_cache:watermark:*');
my $database = $t->sql(q{SELECT oid FROM pg_database WHERE datname = 'postgres'});

foreach my $case (
	[ 'garbage', sub { $redis->cli('SET', $key, 'garbage') }, qr/cannot be read/ ],
	[ 'nothing', sub { $redis->cli('SET', $key, '') }, qr/cannot be read/ ],
	[ 'a long text', sub { $redis->cli('SET', $key, '1 ' . '9' x 100_000) }, qr/cannot be read/ ],
	[ 'a list', sub { make_list($key) }, qr/cannot be read/ ],
	[ 'a watermark of the future', sub {
		my @mark = split / /, $_[0];
		$mark[4] = $mark[7] = 'FFFFFF/0';
		$redis->cli('SET', $key, "@mark");
	}, qr/not of this server's history/ ],
	[ 'a watermark of another timeline', sub {
		my @mark = split / /, $_[0];
		$mark[3] = 77;
		$redis->cli('SET', $key, "@mark");
	}, qr/not of this server's history/ ],
	[ 'a watermark of another database', sub {
		$redis->cli('SET', $key, $_[0] =~ s/ $database / 4711 /r);
	}, qr/cannot be read/ ],
	[ 'a watermark that contradicts itself', sub {
		my @mark = split / /, $_[0];
		$mark[7] = 'FFFFFF/0';
		$redis->cli('SET', $key, "@mark");
	}, qr/cannot be read/ ])
{
	my ($name, $do, $reason) = @$case;

	$t->in_sync("before $name");
	$t->note_log;
	$do->($redis->cli('GET', $key));
	$t->owes($reason, "$name while the worker runs");
	$t->logged(qr/the watermark in Redis is not the one that was written last\n.*DETAIL:.*should be "1 .*\n.*HINT:.*hybrid_cache:/,
		"$name: the log says what to do");
	$t->logged_times(qr/not the one that was written last/, 1, "$name: once");

	next if $name =~ /nothing|long|another|contradicts/;

	# The same between the start of Redis and the moment when the worker comes.
	$t->note_log;
	$redis->stop;
	$t->change;
	$redis->{conf}{unixsocket} .= '.aside';
	$redis->start;
	$do->($redis->cli('GET', $key));
	$redis->cli('SAVE');
	$redis->kill9;
	$redis->{conf}{unixsocket} =~ s/\.aside$//;
	$redis->start;
	$t->owes($reason, "$name before the worker connects");
	$t->logged_times(qr/may have missed changes/, 1, "$name: once");
	$t->change;
	$t->equal("after $name");
}

# The other keys of the extension.  What looks like the lease of another copy of
# the database is respected while it lasts.
foreach my $name (qw(fence lease))
{
	my $other = $key =~ s/watermark/$name/r;
	foreach my $case (
		[ 'missing', sub { $redis->cli('DEL', $other) } ],
		[ 'garbage', sub { $redis->cli('SET', $other, 'garbage', 'PX', '3000') } ])
	{
		$case->[1]->();
		$t->change;
		$t->equal("$name: $case->[0] while the worker runs");
		$case->[1]->();
		restart_worker();
		$t->change;
		$t->equal("$name: $case->[0] before the worker connects");
	}

	# A list is no lease, but who put it there should have a look.
	$t->note_log;
	make_list($other);
	restart_worker();
	$t->change;
	$t->logged(qr/key "$other" in Redis server .* is not a string\n.*HINT:.*remove this one/,
		"$name: a list: the log says what to do");
	$redis->cli('DEL', $other);
	$t->equal("$name: the list is removed");
}

# A watermark that is a little old is what an old Redis has, and is believed.
$t->note_log;
my $mark = $redis->cli('GET', $key);
$t->change;
$t->in_sync('after the watermark');
$redis->cli('SET', $key, $mark);
$t->change;
$t->equal('a watermark that was put back');
$t->owes_nothing('a watermark that was put back');

# Redis without any data.
$t->note_log;
$redis->cli('FLUSHALL');
$t->owes(qr/Redis has lost its data|Redis has no watermark/, 'FLUSHALL');

# ---------------------------------------------------------------------------
# foreign values in place of entries

$redis->cli('SET', 'row:1', 'foreign');
$redis->cli('DEL', 'row:2');
$redis->cli('RPUSH', 'row:2', 'foreign');
$t->sql("UPDATE row SET v = 'changed' WHERE id IN (1, 2)");
$t->equal('foreign values where entries are written');

# ---------------------------------------------------------------------------
# a Redis that is read-only

$t->note_log;
$redis->cli('REPLICAOF', '127.0.0.1', '1');
$t->change;
$t->logged(qr/does not take changes now\n.*DETAIL:.*READONLY.*\n.*HINT:.*names a replica/,
	'a replica: the log says what to do');
$t->poll('SELECT failures > 3 FROM hybrid_cache.status', 'it is tried again');
$t->logged_times(qr/does not take changes now/, 1, 'and said once');
is($t->sql("SELECT hybrid_cache.wait_for_sync('10ms')"), 'f', 'nothing is skipped');
restart_worker();
$t->change;
$redis->cli('REPLICAOF', 'NO', 'ONE');
$t->equal('it is a primary again');
$t->owes_nothing('it is a primary again');
$t->logged(qr/applies changes to Redis server .* again/, 'the log says that it goes on');

# ... which has not our data.
$t->note_log;
my $replica = HybridCache::Redis->new;
$replica->start;
$replica->cli('REPLICAOF', '127.0.0.1', '1');
set('hybrid_cache.redis_url', $replica->url);
$t->change;
$t->logged(qr/READONLY.*\n.*HINT:.*names a replica/, 'a replica without our data');
my $failures = $t->sql('SELECT failures FROM hybrid_cache.status');
$t->poll("SELECT failures > $failures + 2 FROM hybrid_cache.status", 'it is tried again');
$t->logged_times(qr/READONLY/, 1, 'and said once');
$replica->cli('REPLICAOF', 'NO', 'ONE');
$t->use_redis($replica);
$t->owes(qr/Redis has no watermark of this database/, 'it is a primary now');
$t->logged_times(qr/may have missed changes/, 1, 'what is missing is said once');
set('hybrid_cache.redis_url', $redis->url);
$t->use_redis($redis);
$t->equal('back at the first server');
$replica->stop;
$t->note_log;

# ---------------------------------------------------------------------------
# a password

$t->note_log;
$redis->cli('CONFIG', 'SET', 'requirepass', 'secret');
$redis->{conf}{requirepass} = 'secret';
$redis->cli('CLIENT', 'KILL', 'TYPE', 'normal');
$t->change;
$t->logged(qr/cannot apply changes: .*\n.*DETAIL:.*NOAUTH.*\n.*HINT:.*password.*hybrid_cache.redis_url/,
	'a password is needed: the log says what to do');
set('hybrid_cache.redis_url', $redis->url =~ s{unix://}{unix://:wrong\@}r);
$t->logged(qr/could not log in to Redis server.*\n.*DETAIL:.*WRONGPASS.*\n.*HINT:.*password in hybrid_cache.redis_url/,
	'a wrong one: the log says what to do');
$t->note_log;
set('hybrid_cache.redis_url', $redis->url =~ s{unix://}{unix://:secret\@}r);
$t->in_sync('the right one');
unlike($t->sql('SELECT last_error FROM hybrid_cache.status'), qr/secret|wrong/, 'no password is shown');

# For one database, with ALTER DATABASE.
$redis->cli('CONFIG', 'SET', 'requirepass', 'other');
$redis->{conf}{requirepass} = 'other';
restart_worker();
$t->change;
$t->logged(qr/DETAIL:.*WRONGPASS/, 'another password');
$t->sql('ALTER DATABASE postgres SET hybrid_cache.redis_url = ' . q{'} . $redis->url =~ s{unix://}{unix://:other\@}r . q{'});
$t->equal('it is known');
$t->sql('ALTER DATABASE postgres RESET hybrid_cache.redis_url');
$redis->cli('CONFIG', 'SET', 'requirepass', '');
delete $redis->{conf}{requirepass};
set('hybrid_cache.redis_url', $redis->url);
$t->equal('without a password');
$t->owes_nothing('passwords');

# ---------------------------------------------------------------------------
# another server

$t->note_log;
my $other = HybridCache::Redis->new;
$other->start;
set('hybrid_cache.redis_url', $other->url);
$t->use_redis($other);
$t->owes(qr/Redis has no watermark of this database/, 'an empty server');
$t->change;
$t->equal('on the other server');

$t->note_log;
set('hybrid_cache.redis_url', $redis->url);
$t->use_redis($redis);
$t->equal('back at the first server');
$t->owes_nothing('inside the window');

set('hybrid_cache.redis_url', $other->url);
$t->use_redis($other);
$t->change;
$t->fill_wal(9);
$t->equal('on the other server for longer');
$t->poll('SELECT pg_current_wal_lsn() - restart_lsn < 7 * 1048576 FROM pg_replication_slots', 'the window has moved on');
$t->sql('CHECKPOINT');
set('hybrid_cache.redis_url', $redis->url);
$t->use_redis($redis);
$t->owes(qr/WAL after the watermark in Redis has been removed/, 'back outside of the window');

# ---------------------------------------------------------------------------
# no server, or nonsense

$t->note_log;
set('hybrid_cache.redis_url', '');
$t->logged(qr/has no Redis server, since hybrid_cache.redis_url is empty\n.*\n.*HINT:.*Set hybrid_cache.redis_url/,
	'no server: the log says what to do');
$t->change;
is($t->sql("SELECT hybrid_cache.wait_for_sync('10ms')"), 'f', 'nothing is skipped');
is($t->sql('SELECT connected FROM hybrid_cache.status'), 'f', 'the view says so');
$t->change;
set('hybrid_cache.redis_url', $redis->url);
$t->equal('with a server');
$t->logged_times(qr/has no Redis server/, 1, 'it was said once');

my ($ret, $out, $err) = $node->psql('postgres', q{ALTER SYSTEM SET hybrid_cache.redis_url = 'http://here:secret'});
like($err, qr/invalid value for parameter "hybrid_cache.redis_url"\n.*\nHINT:  Write it as/, 'nonsense is refused');
unlike($err, qr/secret/, 'without showing it');
($ret, $out, $err) = $node->psql('postgres', q{ALTER DATABASE postgres SET hybrid_cache.redis_url = 'redis://:x@'});
like($err, qr/invalid value for parameter/, 'also for a database');
$t->sql('ALTER SYSTEM RESET hybrid_cache.redis_url');
$node->append_conf('postgresql.conf', q{hybrid_cache.redis_url = 'nonsense'});
$node->reload;
$t->logged(qr/invalid value for parameter "hybrid_cache.redis_url"/, 'nonsense in the file is named in the log');
$t->change;
$t->equal('and does no harm');

$t->note_log;
set('hybrid_cache.redis_url', 'redis://127.0.0.1:1');
$t->change;
$t->logged(qr/could not connect to Redis server "redis:\/\/127.0.0.1:1"/, 'a port where nobody listens');
set('hybrid_cache.redis_url', 'redis://nobody.invalid');
$t->logged(qr/could not connect to Redis server "redis:\/\/nobody.invalid/, 'a name that nobody has');
set('hybrid_cache.redis_url', $redis->url . '?db=99999');
$t->logged(qr/DB index is out of range(.*\n){1,2}.*HINT:.*number of the database/, 'a database that there is not');
set('hybrid_cache.redis_url', $redis->url);
$t->equal('the right one again');
$t->owes_nothing('wrong addresses');

is($t->sql('SELECT pg_postmaster_start_time()'), $started, 'PostgreSQL was never restarted');
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP/, 'no process has crashed');

$node->stop;
done_testing();
