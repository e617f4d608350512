=pod

=head1 NAME

HybridCache::Torture::Schema - the tables of the torture test, their mappings,
and what Redis has to hold for them

=head1 DESCRIPTION

  a          moves and swaps of keys, a deferrable primary key
  b          the same, partitioned
  c          a user's triggers change the same and other rows once more
  d          few rows: hot ones
  e, p       a foreign key that cascades, ON CONFLICT, MERGE; each change has an
             event, and is in the table audit
  l          large statements
  t          entries that expire
  f          entries that are invalidated
  ver        numbers that only grow; the table history has all of them
  grp        groups of rows that always change together
  tally      numbers that are made in the order of commits, without a gap; each is
             a command after the commit as well, and each change has events
  due        timers: rows whose time comes; the table due_history has all of them
  q, r       plain and partitioned; half of their rows are quiet: no session
             touches them, so that a stranger can change their entries

A mapping comes with a query that says by SQL of its own which entries Redis
has to hold: the columns are key, member, value and expiry.  Where one of the
first three is null, there is no entry.  The expiry is in milliseconds since
1970.

=cut

package HybridCache::Torture::Schema;

use strict;
use warnings;

# The numbers of rows that the observer looks at.
use constant {
	VERSIONS => 12,
	GROUPS => 4,
	GROUP_SIZE => 6,
	TALLIES => 6,
	DUE_STREAMS => 2
};

# The ids of the table due are below it.
use constant DUE_LAST => 1_000_000;

# The first and the last quiet row.
use constant { QUIET => 1000, QUIETEST => 1079 };

my $columns = '(id int, g int, v text, n float8, lng float8, lat float8, on_ boolean)';
my $deferred = 'ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED';

my $tables = <<"SQL";
CREATE TABLE a $columns;
ALTER TABLE a $deferred;
CREATE TABLE b $columns PARTITION BY RANGE (id);
ALTER TABLE b $deferred;
CREATE TABLE b1 PARTITION OF b FOR VALUES FROM (MINVALUE) TO (50);
CREATE TABLE b2 PARTITION OF b FOR VALUES FROM (50) TO (500);
CREATE TABLE b3 PARTITION OF b DEFAULT;
CREATE TABLE c $columns;
ALTER TABLE c $deferred;
CREATE TABLE d $columns;
ALTER TABLE d ADD PRIMARY KEY (id) DEFERRABLE INITIALLY IMMEDIATE;
CREATE TABLE p (id int PRIMARY KEY);
CREATE TABLE e $columns;
ALTER TABLE e ADD PRIMARY KEY (id);
ALTER TABLE e ADD FOREIGN KEY (g) REFERENCES p ON UPDATE CASCADE ON DELETE CASCADE;
CREATE TABLE l (id int PRIMARY KEY DEFERRABLE, v text, n float8);
CREATE TABLE t (id int PRIMARY KEY, k text, v text, until timestamptz, changed timestamptz);
CREATE TABLE f (id int PRIMARY KEY, v text);

-- What a user's triggers may do.  Those that fire after the row was changed
-- come before those of the mappings, since their names do.
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS \$\$
DECLARE
	r int := floor(random() * 16);
BEGIN
	IF pg_trigger_depth() > 3 THEN
		RETURN NULL;
	ELSIF r = 0 THEN
		UPDATE c SET v = v || '+' WHERE id = NEW.id;
	ELSIF r = 1 THEN
		UPDATE c SET g = (g + 1) % 5 WHERE id = NEW.id;
	ELSIF r = 2 THEN
		UPDATE c SET on_ = NOT on_, n = n + 1 WHERE id = NEW.id;
	ELSIF r = 3 THEN
		UPDATE c SET id = floor(random() * 100) WHERE id = NEW.id;
	ELSIF r = 4 THEN
		DELETE FROM c WHERE id = NEW.id;
	ELSIF r = 5 THEN
		BEGIN
			UPDATE c SET v = 'ROLLED BACK', n = -666, id = id + 1, g = 4 - g WHERE id = NEW.id;
			RAISE EXCEPTION 'no';
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	ELSIF r = 6 THEN
		UPDATE c SET id = id + 1000 WHERE id = NEW.id AND id < 1000;
	ELSIF r = 7 THEN
		UPDATE c SET id = id - 1000 WHERE id = NEW.id AND id >= 1000;
	ELSIF r = 8 THEN
		UPDATE c SET id = id WHERE id = NEW.id;
	ELSIF r = 9 THEN
		UPDATE d SET n = n + 1 WHERE id = NEW.id % 6;
	END IF;
	RETURN NULL;
