-- name: relations
-- description: Where the wanted tables are, each with its partitions and inheriting tables, and the sequences that
--   defaults of its columns take numbers from. (An identity column takes them from its sequence with nobody's rights.)
--   Also finds tables in schemas that the role may not use, which to_regclass() does not.
-- version: 1
WITH RECURSIVE wanted AS (
  SELECT position, (
           SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = relnamespace
            WHERE relname = name AND nspname = coalesce(schema, nspname) AND relkind IN ('r', 'p', 'f', 'v', 'm')
            ORDER BY array_position(pg_catalog.string_to_array(
                       pg_catalog.replace(pg_catalog.current_setting('search_path'), ' ', ''), ','), nspname::text)
            LIMIT 1
         ) AS id
    FROM ROWS FROM (pg_catalog.unnest(%(schemas)s::text[]), pg_catalog.unnest(%(names)s::text[]))
         WITH ORDINALITY AS t (schema, name, position)
), family AS (
  SELECT position, id, 0 AS depth FROM wanted WHERE id IS NOT NULL
  UNION
  SELECT family.position, inhrelid, depth + 1 FROM family JOIN pg_catalog.pg_inherits ON inhparent = family.id
)
SELECT (position - 1)::int, nspname, relname, depth > 0,
       pg_catalog.has_schema_privilege(s.oid, 'USAGE'),
       pg_catalog.has_any_column_privilege(c.oid, 'SELECT'),
       ARRAY(SELECT q.relname
               FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class q ON q.oid = d.objid AND q.relkind = 'S'
              WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid
                    AND d.refobjid = c.oid AND d.deptype = 'a'
              ORDER BY 1)::text[]
  FROM family
       JOIN pg_catalog.pg_class c ON c.oid = family.id
       JOIN pg_catalog.pg_namespace s ON s.oid = relnamespace
 ORDER BY position, depth, nspname, relname
