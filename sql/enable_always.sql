-- name: enable_always
-- description: Makes a trigger fire for an apply worker too.
-- version: 1
ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger};
