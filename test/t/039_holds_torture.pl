# Buyers hold, confirm, roll back, walk away and give back seats, while sessions,
# workers, Redis and the whole server are killed.  In the end the table and Redis
# must agree on who has which seat, and none may be stuck.

use strict;
use warnings;

use HybridCache::Redis;
use HybridCache::Server qw(start_server sql poll);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $seconds = $ENV{HYBRID_CACHE_HOLDS_SECONDS} || 20;
my $n_seats = 30;
my $redis = HybridCache::Redis->new(appendonly => 'yes', appendfsync => 'always');
my $node = start_server($redis, <<'CONF');
restart_after_crash = on
fsync = on
max_prepared_transactions = 20
CONF
sql(<<"SQL");
CREATE EXTENSION hybrid_cache;
CREATE TABLE seat (id int PRIMARY KEY, status text NOT NULL DEFAULT 'free', buyer text);
CREATE TABLE outcome (what text, at timestamptz DEFAULT clock_timestamp());
INSERT INTO seat SELECT i FROM generate_series(1, $n_seats) i;
SELECT hybrid_cache.attach('seat', 'field', '{{event}}:seats', field => '{id}', value => 'status');
CREATE SEQUENCE buyer;
SQL
sql(<<'SQL');
CREATE PROCEDURE attempt(n int) LANGUAGE plpgsql AS $$
DECLARE
	first int := 1 + floor(random() * n);
	wanted int[] := ARRAY[first, first % n + 1];
	fate float8 := random();
	name text := 'buyer ' || nextval('buyer');
	changed int;
	released int;
BEGIN
	IF fate < 0.25 THEN
		-- somebody gives back what he has bought
		SELECT buyer INTO name FROM seat WHERE buyer IS NOT NULL ORDER BY random() LIMIT 1;
		UPDATE seat SET status = 'free', buyer = NULL WHERE buyer = name;
		GET DIAGNOSTICS changed = ROW_COUNT;
		IF changed > 0 THEN
			released := hybrid_cache.release('{event}:seats', name);
			INSERT INTO outcome VALUES (CASE WHEN released = changed THEN 'given back' ELSE 'given back a part' END);
		END IF;
		IF fate < 0.05 THEN
			ROLLBACK;
		END IF;
		RETURN;
	END IF;
	IF EXISTS (SELECT FROM hybrid_cache.hold('{event}:seats', wanted::text[], name, '300 ms', free => 'free', expired => 'over')) THEN
		RETURN;
	END IF;
	IF fate < 0.35 THEN
		ROLLBACK;
		RETURN;
	ELSIF fate < 0.45 THEN
		RETURN;
	ELSIF fate < 0.8 THEN
		COMMIT;
	END IF;
	BEGIN
		IF NOT hybrid_cache.confirm('{event}:seats', name) THEN
			RAISE EXCEPTION 'ran out' USING ERRCODE = 'HC001';
		END IF;
		UPDATE seat SET status = 'sold', buyer = name WHERE id = ANY (wanted) AND status = 'free';
		GET DIAGNOSTICS changed = ROW_COUNT;
		IF changed <> 2 THEN
			RAISE EXCEPTION 'refused' USING ERRCODE = 'HC002';
		END IF;
		IF fate > 0.95 THEN
			RAISE EXCEPTION 'changed his mind' USING ERRCODE = 'HC003';
		END IF;
		INSERT INTO outcome VALUES ('sold');
	EXCEPTION
		WHEN SQLSTATE 'HC001' OR SQLSTATE 'HC002' OR SQLSTATE 'HC003' THEN
			INSERT INTO outcome VALUES (SQLERRM);
	END;
END $$;
SQL
poll('SELECT connected AND (SELECT count(*) FROM hybrid_cache.owed) = 0 FROM hybrid_cache.status', 'all is in Redis');

# ---------------------------------------------------------------------------

my $script = "$PostgreSQL::Test::Utils::tmp_check/buyers.sql";
append_to_file($script, "CALL attempt($n_seats);\n" x 5000);

my @buyers = map { {} } 1 .. 4;

sub let_buy
{
	my ($buyer) = @_;
	$buyer->{out} = '';
	$buyer->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', $script ],
		'<', '/dev/null', '>', \$buyer->{out}, '2>', \$buyer->{out});
	return;
}

