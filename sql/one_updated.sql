-- name: one_updated
-- description: Reads the only row that an UPDATE wrote: what to tell of it, NULL where its key is not known, and whether
--   nothing changed in it. See one_written. FOUND is false if there is no row, or an old one without a new one (moved
--   into a partition whose own trigger refused it). Neither row sees the other's names, which may be those of columns.
-- version: 2
    SELECT n.keys, o.keys, o.whole OPERATOR(pg_catalog.*=) n.whole
      INTO keys, before, unchanged
      FROM (SELECT one.*
              FROM (SELECT {missing}) missing,
                   LATERAL (SELECT {keys} AS keys,
                                   (r.*)::pg_catalog.record AS whole
                              FROM {old_rows} r) one) o,
           (SELECT one.*
              FROM (SELECT {missing}) missing,
                   LATERAL (SELECT {keys} AS keys,
                                   (r.*)::pg_catalog.record AS whole
                              FROM {new_rows} r) one) n
     LIMIT 1;
    IF unchanged THEN
      RETURN NULL;
    END IF;
    IF before OPERATOR(pg_catalog.<>) keys THEN
      keys := keys OPERATOR(pg_catalog.||) '],[' OPERATOR(pg_catalog.||) before;
    END IF;
