-- name: create_truncate_trigger
-- description: Makes or replaces the trigger that sees a TRUNCATE.
-- version: 1
CREATE OR REPLACE TRIGGER {trigger} AFTER TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION {function}();
