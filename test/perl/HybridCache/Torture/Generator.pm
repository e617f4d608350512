=pod

=head1 NAME

HybridCache::Torture::Generator - random SQL

=head1 DESCRIPTION

Everything comes from rand(): the caller calls srand() before.  What is going
to be rolled back can be told by its values, so that whoever sees one of them in
Redis knows that it must not be there: the text is 'ROLLED BACK', the number
-666, the group 66.

=cut

package HybridCache::Torture::Generator;

use strict;
use warnings;

use HybridCache::Torture::Schema;

# So many ids of a table are used; the fewer, the more sessions meet.
my %ids = (a => 200, b => 600, c => 100, d => 6, e => 100, t => 60, f => 20);

my @usual = split //, 'aaabbbcccdddeettf';

sub _upto { return int rand $_[0]; }
sub _pick { return $_[ int rand @_ ]; }
sub _chance { return rand() < $_[0]; }
sub _id { return _upto($ids{ $_[0] }); }

=head1 FUNCTIONS

=over

=item script($session, %options)

The SQL of some transactions.  $session is a name for what must differ between
sessions.  Each transaction begins with a line C<\echo transaction> and ends
with C<\echo end>; within it, C<\echo to N> follows a rollback to the savepoint
on level N.  Options:

  transactions   how many
  large          the chance of a statement with 100,000 rows

=cut

sub script
{
	my ($session, %options) = @_;
	my $self = bless { session => $session, %options }, __PACKAGE__;
	my @lines = (
		"SET lock_timeout = '50ms';",
		"SET deadlock_timeout = '20ms';",
		'DO $$ BEGIN PERFORM setseed(' . rand() . '); END $$;');

	push @lines, '\set ON_ERROR_ROLLBACK on' if _chance(0.6);
	foreach my $number (1 .. $options{transactions})
	{
		$self->{number} = $number;
		push @lines, '\echo transaction', $self->_transaction, '\echo end';
	}
	return join "\n", @lines, '';
}

=item neighbours($session, %options)

The same for the tables with quiet rows: only others are touched.

=cut

sub neighbours
{
	my ($session, %options) = @_;
	my @lines = ("SET lock_timeout = '50ms';");

	foreach (1 .. $options{transactions})
	{
		my $table = _pick('q', 'r');
		my $bad = _chance(0.2);
		my $id = _upto(100);
		my @changes = (
			"INSERT INTO $table VALUES (@{[ $id, _upto(3) ]}, @{[ _text($bad) ]}, 1, 2, 3, @{[ _pick('true', 'false') ]}) ON CONFLICT (id) DO UPDATE SET v = excluded.v, g = excluded.g;",
			"UPDATE $table SET @{[ _assignments($table, $bad) ]} WHERE id = $id;",
			"UPDATE $table SET n = n + 1, on_ = NOT on_ WHERE id BETWEEN $id AND 99;",
			"UPDATE $table SET id = @{[ _upto(100) ]} WHERE id = $id;",
			"DELETE FROM $table WHERE id = $id;",
			"DELETE FROM $table WHERE id < 100;",
			"INSERT INTO $table SELECT i, i % 3, @{[ _text($bad) ]}, i, i, i % 80, true FROM generate_series(0, 99) i ON CONFLICT DO NOTHING;");

		push @lines, '\echo transaction', 'BEGIN;', (map { _pick(@changes) } 1 .. _pick(1, 2, 3)),
		  $bad ? 'ROLLBACK;' : 'COMMIT;', '\echo end';
	}
	return join "\n", @lines, '';
}

=item timetable($session, %options)

The same for the table with times that come.  No time is given to a row twice.

=cut

