-- PostgreSQL reads and compiles the text of every CHECK of a table again in each statement that writes to it: more than half of the
-- time of a statement for one key (docs/DESIGN.md, "Why do the hot tables have few CHECKs?"). What remains ties columns to the state.
-- Lengths, the attempt and the other columns of an answer are checked where the engine makes and reads them.
--
-- NOT VALID spares the scan of the whole table under a lock: every row met the stricter constraint.
do $$
begin
    alter table idempotency_keys drop constraint if exists idempotency_keys_scope_length;
    alter table idempotency_keys drop constraint if exists idempotency_keys_fingerprint_length;
    alter table idempotency_keys drop constraint if exists idempotency_keys_attempt_positive;
    alter table idempotency_keys drop constraint if exists idempotency_keys_state_columns;
    alter table idempotency_keys add constraint idempotency_keys_state_columns check (
        (state = 'PROCESSING') = (lease_expires_at is not null)
        and num_nonnulls(lease_expires_at, response_body) = 1
    ) not valid;
end
$$;