END
\$\$;
CREATE TRIGGER a_meddle AFTER INSERT OR UPDATE ON c FOR EACH ROW EXECUTE FUNCTION meddle();

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN NEW.changed := clock_timestamp(); RETURN NEW; END';
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();

CREATE TABLE ver (id int PRIMARY KEY, n bigint, note text);
CREATE TABLE history (id int, n bigint, note text);
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN INSERT INTO history VALUES (NEW.id, NEW.n, NEW.note); RETURN NULL; END';
CREATE TRIGGER a_remember AFTER INSERT OR UPDATE ON ver FOR EACH ROW EXECUTE FUNCTION remember();
CREATE TABLE grp (g int, i int, n bigint, PRIMARY KEY (g, i));

-- Who has the row has it to the end of the transaction, so the numbers that Redis
-- gets are those of the commits.
CREATE TABLE tally (id int PRIMARY KEY, n bigint NOT NULL, changes bigint NOT NULL);
CREATE FUNCTION happen(i int, times int, bad boolean) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	made bigint;
BEGIN
	UPDATE tally SET n = n + times, changes = changes + 1 WHERE id = i RETURNING n INTO made;
	FOR number IN made - times + 1 .. made LOOP
		PERFORM redis_on_commit('RPUSH', 'happened:' || i, CASE WHEN bad THEN -666 ELSE number END);
	END LOOP;
	PERFORM redis_on_commit('INCRBY', 'happened:count:' || i, times);
END
\$\$;

-- Each change of e, with the documents as they are in the event.
CREATE TABLE audit (seq bigserial, xid xid8, id int, op text, data text, old text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO audit (xid, id, op, data, old) VALUES (
		pg_current_xact_id(), coalesce(NEW.id, OLD.id), lower(TG_OP),
		row_to_json(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END)::text,
		CASE TG_OP WHEN 'UPDATE' THEN row_to_json(OLD)::text END);
	RETURN NULL;
END
\$\$;

-- When each row was to be due, in milliseconds; null: not.
CREATE TABLE due (id int PRIMARY KEY, g int, at timestamptz, on_ boolean, note text);
CREATE TABLE due_history (seq bigserial, xid xid8 DEFAULT pg_current_xact_id(), id int, g int, at numeric);
CREATE FUNCTION remember_due() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		INSERT INTO due_history (id) SELECT id FROM due;
	ELSIF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.id <> NEW.id) THEN
		INSERT INTO due_history (id) VALUES (OLD.id);
	END IF;
	IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' THEN
		INSERT INTO due_history (id, g, at) VALUES (NEW.id, NEW.g,
			CASE WHEN NEW.on_ AND isfinite(NEW.at) THEN ceil(extract(epoch FROM NEW.at) * 1000) END);
	END IF;
	RETURN NULL;
END
\$\$;
CREATE TRIGGER remember AFTER INSERT OR UPDATE OR DELETE ON due FOR EACH ROW EXECUTE FUNCTION remember_due();
CREATE TRIGGER remember_truncate BEFORE TRUNCATE ON due FOR EACH STATEMENT EXECUTE FUNCTION remember_due();

CREATE TABLE q $columns;
ALTER TABLE q ADD PRIMARY KEY (id);
CREATE TABLE r $columns PARTITION BY RANGE (id);
ALTER TABLE r ADD PRIMARY KEY (id);
CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (MINVALUE) TO (1040);
CREATE TABLE r2 PARTITION OF r DEFAULT;