sub timetable
{
	my ($session, %options) = @_;
	my @lines = ("SET lock_timeout = '50ms';");

	foreach my $number (1 .. $options{transactions})
	{
		my $end = _pick(('COMMIT') x 6, 'ROLLBACK', 'PREPARE');

		push @lines, '\echo transaction', 'BEGIN;';
		foreach (1 .. _pick(1, 1, 2, 4))
		{
			push @lines, _chance(0.1) ? ('SAVEPOINT s0;', _due(), 'ROLLBACK TO s0;', '\echo to 0') : _due();
		}
		push @lines, "$end;" if $end ne 'PREPARE';
		if ($end eq 'PREPARE')
		{
			my ($letter, $how) = @{ _pick([ 'c', 'COMMIT' ], [ 'r', 'ROLLBACK' ]) };

			push @lines, "PREPARE TRANSACTION '$letter.$session.$number';";
			push @lines, "$how PREPARED '$letter.$session.$number';" if _chance(0.7);
		}
		push @lines, '\echo end', 'SELECT pg_sleep(' . rand(0.02) . ');';
	}
	return join "\n", @lines, '';
}

sub _due
{
	my $id = _upto(100);
	my $g = _upto(HybridCache::Torture::Schema::DUE_STREAMS());
	my $at = _pick(
		'NULL', q{'infinity'}, q{clock_timestamp() + interval '1 hour'}, q{clock_timestamp() - interval '1 min'},
		map { sprintf q{clock_timestamp() + interval '%.3f s'}, rand $_ } 0.1, 1, 1, 3, 6);

	return _pick(
		("INSERT INTO due VALUES ($id, $g, $at, true) ON CONFLICT (id) DO UPDATE SET at = excluded.at;") x 3,
		"INSERT INTO due SELECT i, $g, $at, i % 5 > 0 FROM generate_series($id, $id + 20) i ON CONFLICT DO NOTHING;",
		("UPDATE due SET at = $at WHERE id = $id;") x 3,
		"UPDATE due SET at = $at WHERE id BETWEEN $id AND $id + 10;",
		"UPDATE due SET g = $g, at = $at WHERE id = $id;",
		("UPDATE due SET note = 'n@{[ _upto(1000) ]}' WHERE id BETWEEN $id AND $id + 5;") x 2,
		"UPDATE due SET on_ = NOT on_, at = $at WHERE id = $id;",
		"UPDATE due SET id = @{[ _upto(100) ]}, at = $at WHERE id = $id;",
		("DELETE FROM due WHERE id = $id;") x 2,
		"DELETE FROM due WHERE id BETWEEN $id AND $id + 10;",
		_chance(0.1) ? 'TRUNCATE due;' : ());
}

sub _transaction
{
	my ($self) = @_;
	my $r = rand;

	return $self->_large if _chance($self->{large});
	return _pick(
		'SET synchronous_commit = on;', ('SET synchronous_commit = off;') x 2,
		q{SET hybrid_cache.synchronous = on; SET hybrid_cache.sync_timeout = '200ms';},
		('SET hybrid_cache.synchronous = off;') x 2) if $r < 0.06;
	return _foreign() if $r < 0.12;
	return $self->_statement if $r < 0.32;
	return $self->_small if $r < 0.48;
	return (
		_pick('BEGIN;', 'BEGIN;', 'BEGIN ISOLATION LEVEL REPEATABLE READ;'),
		$self->_body(0, 0), 'COMMIT;') if $r < 0.74;
	return ('BEGIN;', $self->_body(1, 0), 'ROLLBACK;') if $r < 0.86;
	return $self->_prepared;
}

# What the observer looks at, in transactions that are small enough to become
# visible together.
sub _small
{
	my ($self) = @_;
	my $bad = _chance(0.2);
	my @lines = ('BEGIN;');

	push @lines, $self->_version($bad) if _chance(0.5);
	push @lines, 'SAVEPOINT s0;', _group(1), 'ROLLBACK TO s0;', '\echo to 0' if _chance(0.2);
	push @lines, _group($bad);
	push @lines, _happen($bad) if _chance(0.2);
	push @lines, "UPDATE d SET n = n + 1 WHERE id = @{[ _id('d') ]};" if !$bad && _chance(0.3);
	push @lines, $self->_version($bad) if _chance(0.5);
	return (@lines, $bad ? 'ROLLBACK;' : _pick('COMMIT;', 'COMMIT;', 'COMMIT AND CHAIN; COMMIT;'));
}

