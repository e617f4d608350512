--
-- whatever is wrong with a mapping is said at once, and nothing is half done
--
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE EXTENSION hybrid_cache;
CREATE TABLE t (id int PRIMARY KEY, name text, at timestamptz, lng float8, lat float8, doc jsonb);
INSERT INTO t VALUES (1, 'one');

-- runs a command, and shows what it raises: SQLSTATE, message, detail, hint
CREATE PROCEDURE try(command text) LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE command;
	RAISE INFO 'it worked: %', command;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RAISE INFO '% %', SQLSTATE, concat_ws(E'\n  ', message, nullif('DETAIL ' || detail, 'DETAIL '), nullif('HINT ' || hint, 'HINT '));
END
$$;
-- the same with the arguments of attach()
CREATE PROCEDURE attach(args text) LANGUAGE sql AS $$ CALL try('SELECT hybrid_cache.attach(' || $1 || ')') $$;
-- the same with the arguments of a trigger
CREATE PROCEDURE bad_trigger(args text) LANGUAGE sql AS $$
	CALL try('CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through(' || $1 || ')')
$$;

-- nothing given
CALL attach($$NULL, 'json', 'k:{id}'$$);
CALL attach($$'t', NULL, 'k:{id}'$$);
CALL attach($$'t', 'json'$$);
CALL attach($$999999, 'json', 'k:{id}'$$);
CALL attach($$'t', 'json', 'k:{id}', name => ''$$);
CALL bad_trigger('');
CALL bad_trigger($$'json'$$);

-- kinds and options
CALL attach($$'t', 'bitmap', 'k:{id}'$$);
CALL attach($$'t', 'JSON', 'k:{id}'$$);
CALL attach($$'t', 'string', 'k:{id}'$$);
CALL attach($$'t', 'geo', 'k', member => '{id}', longitude => 'lng'$$);
CALL attach($$'t', 'json', 'k:{id}', score => 'id'$$);
CALL attach($$'t', 'set', 'k', member => '{id}', ttl => '1 hour'$$);
CALL attach($$'t', 'invalidate', 'k:{id}', ttl => '1 hour'$$);
CALL attach($$'t', 'json', 'k:{id}', ttl => '1 hour', expires_at => 'at'$$);
CALL attach($$'t', 'json', 'k:{id}', columns => 'id', exclude => 'name'$$);
CALL attach($$'t', 'json', 'k:{id}', ttl => '-1 hour'$$);
CALL attach($$'t', 'json', 'k:{id}', orphans => 'keep'$$);
CALL attach($$'t', 'json', 'k:{id}', missing => 'perhaps'$$);
CALL attach($$'t', 'json', 'k:{id}', since => 'no_such_column'$$);
CALL attach($$'t', 'json', 'k:{id}', identity => 'no_such_index'$$);
CALL attach($$'t', 'json', 'k:{id}', color => 'red'$$);
CALL bad_trigger($$'json', 'key=k:{id}', 'color=red'$$);
CALL bad_trigger($$'json', 'key=k:{id}', 'key=k:{id}'$$);
CALL bad_trigger($$'json', 'key'$$);
CALL bad_trigger($$'json', 'key=k:{id}', 'ttl=soon'$$);

-- columns
CALL attach($$'t', 'json', 'k:{no_such_column}'$$);
CALL attach($$'t', 'json', 'k:{ctid}'$$);
CALL attach($$'t', 'json', 'k:{id}', columns => 'id, no_such_column'$$);
CALL attach($$'t', 'json', 'k:{id}', columns => 'id, name AS id'$$);
CALL attach($$'t', 'json', 'k:{id}', columns => '*'$$);
CALL attach($$'t', 'json', 'k:{id}', columns => 'id, t.*'$$);
CALL attach($$'t', 'string', 'k:{id}', value => '*'$$);
CALL attach($$'t', 'json', 'k:{id}', exclude => 'no_such_column'$$);
CALL attach($$'t', 'json', 'k:{id}', exclude => 'id, name, at, lng, lat, doc'$$);
CREATE TABLE no_columns ();
CALL attach($$'no_columns', 'json', 'k'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'no_such_column'$$);

