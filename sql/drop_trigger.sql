-- name: drop_trigger
-- description: Removes one trigger, for instance from a partition that was detached.
-- version: 1
DROP TRIGGER IF EXISTS {trigger} ON {table};