sub _version
{
	my ($self, $bad) = @_;
	my $note = $bad ? 'ROLLED BACK' : "$self->{session}.$self->{number}." . _upto(1e6);

	return "UPDATE ver SET n = n + 1, note = '$note' WHERE id = "
	  . _upto(HybridCache::Torture::Schema::VERSIONS()) . ';';
}

sub _group
{
	my ($bad) = @_;
	return 'UPDATE grp SET n = ' . ($bad ? '-666' : 'n + 1') . ' WHERE g = '
	  . _upto(HybridCache::Torture::Schema::GROUPS()) . ';';
}

# Commands after the commit, mostly a few, sometimes more than a batch may have.
sub _happen
{
	my ($bad) = @_;
	my $times = _chance(0.02) ? 500 + _upto(3000) : _pick(1, 1, 1, 2, 7);

	return sprintf 'SELECT happen(%d, %d, %s);', _upto(HybridCache::Torture::Schema::TALLIES()),
	  $times, $bad ? 'true' : 'false';
}

# Ended at once, or later by whoever comes, perhaps after a restart.  The name
# tells how it is to end.
sub _prepared
{
	my ($self) = @_;
	my $end = _chance(0.6) ? 'COMMIT' : 'ROLLBACK';
	my $name = lc(substr $end, 0, 1) . ".$self->{session}.$self->{number}";
	my @lines = ('BEGIN;', $self->_body($end eq 'ROLLBACK', 0), "PREPARE TRANSACTION '$name';");

	if (_chance(0.8))
	{
		push @lines, 'SELECT pg_sleep(' . rand(0.03) . ');' if _chance(0.5);
		push @lines, "$end PREPARED '$name';";
	}
	return @lines;
}

# Some session ends what another has prepared.
sub _foreign
{
	my ($end, $letter) = @{ _pick([ 'COMMIT', 'c' ], [ 'ROLLBACK', 'r' ]) };

	return "SELECT '$end PREPARED ' || quote_literal(gid) FROM pg_prepared_xacts
		WHERE gid LIKE '$letter.%' AND prepared < now() - interval '0.3 s' LIMIT 2 \\gexec";
}

sub _large
{
	my ($self) = @_;
	my $bad = _chance(0.25);
	my @lines = (
		q{INSERT INTO l SELECT i, 'l' || i, i FROM generate_series(1, 100000) i
			WHERE NOT EXISTS (SELECT FROM l x WHERE x.id = i);},
		'UPDATE l SET '
		  . _pick(q{v = v || '.'}, 'n = -n', 'id = id + 1',
			'id = id + 999 - 2 * (id % 1000)', 'id = 100002 - id') . ';',
		'DELETE FROM l WHERE id % 3 = ' . _upto(3) . ';',
		q{UPDATE l SET v = 'ROLLED BACK', n = -666;});

	return ('BEGIN;', $lines[0], $lines[3], 'ROLLBACK;') if $bad;
	return ('BEGIN;', 'SAVEPOINT s0;', $lines[0], $lines[3], 'ROLLBACK TO s0;', '\echo to 0',
		$lines[0], 'COMMIT;') if _chance(0.2);
	return ('BEGIN;', $lines[0], $lines[1], _chance(0.5) ? $lines[2] : (), 'COMMIT;');
}

# Statements and savepoints.  $bad: all of this is going to be rolled back.
sub _body
{
	my ($self, $bad, $depth) = @_;
	my @lines;

	foreach (1 .. _pick(1, 1, 2, 3, 6))
	{
		if ($depth < 4 && _chance(0.3))
		{
			my $undo = $bad || _chance(0.4);

			push @lines, "SAVEPOINT s$depth;", $self->_body($undo, $depth + 1);
			if ($undo && (!$bad || _chance(0.1)))
			{
				push @lines, "ROLLBACK TO s$depth;", "\\echo to $depth";
			}
			elsif (_chance(0.7))
			{
				push @lines, "RELEASE s$depth;";
			}
		}
		else
		{
			push @lines, $self->_statement($bad);
		}
	}
	return @lines;
}

