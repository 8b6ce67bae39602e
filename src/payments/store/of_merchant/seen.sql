select
    p.idempotency_key as "key!",
    k.expires_at as "expires_at?",
    extract(epoch from k.expires_at - now())::float8 as seconds_left,
    k.fingerprint as "fingerprint?",
    k.fingerprint_version as "fingerprint_version?",
    k.fingerprint_fields as "fingerprint_fields?",
    k.response_status,
    k.response_headers,
    k.response_body
from unnest($3::text[]) as i (key)
join payments p
    on p.merchant_id = $1
    and p.idempotency_key = i.key
left join idempotency_keys k
    on k.merchant_id = $1
    and k.operation = $2
    and k.key = i.key
    and k.state <> 'PROCESSING'
    and (k.expires_at > now()) is true
    and current_setting('synchronous_standby_names') = ''
