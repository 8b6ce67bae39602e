-- As in migration 10, and in a transaction of its own: whoever holds the locks of two tables may wait for a payment that waits for it.
-- Words are checked where the row is read. Whatever concerns money stays.
do $$
begin
    alter table payments drop constraint payments_state;
    alter table payments drop constraint payments_capture_method;
    alter table payments drop constraint payments_pending;
    alter table payments add constraint payments_pending check (
        (pending_operation is null) = (pending_amount_minor is null)
    ) not valid;
end
$$;