sub _text
{
	my ($bad) = @_;
	return q{'ROLLED BACK'} if $bad;
	return _pick(
		'NULL', q{''}, q{'ü€ ''"\\x' || chr(10) || chr(9)},
		"'v@{[ _upto(1e6) ]}'", "'v@{[ _upto(1e6) ]}'", "'v@{[ _upto(1e6) ]}'",
		"repeat('z@{[ _upto(10) ]}', @{[ _upto(3000) ]})");
}

sub _number { return _pick('NULL', map { (_upto(70) - 20) / $_ } 1, 2, 7); }

# The values of a new row.
sub _row
{
	my ($table, $bad) = @_;
	my $id = _id($table);

	return "$id, " . _text($bad) if $table eq 'f';
	return "$id, @{[ _pick(q{'x'}, q{'y'}, 'NULL') ]}, @{[ _text($bad) ]}, @{[ _until() ]}"
	  if $table eq 't';
	return join ', ', $id,
	  $bad ? 66 : _pick('NULL', (0 .. 4) x 3),
	  _text($bad),
	  $bad ? -666 : _number(),
	  _pick('NULL', (_upto(360) - 180) / 2, rand(180)),
	  _pick('NULL', (_upto(320) - 160) / 2, rand(80)),
	  _pick('true', 'true', 'false', 'NULL');
}

sub _until
{
	return _pick(
		'NULL', q{now() + interval '1 hour'}, q{now() + interval '1 hour'},
		q{now() - interval '1 hour'}, sprintf(q{now() + interval '%.3f s'}, rand 5));
}

# What an UPDATE sets.
sub _assignments
{
	my ($table, $bad) = @_;
	my @all = ($bad || $table eq 'f') ? () : $table eq 't' ? (
		'k = ' . _pick(q{'x'}, q{'y'}, 'k'), 'until = ' . _until(), 'id = id') : (
		'g = ' . _pick('NULL', 0 .. 4),
		'n = ' . _pick('n + 1', '-n', 'NULL', 3.5, 'n'),
		'lng = ' . _pick('-lng', 10.5, 'NULL', 'lng'),
		'lat = ' . _pick('-lat', 20.5, 'lat'),
		'on_ = ' . _pick('NOT on_', 'true', 'NULL'));
	my @chosen = $bad || !@all || _chance(0.4) ? ('v = ' . _text($bad)) : ();

	push @chosen, 'n = -666' if $bad && $table =~ /[abcdeqr]/;
	push @chosen, splice @all, _upto(scalar @all), 1
	  foreach 1 .. (@all ? _pick(@chosen ? 0 : 1, 1, 2) : 0);
	return join ', ', @chosen;
}

sub _where
{
	my ($table) = @_;
	my $id = _id($table);

	return _pick(
		("id = $id") x 4,
		"id BETWEEN $id AND $id + 10",
		'id % 7 = ' . _upto(7) . ' AND id < 3000',
		$table =~ /[tf]/ ? "id = $id" : 'g = ' . _upto(5) . ' AND id < 3000');
}

sub _update { return "UPDATE $_[0] SET @{[ _assignments(@_) ]} WHERE @{[ _where($_[0]) ]};"; }

sub _insert
{
	my ($table, $bad) = @_;
	my $conflict = $table eq 'e' ? _pick(
		' ON CONFLICT DO NOTHING',
		' ON CONFLICT (id) DO UPDATE SET v = excluded.v, g = excluded.g',
		' ON CONFLICT (id) DO UPDATE SET id = e.id + 500')
	  : $table =~ /[tf]/ ? ' ON CONFLICT (id) DO UPDATE SET v = excluded.v'
	  : '';

	return "INSERT INTO $table VALUES (@{[ _row($table, $bad) ]})$conflict;";
}

# Two rows take each other's key.
sub _swap
{
	my ($bad) = @_;
	my $table = _pick(qw(a b c d));
	my ($i, $j) = (_id($table), _id($table));
	my $mark = $bad ? q{, v = 'ROLLED BACK', n = -666} : '';

	return "UPDATE $table SET id = CASE id WHEN $i THEN $j ELSE $i END$mark WHERE id IN ($i, $j);";
}

