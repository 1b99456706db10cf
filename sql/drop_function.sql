-- name: drop_function
-- description: Removes a trigger function, and with it every trigger that calls it.
-- version: 1
DROP FUNCTION IF EXISTS {function}() CASCADE;
