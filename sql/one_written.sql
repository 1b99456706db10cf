-- name: one_written
-- description: Reads the only row that an INSERT or DELETE wrote: what to tell of it, NULL where its key is not known.
--   FOUND is false if there is no row. Columns are looked up without a table's name, so one that was dropped or renamed
--   since is found as a NULL in "missing" and does not make the writer's statement fail. Each function and operator in
--   here costs every writer, reached or not: a query on transition tables is made ready anew for each statement.
-- version: 2
    SELECT n.keys
      INTO keys
      FROM (SELECT {missing}) missing,
           LATERAL (SELECT {keys} AS keys FROM {rows} r) n
     LIMIT 1;