sub _statement
{
	my ($self, $bad) = @_;
	my $table = _pick(@usual);
	my $r = _upto(100);

	return _insert($table, $bad) if $r < 22;
	return _update($table, $bad) if $r < 48;
	return "UPDATE $table SET id = @{[ _id($table) ]} WHERE id = @{[ _id($table) ]};" if $r < 56;
	return _swap($bad) if $r < 62;
	return 'UPDATE ' . _pick(qw(a b c)) . ' SET id = id + 1 WHERE id BETWEEN 5 AND '
	  . (5 + _upto(55)) . ';' if $r < 65;
	return "DELETE FROM $table WHERE @{[ _where($table) ]};" if $r < 77;
	return _pick('TRUNCATE ' . _pick(qw(a b b1 b2 c d e t)) . ';', "DELETE FROM $table;") if $r < 78;
	return $self->_version($bad) if $r < 82;
	return _happen($bad) if $r < 84;
	return _parent() if $r < 87;
	return _rows($bad) if $r < 90;
	return _thousands($bad) if $r < 92;
	return _exception($bad) if $r < 95;
	return _merge($bad) if $r < 97;
	return 'SET LOCAL synchronous_commit = off;' . _insert($table, $bad) if $r < 98 || $bad;
	return "TRUNCATE $table;" . _insert($table) . _insert($table);
}

# Foreign keys hand changes on to e.
sub _parent
{
	my $i = _upto(5);
	return _pick(
		'INSERT INTO p SELECT generate_series(0, 9) ON CONFLICT DO NOTHING;',
		"UPDATE p SET id = id + 5 WHERE id = $i;",
		'UPDATE p SET id = id - 5 WHERE id = ' . ($i + 5) . ';',
		"DELETE FROM p WHERE id = $i;");
}

sub _rows
{
	my ($bad) = @_;
	my $table = _pick('a', 'b');
	my $first = _upto(600);
	my $last = $first + _pick(20, 200);
	my ($v, $n) = $bad ? (q{'ROLLED BACK'}, -666) : (q{'r' || i}, 'i / 2.0');

	return "INSERT INTO $table SELECT i, i % 5, $v, $n, i % 180, i % 80, i % 3 > 0
		FROM generate_series($first, $last) i WHERE NOT EXISTS (SELECT FROM $table x WHERE x.id = i);";
}

# More than what one piece of a change record takes.
sub _thousands
{
	my ($bad) = @_;
	my $table = _pick('a', 'b');
	my ($v, $n) = $bad ? (q{'ROLLED BACK'}, -666) : (q{'big' || i}, 'i / 2.0');

	return _pick(
		"DO \$\$ BEGIN INSERT INTO $table SELECT i, i % 5, $v, $n, i % 180, i % 80, i % 3 > 0
			FROM generate_series(10000, 10000 + @{[ _pick(3000, 8000) ]}) i;
			EXCEPTION WHEN unique_violation THEN NULL; END \$\$;",
		"UPDATE $table SET @{[ _assignments($table, $bad) ]} WHERE id >= 10000;",
		"DELETE FROM $table WHERE id >= 10000;",
		"UPDATE $table SET id = id + 1 WHERE id BETWEEN 10000 AND 10000 + @{[ _pick(50, 8000) ]};");
}

sub _exception
{
	my ($bad) = @_;
	my $table = _pick(qw(a b c d e));
	my $after = _pick('NULL;', _update($table, $bad), _insert($table, $bad));

	return "DO \$\$ BEGIN UPDATE $table SET v = 'ROLLED BACK', n = -666 WHERE @{[ _where($table) ]};
		DELETE FROM $table; RAISE EXCEPTION 'x'; EXCEPTION WHEN raise_exception THEN $after END \$\$;";
}

sub _merge
{
	my ($bad) = @_;
	my $k = _id('e');
	my $v = _text($bad);

	return "MERGE INTO e USING (SELECT generate_series($k, $k + 3) AS k) s ON e.id = s.k
		WHEN MATCHED AND e.on_ THEN DELETE
		WHEN MATCHED THEN UPDATE SET v = $v, id = e.id + 1000
		WHEN NOT MATCHED THEN INSERT VALUES (s.k, NULL, $v, 1, 2, 3, true);";
}

=back

=cut

1;
