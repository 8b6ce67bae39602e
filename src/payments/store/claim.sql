with input as materialized (
    select
        unnest($1::text[]) as merchant_id,
        unnest($2::text[]) as operation,
        unnest($3::text[]) as key,
        unnest($4::bytea[]) as fingerprint,
        unnest($5::text[]) as fingerprint_fields,
        unnest($6::text[]) as payment_id,
        unnest($7::text[]) as currency,
        unnest($8::bigint[]) as amount_minor,
        unnest($9::text[]) as capture_method,
        unnest($10::text[]) as gateway_type,
        unnest($11::text[]) as gateway_token,
        unnest($12::text[]) as card_brand,
        unnest($13::text[]) as card_last4,
        unnest($14::smallint[]) as card_expiry_month,
        unnest($15::smallint[]) as card_expiry_year,
        unnest($16::text[]) as card_holder_name,
        unnest($17::text[]) as customer_id,
        unnest($18::text[]) as customer_email,
        unnest($19::text[]) as customer_name,
        unnest($20::text[]) as description,
        unnest($21::jsonb[]) as metadata,
        unnest($22::text[]) as failure_code,
        unnest($23::text[]) as failure_message,
        unnest($24::text[]) as gateway_account,
        unnest($25::text[]) as gateway_customer_id,
        unnest($26::boolean[]) as off_session
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
    returning
        payment_id,
        ctid as location
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
    insert into idempotency_keys (
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
    returning
        merchant_id,
        operation,
        key,
        created_at,
        ctid as location
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
    returning ctid as location
)
select
    m.payment_ids,
    m.locations as "payment_locations: Vec<RowLocation>",
    k.locations as "key_locations: Vec<RowLocation>",
    u.locations as "unsettled_locations: Vec<RowLocation>",
    now() as "created_at!",
    now() + $30::interval as "expires_at!",
    null::text as merchant_id,
    null::text as key,
    null::float8 as seconds_left,
    null::bytea as fingerprint,
    null::smallint as fingerprint_version,
    null::text as fingerprint_fields,
    null::smallint as response_status,
    null::jsonb as response_headers,
    null::bytea as response_body
from (select array_agg(payment_id) as payment_ids, array_agg(location) as locations from made) m
cross join (select array_agg(location) as locations from claimed) k
cross join (select array_agg(location) as locations from unsettled) u
union all
select
    null,
    null,
    null,
    null,
    created_at,
    expires_at,
    merchant_id,
    key,
    seconds_left,
    fingerprint,
    fingerprint_version,
    fingerprint_fields,
    response_status,
    response_headers,
    response_body
from found
