-- name: on_descendants
-- description: Body of a DO statement in a migration: makes a table's triggers on its partitions and inheriting tables
--   too, whatever they are where the migration runs. PostgreSQL itself clones row-level triggers to partitions.
-- version: 1
DECLARE
  below pg_catalog.regclass;
  is_partition pg_catalog.bool;
BEGIN
  FOR below, is_partition IN
    WITH RECURSIVE family AS (
      SELECT {table}::pg_catalog.regclass::pg_catalog.oid AS id
      UNION
      SELECT inhrelid FROM family JOIN pg_catalog.pg_inherits ON inhparent = family.id
    )
    SELECT c.oid, relispartition
      FROM family JOIN pg_catalog.pg_class c ON c.oid = family.id
     WHERE relkind IN ('r', 'p') AND c.oid <> {table}::pg_catalog.regclass
     ORDER BY c.oid
  LOOP
{on_all}
    IF NOT is_partition THEN
{unless_partition}
    END IF;
  END LOOP;
END
