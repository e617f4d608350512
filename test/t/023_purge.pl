# Purging: the entries of dropped mappings are removed in the background, exactly
# those, whatever ends in between and while others write.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# what it has acknowledged is there when it comes back
my $redis = HybridCache::Redis->new(appendonly => 'yes', appendfsync => 'always');
my $node = start_server($redis, <<'CONF');
hybrid_cache.command_timeout = 60s
log_min_messages = log
CONF
my $rows = 100_000;

# Nothing is to be purged or populated any more, and all that was done is in Redis.
sub settled
{
	my ($what) = @_;
	poll('SELECT (SELECT count(*) FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL) + (SELECT count(*) FROM hybrid_cache.owed) = 0',
		$what);
	sql("SELECT hybrid_cache.wait_for_sync('60s')");
	return;
}

# The keys of a pattern, sorted.
sub keys_like
{
	my ($pattern) = @_;
	return sql("SELECT string_agg(k, ' ' ORDER BY k COLLATE \"C\") FROM jsonb_array_elements_text(redis_command('KEYS', '$pattern')) k");
}

# Waits until some of the entries are removed; true if some are still there.
sub in_the_middle
{
	my ($before, @command) = @_;
	my $now = $before;
	for (1 .. 6000)
	{
		$now = $redis->cli(@command);
		last if $now < $before;
		usleep(5000);
	}
	return $now < $before && $now > $before - $rows;
}

sub detach
{
	my ($name) = @_;
	sql("SELECT hybrid_cache.detach('item', '$name')");
	return;
}

# ---------------------------------------------------------------------------
# a large table with every kind of template

sql('CREATE EXTENSION hybrid_cache');
sql(<<"SQL");
CREATE TABLE item (id int PRIMARY KEY, code text, grp int, v text);
INSERT INTO item SELECT i, 'c' || i, i % 5, repeat('v', 100) FROM generate_series(1, $rows) i;
CREATE TABLE other (id int PRIMARY KEY, n int NOT NULL);
INSERT INTO other SELECT i, 0 FROM generate_series(1, 1000) i;
SELECT hybrid_cache.attach('item', 'string', 'item:{id}', value => 'grp', name => 'by_id');
SELECT hybrid_cache.attach('item', 'string', 'code:{code}', value => 'id', name => 'by_code');
SELECT hybrid_cache.attach('item', 'set', 'all', member => 'i{id}', name => 'members');
SELECT hybrid_cache.attach('item', 'string', 'ttl:{id}', value => 'id', ttl => '1 hour', populate => true, name => 'expiring');
SELECT hybrid_cache.attach('other', 'string', 'item:other:{id}', value => 'n', name => 'other');
SELECT hybrid_cache.attach('other', 'set', 'all', member => 'o{id}', name => 'other_members');
-- changes rows until it is told to stop
CREATE TABLE stop (x int);
CREATE PROCEDURE write() LANGUAGE plpgsql AS \$\$
BEGIN
	WHILE NOT EXISTS (SELECT FROM stop) LOOP
		UPDATE item SET grp = grp + 1 WHERE id = 1 + floor(random() * 100)::int;
		UPDATE other SET n = n + 1 WHERE id = 1 + floor(random() * 1000)::int;
		COMMIT;
	END LOOP;
END \$\$;
SQL
settled('populated');
is($redis->cli('DBSIZE') > 3 * $rows ? 'all' : 'some', 'all', 'all entries are there');

my %foreign = ('item:x' => 1, 'item:' => 1, 'item:1:more' => 1, 'item:007' => 1, 'item:2147483648' => 1, ' item:1' => 1,
	'code:foreign' => 1, 'code' => 1, 'ttl:x' => 1);
$redis->cli('SET', $_, 'not ours') for keys %foreign;
$redis->cli('RPUSH', 'item:200000', 'a list');
$redis->cli('SADD', 'all', 'foreign', 'i', 'i01', 'ox');

my ($out, $err) = ('', '');
my $writer = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'CALL write()' ],
	'>', \$out, '2>', \$err);

# ---------------------------------------------------------------------------
# the keeper is ended in the middle

