select
    k.merchant_id as "merchant_id!",
    k.key as "key!",
    k.expires_at as "expires_at!",
    extract(epoch from k.expires_at - now())::float8 as "seconds_left!",
    k.fingerprint,
    k.fingerprint_version,
    k.fingerprint_fields,
    k.response_status,
    k.response_headers,
    k.response_body
from unnest($1::text[], $2::text[], $3::text[]) as i (merchant_id, operation, key)
join idempotency_keys k
    on k.merchant_id = i.merchant_id
    and k.operation = i.operation
    and k.key = i.key
where k.state <> 'PROCESSING'
    and (k.expires_at > now()) is true
    and current_setting('synchronous_standby_names') = ''
