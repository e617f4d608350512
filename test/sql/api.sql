--
-- every object of the extension: what it is called with, what it promises the
-- planner, who may use it, whether it is described
--
CREATE VIEW api AS
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS object,
	CASE d.classid
	WHEN 'pg_proc'::regclass THEN (
		SELECT concat_ws(' ', '(' || pg_get_function_arguments(oid) || ') RETURNS ' || pg_get_function_result(oid),
			CASE provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END,
			CASE WHEN proisstrict THEN 'STRICT' END,
			CASE proparallel WHEN 'u' THEN 'PARALLEL UNSAFE' WHEN 'r' THEN 'PARALLEL RESTRICTED' ELSE 'PARALLEL SAFE' END,
			CASE WHEN prosecdef THEN 'SECURITY DEFINER' END,
			'COST ' || procost, CASE WHEN proretset THEN 'ROWS ' || prorows END,
			CASE WHEN prosupport <> 0 THEN 'SUPPORT ' || (SELECT proname FROM pg_proc WHERE oid = p.prosupport) END)
		FROM pg_proc p WHERE oid = d.objid)
	WHEN 'pg_class'::regclass THEN (
		SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) ||
			CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END, ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = d.objid AND attnum > 0 AND
			(SELECT relkind FROM pg_class WHERE oid = d.objid) <> 'S')
	END AS definition,
	CASE d.classid
	WHEN 'pg_proc'::regclass THEN
		(SELECT has_function_privilege('regress_nobody', d.objid, 'EXECUTE'))
	WHEN 'pg_class'::regclass THEN
		(SELECT CASE WHEN relkind = 'S' THEN has_sequence_privilege('regress_nobody', d.objid, 'USAGE, SELECT, UPDATE')
			ELSE has_table_privilege('regress_nobody', d.objid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') END
		FROM pg_class WHERE oid = d.objid)
	END AS public,
	obj_description(d.objid, d.classid::regclass::name) IS NOT NULL AS commented
FROM pg_depend d
WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'hybrid_cache')
	AND d.classid NOT IN ('pg_type'::regclass, 'pg_namespace'::regclass)
ORDER BY d.classid::regclass::text, pg_describe_object(d.classid, d.objid, d.objsubid) COLLATE "C";
CREATE ROLE regress_nobody;

CREATE EXTENSION hybrid_cache SCHEMA public;
\pset format unaligned
\pset tuples_only on
SELECT concat_ws(E'\n  ', object, definition, CASE WHEN public THEN 'PUBLIC MAY USE IT' END,
	CASE WHEN NOT commented AND object NOT LIKE 'sequence %' THEN 'NO COMMENT' END) FROM api;
\pset format aligned
\pset tuples_only off
CREATE TABLE first AS SELECT * FROM api;
SELECT has_schema_privilege('regress_nobody', 'hybrid_cache', 'USAGE') AS schema_usage, obj_description('hybrid_cache'::regnamespace);
SELECT extconfig::regclass[], extcondition FROM pg_extension WHERE extname = 'hybrid_cache';
SELECT name, vartype, context, boot_val, unit, min_val, max_val, short_desc
FROM pg_settings WHERE name LIKE 'hybrid\_cache.%' AND name <> 'hybrid_cache.redis_url' ORDER BY 1;
DROP EXTENSION hybrid_cache;
-- its own schema went with it
SELECT to_regnamespace('hybrid_cache');

-- everything in one schema
CREATE SCHEMA hybrid_cache;
CREATE EXTENSION hybrid_cache SCHEMA hybrid_cache;
SELECT object, definition, public, commented FROM api
EXCEPT SELECT regexp_replace(object, 'function redis_', 'function hybrid_cache.redis_'), definition, public, commented FROM first;
SELECT count(*) = (SELECT count(*) FROM first) AS the_same_number FROM api;
DROP EXTENSION hybrid_cache;
DROP SCHEMA hybrid_cache;

-- in a schema that is not in the search_path, and cannot be moved
CREATE SCHEMA "redis commands";
CREATE EXTENSION hybrid_cache SCHEMA "redis commands";
SELECT count(*) = (SELECT count(*) FROM first) AS the_same_number FROM api;
SELECT "redis commands".redis_ping();
ALTER EXTENSION hybrid_cache SET SCHEMA public;
DROP EXTENSION hybrid_cache;
DROP SCHEMA "redis commands";
DROP ROLE regress_nobody;
