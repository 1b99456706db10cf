-- name: catalog
-- description: What the catalog knows of the wanted tables, with their partitions and inheriting tables, and of all
--   functions of ours with the triggers that call them. One row for each, as JSON. Takes the wanted tables' quoted
--   names and the schemas that they name.
-- version: 1
WITH RECURSIVE wanted AS (
  SELECT name, position, pg_catalog.to_regclass(name) AS id
    FROM pg_catalog.unnest(%(tables)s::text[]) WITH ORDINALITY AS t (name, position)
), family AS (
  SELECT position, id AS id, 0 AS depth FROM wanted WHERE id IS NOT NULL
  UNION
  SELECT family.position, inhrelid, depth + 1
    FROM family JOIN pg_catalog.pg_inherits ON inhparent = family.id
), members AS (
  SELECT position, c.oid AS id, min(depth) AS depth, nspname AS schema, relname AS name, relkind AS kind,
         relispartition AS partition
    FROM family JOIN pg_catalog.pg_class c ON c.oid = family.id
         JOIN pg_catalog.pg_namespace s ON s.oid = relnamespace
   GROUP BY position, c.oid, nspname, relname, relkind, relispartition
)
SELECT pg_catalog.jsonb_build_object(
         'kind', 'table',
         'position', position - 1,
         'members', (
           SELECT pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                      'id', id::oid::bigint, 'schema', schema, 'name', name, 'kind', kind, 'partition', partition
                    ) ORDER BY depth, schema, name)
             FROM members WHERE members.position = wanted.position
         ),
         'columns', (
           SELECT pg_catalog.jsonb_agg(attname) FROM pg_catalog.pg_attribute
            WHERE attrelid = wanted.id AND attnum > 0 AND NOT attisdropped
         ),
         'has_key', EXISTS (
           SELECT FROM pg_catalog.pg_index
            WHERE indrelid = wanted.id AND indisunique AND indpred IS NULL AND indexprs IS NULL
         )
       )::text
  FROM wanted
 WHERE id IS NOT NULL
UNION ALL
SELECT pg_catalog.jsonb_build_object(
         'kind', 'function',
         'schema', nspname,
         'name', proname,
         'body', prosrc,
         'plain', prosecdef IS FALSE AND proconfig IS NULL AND lanname = 'plpgsql',
         'here', nspname = ANY (pg_catalog.current_schemas(false)) OR nspname = ANY (%(schemas)s::text[]),
         'triggers', (
           SELECT pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                      'name', tgname, 'table_id', tgrelid::bigint, 'schema', n.nspname, 'table', relname,
                      'enabled', tgenabled, 'type', tgtype, 'old', tgoldtable, 'new', tgnewtable,
                      'plain', tgnargs = 0 AND tgattr = '' AND tgqual IS NULL
                    ) ORDER BY n.nspname, relname, tgname)
             FROM pg_catalog.pg_trigger
                  JOIN pg_catalog.pg_class c ON c.oid = tgrelid
                  JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
            WHERE tgfoid = p.oid AND tgparentid = 0
         )
       )::text
  FROM pg_catalog.pg_proc p
       JOIN pg_catalog.pg_namespace s ON s.oid = pronamespace
       JOIN pg_catalog.pg_language l ON l.oid = prolang
 WHERE prorettype = 'pg_catalog.trigger'::pg_catalog.regtype AND proname ~ %(ours)s
