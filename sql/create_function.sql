-- name: create_function
-- description: Makes or replaces one trigger function. It runs with the writer's rights, which suffice: it reads only
--   what the statement wrote, and names everything in full, so a caller's search_path has no say.
-- version: 1
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS {body};
