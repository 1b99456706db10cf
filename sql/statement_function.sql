-- name: statement_function
-- description: Body of a statement-level trigger function: tells the keys of the rows that one INSERT, UPDATE
--   or DELETE wrote, in as few notifications as hold them, or that too many were written to tell.
-- version: 2
-- Notifies {channel_name} which rows a statement wrote.
-- Made by "manage.py ddp_install_triggers"; its --check says whether this text is up to date.
#variable_conflict use_column
DECLARE
  keys pg_catalog.text;    -- what to tell of the only row
  before pg_catalog.text;  -- of the row as it was
  unchanged pg_catalog.bool;
BEGIN
  PERFORM FROM {counted} OFFSET 1 LIMIT 1;  -- without the limit all are read, and kept in memory
  IF NOT FOUND THEN
    -- Nearly every statement writes one row.
{one}
    IF FOUND THEN
      -- As a condition: PERFORM would be one more query.
      IF pg_catalog.pg_notify({channel}, {payload_of_one}) IS NOT NULL THEN
        RETURN NULL;
      END IF;
    END IF;
    PERFORM FROM {counted};
    IF NOT FOUND THEN
      RETURN NULL;
    END IF;
  END IF;
  DECLARE
    item pg_catalog.record;
    written pg_catalog.text[];   -- rows as JSON arrays: as they are now, or were, if deleted
    replaced pg_catalog.text[];  -- as they were, where a key column is another now
    size pg_catalog.int4;
    used pg_catalog.int4 := 0;   -- bytes that both take up in a notification
  BEGIN
    PERFORM FROM {counted} OFFSET {bulk_threshold} LIMIT 1;
    IF FOUND THEN
      PERFORM pg_catalog.pg_notify({channel}, {bulk});
      RETURN NULL;
    END IF;
    FOR item IN
{every}
    LOOP
      size := pg_catalog.octet_length(pg_catalog.concat_ws(',', item.written, item.replaced));
      size := size OPERATOR(pg_catalog.+) 1;
      -- Neither is there where the key is not known.
      IF COALESCE(item.written, item.replaced) IS NULL OR size OPERATOR(pg_catalog.>) {room} THEN
        PERFORM pg_catalog.pg_notify({channel}, {bulk});
        RETURN NULL;
      END IF;
      used := used OPERATOR(pg_catalog.+) size;
      IF used OPERATOR(pg_catalog.>) {room} THEN
        PERFORM pg_catalog.pg_notify({channel}, {payload});
        written := NULL;
        replaced := NULL;
        used := size;
      END IF;
      written := pg_catalog.array_append(written, item.written);
      replaced := pg_catalog.array_append(replaced, item.replaced);
    END LOOP;
    IF used OPERATOR(pg_catalog.>) 0 THEN
      PERFORM pg_catalog.pg_notify({channel}, {payload});
    END IF;
  END;
  RETURN NULL;
END
