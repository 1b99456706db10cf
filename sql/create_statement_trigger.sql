-- name: create_statement_trigger
-- description: Makes or replaces the trigger that sees a whole INSERT, UPDATE or DELETE.
-- version: 1
CREATE OR REPLACE TRIGGER {trigger} AFTER {event} ON {table}
REFERENCING {transition_tables} FOR EACH STATEMENT EXECUTE FUNCTION {function}();
