# A disk for WAL that is full.  What is kept for a Redis that is away must not be
# what fills it; and when it is full for another reason, PostgreSQL stops as it
# does without the extension, and nothing is lost or applied twice.
#
# The disk is a small tmpfs in a mount namespace of our own, in which this script
# runs itself again; where that is not allowed, it is skipped.

use strict;
use warnings;

use constant DISK_MB => 100;

# Before anything else, since PostgreSQL::Test::Utils takes our standard output.
BEGIN
{
	require Cwd;
	require File::Temp;

	if (!defined $ENV{HYBRID_CACHE_TEST_DISK})
	{
		my $disk = File::Temp::tempdir('disk.XXXXXX', TMPDIR => 1);
		my @inside = (
			'unshare', '--user', '--map-root-user', '--mount', 'sh', '-c',
			'mount -t tmpfs -o mode=700,size=' . DISK_MB . 'm tmpfs "$0" && '
			  . "exec unshare --user --map-user=$> --map-group=" . ($) + 0) . ' "$@"',
			$disk);
		my $status = 0;

		if (system(join(' ', map { "'$_'" } @inside) . ' true >/dev/null 2>&1') == 0)
		{
			$ENV{HYBRID_CACHE_TEST_DISK} = $disk;
			$status = system { $inside[0] } @inside, $^X,
			  (map { ('-I', Cwd::abs_path($_)) } grep { !ref && -d } @INC), Cwd::abs_path($0);
		}
		else
		{
			print "1..0 # SKIP a small file system cannot be mounted here\n";
		}
		rmdir $disk;
		exit($status == 0 ? 0 : 1);
	}
}

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $disk = $ENV{HYBRID_CACHE_TEST_DISK};
my $redis = HybridCache::Redis->new;
$redis->start;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(extra => [ '--waldir', "$disk/wal", '--wal-segsize', '1' ]);
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.redis_url = '@{[ $redis->url ]}'
hybrid_cache.wal_keep_size = 1MB
wal_level = replica
max_wal_senders = 1
min_wal_size = 2MB
max_wal_size = 10MB
# PostgreSQL's own limit would do, too
max_slot_wal_keep_size = -1
log_statement = none
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub equal
{
	my ($what) = @_;
	is(sql("SELECT hybrid_cache.wait_for_sync('120s')"), 't', "all is applied: $what");
	is(sql(<<'SQL'), '1000|1000|1000', "Redis equals the table: $what");
SELECT count(*), count(*) FILTER (WHERE redis_get('row:' || id) = v), jsonb_array_length(redis_command('KEYS', 'row:*'))
FROM row
SQL
	return;
}

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE row (id int PRIMARY KEY, v text);
SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v');
INSERT INTO row SELECT i, repeat('x', 1500) FROM generate_series(1, 1000) i;
SQL
equal('at first');

# ---------------------------------------------------------------------------
# Redis is away while more is written than the disk can hold

$redis->freeze;
foreach my $round (1 .. 60)
{
	sql("UPDATE row SET v = repeat('$round', 1500 / length('$round')) || id");
	next
	  if $node->poll_query_until('postgres',
		'SELECT sum(size) < ' . (DISK_MB - 8) * 1024 * 1024 . ' FROM pg_ls_waldir()');
	fail("the WAL of round $round fills the disk");
	last;
}
cmp_ok(sql("SELECT pg_current_wal_lsn() - created_lsn FROM hybrid_cache.installation"),
	'>', 1.5 * DISK_MB * 1024 * 1024, 'more WAL was written than the disk holds');
my $said = () = slurp_file($node->logfile) =~ /The disk of pg_wal was nearly full/g;
is($said, 1, 'that WAL is given up is said once');
$redis->thaw;
sql("SELECT hybrid_cache.attach('row', 'string', 'row:{id}', value => 'v', replace => true)");
equal('Redis is back');

# ---------------------------------------------------------------------------
# something else fills the disk

$redis->freeze;
sql("UPDATE row SET v = 'before' || id");
system("head -c 1G /dev/zero >'$disk/filler' 2>/dev/null");
my $committed = 0;
while ($committed < 1000)
{
	my $status = $node->psql('postgres', "UPDATE row SET v = repeat('y', 1500) || $committed || ' ' || id");
	last if $status != 0;
	$committed++;
}
cmp_ok($committed, '<', 1000, 'PostgreSQL stops when the disk is full, as it always does');
like(slurp_file($node->logfile), qr/PANIC:  could not write to file "pg_wal.*No space left on device/,
	'for that reason');
$redis->thaw;
unlink "$disk/filler" or die "unlink: $!";
$node->stop('immediate', fail_ok => 1);
$node->_update_pid(0);
$node->start;
equal('there is space again');
sql("UPDATE row SET v = 'after' || id");
equal('and all goes on');
is(sql("SELECT redis_get('row:7')"), 'after7', 'with the latest values');

$node->stop;
done_testing();
