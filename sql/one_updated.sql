-- name: one_updated
-- description: The first row that an UPDATE wrote, as a payload of its own, whether it differs from what it was,
--   and whether there are more rows. See one_written for "missing". An old row without a new one (moved into
--   a partition whose own trigger refused it) has no known key.
-- version: 1
  SELECT {several} AS several,
         (o.whole OPERATOR(pg_catalog.*<>) n.whole) IS NOT FALSE AS changed,
         CASE WHEN n.keys IS NOT NULL THEN pg_catalog.concat({head}, n.keys,
           CASE WHEN o.keys OPERATOR(pg_catalog.<>) n.keys THEN pg_catalog.concat('],[', o.keys) END,
           ']]') END AS payload
    INTO item
    FROM (SELECT {missing}) missing,
         LATERAL (SELECT {keys} AS keys,
                         (r.*)::pg_catalog.record AS whole
                    FROM {old_rows} r) o
         LEFT JOIN LATERAL
         (SELECT {keys} AS keys,
                 (r.*)::pg_catalog.record AS whole
            FROM {new_rows} r) n ON true
   LIMIT 1;
