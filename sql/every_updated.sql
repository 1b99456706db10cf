-- name: every_updated
-- description: All rows that an UPDATE changed, and what they were where a key column is another now. The plan is
--   kept from the first call, which mostly is for a few rows. A FULL JOIN on texts can only be planned as a hash
--   or merge join, so unlike an inner join it does not become a quadratic nested loop for the next thousand rows.
--   Neither side sees the other's names, which may be those of columns.
-- version: 2
        SELECT n.keys AS written,
               CASE WHEN (o.keys OPERATOR(pg_catalog.<>) n.keys) IS NOT FALSE THEN o.keys END AS replaced
          FROM (SELECT one.*
                  FROM (SELECT {missing}) missing,
                       LATERAL (SELECT {keys} AS keys,
                                       {key_texts},
                                       (r.*)::pg_catalog.record AS whole
                                  FROM {old_rows} r) one) o
               FULL JOIN
               (SELECT one.*
                  FROM (SELECT {missing}) missing,
                       LATERAL (SELECT {keys} AS keys,
                                       {key_texts},
                                       (r.*)::pg_catalog.record AS whole
                                  FROM {new_rows} r) one) n
               ON {same_key}
         WHERE (o.whole OPERATOR(pg_catalog.*<>) n.whole) IS NOT FALSE
