-- name: every_written
-- description: All rows that an INSERT or DELETE wrote. See one_written for "missing".
-- version: 1
        SELECT n.keys AS written, NULL::pg_catalog.text AS replaced
          FROM (SELECT {missing}) missing,
               LATERAL (SELECT {keys} AS keys
                              FROM {rows} r) n