-- templates
CALL attach($$'t', 'json', ''$$);
CALL attach($$'t', 'json', 'k:{id'$$);
CALL attach($$'t', 'json', 'k:id}'$$);
CALL attach($$'t', 'json', 'k:{}'$$);
CALL attach($$'t', 'json', '{event:{id}}:seats'$$);
CALL attach($$'t', 'json', '{event:7}:seats:{id}'$$);
CALL attach($$'t', 'set', 'k', member => '{id'$$);

-- expressions
CALL attach($$'t', 'string', 'k:{id}', value => 'name ||'$$);
CALL attach($$'t', 'string', 'k:{id}', value => ''$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'name, id'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'name FROM pg_class'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'name; DROP TABLE t'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'no_such_function(name)'$$);
CALL attach($$'t', 'string', 'k:{id}', value => '(SELECT 1)'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'count(*)'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'generate_series(1, id)'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 't'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'xmin'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'OLD.name'$$);
CALL attach($$'t', 'string', 'k:{id}', value => '$1'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'DEFAULT'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'grouping(id)'$$);
CALL attach($$'t', 'json', 'k:{id}', filter => 'id'$$);
CALL attach($$'t', 'json', 'k:{id}', filter => 'name'$$);
CALL attach($$'t', 'json', 'k:{id}', filter => 'id > 0)'$$);
CALL attach($$'t', 'zset', 'k', member => '{id}', score => 'name'$$);
CALL attach($$'t', 'geo', 'k', member => '{id}', longitude => 'lng', latitude => 'doc'$$);
CALL attach($$'t', 'json', 'k:{id}', expires_at => 'id'$$);

