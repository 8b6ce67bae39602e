with input as (
    select *
    from unnest(
        $4::text[],
        $5::integer[],
        $6::text[],
        $7::smallint[],
        $8::jsonb[],
        $9::bytea[],
        $10::text[],
        $11::text[],
        $12::bigint[],
        $13::text[],
        $14::text[],
        $15::text[],
        $16::smallint[],
        $17::smallint[],
        $18::text[],
        $19::text[],
        $20::timestamptz[],
        $21::text[],
        $22::text[],
        $23::text[]
    ) as i (
        key,
        attempt,
        key_state,
        response_status,
        response_headers,
        response_body,
        payment_id,
        state,
        amount_captured_minor,
        gateway_transaction_id,
        card_brand,
        card_last4,
        card_expiry_month,
        card_expiry_year,
        failure_code,
        failure_message,
        updated_at,
        failure_advice_code,
        failure_network_advice_code,
        failure_network_decline_code
    )
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
    where k.merchant_id = $1
        and k.operation = $2
        and k.key = i.key
        and k.owner = $3
        and k.attempt = i.attempt
        and k.state = 'PROCESSING'
    returning
        k.merchant_id,
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
    where u.merchant_id = $1
        and u.operation = $2
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
    where p.merchant_id = $1
        and p.payment_id = s.payment_id
        and p.idempotency_key = s.key
)
select
    merchant_id,
    key
from settled
