# Comparing with Redis: for each kind of entry, what is equal, missing, stale or
# in the way of another type is told apart, by reconcile().

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql in_sync);
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
my $node = start_server($redis, <<'CONF');
hybrid_cache.key_prefix = 'app:'
hybrid_cache.command_timeout = 60s
hybrid_cache.reconcile_interval = 0
hybrid_cache.reconcile_rate = 0
log_min_messages = log
CONF

# What reconcile() counts: checked missing stale orphaned conflicting repaired.
sub counts
{
	my ($name) = @_;
	return sql(<<"SQL") =~ tr/|/ /r;
SELECT checked, missing, stale, orphaned, conflicting, repaired
FROM hybrid_cache.reconcile('d', '$name')
SQL
}

# All commands of a list: one command is an array of words.
sub redis { return map { $redis->cli(@$_) } @_; }

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE d (id int PRIMARY KEY, t text, n float8, b bytea, e timestamptz,
	lat float8, lng float8);
INSERT INTO d VALUES
	(1, '', 0, '', 'infinity', 85.05112878, 180),
	(2, E'a\r\nb$3\r\n', '-0', '\x00ff0d0a', now() + interval '1 hour', -85.05112878, -180),
	(3, NULL, 'inf', NULL, NULL, 0, 0),
	(4, 'ü', '-inf', '\x01', now() - interval '1 hour', 1e-300, -1e-300),
	(5, repeat('long', 100000), 1e308, '\x02', now() + interval '2000 years', 12.5, 13.5);
SELECT hybrid_cache.attach('d', 'string', 'string:{id}', value => 't', name => 'string');
SELECT hybrid_cache.attach('d', 'string', 'bytes:{id}', value => 'b', name => 'bytes');
SELECT hybrid_cache.attach('d', 'json', 'json:{id}', name => 'json');
SELECT hybrid_cache.attach('d', 'json', 'expires:{id}', expires_at => 'e', name => 'expires');
SELECT hybrid_cache.attach('d', 'string', 'ttl:{id}', value => 'id', ttl => '1 hour',
	populate => true, name => 'ttl');
SELECT hybrid_cache.attach('d', 'hash', 'hash:{id}', name => 'hash');
SELECT hybrid_cache.attach('d', 'hash', 'one:{id}', columns => 't', name => 'one');
SELECT hybrid_cache.attach('d', 'hash', 'hash_expires:{id}', expires_at => 'e',
	name => 'hash_expires');
SELECT hybrid_cache.attach('d', 'field', 'field', field => '{id}', value => 't', name => 'field');
SELECT hybrid_cache.attach('d', 'set', 'set:{id}', member => '{t}', filter => 'id <> 5',
	name => 'set');
SELECT hybrid_cache.attach('d', 'zset', 'zset', member => '{id}', score => 'n', name => 'zset');
SELECT hybrid_cache.attach('d', 'geo', 'geo', member => '{id}', longitude => 'lng',
	latitude => 'lat', name => 'geo');
SQL
in_sync();

# the rows that have an entry
my %rows = (string => 4, bytes => 4, json => 5, expires => 5, ttl => 5, hash => 5,
	one => 5, hash_expires => 5, field => 4, set => 3, zset => 5, geo => 5);

is(counts($_), "$rows{$_} 0 0 0 0 0", "$_: all is equal") foreach sort keys %rows;

