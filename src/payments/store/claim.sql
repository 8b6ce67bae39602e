with input as materialized (
    select *
    from unnest(
        $1::text[],
        $2::text[],
        $3::text[],
        $4::bytea[],
        $5::text[],
        $6::text[],
        $7::text[],
        $8::bigint[],
        $9::text[],
        $10::text[],
        $11::text[],
        $12::text[],
        $13::text[],
        $14::smallint[],
        $15::smallint[],
        $16::text[],
        $17::text[],
        $18::text[],
        $19::text[],
        $20::text[],
        $21::jsonb[],
        $22::text[],
        $23::text[],
        $24::text[],
        $25::text[],
        $26::boolean[]
    ) as i (
        merchant_id,
        operation,
        key,
        fingerprint,
        fingerprint_fields,
        payment_id,
        currency,
        amount_minor,
        capture_method,
        gateway_type,
        gateway_token,
        card_brand,
        card_last4,
        card_expiry_month,
        card_expiry_year,
        card_holder_name,
        customer_id,
        customer_email,
        customer_name,
        description,
        metadata,
        failure_code,
        failure_message,
        gateway_account,
        gateway_customer_id,
        off_session
    )
),
made as (
    insert into payments (
        merchant_id,
        payment_id,
        idempotency_key,
        state,
        currency,
        amount_minor,
        capture_method,
        gateway_type,
        gateway_token,
        card_brand,
        card_last4,
        card_expiry_month,
        card_expiry_year,
        card_holder_name,
        customer_id,
        customer_email,
        customer_name,
        description,
        metadata,
        failure_code,
        failure_message,
        gateway_account,
        gateway_customer_id,
        off_session,
        created_at,
        updated_at
    )
    select
        i.merchant_id,
        i.payment_id,
        i.key,
        'PROCESSING',
        i.currency,
        i.amount_minor,
        i.capture_method,
        i.gateway_type,
        i.gateway_token,
        i.card_brand,
        i.card_last4,
        i.card_expiry_month,
        i.card_expiry_year,
        i.card_holder_name,
        i.customer_id,
        i.customer_email,
        i.customer_name,
        i.description,
        i.metadata,
        i.failure_code,
        i.failure_message,
        i.gateway_account,
        i.gateway_customer_id,
        i.off_session,
        now(),
        now()
    from input i
    on conflict (merchant_id, idempotency_key) do nothing
    returning payment_id
),
found as (
    select
        k.merchant_id,
        k.key,
        k.created_at,
        k.expires_at,
        extract(epoch from k.expires_at - now())::float8 as seconds_left,
        k.fingerprint,
        k.fingerprint_version,
        k.fingerprint_fields,
        k.response_status,
        k.response_headers,
        k.response_body
    from input i
    join idempotency_keys k
        on k.merchant_id = i.merchant_id
        and k.operation = i.operation
        and k.key = i.key
    where i.payment_id not in (select payment_id from made)
        and k.state <> 'PROCESSING'
        and (k.expires_at > now()) is true
        and current_setting('synchronous_standby_names') = ''
),
/*
 * IS TRUE keeps conditions out of the plan's choices. Above, the time could lead to the index of times: after a quiet day no key
 * seems to be alive, so all that are would be read for each group. Here, the list of ids is looked up in a hash; without it, it would be
 * a join that compares the group with itself.
 */
claimed as (
    insert into idempotency_keys as k (
        merchant_id,
        operation,
        key,
        fingerprint,
        fingerprint_version,
        fingerprint_fields,
        state,
        attempt,
        owner,
        lease_expires_at,
        resource_id,
        created_at,
        expires_at
    )
    select
        i.merchant_id,
        i.operation,
        i.key,
        i.fingerprint,
        $27,
        i.fingerprint_fields,
        'PROCESSING',
        1,
        $28,
        now() + $29::interval,
        i.payment_id,
        now(),
        now() + $30::interval
    from input i
    where (i.payment_id in (select payment_id from made)) is true
    on conflict (merchant_id, operation, key) do update set
        fingerprint = excluded.fingerprint,
        fingerprint_version = excluded.fingerprint_version,
        fingerprint_fields = excluded.fingerprint_fields,
        state = excluded.state,
        attempt = excluded.attempt,
        owner = excluded.owner,
        lease_expires_at = excluded.lease_expires_at,
        resource_id = excluded.resource_id,
        response_status = null,
        response_headers = null,
        response_body = null,
        created_at = excluded.created_at,
        completed_at = null,
        expires_at = excluded.expires_at
    where k.state <> 'PROCESSING'
        and k.expires_at < excluded.created_at
    returning
        merchant_id,
        operation,
        key,
        resource_id,
        created_at,
        expires_at
),
unsettled as (
    insert into unsettled_keys (
        merchant_id,
        operation,
        key,
        claimed_at
    )
    select
        merchant_id,
        operation,
        key,
        created_at
    from claimed
),
/* A payment without its key fails the statement by a division by zero, and nothing of it stays. */
same as (
    select
        1 / case
            when (select count(*) from claimed) = (select count(*) from made) then 1
            else 0
        end as quotient
)
select
    merchant_id as "merchant_id!",
    key as "key!",
    created_at as "created_at!",
    expires_at as "expires_at!",
    null::float8 as seconds_left,
    null::bytea as fingerprint,
    null::smallint as fingerprint_version,
    null::text as fingerprint_fields,
    null::smallint as response_status,
    null::jsonb as response_headers,
    null::bytea as response_body
from claimed
union all
select
    merchant_id,
    key,
    created_at,
    expires_at,
    seconds_left,
    fingerprint,
    fingerprint_version,
    fingerprint_fields,
    response_status,
    response_headers,
    response_body
from found
union all
select
    null,
    null,
    null,
    null,
    null,
    null,
    null,
    null,
    null,
    null,
    null
from same
where quotient = 0
