-- name: one_written
-- description: Tells the row that an INSERT or DELETE wrote, if it is the only one; says whether there are several, and
--   whether the key is known. Done within one query, since each further expression costs every writer. Columns are
--   looked up without a table's name, so one that was dropped or renamed since is found as a NULL in "missing" and
--   does not make the writer's statement fail.
-- version: 1
  SELECT CASE WHEN {several} THEN true
              ELSE pg_catalog.pg_notify({channel}, CASE
                     WHEN pg_catalog.octet_length(n.keys) OPERATOR(pg_catalog.<=) {room}
                     THEN {head} OPERATOR(pg_catalog.||) n.keys OPERATOR(pg_catalog.||) ']]'
                     ELSE {bulk} END) IS NULL
         END,
         n.keys IS NOT NULL
    INTO several, known
    FROM (SELECT {missing}) missing,
         LATERAL (SELECT {keys} AS keys FROM {rows} r) n
   LIMIT 1;
