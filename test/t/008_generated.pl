# Generated columns, as far as only newer versions of PostgreSQL have them:
# SET EXPRESSION came with 17, virtual ones with 18.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
$redis->start;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.repair = off
hybrid_cache.redis_url = '@{[ $redis->url ]}'
wal_level = replica
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub refused
{
	my ($sql, $message, $what) = @_;
	my ($status, undef, $stderr) = $node->psql('postgres', $sql);
	isnt($status, 0, $what);
	like($stderr, $message, 'and it says why');
	return;
}

my $version = sql('SHOW server_version_num');

sql(<<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE TABLE s (id int PRIMARY KEY, a int, c int GENERATED ALWAYS AS (a * 3) STORED);
SELECT hybrid_cache.attach('s', 'json', 's:{id}', name => 'whole');
SELECT hybrid_cache.attach('s', 'hash', 'c:{id}', columns => 'c', name => 'named');
SELECT hybrid_cache.attach('s', 'hash', 'a:{id}', columns => 'a', name => 'other');
INSERT INTO s (id, a) VALUES (1, 5);
SQL
is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'a row with a generated column');
is($redis->cli('GET', 's:1'), '{"id":1,"a":5,"c":15}', 'is in Redis');

SKIP:
{
	skip 'no SET EXPRESSION before 17', 1 if $version < 170000;
	sql('ALTER TABLE s ALTER COLUMN c SET EXPRESSION AS (a * 4)');
	is( sql(<<'SQL'), "named|column \"c\" changed\nwhole|column \"c\" changed",
SELECT tgname, reason FROM hybrid_cache.owed JOIN pg_trigger t ON t.oid = mapping ORDER BY 1
SQL
		'a new expression changes rows behind the back of triggers');
}

SKIP:
{
	skip 'no virtual columns before 18', 12 if $version < 180000;
	sql('CREATE TABLE v (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL)');
	my $uses = qr/uses the virtual generated column "b"/;
	refused("SELECT hybrid_cache.attach('v', 'json', 'v:{id}')", $uses,
		'a virtual column in a value');
	refused("SELECT hybrid_cache.attach('v', 'json', 'v:{b}', exclude => 'b')", $uses,
		'in a key');
	refused(<<'SQL', $uses, 'in a key to unlink');
CREATE TRIGGER i AFTER INSERT OR UPDATE OR DELETE ON v FOR EACH ROW
EXECUTE FUNCTION hybrid_cache.invalidate('key=v:{b}')
SQL
	refused("SELECT hybrid_cache.attach('v', 'list', 'v')", $uses, 'in an event');
	refused("SELECT hybrid_cache.attach('v', 'list', 'v', value => 'a', filter => 'old.b > 1')", $uses,
		'in the filter of events');
	refused('ALTER TABLE s ADD COLUMN b int GENERATED ALWAYS AS (a * 2) VIRTUAL',
		qr/because mapping "whole" writes whole rows/, 'one that is added to a mapped row');
}

$node->stop;
done_testing();
