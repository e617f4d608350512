# Positions: a Redis that comes back with older data, WAL that is not there any
# more, replication slots that others drop, move or invalidate, other timelines
# and other systems.  What can be replayed is; what cannot is owed; and the log
# says which.

use strict;
use warnings;

use File::Path qw(rmtree);
use HybridCache::Positions;
use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = HybridCache::Redis->new(save => '3600 1');
$redis->start;
my $node = PostgreSQL::Test::Cluster->new('main');

# Small segments: WAL is kept and removed by whole ones.
$node->init(allows_streaming => 1, extra => ['--wal-segsize=1']);
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.repair = off
hybrid_cache.redis_url = '@{[ $redis->url ]}'
hybrid_cache.wal_keep_size = 4MB
wal_keep_size = 0
wal_recycle = off
min_wal_size = 2MB
max_wal_size = 1GB
max_prepared_transactions = 10
autovacuum = off
CONF
$node->start;

my $t = HybridCache::Positions->new($node, $redis);

sub set
{
	my ($name, $value) = @_;
	$t->sql("ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	return;
}

# The slot of the database, and WAL files.
sub slot { return $t->sql("SELECT $_[0] FROM pg_replication_slots WHERE slot_name ~ '^hybrid_cache_'"); }

# The slot keeps no more than that much WAL.
sub slot_keeps_less
{
	my ($mb, $what) = @_;
	$t->poll("SELECT pg_current_wal_lsn() - restart_lsn < $mb * 1048576 FROM pg_replication_slots WHERE slot_name ~ '^hybrid_cache_'",
		$what);
	return;
}

# Some seconds of the worker: it looks at Redis each time after it has looked at
# the slot.
sub let_worker_look
{
	my $seen = sub { $redis->cli('INFO', 'commandstats') =~ /cmdstat_exec:calls=(\d+)/ ? $1 : 0 };
	my $enough = $seen->() + 4;
	my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
	usleep(100_000) while $seen->() < $enough && $patience-- > 0;
	return;
}

sub wal_file { return $t->sql('SELECT pg_walfile_name(pg_current_wal_lsn())'); }

sub wal_path { return $node->data_dir . "/pg_wal/$_[0]"; }

sub is_connected { $t->poll('SELECT connected FROM hybrid_cache.status', $_[0]); return; }

# Redis comes back with what SAVE has saved.
sub bring_back_old_redis { $redis->kill9; $redis->start; return; }

# ---------------------------------------------------------------------------
# the window

$t->create;
$t->equal('at the beginning');
is($t->sql(q{SELECT restart_lsn = created_lsn FROM hybrid_cache.installation, pg_replication_slots}),
	't', 'no WAL from before the extension is kept');

$t->note_log;
$redis->cli('SAVE');
$t->change;
$t->fill_wal(3);
$t->change;
$t->in_sync('changes that Redis will lose');
let_worker_look();
$t->sql('CHECKPOINT');
bring_back_old_redis();
$t->equal('an old Redis inside the window');
$t->owes_nothing('an old Redis inside the window');

# The worker finds that by itself, without a change.
$redis->cli('SAVE');
$t->change;
$t->fill_wal(3);
$t->in_sync('changes that Redis will lose');
bring_back_old_redis();
$t->poll(q{SELECT redis_get('row:3') = v FROM row WHERE id = 3}, 'an idle worker sees what Redis has lost');

$redis->cli('SAVE');
$t->change;
$t->fill_wal(9);
$t->in_sync('changes that Redis will lose');
let_worker_look();
slot_keeps_less(7, 'the slot moves on');
cmp_ok($t->sql(q{SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots}), '>', 3 * 1024 * 1024,
	'behind what Redis has');
$t->owes_nothing('before that');
$t->sql('CHECKPOINT');
set('hybrid_cache.repair', 'off');
bring_back_old_redis();
$t->poll(q{SELECT state ~ 'owes reconcile: .*WAL after the watermark in Redis has been removed' FROM hybrid_cache.mapping},
	'the view shows what is owed');
set('hybrid_cache.repair', 'on');
$t->owes(qr/WAL after the watermark in Redis has been removed/, 'an old Redis outside the window');
$t->note_log;

# ---------------------------------------------------------------------------
# the limit

set('hybrid_cache.max_wal_keep_size', '4MB');
$t->in_sync('with a limit');
$redis->stop;
$t->change;
$t->fill_wal(8);
slot_keeps_less(6, 'the limit holds while Redis is away');
$t->logged(qr/further behind than hybrid_cache.max_wal_keep_size allows/, 'the log says so');
$t->sql('CHECKPOINT');
$t->change;
$t->fill_wal(4);
slot_keeps_less(6, 'still');
$t->logged_times(qr/further behind than/, 1, 'and it is said once');
$t->sql('CHECKPOINT');
$redis->start;
$t->owes(qr/WAL after the watermark in Redis has been removed/, 'Redis was away for too long');
$t->change;
$t->equal('after that');

# WAL that is still there when Redis comes back is not lost, whatever the limit.
set('hybrid_cache.max_wal_keep_size', '-1');
$t->note_log;
$redis->stop;
$t->change;
$t->fill_wal(12);
$t->sql('CHECKPOINT');
$redis->start;
$t->equal('without a limit');
$t->owes_nothing('without a limit');

# Nor is what a worker that is connected reads and applies late.
set('hybrid_cache.command_timeout', '60s');
set('hybrid_cache.max_wal_keep_size', '4MB');
$t->note_log;
is_connected('Redis is there');
$t->in_sync('Redis is fast');
let_worker_look();
$redis->freeze;
$t->change;
$t->fill_wal(8);
$t->logged(qr/does not keep all changes that Redis has not got/, 'the log says that Redis is slow');
slot_keeps_less(6, 'the limit holds while Redis is slow');
$redis->thaw;
$t->equal('Redis was slow');
$t->owes_nothing('Redis was slow');
set('hybrid_cache.command_timeout', '5s');
set('hybrid_cache.max_wal_keep_size', '-1');
$t->in_sync('no limit');

# ---------------------------------------------------------------------------
# a transaction that is open for longer than the limit

set('hybrid_cache.max_wal_keep_size', '4MB');
foreach my $case ([ 'its changes are in the memory of the worker', 0 ], [ 'its changes are gone', 1 ])
{
	my ($name, $gone) = @$case;

	# the worker sees that there is no other one any more, and so says it again
	let_worker_look();
	$t->note_log;
	$t->sql("BEGIN; INSERT INTO row VALUES (100 + $gone, 'prepared'); PREPARE TRANSACTION 'p'");
	$t->in_sync('with a prepared transaction');
	foreach (1 .. 8)
	{
		$t->fill_wal(1);
		$t->in_sync('the worker follows');
	}
	slot_keeps_less(6, 'the limit holds while a transaction is open');
	$t->logged(qr/does not keep all changes of an open transaction\n.*\n.*HINT:.*pg_prepared_xacts/,
		'the log says so');
	$t->sql('CHECKPOINT');
	$t->owes_nothing('an open transaction');
	if ($gone)
	{
		$node->restart;
		$t->owes(qr/WAL after the watermark in Redis has been removed/, 'restart with an open transaction');
		$t->change;
		$t->in_sync('others go on');
		$node->restart;
		$t->in_sync('also after another restart');
		$t->logged_times(qr/may have missed changes/, 1, 'nothing more is owed before it ends');
	}
	is($redis->cli('EXISTS', "row:10$gone"), '0', 'it is not in Redis before');
	$t->sql("COMMIT PREPARED 'p'");
	if ($gone)
	{
		$t->owes(qr/A transaction was open when WAL with its changes was given up, and has ended/, $name);
		$t->note_log;
		$node->restart;
		$t->in_sync('after that');
		$t->owes_nothing('that was once');
	}
	else
	{
		$t->equal($name);
		$t->owes_nothing($name);
	}
}
set('hybrid_cache.max_wal_keep_size', '-1');

# ---------------------------------------------------------------------------
# the slot is dropped

my $slot = slot('slot_name');
$t->note_log;
my ($ret, $out, $err) = $node->psql('postgres', "SELECT pg_drop_replication_slot('$slot')");
like($err, qr/is active for PID/, 'a slot that is used cannot be dropped');

$redis->stop;
$t->change;
$t->without_worker("PERFORM pg_drop_replication_slot('$slot')");
$t->change;
$redis->start;
$t->equal('a slot that was dropped');
$t->logged(qr/replication slot "$slot" was dropped by somebody and has been made anew\n.*DETAIL:.*still there/,
	'the log says so');
$t->owes_nothing('a slot that was dropped');

# ... and PostgreSQL removes the WAL before the worker comes back.
$t->note_log;
$redis->stop;
$t->change;
$node->stop;
rmtree($node->data_dir . "/pg_replslot/$slot");
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
$t->fill_wal(4);
$t->sql('CHECKPOINT');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'hybrid_cache'");
$node->restart;
$redis->start;
$t->owes(qr/WAL after the watermark in Redis has been removed/, 'a slot that was dropped, and its WAL');
$t->logged(qr/was dropped by somebody and has been made anew\n.*DETAIL:.*is gone/, 'the log says so');

# A slot of that name which is not ours.
$node->stop;
rmtree($node->data_dir . "/pg_replslot/$slot");
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\nwal_level = logical");
$node->start;
$t->note_log;
$t->sql("SELECT pg_create_logical_replication_slot('$slot', 'pgoutput')");
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'hybrid_cache'");
$node->restart;
$t->logged(qr/replication slot "$slot" is a logical one\n.*\n.*HINT:.*pg_drop_replication_slot/,
	'the log says that another slot is in the way');
$t->change;
$t->without_worker("PERFORM pg_drop_replication_slot('$slot')");
$t->equal('it is dropped');

# ---------------------------------------------------------------------------
# the slot is moved on

$t->note_log;
$redis->stop;
$t->change;
$t->fill_wal(2);
$t->without_worker("PERFORM pg_replication_slot_advance('$slot', pg_current_wal_flush_lsn())");
$t->change;
$redis->start;
$t->equal('a slot that was moved on');
$t->owes_nothing('a slot that was moved on');

$redis->stop;
$t->change;
$t->fill_wal(4);
$t->without_worker("PERFORM pg_replication_slot_advance('$slot', pg_current_wal_flush_lsn())");
$t->sql('CHECKPOINT');
$redis->start;
$t->owes(qr/WAL after the watermark in Redis has been removed/, 'a slot that was moved on, and its WAL');

# ---------------------------------------------------------------------------
# the slot is invalidated

$t->note_log;
set('max_slot_wal_keep_size', '2MB');
$redis->stop;
$t->change;
$t->fill_wal(8);
$t->sql('CHECKPOINT');
$t->logged(qr/replication slot "$slot" was invalidated by PostgreSQL and is made anew\n.*HINT:.*max_slot_wal_keep_size/,
	'the log says that PostgreSQL has taken the WAL');
$t->poll(q{SELECT active AND wal_status <> 'lost' FROM pg_replication_slots}, 'there is a new slot');
$t->logged_times(qr/terminating background worker "hybrid_cache sync worker/, 1, 'the worker was ended once');
$redis->start;
$t->owes(qr/WAL after the watermark in Redis has been removed/, 'a slot that was invalidated');
$t->fill_wal(8);
slot_keeps_less(2, 'the window is not larger than PostgreSQL allows');
$t->note_log;
$t->sql('CHECKPOINT');
$t->change;
$t->equal('after that');
unlike($t->log, qr/invalidat/, 'a worker that keeps up keeps its slot');
set('max_slot_wal_keep_size', '-1');

# ---------------------------------------------------------------------------
# WAL files are removed, or damaged

foreach my $case (
	[ 'removed', qr/has already been removed/, sub { unlink $_[0] or die "unlink: $!" } ],
	[ 'damaged', qr/could not read WAL at|could not find a valid WAL record/, sub {
		open my $fh, '+<', $_[0] or die "open: $!";
		print $fh 'x' x (1024 * 1024);
		close $fh;
	} ])
{
	my ($name, $message, $do) = @$case;

	$t->note_log;
	$redis->stop;
	$t->fill_wal(2);
	$t->change;
	my $file = wal_file();
	$t->fill_wal(2);
	$t->change;
	$t->fill_wal(1);
	$t->sql('CHECKPOINT');
	$do->(wal_path($file));
	$t->change;
	$redis->start;
	$t->owes(qr/WAL after the watermark in Redis could not be read/, "WAL that was $name");
	$t->logged(qr/cannot apply changes: .*$message(.*\n){1,2}.*HINT:.*pg_wal/, 'the log says so');
	$t->logged_times(qr/may have missed changes/, 1, 'once');
	$t->change;
	$t->equal('after that');
	my $pid = $t->sql('SELECT worker_pid FROM hybrid_cache.status');
	$t->sql("SELECT pg_terminate_backend($pid)");
	$t->change;
	$t->equal('and a restart');
	$t->logged_times(qr/may have missed changes/, 1, 'that was all');
}

# In the middle of the window, where only an old Redis needs it.
$t->note_log;
$redis->cli('SAVE');
$t->fill_wal(1);
$t->change;
my $file = wal_file();
$t->fill_wal(2);
$t->in_sync('WAL of the window');
$t->sql('CHECKPOINT');
unlink wal_path($file);
$t->change;
$t->equal('nobody needs it');
$t->owes_nothing('nobody needs it');
bring_back_old_redis();
$t->owes(qr/WAL after the watermark in Redis could not be read/, 'somebody needs it');

# ---------------------------------------------------------------------------
# a database that comes from another system, as after pg_upgrade

$t->note_log;
$t->sql('INSERT INTO hybrid_cache.owed VALUES (999999, $$of a trigger that pg_upgrade has given another OID$$, now())');
$t->sql('UPDATE hybrid_cache.installation SET system = 1');
$node->restart;
$t->owes(qr/comes from another system/, 'another system');
is($t->sql('SELECT count(*) FROM hybrid_cache.owed WHERE mapping = 999999'), '0',
	'what was owed there is forgotten');
is($t->sql('SELECT system = (SELECT system_identifier FROM pg_control_system()) FROM hybrid_cache.installation'),
	't', 'the extension feels at home');
$t->note_log;
$node->restart;
$t->change;
$t->equal('after a restart');
$t->owes_nothing('that was once');

# ---------------------------------------------------------------------------
# a timeline that branched off before what Redis has

$node->append_conf('postgresql.conf', 'hybrid_cache.wal_keep_size = 0');
$node->reload;
$t->sql("INSERT INTO row VALUES (50, 'kept')");
$t->in_sync('a primary');
$node->backup('copy');
$t->sql("UPDATE row SET v = 'lost' WHERE id = 50; INSERT INTO row VALUES (500, 'lost')");
$t->change;
$t->in_sync('goes on after its backup');
$node->stop;
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'copy', has_streaming => 1);
$copy->start;
is($redis->cli('MGET', 'row:50', 'row:500'), "lost\nlost", 'Redis has changes that this copy has not');
$copy->promote;
my $c = HybridCache::Positions->new($copy, $redis);
$c->sql("INSERT INTO row VALUES (501, 'of the other branch')");
$c->owes(qr/not of this server's history/, 'a watermark of a branch that is dead');
$c->note_log;
$copy->restart;
$c->change;
$c->equal('on the new branch');
$c->owes_nothing('that was once');

unlike(slurp_file($_->logfile), qr/terminated by signal|PANIC|TRAP/, 'no process has crashed')
  foreach $node, $copy;

$copy->stop;
done_testing();
