# Mappings survive pg_dump and pg_upgrade, since they are triggers: with their
# partitions' TRUNCATE triggers, which no dump contains, and what was left over.

use strict;
use warnings;

use HybridCache::Redis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = HybridCache::Redis->new;
$redis->start;
my $conf = <<"CONF";
shared_preload_libraries = 'hybrid_cache'
hybrid_cache.repair = off
wal_level = replica
hybrid_cache.redis_url = '@{[ $redis->url ]}'
CONF

my $node = PostgreSQL::Test::Cluster->new('old');
$node->init;
$node->append_conf('postgresql.conf', $conf);
$node->start;

$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('original', <<'SQL');
CREATE EXTENSION hybrid_cache;
CREATE SCHEMA lib;
CREATE FUNCTION lib.visible(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$ SELECT $1 <> 'hidden' $$;
CREATE TABLE parted (id int, v text, w int) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_2 (w int, v text, id int);
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM (10) TO (20);
INSERT INTO parted VALUES (1, 'one'), (11, 'eleven');
SELECT hybrid_cache.attach('parted', 'string', 'parted:{id}', value => 'v', filter => 'lib.visible(v)', always => true);
CREATE TABLE plain (id int PRIMARY KEY, "Odd name" text);
SELECT hybrid_cache.attach('plain', 'json', 'it''s:{{{id}}}', columns => 'id, "Odd name"', identity => 'plain_pkey');
ALTER TABLE plain DISABLE TRIGGER plain_json;
CREATE TABLE gone (id int);
SELECT hybrid_cache.attach('gone', 'json', 'gone:{id}');
DROP TABLE gone;
SQL

# What must be the same afterwards.
my $mappings = q{SELECT relation, name, kind, options, fires FROM hybrid_cache.mapping ORDER BY 2};
my $triggers = q{
	SELECT tgrelid::regclass, CASE WHEN tgisinternal THEN 'internal' ELSE tgname END,
		tgtype, tgenabled, tgparentid <> 0, tgargs
	FROM pg_trigger ORDER BY 1::text, 2};
my $leftover = 'SELECT relation, mapping, kind, key, types, arguments FROM hybrid_cache.leftover';
my %expected = map { $_ => $node->safe_psql('original', $_) } $mappings, $triggers, $leftover;
like($expected{$triggers}, qr/parted_2\|internal\|34\|A/, 'a partition has its own TRUNCATE trigger');

sub is_same
{
	my ($other, $database, $what) = @_;
	is($other->safe_psql($database, $mappings), $expected{$mappings}, "$what: the mappings");
	is($other->safe_psql($database, $triggers), $expected{$triggers}, "$what: the triggers");
	is($other->safe_psql($database, $leftover), $expected{$leftover}, "$what: the leftovers");
	return;
}

sub dump_of
{
	my ($database, @options) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/$database.sql";
	$node->command_ok([ 'pg_dump', '--file', $file, @options, $database ], "pg_dump @options");
	return $file;
}

# ---------------------------------------------------------------------------
# pg_dump

my $file = dump_of('original');
unlike(slurp_file($file), qr/hybrid_cache_truncate/, 'no internal trigger is dumped');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
# the keys are those of the original
$node->safe_psql('postgres', "ALTER DATABASE restored SET hybrid_cache.key_prefix = 'restored:'");
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $file ], 'restore');
is_same($node, 'restored', 'restored');
is($node->safe_psql('restored', 'SELECT name, state FROM hybrid_cache.mapping ORDER BY 1'),
	"parted_string|owes reconcile: not populated\nplain_json|disabled",
	'the restored mapping has not been populated');
is($node->safe_psql('restored', q{SELECT nextval('hybrid_cache.leftover_id_seq')}), '2',
	'no number of a leftover is used again');

# over what is there
$file = dump_of('original', '--clean', '--if-exists');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $file ],
	'restore over the same database');
is_same($node, 'restored', 'restored again');

# only the data, with triggers disabled meanwhile
$file = dump_of('original', '--data-only', '--disable-triggers', '--table=parted*');
$node->safe_psql('restored', 'SET client_min_messages = error; TRUNCATE parted; DELETE FROM hybrid_cache.owed');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $file ], 'restore data');
is($node->safe_psql('restored', q{SELECT state FROM hybrid_cache.mapping WHERE name = 'parted_string'}),
	'owes reconcile: was disabled', 'what the disabled triggers missed is owed');

# ---------------------------------------------------------------------------
# pg_upgrade

$node->safe_psql('postgres', 'DROP DATABASE restored WITH (FORCE)');
$node->stop;
my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
$new->append_conf('postgresql.conf', $conf);
chdir $PostgreSQL::Test::Utils::tmp_check;
# pg_config need not tell of the installation that is tested
my ($bin) = grep { -x "$_/pg_upgrade" } split /:/, $ENV{PATH};
my ($output, $errors) = run_command([
		'pg_upgrade', '--no-sync', '-d', $node->data_dir, '-D', $new->data_dir,
		'-b', $bin, '-B', $bin,
		'-s', $new->host, '-p', $node->port, '-P', $new->port ]);
like($output, qr/^Upgrade Complete/m, 'pg_upgrade') or diag($output, $errors);
$new->start;
is_same($new, 'original', 'upgraded');
$new->safe_psql('original', <<'SQL');
UPDATE parted SET v = 'after the upgrade' WHERE id = 11;
TRUNCATE parted_1;
SQL
is($new->safe_psql('original', q{SELECT hybrid_cache.wait_for_sync('60s')}), 't', 'the worker runs after the upgrade');
is($redis->cli('GET', 'parted:11'), 'after the upgrade', 'changes are captured after the upgrade');
is($redis->cli('EXISTS', 'parted:1'), '0', 'TRUNCATE of a partition is captured after the upgrade');
$new->stop;

done_testing();
