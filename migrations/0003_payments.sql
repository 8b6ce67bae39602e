create table payments (
    merchant_id            text collate "C" not null,
    payment_id             text collate "C" not null,
    idempotency_key        text collate "C" not null,
    state                  text collate "C" not null,
    currency               text collate "C" not null,
    amount_minor           bigint not null,
    amount_captured_minor  bigint not null default 0,
    amount_refunded_minor  bigint not null default 0,
    amount_refunding_minor bigint not null default 0,
    capture_method         text collate "C" not null,
    pending_operation      text collate "C",
    pending_amount_minor   bigint,
    gateway_type           text collate "C" not null,
    gateway_token          text,
    gateway_transaction_id text,
    card_brand             text,
    card_last4             text,
    card_expiry_month      smallint,
    card_expiry_year       smallint,
    card_holder_name       text,
    customer_id            text,
    customer_email         text,
    customer_name          text,
    description            text,
    metadata               jsonb not null,
    failure_code           text,
    failure_message        text,
    created_at             timestamptz not null,
    updated_at             timestamptz not null,
    constraint payments_pkey primary key (merchant_id, payment_id),
    constraint payments_idempotency_key unique (merchant_id, idempotency_key),
    constraint payments_state check (state in (
        'PROCESSING', 'SUCCESS', 'AUTHORIZED', 'FAILED', 'CANCELED', 'PARTIALLY_REFUNDED', 'REFUNDED'
    )),
    constraint payments_capture_method check (capture_method in ('AUTOMATIC', 'MANUAL')),
    constraint payments_amounts check (
        amount_minor > 0
        and amount_captured_minor between 0 and amount_minor
        and amount_refunded_minor >= 0
        and amount_refunding_minor >= 0
        and amount_refunded_minor + amount_refunding_minor <= amount_captured_minor
    ),
    constraint payments_pending check (
        (pending_operation is null) = (pending_amount_minor is null)
        and (pending_operation is null or pending_operation in ('capture_payment', 'cancel_payment'))
    ),
    constraint payments_token_or_failure check (gateway_token is not null or failure_code is not null),
    constraint payments_failure check ((failure_code is null) = (failure_message is null)),
    constraint payments_failed_has_failure check (state <> 'FAILED' or failure_code is not null)
)
with (fillfactor = 70);

-- Written once a payment with a customer, never changed: settling stays HOT.
create index payments_customer on payments (merchant_id, customer_id, payment_id) where customer_id is not null;

comment on table payments is 'payment_id is pay_ + UUIDv7, so that the primary key is also the order of creation.';
comment on column payments.idempotency_key is 'The key that made it. Unique for ever: a key never pays twice, not even after its record is gone.';
comment on column payments.amount_refunding_minor is 'Reserved by refunds whose outcome is not known yet.';
comment on column payments.pending_operation is 'A capture or cancel whose outcome is not known yet; there is at most one.';
comment on column payments.gateway_token is 'The gateway''s token of the card; null where the gateway refused the card before there was one. The card''s number and CVV are kept nowhere.';

create table refunds (
    merchant_id       text collate "C" not null,
    refund_id         text collate "C" not null,
    payment_id        text collate "C" not null,
    idempotency_key   text collate "C" not null,
    state             text collate "C" not null,
    amount_minor      bigint not null,
    currency          text collate "C" not null,
    reason            text,
    gateway_refund_id text,
    failure_code      text,
    failure_message   text,
    created_at        timestamptz not null,
    updated_at        timestamptz not null,
    constraint refunds_pkey primary key (merchant_id, refund_id),
    constraint refunds_idempotency_key unique (merchant_id, idempotency_key),
    constraint refunds_payment_fkey foreign key (merchant_id, payment_id) references payments (merchant_id, payment_id),
    constraint refunds_state check (state in ('PROCESSING', 'SUCCESS', 'FAILED')),
    constraint refunds_amount check (amount_minor > 0),
    constraint refunds_failure check (
        (failure_code is null) = (failure_message is null)
        and (state = 'FAILED') = (failure_code is not null)
    )
);

create index refunds_payment on refunds (merchant_id, payment_id, refund_id);
