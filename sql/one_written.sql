-- name: one_written
-- description: The first row that an INSERT or DELETE wrote, as a payload of its own, and whether there are more.
--   The payload is NULL where the key is not known. Columns are looked up without a table's name, so one that
--   was dropped or renamed since is found as a NULL in "missing" and does not make the writer's statement fail.
-- version: 1
  SELECT {several} AS several,
         true AS changed,
         CASE WHEN n.keys IS NOT NULL THEN pg_catalog.concat({head}, n.keys, ']]') END AS payload
    INTO item
    FROM (SELECT {missing}) missing,
         LATERAL (SELECT {keys} AS keys
                        FROM {rows} r) n
   LIMIT 1;