my $before = $redis->cli('DBSIZE');
detach('by_id');
ok(in_the_middle($before, 'DBSIZE'), 'some entries are removed, others not yet');
is(sql("SELECT bool_and(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'"),
	't', 'the keeper is ended');
poll("SELECT count(*) = 0 FROM hybrid_cache.leftover", 'another one goes on');
sql("SELECT hybrid_cache.wait_for_sync('60s')");
is(sql("SELECT string_agg(k, ' ' ORDER BY k COLLATE \"C\") FROM jsonb_array_elements_text(redis_command('KEYS', '*item:*')) k WHERE k NOT LIKE 'item:other:%'"),
	join(' ', sort 'item:200000', grep { /item:/ } keys %foreign), 'exactly these were removed');
is(sql("SELECT count(*) FROM jsonb_array_elements_text(redis_command('KEYS', 'item:other:*')) k"), 1000,
	'... and none of the other mapping');

# ---------------------------------------------------------------------------
# Redis is killed in the middle

$before = $redis->cli('SCARD', 'all');
detach('members');
ok(in_the_middle($before, 'SCARD', 'all'), 'some members are removed, others not yet');
$redis->kill9;
poll('SELECT NOT connected FROM hybrid_cache.status', 'Redis is away');
is(sql('SELECT count(*) FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL'), 1, 'it waits for Redis');
$redis->start;
poll("SELECT count(*) = 0 FROM hybrid_cache.leftover", '... and goes on');
sql("SELECT hybrid_cache.wait_for_sync('60s')");
is(sql("SELECT string_agg(m, ' ' ORDER BY m COLLATE \"C\") FROM jsonb_array_elements_text(redis_command('SMEMBERS', 'all')) m WHERE m !~ '^o[0-9]+\$'"),
	'foreign i i01 ox', 'exactly these were removed');
is($redis->cli('SCARD', 'all'), 1004, '... and no member of the other mapping');

# ---------------------------------------------------------------------------
# PostgreSQL crashes; a template that can be read in more than one way

detach('by_code');
sql('INSERT INTO stop VALUES (1)');
$writer->finish;
is($err, '', 'nobody who writes was disturbed');
$node->stop('immediate');
$node->start;
poll("SELECT count(*) = 0 FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL", 'purged after a crash');
sql("SELECT hybrid_cache.wait_for_sync('60s')");
is(keys_like('code*'), 'code code:foreign', 'what rows name is removed, and nothing else');
is(sql('SELECT mapping, remaining FROM hybrid_cache.leftover'), 'by_code|1', 'what looks like it is reported');
is(sql('SELECT p.key FROM hybrid_cache.leftover l, hybrid_cache.purge(l.id) p'), 'code:foreign', '... and listed');
like(slurp_file($node->logfile), qr/1 entry in Redis looks like one of dropped mapping "by_code"/, '... and logged');
sql('SELECT hybrid_cache.purge(id, dry_run => false, force => true) FROM hybrid_cache.leftover');
settled('removed by force');
is(keys_like('code*'), 'code', 'that was what was listed');

# ---------------------------------------------------------------------------
# attached again at once, and replaced

sql('TRUNCATE stop');
$writer = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'CALL write()' ],
	'>', \$out, '2>', \$err);
sql("SELECT hybrid_cache.attach('item', 'string', 'again:{id}', value => 'grp', name => 'again')");
settled('attached');
sql("SELECT hybrid_cache.detach('item', 'again'); SELECT hybrid_cache.attach('item', 'string', 'again:{id}', value => 'grp', filter => 'id % 2 = 0', name => 'anew')");
settled('detached and attached again');
is(sql("SELECT count(*) FROM hybrid_cache.leftover"), 0, 'nothing is left to be purged');
is(sql("SELECT missing, stale, orphaned FROM hybrid_cache.reconcile('item', 'anew')"), '0|0|0', 'the entries are those of the new mapping');
is(sql("SELECT count(*) FROM jsonb_array_elements_text(redis_command('KEYS', 'again:*')) k"), $rows / 2, '... all of them');

