with input as materialized (
    select
        unnest($1::text[]) as merchant_id,
        unnest($2::text[]) as key,
        unnest($3::integer[]) as attempt,
        unnest($4::text[]) as key_state,
        unnest($5::smallint[]) as response_status,
        unnest($6::jsonb[]) as response_headers,
        unnest($7::bytea[]) as response_body,
        unnest($8::text[]) as payment_id,
        unnest($9::text[]) as state,
        unnest($10::bigint[]) as amount_captured_minor,
        unnest($11::text[]) as gateway_transaction_id,
        unnest($12::text[]) as card_brand,
        unnest($13::text[]) as card_last4,
        unnest($14::smallint[]) as card_expiry_month,
        unnest($15::smallint[]) as card_expiry_year,
        unnest($16::text[]) as failure_code,
        unnest($17::text[]) as failure_message,
        unnest($18::timestamptz[]) as updated_at,
        unnest($19::text[]) as operation,
        unnest($20::text[]) as failure_advice_code,
        unnest($21::text[]) as failure_network_advice_code,
        unnest($22::text[]) as failure_network_decline_code
),
settled as (
    update idempotency_keys k
    set state = i.key_state,
        lease_expires_at = null,
        completed_at = now(),
        response_status = i.response_status,
        response_headers = i.response_headers,
        response_body = i.response_body
    from input i
    where k.merchant_id = i.merchant_id
        and k.operation = i.operation
        and k.key = i.key
        and k.owner = $23
        and k.attempt = i.attempt
        and k.state = 'PROCESSING'
    returning
        k.merchant_id,
        k.operation,
        k.key,
        i.payment_id,
        i.state,
        i.amount_captured_minor,
        i.gateway_transaction_id,
        i.card_brand,
        i.card_last4,
        i.card_expiry_month,
        i.card_expiry_year,
        i.failure_code,
        i.failure_message,
        i.updated_at,
        i.failure_advice_code,
        i.failure_network_advice_code,
        i.failure_network_decline_code
),
forgotten as (
    delete from unsettled_keys u
    using settled s
    where u.merchant_id = s.merchant_id
        and u.operation = s.operation
        and u.key = s.key
),
updated as (
    update payments p
    set state = s.state,
        amount_captured_minor = s.amount_captured_minor,
        gateway_transaction_id = s.gateway_transaction_id,
        card_brand = s.card_brand,
        card_last4 = s.card_last4,
        card_expiry_month = s.card_expiry_month,
        card_expiry_year = s.card_expiry_year,
        failure_code = s.failure_code,
        failure_message = s.failure_message,
        failure_advice_code = s.failure_advice_code,
        failure_network_advice_code = s.failure_network_advice_code,
        failure_network_decline_code = s.failure_network_decline_code,
        updated_at = s.updated_at
    from settled s
    where p.merchant_id = s.merchant_id
        and p.payment_id = s.payment_id
        and p.idempotency_key = s.key
)
select
    merchant_id,
    key
from settled
