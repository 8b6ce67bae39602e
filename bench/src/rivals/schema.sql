-- The tables of the reference handler and of pgbench's script: what a developer would make for idempotent payments, with the
-- indexes that both need and no others.

create table idempotency_keys (
    merchant_id      text not null,
    operation        text not null,
    key              text not null,
    fingerprint      bytea not null,
    state            text not null,
    response_status  smallint,
    response_headers jsonb,
    response_body    bytea,
    created_at       timestamptz not null,
    expires_at       timestamptz not null,
    primary key (merchant_id, operation, key)
);

create index idempotency_keys_expires_at on idempotency_keys (expires_at);

create table payments (
    merchant_id            text not null,
    payment_id             text not null,
    idempotency_key        text not null,
    state                  text not null,
    currency               text not null,
    amount_minor           bigint not null,
    card_brand             text not null,
    card_last4             text not null,
    card_expiry_month      smallint not null,
    card_expiry_year       smallint not null,
    card_holder_name       text not null,
    customer_id            text,
    customer_email         text,
    customer_name          text,
    gateway_transaction_id text,
    created_at             timestamptz not null,
    updated_at             timestamptz not null,
    primary key (merchant_id, payment_id)
);

create index payments_customer on payments (merchant_id, customer_id, payment_id);