sql("SELECT hybrid_cache.attach('item', 'string', 'again:{id}', value => 'grp', filter => 'id % 4 = 0', name => 'anew', replace => true)");
settled('replaced by one with the same template');
is(sql("SELECT missing, stale, orphaned FROM hybrid_cache.reconcile('item', 'anew')"), '0|0|0', 'the entries are those of the new mapping');
sql("SELECT hybrid_cache.attach('item', 'string', 'moved:{id}', value => 'grp', name => 'anew', replace => true)");
settled('replaced by one with another template');
is(keys_like('again:*'), '', 'the old entries are gone');
is(sql("SELECT missing, stale, orphaned FROM hybrid_cache.reconcile('item', 'anew')"), '0|0|0', '... and the new ones there');
sql('INSERT INTO stop VALUES (1)');
$writer->finish;
is($err, '', 'nobody who writes was disturbed');

# ---------------------------------------------------------------------------
# the table is gone before it is done; Redis is away, the extension is off

$redis->stop;
poll('SELECT NOT connected FROM hybrid_cache.status', 'Redis is away');
detach('expiring');
detach('anew');
sql('DROP TABLE item');
is(sql('SELECT count(*) FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL'), 2, 'what is asked for is remembered');
sql('CREATE ROLE watcher IN ROLE pg_read_all_stats; GRANT USAGE ON SCHEMA hybrid_cache TO watcher; REVOKE USAGE ON SCHEMA public FROM PUBLIC');
is(sql("SET ROLE watcher; SELECT count(*) FROM hybrid_cache.progress WHERE kind = 'purge'"), 2, '... and shown to who may not use the schema');
sql('GRANT USAGE ON SCHEMA public TO PUBLIC');
$node->safe_psql('postgres', "CREATE DATABASE copy");
$node->command_ok([ 'pg_dump', '-f', $node->basedir . '/dump.sql', '-d', $node->connstr('postgres') ], 'dumped');
$node->append_conf('postgresql.conf', 'hybrid_cache.enabled = off');
$node->reload;
$redis->start;
poll("SELECT current_setting('hybrid_cache.enabled') = 'off'", 'off');
poll('SELECT connected FROM hybrid_cache.status', 'Redis is back');
is(sql('SELECT count(*) FROM hybrid_cache.leftover WHERE asked_at IS NOT NULL'), 2, 'nothing is done while it is off');
$node->append_conf('postgresql.conf', 'hybrid_cache.enabled = on');
$node->reload;
settled('done when it is on again');
is(keys_like('moved:*') . keys_like('ttl:*'), 'ttl:x', 'also with the table gone');

# a copy leaves alone what somebody may write by now
$redis->cli('SET', 'moved:1', 'foreign');
$node->command_ok([ 'psql', '-Xq', '-f', $node->basedir . '/dump.sql', '-d', $node->connstr('copy') ], 'restored');
is($node->safe_psql('copy', 'SELECT count(*) FROM hybrid_cache.leftover'), 2, 'the leftovers are there');
ok($node->poll_query_until('copy', "SELECT connected FROM hybrid_cache.status WHERE database = 'copy'"), 'and a sync worker');
$node->safe_psql('copy', q{SELECT hybrid_cache.purge(id, dry_run => false) FROM hybrid_cache.leftover WHERE mapping = 'expiring'});
ok($node->poll_query_until('copy', q{SELECT count(*) = 0 FROM hybrid_cache.leftover WHERE mapping = 'expiring'}),
	'what is asked for there is done');
is($redis->cli('GET', 'moved:1'), 'foreign', '... and nothing else');

# ---------------------------------------------------------------------------
# the extension goes while something is to be purged

sql("SELECT hybrid_cache.attach('other', 'json', 'gone:{id}', name => 'gone')");
settled('attached');
$redis->stop;
sql("SELECT hybrid_cache.detach('other', 'gone')");
sql('DROP EXTENSION hybrid_cache CASCADE');
is(sql("SELECT count(*) FROM pg_extension WHERE extname = 'hybrid_cache'"), 0, 'dropped');
$redis->start;
$redis->stop;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal|cache lookup failed/, 'no crash');

done_testing();
