-- name: row_function
-- description: Body of a row-level trigger function, for tables fed by logical replication, whose apply worker
--   fires no statement-level triggers: tells the key of each row that is inserted, updated or deleted. A session
--   that is older than a change of a key's type can't read the row any more; unlike in a statement-level function,
--   the plan does not follow the table. The exception block, a subtransaction, keeps that from stopping replication.
-- version: 2
-- Notifies {channel_name} which row was written.
-- Made by "manage.py ddp_install_triggers --for-each row"; its --check says whether this text is up to date.
#variable_conflict use_column
DECLARE
  keys pg_catalog.text;    -- what to tell of the row
  before pg_catalog.text;  -- of the row as it was
  unchanged pg_catalog.bool;
BEGIN
{one}
  PERFORM pg_catalog.pg_notify({channel}, {payload_of_one});
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  PERFORM pg_catalog.pg_notify({channel}, {bulk});
  RAISE WARNING 'trigger_ddp can''t tell which row was written: %', SQLERRM;
  RETURN NULL;
END
