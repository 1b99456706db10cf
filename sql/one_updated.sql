-- name: one_updated
-- description: Tells the row that an UPDATE wrote, if it is the only one and differs from what it was; says whether
--   there are several, and whether the key is known. See one_written. An old row without a new one (moved into a
--   partition whose own trigger refused it) has no known key.
-- version: 1
  SELECT CASE WHEN {several} THEN true
              WHEN (o.whole OPERATOR(pg_catalog.*<>) n.whole) IS NOT FALSE
              THEN pg_catalog.pg_notify({channel}, CASE
                     WHEN o.keys OPERATOR(pg_catalog.=) n.keys
                          AND pg_catalog.octet_length(n.keys) OPERATOR(pg_catalog.<=) {room}
                     THEN {head} OPERATOR(pg_catalog.||) n.keys OPERATOR(pg_catalog.||) ']]'
                     WHEN pg_catalog.octet_length(n.keys OPERATOR(pg_catalog.||) o.keys)
                          OPERATOR(pg_catalog.<=) {room}
                     THEN {head} OPERATOR(pg_catalog.||) n.keys OPERATOR(pg_catalog.||) '],['
                          OPERATOR(pg_catalog.||) o.keys OPERATOR(pg_catalog.||) ']]'
                     ELSE {bulk} END) IS NULL
         END,
         n.keys IS NOT NULL
    INTO several, known
    FROM (SELECT {missing}) missing,
         LATERAL (SELECT {keys} AS keys,
                         (r.*)::pg_catalog.record AS whole
                    FROM {old_rows} r) o
         LEFT JOIN LATERAL
         (SELECT {keys} AS keys,
                 (r.*)::pg_catalog.record AS whole
            FROM {new_rows} r) n ON true
   LIMIT 1;