sub quiet { my ($out) = ('', ''); $node->psql('postgres', $_[0], stdout => \$out, stderr => \my $err); return $out; }

my @faults = (
	[ 'a session is terminated', sub {
		quiet("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^CALL' LIMIT 1") } ],
	[ 'a session is cancelled', sub {
		quiet("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ '^CALL'") } ],
	[ 'the sync worker is terminated', sub {
		quiet('SELECT pg_terminate_backend(worker_pid) FROM hybrid_cache.status') } ],
	[ 'Redis is killed', sub { $redis->kill9; $redis->start } ],
	[ 'a session is killed, and with it the server', sub {
		my $pid = quiet("SELECT pid FROM pg_stat_activity WHERE query ~ '^CALL' LIMIT 1");
		kill 'KILL', $pid if $pid =~ /^\d+$/ } ],
	[ 'the sync worker is killed, and with it the server', sub {
		my $pid = quiet('SELECT worker_pid FROM hybrid_cache.status');
		kill 'KILL', $pid if $pid =~ /^\d+$/ } ],
	[ 'Redis does not answer for a while', sub { $redis->freeze; usleep(300_000); $redis->thaw } ]);

let_buy($_) foreach @buyers;
my $end = Time::HiRes::time() + $seconds;
my $n = 0;
while (Time::HiRes::time() < $end)
{
	my $fault = $faults[ $n++ % @faults ];
	note $fault->[0];
	$fault->[1]->();
	usleep(700_000);
	foreach my $buyer (@buyers)
	{
		next if eval { $buyer->{run}->pump_nb; $buyer->{run}->pumpable };
		eval { $buyer->{run}->finish };
		let_buy($buyer);
	}
}
foreach my $buyer (@buyers)
{
	$buyer->{run}->kill_kill;
}
ok($n > @faults, "$n faults");
$node->poll_query_until('postgres', 'SELECT true');
poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE query ~ '^CALL'", 'the sessions have ended');
poll('SELECT connected FROM hybrid_cache.status', 'the worker is connected');
is(sql("SELECT hybrid_cache.wait_for_sync('60s')"), 't', 'Redis has everything');

# ---------------------------------------------------------------------------

my $outcomes = sql('SELECT what, count(*) FROM outcome GROUP BY 1 ORDER BY 1');
note $outcomes;
like($outcomes, qr/^sold\|\d/m, 'seats were sold');
like($outcomes, qr/^given back\|\d/m, 'and given back');
unlike($outcomes, qr/^refused/m, 'the table never had to refuse what Redis had let through');
unlike($outcomes, qr/a part/, 'what is given back is free');
poll("SELECT count(*) = 0 FROM hybrid_cache.holds('{event}:seats') WHERE state <> 'confirmed'", 'no hold is stuck');
is(sql(<<'SQL'), '', 'the table and Redis agree on who has which seat');
SELECT s.id, s.buyer, h.holder
FROM seat s FULL JOIN hybrid_cache.holds('{event}:seats') h ON h.item = s.id::text
WHERE s.buyer IS DISTINCT FROM h.holder
SQL
my $mark = "hybrid_cache:marks:" . sql('SELECT system_identifier FROM pg_control_system()') . ':' .
	sql('SELECT oid FROM pg_database WHERE datname = current_database()');
my $patience = 1000;
usleep(10_000) while ($redis->cli('ZCARD', $mark) ne '0' || $redis->cli('EXISTS', 'hybrid_cache:holds') ne '0') && $patience-- > 0;
is($redis->cli('ZCARD', $mark), '0', 'no transaction has left a mark');
is($redis->cli('EXISTS', 'hybrid_cache:holds'), '0', 'nothing is to run out');
is($redis->cli('HLEN', 'hybrid_cache:holds:{event}:seats'), sql('SELECT count(buyer) FROM seat'), 'Redis keeps nothing else');
cmp_ok($redis->cli('XLEN', 'over'), '>', 0, 'some holds have run out');
is(sql('SELECT count(*) FROM hybrid_cache.dead_letter'), '0', 'Redis has refused nothing');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11|signal 6/, 'no process has failed by itself');
$node->stop;
done_testing();
