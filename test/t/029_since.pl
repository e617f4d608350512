# Incremental runs: with since, only rows that are new are looked at, and none is
# missed since its transaction was still open when others were looked at.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql in_sync);
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
my $node = start_server($redis, <<'CONF');
hybrid_cache.command_timeout = 60s
hybrid_cache.reconcile_interval = 0
hybrid_cache.reconcile_rate = 0
log_min_messages = log
max_prepared_transactions = 5
autovacuum = off
CONF

# What a run counts: checked missing stale orphaned conflicting repaired.
sub counts
{
	my ($table, $full) = @_;
	return sql(<<"SQL") =~ tr/|/ /r;
SELECT checked, missing, stale, orphaned, conflicting, repaired
FROM hybrid_cache.reconcile('$table', '${table}_json', $full)
SQL
}

sub incremental { return counts($_[0], 'false'); }
sub full { return counts($_[0], 'true'); }

# From when on rows are new to the next run of that mapping.
sub mark
{
	my ($table) = @_;
	return sql(<<"SQL");
SELECT mark FROM hybrid_cache.run
WHERE mapping = (SELECT oid FROM pg_trigger WHERE tgname = '${table}_json')
SQL
}

sql('CREATE EXTENSION hybrid_cache');

# The columns' types, with and without an index, and in partitions.
my %columns = (
	indexed => 'timestamptz', bare => 'timestamptz', local => 'timestamp', day => 'date',
	parts => 'timestamptz');
foreach my $t (sort keys %columns)
{
	# an update finds room beside the row, so that new rows are here and there
	my $rest = $t eq 'parts' ? 'PARTITION BY RANGE (id)' : 'WITH (fillfactor = 50)';
	sql("CREATE TABLE $t (id int, n int, filler text, changed $columns{$t}) $rest");
	sql(<<'SQL') if $t eq 'parts';
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (500)
	WITH (fillfactor = 50);
CREATE TABLE parts_high (changed timestamptz, extra int, filler text, id int, n int)
	WITH (fillfactor = 50);
ALTER TABLE parts_high DROP COLUMN extra;
ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (500) TO (10000);
SQL
	sql("CREATE INDEX ON $t (changed)") unless $t eq 'bare';
	sql(<<"SQL");
INSERT INTO $t SELECT i, 0, repeat('x', 500), now() - interval '3 days' FROM generate_series(1, 1000) i;
SELECT hybrid_cache.attach('$t', 'json', '$t:{id}', columns => 'id, n, changed', since => 'changed');
SQL
}
in_sync();

foreach my $t (sort keys %columns)
{
	# populating was a full run already
	is(incremental($t), '0 0 0 0 0 0', "$t: nothing is new");

	# changed in Redis only
	$redis->cli('DEL', "$t:1", "$t:1000");
	$redis->cli('SET', "$t:2", 'x');
	$redis->cli('SET', "$t:7777", 'x');
	is(incremental($t), '0 0 0 0 0 0', '... and what changes in Redis alone is not looked at');
	is(full($t), '1000 2 1 1 0 4', '... but by a full run');

	# new rows, at both ends of the table, and one without a time
	sql(<<"SQL");
UPDATE $t SET n = 1, changed = now() WHERE id IN (1, 500, 1000);
INSERT INTO $t VALUES (1001, 1, '', now()), (1002, 1, '', NULL);
SELECT hybrid_cache.wait_for_sync('60s');
SQL
	$redis->cli('DEL', "$t:1", "$t:2", "$t:1002");
	$redis->cli('SET', "$t:1001", 'x');
	is(incremental($t), '4 1 1 0 0 2', '... and new rows are looked at');
	is(full($t), '1002 2 0 0 0 2', '... and the others by a full run');
}

# A run that knows nothing of one before it is a full one, as is one without since.
sql('DELETE FROM hybrid_cache.run');
is(incremental('indexed'), '1002 0 0 0 0 0', 'without a run before it, all is looked at');
sql("CREATE TABLE without (id int); INSERT INTO without VALUES (1);
	SELECT hybrid_cache.attach('without', 'json', 'without:{id}')");
in_sync();
is(incremental('without'), '1 0 0 0 0 0', 'as it is without a column that tells');

# A transaction that was open when others were looked at.  It is long enough ago for
# its row not to be looked at only because clocks may differ.
my $writer = $node->background_psql('postgres', on_error_stop => 1);
$writer->query_safe('BEGIN');
$writer->query_safe("INSERT INTO indexed VALUES (2001, 0, '', now())");
ok( $node->poll_query_until('postgres',
		"SELECT max(clock_timestamp() - xact_start) > '12s' FROM pg_stat_activity WHERE state = 'idle in transaction'"
	),
	'a transaction is open for long');
is(full('indexed'), '1002 0 0 0 0 0', 'its row is not seen');
$writer->query_safe('COMMIT');
in_sync();
$redis->cli('DEL', 'indexed:2001');
like(incremental('indexed'), qr/^\d+ 1 0 0 0 1$/, '... but is once it has committed');

# Nobody knows when a prepared transaction began.
my $before = mark('indexed');
sql("BEGIN; INSERT INTO indexed VALUES (2002, 0, '', now()); PREPARE TRANSACTION 'p'");
full('indexed');
is(mark('indexed'), $before, 'while there is a prepared transaction, nothing gets old');
sql("COMMIT PREPARED 'p'");
in_sync();
$redis->cli('DEL', 'indexed:2002');
like(incremental('indexed'), qr/^\d+ 1 0 0 0 1$/, '... and so its row is looked at');
isnt($before = mark('indexed'), '', 'there is a time');

# ... nor when a session began its transaction that does not show what it does.
$writer->query_safe('SET track_activities = off');
full('indexed');
is(mark('indexed'), $before, 'a session that shows nothing could have begun at any time');
$writer->quit;
$node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'disabled'");
full('indexed');
isnt(mark('indexed'), $before, '... until it is gone');

# Without an index, a table of several chunks is read to its end, and no further.
$node->append_conf('postgresql.conf', 'hybrid_cache.reconcile_rate = 1000');
$node->restart;
full('bare');
sql("SET statement_timeout = '120s'; SELECT hybrid_cache.reconcile('bare', 'bare_json', false)");
is(sql(<<'SQL'), 'incremental|t', 'several chunks, some of them without new rows');
SELECT kind, checked < 1000 FROM hybrid_cache.run JOIN pg_trigger t ON t.oid = mapping WHERE tgname = 'bare_json'
SQL

# What is no time tells nothing.
my ($result, $out, $error) = $node->psql('postgres',
	"SELECT hybrid_cache.attach('indexed', 'json', 'other:{id}', since => 'n', name => 'bad')");
like($error, qr/column "n" cannot be used as option "since", since it is of type integer/,
	'a column that is no time is refused');

done_testing();
