-- What a payment keeps of its gateway: the account that it began with, what its card is saved for, and the one attempt at a
-- capture or cancel that is under way. And refunds that the gateway has accepted and not finished.
do $$
begin
    alter table payments
        add column gateway_account text collate "C",
        add column gateway_customer_id text,
        add column off_session boolean not null default false,
        add column pending_attempt_id text collate "C",
        add column cancellation_reason text,
        add column failure_advice_code text,
        add column failure_network_advice_code text,
        add column failure_network_decline_code text;

    alter table refunds
        drop constraint refunds_state,
        add constraint refunds_state check (state in ('PROCESSING', 'PENDING', 'SUCCESS', 'FAILED')),
        add column next_look_at timestamptz,
        add column looks integer not null default 0;

    -- The worker's way in. A refund is pending for minutes or days, and few are.
    create index refunds_pending on refunds (next_look_at) where state = 'PENDING';

    alter table merchants
        add column stripe_account text collate "C";

    comment on column payments.gateway_account is 'The merchant''s own account at the gateway when the payment began; null for the account of the API key.';
    comment on column payments.gateway_customer_id is 'The gateway''s own customer that the card is saved for.';
    comment on column payments.off_session is 'The payer was not there to authenticate.';
    comment on column payments.pending_attempt_id is 'The gateway''s idempotency key of the capture or cancel under way.';
    comment on column payments.cancellation_reason is 'Why what was held was let go, where the gateway did it.';
    comment on column refunds.next_look_at is 'When a pending refund is looked at again.';
    comment on column refunds.looks is 'How often a pending refund was looked at: the pauses grow.';
end
$$;
