-- name: one_updated
-- description: Reads the only row that an UPDATE wrote: what to tell of it, and of the row as it was where a key is
--   another now; NULL where the key is not known. Returns if there is no such row, or nothing changed in it. See
--   one_written. An old row without a new one (moved into a partition whose own trigger refused it) has no known key.
-- version: 2
    SELECT n.keys, o.whole OPERATOR(pg_catalog.*=) n.whole, o.key OPERATOR(pg_catalog.*=) n.key
      INTO keys, unchanged, stayed
      FROM (SELECT {missing}) missing,
           LATERAL (SELECT ROW({key}) AS key,
                           (r.*)::pg_catalog.record AS whole
                      FROM {old_rows} r) o
           LEFT JOIN LATERAL
           (SELECT {keys} AS keys,
                   ROW({key}) AS key,
                   (r.*)::pg_catalog.record AS whole
              FROM {new_rows} r) n ON true
     LIMIT 1;
    IF unchanged OR NOT FOUND THEN
      RETURN NULL;
    END IF;
    IF NOT stayed THEN
      SELECT o.keys
        INTO before
        FROM (SELECT {missing}) missing,
             LATERAL (SELECT {keys} AS keys FROM {old_rows} r) o
       LIMIT 1;
      keys := keys OPERATOR(pg_catalog.||) '],[' OPERATOR(pg_catalog.||) before;
    END IF;
