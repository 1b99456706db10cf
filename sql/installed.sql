-- name: installed
-- description: One row for each of the wanted tables that exists: its position among them, and two texts. The first is
--   the same at two looks just if nothing was done in between to its triggers, to their functions and to which tables
--   are below it: a row of the catalog that is written again has another xmin, so that a trigger dropped and made again,
--   or disabled and enabled, shows. The second is the same while its columns and unique indexes are.
-- version: 1
WITH RECURSIVE wanted AS (
  SELECT position, pg_catalog.to_regclass(name)::pg_catalog.oid AS id
    FROM pg_catalog.unnest(%(tables)s::text[]) WITH ORDINALITY AS t (name, position)
), family AS (
  SELECT position, id, NULL::text AS since FROM wanted
  UNION
  SELECT family.position, inhrelid, i.xmin::text
    FROM family JOIN pg_catalog.pg_inherits i ON inhparent = family.id
)
SELECT (position - 1)::int,
       (SELECT pg_catalog.string_agg(
                 pg_catalog.concat_ws(' ', family.id, since, t.oid, t.xmin, p.oid, p.xmin), ','
                 ORDER BY family.id, since, t.oid)
          FROM family
               LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid = family.id AND t.tgname ~ %(ours)s
               LEFT JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
         WHERE family.position = wanted.position),
       pg_catalog.concat(
         (SELECT pg_catalog.string_agg(
                   pg_catalog.concat_ws(' ', attname, atttypid, atttypmod, attcollation), ',' ORDER BY attnum)
            FROM pg_catalog.pg_attribute WHERE attrelid = wanted.id AND attnum > 0 AND NOT attisdropped),
         ' ',
         (SELECT pg_catalog.string_agg(indexrelid::text, ',' ORDER BY indexrelid)
            FROM pg_catalog.pg_index WHERE indrelid = wanted.id AND indisunique))
  FROM wanted
 WHERE id IS NOT NULL
