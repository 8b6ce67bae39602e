-- Settling adds the answer to a key's row, which makes it more than twice as long, and the gateway's id to a payment's.
-- Where many rows of a page are settled in one group, none of their old versions can be reused yet, so the page must have
-- room for both versions of all of its rows: only then is every settle a HOT update, which touches no index. At 50 and 70,
-- as it was, 46 % and 39 % of the settles at 128 and 512 connections were HOT, and a key took 2,359 bytes of the table; at
-- 25 and 45 all were, and it took 1,677 (make bench shows the share; tests/it/hot_path.rs keeps it).
alter table idempotency_keys set (fillfactor = 25);
alter table payments set (fillfactor = 45);