-- what is gone with the session
CREATE FUNCTION pg_temp.f(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE DOMAIN pg_temp.d AS text;
CALL attach($$'t', 'string', 'k:{id}', value => 'pg_temp.f(name)'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'name::d'$$);

-- what could not be kept equal
CALL attach($$'t', 'string', 'k:{id}', value => 'random()'$$);
CALL attach($$'t', 'string', 'k:{id}', value => 'clock_timestamp()'$$);
CALL attach($$'t', 'json', 'k:{id}', filter => 'at > now()'$$);
CALL attach($$'t', 'json', 'k:{id}', filter => 'at > current_timestamp'$$);
CALL attach($$'t', 'json', 'k:{id}', filter => $f$at > 'now'::timestamptz$f$ $$);
CALL attach($$'t', 'json', 'k:{id}', filter => $f$at > 'today'$f$ $$);
CALL attach($$'t', 'json', 'k:{id}', filter => 'at::date = current_date'$$);
CALL attach($$'t', 'json', 'k:{id}', filter => 'name = current_user'$$);
CALL attach($$'t', 'json', 'k:{id}', filter => $f$name = current_setting('a.b')$f$ $$);
CALL attach($$'t', 'json', 'k:{id}', filter => $f$age(at) > '1 day'$f$ $$);

-- the trigger's form
CALL try($$CREATE TRIGGER x AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT OR UPDATE OF name OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE TRIGGER x AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE TRIGGER x BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE TRIGGER x AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE TRIGGER x AFTER UPDATE ON t REFERENCING OLD TABLE AS o FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE CONSTRAINT TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.invalidate('key=k:{id}')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION hybrid_cache.invalidate('json', 'key=k:{id}')$$);
CALL try($$SELECT hybrid_cache.write_through()$$);

-- what cannot be followed
CREATE VIEW v AS SELECT * FROM t;
CREATE MATERIALIZED VIEW m AS SELECT * FROM t;
CREATE TEMP TABLE temporary (id int);
CREATE SEQUENCE s;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE f (id int) SERVER nowhere;
CALL attach($$'v', 'json', 'k:{id}'$$);
CALL attach($$'m', 'json', 'k:{id}'$$);
CALL attach($$'temporary', 'json', 'k:{id}'$$);
CALL attach($$'s', 'json', 'k:{id}'$$);
CALL attach($$'f', 'json', 'k:{id}'$$);
CALL attach($$'pg_class', 'json', 'k:{relname}'$$);
CALL try($$CREATE TRIGGER x INSTEAD OF INSERT OR UPDATE OR DELETE ON v FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON temporary FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CALL try($$CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON f FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
CREATE TABLE p (id int) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE pf PARTITION OF p FOR VALUES FROM (0) TO (10) SERVER nowhere;
CALL attach($$'p', 'json', 'k:{id}'$$);
ALTER TABLE p DETACH PARTITION pf;
CALL attach($$'p', 'json', 'parted:{id}'$$);
CALL try($$ALTER TABLE p ATTACH PARTITION pf FOR VALUES FROM (0) TO (10)$$);

-- by someone else
CREATE ROLE regress_stranger;
GRANT USAGE ON SCHEMA hybrid_cache TO regress_stranger;
GRANT ALL ON t TO regress_stranger;
SET ROLE regress_stranger;
CALL attach($$'t', 'json', 'k:{id}'$$);
CALL bad_trigger($$'json', 'key=k:{id}'$$);
SELECT * FROM hybrid_cache.mapping;
SELECT * FROM hybrid_cache.leftover;
SELECT * FROM hybrid_cache.owed;
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hybrid_cache TO regress_stranger;
SET ROLE regress_stranger;
CALL attach($$'t', 'json', 'k:{id}'$$);
CALL bad_trigger($$'json', 'key=k:{id}'$$);
CALL try($$SELECT hybrid_cache.detach('p', 'p_json')$$);
RESET ROLE;
DROP OWNED BY regress_stranger;
DROP ROLE regress_stranger;

-- two mappings of one entry
SELECT hybrid_cache.attach('t', 'json', 'k:{id}');
SELECT hybrid_cache.attach('t', 'geo', 'places', member => 'town:{id}', longitude => 'lng', latitude => 'lat');
SELECT hybrid_cache.attach('t', 'invalidate', 'page:{id}');
CREATE TABLE u (id int PRIMARY KEY, name text, score int);
CALL attach($$'t', 'json', 'k:{id}', name => 'x'$$);
CALL attach($$'u', 'hash', 'k:{name}'$$);
CALL attach($$'u', 'invalidate', 'k:{id}'$$);
CALL attach($$'u', 'json', 'page:{id}'$$);
CALL attach($$'u', 'zset', 'places', member => 'town:{name}', score => 'score'$$);
CALL attach($$'u', 'set', 'places', member => 'village:{name}'$$);
CALL try($$CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON u FOR EACH ROW EXECUTE FUNCTION hybrid_cache.write_through('json', 'key=k:{id}')$$);
-- what cannot meet may live together
CALL attach($$'u', 'zset', 'places', member => 'village:{name}', score => 'score'$$);
CALL attach($$'u', 'invalidate', 'page:{name}'$$);
CALL attach($$'u', 'json', 'k:{id}:more'$$);

-- nothing is left of all that, and everything works on
SELECT relation, name FROM hybrid_cache.mapping ORDER BY relation::text, name;
SELECT tgname FROM pg_trigger WHERE tgrelid IN ('u'::regclass, 'f'::regclass, 'temporary'::regclass, 'v'::regclass) ORDER BY 1;
INSERT INTO t VALUES (2, 'two');
SELECT hybrid_cache.wait_for_sync('30s'), redis_get('k:2')::jsonb ->> 'name' AS name;

SET client_min_messages = error;
DROP EXTENSION hybrid_cache CASCADE;
