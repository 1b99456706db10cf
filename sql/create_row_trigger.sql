-- name: create_row_trigger
-- description: Makes or replaces the trigger that sees each row by itself.
-- version: 1
CREATE OR REPLACE TRIGGER {trigger} AFTER {event} ON {table}
FOR EACH ROW EXECUTE FUNCTION {function}();