-- How Redis stores a position: 26 bits for each of latitude and longitude,
-- taking turns, the one of the longitude first.
CREATE FUNCTION spread(x bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS \$\$
BEGIN
	x := (x | (x << 16)) & x'0000FFFF0000FFFF'::bigint;
	x := (x | (x << 8)) & x'00FF00FF00FF00FF'::bigint;
	x := (x | (x << 4)) & x'0F0F0F0F0F0F0F0F'::bigint;
	x := (x | (x << 2)) & x'3333333333333333'::bigint;
	RETURN (x | (x << 1)) & x'5555555555555555'::bigint;
END
\$\$;
CREATE FUNCTION cell(lng float8, lat float8) RETURNS text LANGUAGE sql IMMUTABLE AS \$\$
	SELECT (spread(floor((lat + 85.05112878) / (85.05112878 * 2) * (1 << 26))::bigint) |
			(spread(floor((lng + 180) / 360 * (1 << 26))::bigint) << 1))::text
\$\$;
SQL

my $rows = join "\n", (
	sprintf('INSERT INTO ver SELECT i, 0, \'first\' FROM generate_series(0, %d) i;', VERSIONS - 1),
	sprintf('INSERT INTO grp SELECT g, i, 0 FROM generate_series(0, %d) g, generate_series(0, %d) i;',
		GROUPS - 1, GROUP_SIZE - 1),
	sprintf('INSERT INTO tally SELECT i, 0, 0 FROM generate_series(0, %d) i;', TALLIES - 1),
	'INSERT INTO p SELECT generate_series(0, 4);',
	"INSERT INTO d SELECT i, i % 5, 'd' || i, i, i * 10, i * 5, true FROM generate_series(0, 5) i;",
	(map {
		"INSERT INTO $_ SELECT i * 2, i % 5, '$_' || i, i / 3.0, i, i % 80, i % 3 > 0 FROM generate_series(0, 99) i;"
	} qw(a b e)),
	(map {
		my $table = $_;
		map {
			"INSERT INTO $table SELECT i, i % 3, '$table' || i, i, i % 180, i % 80, true FROM generate_series($_) i;"
		} '0, 99', QUIET . ', ' . QUIETEST
	} qw(q r)),
	"INSERT INTO t SELECT i, 'x', 't' || i, now() + interval '1 hour' FROM generate_series(0, 29) i;",
	"INSERT INTO f SELECT i, 'f' || i FROM generate_series(0, 19) i;",
	# like the events, not of the rows that are there already
	'CREATE TRIGGER a_note AFTER INSERT OR UPDATE OR DELETE ON e FOR EACH ROW EXECUTE FUNCTION note();');

# A hash of all columns.
sub _fields
{
	my ($key, $table) = @_;
	return "SELECT $key, x.field, x.value FROM $table, LATERAL (VALUES ('id', id::text), "
	  . "('g', g::text), ('v', v), ('n', n::text), ('lng', lng::text), ('lat', lat::text), "
	  . "('on_', on_::text)) x(field, value)";
}

# table, kind, key, options, the entries
my @mappings = (
	[ 'a', 'string', 'a:{id}', { value => 'v', filter => 'on_' },
		q{SELECT 'a:' || id, '', v FROM a WHERE on_} ],
	[ 'a', 'json', 'aj:{id}:{g}', {},
		q{SELECT 'aj:' || id || ':' || g, '', row_to_json(a)::text FROM a} ],
	[ 'a', 'geo', 'ageo:{g}',
		{ member => '{id}', longitude => 'lng', latitude => 'lat', filter => 'n > 0' },
		q{SELECT 'ageo:' || g, id::text, cell(lng, lat) FROM a WHERE n > 0} ],
	[ 'a', 'zset', 'az', { member => '{id}', score => 'n' },
		q{SELECT 'az', id::text, n::text FROM a} ],

	[ 'b', 'hash', 'b:{id}', {}, _fields(q{'b:' || id}, 'b') ],
	[ 'b', 'set', 'bs:{g}', { member => '{id}', filter => 'on_' },
		q{SELECT 'bs:' || g, id::text, '' FROM b WHERE on_} ],
	[ 'b', 'field', 'bf:{g}', { field => '{id}', value => 'v' },
		q{SELECT 'bf:' || g, id::text, v FROM b} ],

	[ 'c', 'json', 'c:{id}', { filter => 'on_' },
		q{SELECT 'c:' || id, '', row_to_json(c)::text FROM c WHERE on_} ],
	[ 'c', 'zset', 'cz:{g}', { member => '{id}', score => 'n' },
		q{SELECT 'cz:' || g, id::text, n::text FROM c} ],
	[ 'c', 'string', 'cs:{g}-{id}:{on_}', { value => 'v' },
		q{SELECT 'cs:' || g || '-' || id || ':' || on_, '', v FROM c} ],
	[ 'c', 'hash', 'ch:{id}', {}, _fields(q{'ch:' || id}, 'c') ],

	[ 'd', 'string', 'd:{id}', { value => 'v || n', filter => 'on_' },
		q{SELECT 'd:' || id, '', v || n FROM d WHERE on_} ],
	[ 'd', 'set', 'dset', { member => '{g}-{id}' },
		q{SELECT 'dset', g || '-' || id, '' FROM d} ],
	[ 'd', 'geo', 'dgeo', { member => '{id}', longitude => 'lng', latitude => 'lat' },
		q{SELECT 'dgeo', id::text, cell(lng, lat) FROM d} ],

	[ 'e', 'json', 'e:{id}', {}, q{SELECT 'e:' || id, '', row_to_json(e)::text FROM e} ],
	[ 'e', 'field', 'ef:{g}', { field => 'x{id}', value => 'v', filter => 'on_' },
		q{SELECT 'ef:' || g, 'x' || id, v FROM e WHERE on_} ],
	[ 'e', 'hash', 'eh:{id}:{g}', {}, _fields(q{'eh:' || id || ':' || g}, 'e') ],

	[ 'l', 'string', 'l:{id}', { value => 'v' }, q{SELECT 'l:' || id, '', v FROM l} ],
	[ 'l', 'zset', 'lz', { member => '{id}', score => 'n' },
		q{SELECT 'lz', id::text, n::text FROM l} ],

	[ 't', 'string', 't:{id}', { value => 'v', ttl => '1 hour', populate => 'true' },
		q{SELECT 't:' || id, '', v, (extract(epoch FROM changed) * 1000 + 3600000)::bigint FROM t} ],
	[ 't', 'json', 'tj:{k}:{id}',
		{ columns => 'id, upper(v) AS "V"', expires_at => 'until' },
		q{SELECT 'tj:' || k || ':' || t.id, '', row_to_json(x)::text,
			floor(extract(epoch FROM until) * 1000)::bigint
			FROM t, LATERAL (SELECT id, upper(v) AS "V") x
			WHERE until IS NULL OR until > now()} ],
	[ 't', 'hash', 'th:{id}', { columns => 'v, k', expires_at => 'until' },
		q{SELECT 'th:' || id, x.field, x.value, floor(extract(epoch FROM until) * 1000)::bigint
			FROM t, LATERAL (VALUES ('v', v), ('k', k)) x(field, value)
			WHERE until IS NULL OR until > now()} ],

	[ 'f', 'invalidate', 'f:{id}', {}, undef ],

	[ 'ver', 'string', 'ver:{id}', { value => q{n || ' ' || note} },
		q{SELECT 'ver:' || id, '', n || ' ' || note FROM ver} ],
	[ 'ver', 'zset', 'verz', { member => '{id}', score => 'n' },
		q{SELECT 'verz', id::text, n::text FROM ver} ],

	[ 'grp', 'string', 'grp:{g}:{i}', { value => 'n' },
		q{SELECT 'grp:' || g || ':' || i, '', n::text FROM grp} ],
	[ 'grp', 'zset', 'grpz:{g}', { member => '{i}', score => 'n' },
		q{SELECT 'grpz:' || g, i::text, n::text FROM grp} ],
	[ 'grp', 'field', 'grph:{g}', { field => '{i}', value => 'n' },
		q{SELECT 'grph:' || g, i::text, n::text FROM grp} ],

	[ 'tally', 'string', 'tally:{id}', { value => 'n' }, q{SELECT 'tally:' || id, '', n::text FROM tally} ],
	[ 'tally', 'stream', 'happened:stream:{id}', { columns => 'changes' }, undef ],
	[ 'tally', 'list', 'happened:list:{id}', { value => 'changes' }, undef ],

	[ 'e', 'stream', 'happened:changes', {}, undef ],
	[ 'due', 'timer', 'happened:due:{g}', { member => '{id}', expires_at => 'at', filter => 'on_' }, undef ],

	[ 'q', 'string', 'q:{id}', { value => 'v' }, q{SELECT 'q:' || id, '', v FROM q} ],
	[ 'q', 'json', 'qj:{id}', { filter => 'on_' }, q{SELECT 'qj:' || id, '', row_to_json(q)::text FROM q WHERE on_} ],
	[ 'q', 'geo', 'qgeo', { member => '{id}', longitude => 'lng', latitude => 'lat' },
		q{SELECT 'qgeo', id::text, cell(lng, lat) FROM q} ],
	[ 'q', 'set', 'qs:{g}', { member => '{id}' }, q{SELECT 'qs:' || g, id::text, '' FROM q} ],
	[ 'r', 'hash', 'r:{id}', {}, _fields(q{'r:' || id}, 'r') ],
	[ 'r', 'field', 'rf', { field => '{id}', value => 'v' }, q{SELECT 'rf', id::text, v FROM r} ],
	[ 'r', 'zset', 'rz:{g}', { member => '{id}', score => 'n' }, q{SELECT 'rz:' || g, id::text, n::text FROM r} ]);

=head1 FUNCTIONS

=over

=item create()

The SQL that makes everything in an empty database.

=cut

sub create
{
	return join "\n", 'CREATE EXTENSION hybrid_cache;', $tables, $rows, map { attach($_) . ';' } 0 .. $#mappings;
}

=item mappings()

How many there are; they are known by number.

=item attach($number)

=item triggers($number)

=item detach($number)

Commands, without the last semicolon.  triggers() does by hand what attach() does,
if is_plain($number).

=item attach_visitor($table)

A mapping that is not among the others: it is to leave nothing behind.

=item table($number)

The table of a mapping.

=cut

sub mappings { return scalar @mappings; }

sub attach
{
	my ($number) = @_;
	my ($table, $kind, $key, $options) = @{ $mappings[$number] };

	return "SELECT hybrid_cache.attach('$table', '$kind', '$key', name => 'm$number'"
	  . join('', map { ", $_ => \$q\$$options->{$_}\$q\$" } sort keys %$options) . ')';
}

# ttl is an interval for attach(), and whether to populate its own business.
sub is_plain { return !exists $mappings[$_[0]][3]{ttl}; }

sub triggers
{
	my ($number) = @_;
	my ($table, $kind, $key, $options) = @{ $mappings[$number] };
	my $arguments = join ', ', ($kind eq 'invalidate' ? () : "'$kind'"),
	  map { "\$q\$$_\$q\$" } "key=$key", map { "$_=$options->{$_}" } sort keys %$options;
	my $function = 'hybrid_cache.' . ($kind eq 'invalidate' ? 'invalidate' : 'write_through');

	return "CREATE TRIGGER m$number AFTER INSERT OR UPDATE OR DELETE ON $table FOR EACH ROW EXECUTE FUNCTION $function($arguments);"
	  . " CREATE TRIGGER m${number}_truncate BEFORE TRUNCATE ON $table FOR EACH STATEMENT EXECUTE FUNCTION $function($arguments)";
}

sub attach_visitor
{
	my ($table) = @_;
	return "SET lock_timeout = '1s'; SELECT hybrid_cache.attach('$table', 'string', 'visitor:$table:{id}', value => 'v', name => 'visitor')";
}

sub detach
{
	my ($number) = @_;
	return "SELECT hybrid_cache.detach('$mappings[$number][0]', 'm$number')";
}

sub table { return $mappings[$_[0]][0]; }

=item call($function, $number, @arguments)

A call of a function of the extension that is about a mapping.

=cut

sub call
{
	my ($function, $number, @arguments) = @_;
	return "hybrid_cache.$function(" . join(', ', "'$mappings[$number][0]'", "'m$number'", @arguments) . ')';
}

=item compared()

The numbers of the mappings that have entries or timers, so that they can be
compared.

=item quiet()

The numbers of the mappings of tables with quiet rows.

=item quiet_rows()

The ids of the first and the last of them.

=item kind($number)

=item place($number, $id)

The key, and the member or field, of a row of such a table.

=cut

sub compared { return grep { $mappings[$_][4] || kind($_) eq 'timer' } 0 .. $#mappings; }

sub quiet { return grep { table($_) =~ /^[qr]$/ } 0 .. $#mappings; }

sub quiet_rows { return (QUIET, QUIETEST); }

sub kind { return $mappings[$_[0]][1]; }

sub place
{
	my ($number, $id) = @_;
	my %row = (id => $id, g => $id % 3);
	my (undef, undef, $key, $options) = @{ $mappings[$number] };
	my @place = grep { defined } $key, $options->{member} // $options->{field};

	s/\{(\w+)\}/$row{$1}/g foreach @place;
	return @place;
}

=item entries()

A list of [type in Redis, kind, query], for each mapping that has entries.

=cut

my %type = (
	string => 'string', json => 'string', hash => 'hash', field => 'hash',
	geo => 'zset', zset => 'zset', set => 'set');

sub entries
{
	return map { [ $type{ $_->[1] }, $_->[1], $_->[4] ] } grep { $_->[4] } @mappings;
}

=back

=cut

1;
