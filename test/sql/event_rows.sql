--
-- events and timers of rows that are stored or changed in less usual ways:
-- TOASTed and generated columns, MERGE, COPY, partitions
--
CREATE EXTENSION hybrid_cache;

-- a value that the UPDATE leaves where it is, outside of the row
CREATE TABLE doc (id int PRIMARY KEY, n int, body text, twice int GENERATED ALWAYS AS (n * 2) STORED);
ALTER TABLE doc ALTER COLUMN body SET STORAGE EXTERNAL;
SELECT hybrid_cache.attach('doc', 'stream', 'docs');
INSERT INTO doc VALUES (1, 1, repeat('x', 20000));
SELECT pg_relation_size(reltoastrelid) > 0 AS toasted FROM pg_class WHERE oid = 'doc'::regclass;
UPDATE doc SET n = 2 WHERE id = 1;
MERGE INTO doc USING (VALUES (1, 3), (2, 20)) AS v (id, n) ON doc.id = v.id
WHEN MATCHED THEN UPDATE SET n = v.n
WHEN NOT MATCHED THEN INSERT (id, n) VALUES (v.id, v.n);
MERGE INTO doc USING (VALUES (1)) AS v (id) ON doc.id = v.id WHEN MATCHED THEN DELETE;
SELECT hybrid_cache.wait_for_sync(NULL);
SELECT fields ->> 'op' AS op, d ->> 'id' AS id, d ->> 'n' AS n, d ->> 'twice' AS twice, length(d ->> 'body') AS body,
	o ->> 'n' AS old_n, o ->> 'twice' AS old_twice, length(o ->> 'body') AS old_body
FROM redis_xrange('docs') WITH ORDINALITY r, jsonb((fields ->> 'data')) d, jsonb((fields ->> 'old')) o
ORDER BY ordinality;

-- pending events of a partitioned table: one for each row, wherever it is
CREATE TABLE task (id int, part int, due timestamptz, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE task1 PARTITION OF task FOR VALUES IN (1);
CREATE TABLE task2 PARTITION OF task FOR VALUES IN (2);
SELECT hybrid_cache.attach('task', 'timer', 'due', member => '{id}', expires_at => 'due');
CREATE FUNCTION pending(stream text) RETURNS TABLE (member text, at timestamptz) LANGUAGE sql AS $$
	SELECT member, to_timestamp(score / 1000)
	FROM hybrid_cache.wait_for_sync(NULL), redis_zrange('hybrid_cache:timers:{' || stream || '}', 0, -1)
$$;
SET timezone = 'UTC';
SET datestyle = 'ISO';
COPY task FROM stdin;
1	1	2100-01-01 00:00:00+00
2	1	2100-01-02 00:00:00+00
3	2	2100-01-03 00:00:00+00
4	2	\N
\.
SELECT * FROM pending('due');
-- to the other partition; with another time; with another key
UPDATE task SET part = 2 WHERE id = 1;
UPDATE task SET part = 1, due = '2100-01-30 00:00+00' WHERE id = 3;
UPDATE task SET part = 2, id = 20 WHERE id = 2;
SELECT * FROM pending('due');
MERGE INTO task USING (VALUES (1, '2100-02-01 00:00+00'::timestamptz), (4, '2100-02-04 00:00+00')) AS v (id, due) ON task.id = v.id
WHEN MATCHED THEN UPDATE SET due = v.due;
SELECT * FROM pending('due');
TRUNCATE task2;
SELECT * FROM pending('due');
-- keys that change places within a statement
CREATE TABLE swap (id int PRIMARY KEY DEFERRABLE, due timestamptz);
SELECT hybrid_cache.attach('swap', 'timer', 'swapped', member => '{id}', expires_at => 'due');
INSERT INTO swap VALUES (1, '2101-01-01 00:00+00'), (2, '2102-01-01 00:00+00'), (3, '2103-01-01 00:00+00');
UPDATE swap SET id = id + 1;
SELECT * FROM pending('swapped');
UPDATE swap SET id = 6 - id WHERE id IN (2, 4);
SELECT * FROM pending('swapped');
SELECT checked, missing, stale, orphaned FROM hybrid_cache.reconcile('task', 'task_timer');
SELECT checked, missing, stale, orphaned FROM hybrid_cache.reconcile('swap', 'swap_timer');