# One thing at a time is spoiled, and found; the second time there is nothing.
# kind, what it is, what is expected: missing stale conflicting repaired; commands
my @cases = (
	[string => 'a key is missing', '1 0 0 1', [qw(DEL app:string:2)]],
	[string => 'an empty string is missing', '1 0 0 1', [qw(DEL app:string:1)]],
	[string => 'a value', '0 1 0 1', [qw(SET app:string:1 x)]],
	[string => 'the last byte of a long value', '0 1 0 1', [qw(SETRANGE app:string:5 399999 x)]],
	[string => 'a value that is longer', '0 1 0 1', [qw(APPEND app:string:5 x)]],
	[string => 'a value that is shorter', '0 1 0 1', [qw(SET app:string:5 longlong)]],
	[string => 'a key of another type', '0 0 1 1', [qw(DEL app:string:4)], [qw(RPUSH app:string:4 x)]],
	[string => 'all at once', '1 2 1 4', [qw(DEL app:string:1 app:string:5)],
		[qw(SET app:string:4 x)], [qw(SADD app:string:1 x)], [qw(APPEND app:string:2 x)]],
	[bytes => 'a value', '0 1 0 1', [qw(SETRANGE app:bytes:2 0 1)]],
	[json => 'a value', '0 1 0 1', [qw(APPEND app:json:2), ' ']],
	[expires => 'never instead of some time', '0 1 0 1', [qw(PERSIST app:expires:2)]],
	[expires => 'another time', '0 1 0 1', [qw(PEXPIRE app:expires:2 100000)]],
	[expires => 'some time instead of never', '0 2 0 2', [qw(EXPIRE app:expires:1 100000)],
		[qw(EXPIRE app:expires:3 100000)]],
	[expires => 'one that is over is there', '0 1 0 1', [qw(SET app:expires:4 x)]],
	[expires => 'one that is over is not', '0 0 0 0', [qw(DEL app:expires:4)]],
	[expires => 'a key is missing', '1 0 0 1', [qw(DEL app:expires:5)]],
	[ttl => 'a key is missing, as it may be', '0 0 0 0', [qw(DEL app:ttl:1)]],
	[ttl => 'another time, as it may be', '0 0 0 0', [qw(EXPIRE app:ttl:2 77)]],
	[ttl => 'never', '0 1 0 1', [qw(PERSIST app:ttl:3)]],
	[hash => 'a key is missing', '1 0 0 1', [qw(DEL app:hash:3)]],
	[hash => 'a field is missing', '0 1 0 1', [qw(HDEL app:hash:2 t)]],
	[hash => 'a field too many', '0 1 0 1', [qw(HSET app:hash:3 t x)]],
	[hash => 'another field', '0 1 0 1', [qw(HDEL app:hash:2 t)], [qw(HSET app:hash:2 other x)]],
	[hash => 'a value', '0 1 0 1', [qw(HSET app:hash:5 t x)]],
	[hash => 'a key of another type', '0 0 1 1', [qw(DEL app:hash:1)], [qw(SET app:hash:1 x)]],
	[one => 'the only field is missing', '1 0 0 1', [qw(HDEL app:one:2 t)]],
	[one => 'an empty hash is not', '0 1 0 1', [qw(HSET app:one:3 t x)]],
	[one => 'another type instead of an empty hash', '0 0 1 1', [qw(SET app:one:3 x)]],
	[hash_expires => 'never instead of some time', '0 1 0 1', [qw(PERSIST app:hash_expires:2)]],
	[field => 'a field is missing', '1 0 0 1', [qw(HDEL app:field 1)]],
	[field => 'a value', '0 2 0 2', [qw(HSET app:field 1 x 5 x)]],
	[field => 'a key of another type', '0 0 4 0', [qw(DEL app:field)], [qw(SET app:field x)]],
	[field => '... and then none', '4 0 0 4', [qw(DEL app:field)]],
	[set => 'a member is missing', '1 0 0 1', ['SREM', 'app:set:4', 'ü']],
	[set => 'a key of another type', '0 0 1 0', [qw(DEL app:set:4)], [qw(SET app:set:4 x)]],
	[set => '... and then none', '1 0 0 1', [qw(DEL app:set:4)]],
	[zset => 'a member is missing', '1 0 0 1', [qw(ZREM app:zset 3)]],
	[zset => 'a score', '0 3 0 3', [qw(ZADD app:zset inf 4 1e307 5 -inf 3)]],
	[zset => '0 is -0', '0 0 0 0', [qw(ZADD app:zset 0 2 -0 1)]],
	[geo => 'a member is missing', '1 0 0 1', [qw(ZREM app:geo 1)]],
	[geo => 'a position', '0 1 0 1', [qw(GEOADD app:geo 13.6 12.5 5)]],
	[geo => 'a key of another type', '0 0 5 0', [qw(DEL app:geo)], [qw(SET app:geo x)]],
	[geo => '... and then none', '5 0 0 5', [qw(DEL app:geo)]]);

foreach my $case (@cases)
{
	my ($name, $what, $expected, @commands) = @$case;
	my ($missing, $stale, $conflicting, $repaired) = split / /, $expected;

	redis(@commands);
	is(counts($name), "$rows{$name} $missing $stale 0 $conflicting $repaired", "$name: $what");
	next if $conflicting && !$repaired;
	is(counts($name), "$rows{$name} 0 0 0 0 0", '... and is equal again');
}

