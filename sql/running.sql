-- name: running
-- description: The transactions that run now, prepared ones too, by names that none has again. Every role may ask.
-- version: 1
SELECT DISTINCT virtualtransaction FROM pg_catalog.pg_locks
 WHERE locktype IN ('virtualxid', 'transactionid') AND granted
