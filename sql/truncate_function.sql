-- name: truncate_function
-- description: Body of the trigger function for TRUNCATE, which has no rows to tell.
-- version: 1
-- Notifies {channel_name} that the table was truncated.
-- Made by "manage.py ddp_install_triggers"; its --check says whether this text is up to date.
BEGIN
  PERFORM pg_catalog.pg_notify({channel}, {truncated});
  RETURN NULL;
END