# What others put under our keys takes memory of the keeper for one string at a
# time, and not for longer than that.
sub memory
{
	my ($what) = @_;
	my $keeper = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'hybrid_cache keeper'");
	my ($kb) = slurp_file("/proc/$keeper/status") =~ /^$what:\s+(\d+)/m;
	return $kb / 1024;
}
is(counts('string'), '4 0 0 0 0 0', 'a keeper is there');
my ($now, $highest) = (memory('VmRSS'), memory('VmHWM'));
redis(['EVAL', 'for i = 1, 100000 do redis.call("HSET", KEYS[1], i, i) end', 1, 'app:hash:1']);
is(counts('hash'), '5 0 1 0 0 1', 'a hash of 100,000 fields is stale');
cmp_ok(memory('VmHWM') - $highest, '<', 32, '... and the keeper needs no memory for that');
redis([qw(SETRANGE app:string:1 400000000 x)], [qw(SETRANGE app:string:2 200000000 x)],
	[qw(SETRANGE app:string:4 100000000 x)]);
is(counts('string'), '4 0 3 0 0 3', 'strings of 400 MB and less are stale');
cmp_ok(memory('VmHWM') - $highest, '<', 400 + 32, '... and the keeper needs memory for one of them');
cmp_ok(memory('VmRSS') - $now, '<', 32, '... which it has given back');

# Many commands, whose answers come in many pieces.
sql(<<'SQL');
INSERT INTO d (id, t, n, lng, lat)
SELECT i, repeat(i::text, i % 300), random() * 10 ^ (i % 20), 360 * random() - 180,
	2 * 85.05112878 * random() - 85.05112878
FROM generate_series(6, 100000) i;
SQL
in_sync();
is(counts('geo'), '100000 0 0 0 0 0', 'geo: 100,000 random positions have the scores of Redis');
is(counts('zset'), '100000 0 0 0 0 0', 'zset: so have random numbers');
is(counts('string'), '99999 0 0 0 0 0', 'string: so have 100,000 values');
is(counts('hash'), '100000 0 0 0 0 0', 'hash: so have 100,000 rows');
redis(map { [ 'DEL', map { "app:string:$_" } @$_ ] } [ 6 .. 5005 ]);
redis([qw(SET app:string:77777 x)], [qw(DEL app:string:88888)], [qw(SADD app:string:88888 x)]);
is(counts('string'), '99999 5000 1 0 1 5002', 'string: what differs among them is found');

# Without PEXPIRETIME, which Redis has since 7.0, PTTL does.
my $old = HybridCache::Redis->new('rename-command' => 'PEXPIRETIME ""');
$old->start;
sql('DELETE FROM d WHERE id > 5');
in_sync();
$node->safe_psql('postgres', "ALTER SYSTEM SET hybrid_cache.redis_url = '" . $old->url . "'");
$node->restart;
$redis = $old;
$node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM hybrid_cache.owed") or die 'something stays owed';
sql("SELECT hybrid_cache.populate('d', 'expires')");
in_sync();
is(counts('expires'), '5 0 0 0 0 0', 'an older Redis: all is equal');
redis([qw(PERSIST app:expires:2)], [qw(EXPIRE app:expires:1 10000)], [qw(DEL app:expires:5)]);
is(counts('expires'), '5 1 2 0 0 3', '... and differences in time are found');
redis([qw(PEXPIRE app:expires:2 100000)]);
is(counts('expires'), '5 0 1 0 0 1', '... as is another time');
is(counts('expires'), '5 0 0 0 0 0', '... and all is equal again');

# Answers that make no sense are not believed: here, MGET is another command.
foreach my $other (qw(EXISTS SMISMEMBER))
{
	my $odd = HybridCache::Redis->new('rename-command' => [ 'MGET ""', "$other MGET" ]);
	my $offset = -s $node->logfile;

	$odd->start;
	$node->safe_psql('postgres', "ALTER SYSTEM SET hybrid_cache.redis_url = '" . $odd->url . "'");
	$node->restart;
	ok($node->wait_for_log(qr/could not understand Redis server/, $offset),
		"an answer as of $other instead of MGET is an error");
}

done_testing();
