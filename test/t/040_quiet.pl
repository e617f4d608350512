# What background processes do not leave behind: no transaction while they wait for
# Redis, no statistics that nobody sees; and they need no script to be there.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll settled);
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;

# a reply is awaited for longer than any test waits
my $node = start_server($redis, <<'CONF');
hybrid_cache.command_timeout = 10min
max_prepared_transactions = 2
CONF

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE seen (id text, fields jsonb);
CREATE FUNCTION see(id text, fields jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.seen VALUES (id, fields)';
CREATE TABLE task (id int PRIMARY KEY, due timestamptz);
SELECT hybrid_cache.attach('task', 'timer', 'due', member => '{id}', expires_at => 'due');
SELECT hybrid_cache.consume('messages', 'see(text, jsonb)', 'messages');
SELECT hybrid_cache.bridge('news', 'news');
SQL
settled('a mapping');

# ---------------------------------------------------------------- statistics
$redis->cli('EVAL', "for i = 1, 50 do redis.call('XADD', 'messages', '*', 'n', i) end", 0);
poll('SELECT count(*) = 50 FROM seen', 'messages are handled');
my $consumer = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'hybrid_cache consumer'");
poll("SELECT n_tup_ins = 50 FROM pg_stat_user_tables WHERE relname = 'seen'",
	'autovacuum gets to know what handlers have done');
poll("SELECT n_tup_upd > 0 FROM pg_stat_all_tables WHERE relid = 'hybrid_cache.consumer'::regclass",
	'... and what the process itself has');
is(sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'hybrid_cache consumer'"),
	$consumer, '... from a process that goes on');

# ---------------------------------------------------------------- scripts
# Redis has none of the scripts, before each step that a process of ours does
sub forget { return $redis->cli('SCRIPT', 'FLUSH'); }

forget();
sql("INSERT INTO task VALUES (1, clock_timestamp())");
poll("SELECT redis_xlen('due') = 1", 'a timer without its script in Redis');
sql("SELECT hybrid_cache.hold('seats', '{A1}', 'one', '1 hour')");
sql("SELECT hybrid_cache.hold('seats', '{A2}', 'two', '50 ms', expired => 'late')");
forget();
poll("SELECT redis_xlen('late') = 1", 'a hold that runs out');
forget();
sql("SELECT hybrid_cache.confirm('seats', 'one')");
settled('a hold that is confirmed');
is(sql("SELECT holder, state FROM hybrid_cache.holds('seats')"), 'one|confirmed', '... is');
forget();
sql("SELECT hybrid_cache.release('seats', 'one')");
settled('and released');
is(sql("SELECT count(*) FROM hybrid_cache.holds('seats')"), '0', '... is');

# ---------------------------------------------------------------- transactions
my $open = <<'SQL';
FROM pg_stat_activity
WHERE backend_type LIKE 'hybrid_cache%' AND
	(xact_start IS NOT NULL OR backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
SQL

is( sql("SELECT string_agg(DISTINCT backend_type, ',' ORDER BY backend_type) FROM pg_stat_activity WHERE backend_type LIKE 'hybrid_cache%' AND backend_type !~ 'keeper'"),
	'hybrid_cache bridge,hybrid_cache consumer,hybrid_cache launcher,hybrid_cache sync worker',
	'all processes are there');
$redis->freeze;
sql("INSERT INTO task SELECT i, clock_timestamp() FROM generate_series(2, 100) i");
poll("SELECT count(*) = 0 $open", 'none has a transaction while Redis does not answer');
poll("SELECT count(*) >= 1 FROM pg_stat_activity WHERE backend_type = 'hybrid_cache sync worker' AND wait_event_type = 'Extension'",
	'... for which the sync worker waits');
is(sql("SELECT count(*) $open"), '0', '... then as well');
$redis->thaw;
poll("SELECT redis_xlen('due') = 100", 'all goes on');
$redis->cli('XADD', 'messages', '*', 'n', '51');
poll('SELECT count(*) = 51 FROM seen', '... all of them');

done_testing();
