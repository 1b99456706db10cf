-- name: grant
-- description: Gives a role rights to one database, schema, table or sequence. `manage.py ddp_grants` writes one for
--   each that the project needs.
-- version: 1
GRANT {privileges} ON {kind} {object} TO {role};
