-- name: comment_function
-- description: Says in \df+ what a trigger function is for, and of which version it is.
-- version: 1
COMMENT ON FUNCTION {function}() IS {comment};
