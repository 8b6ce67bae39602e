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
    m.merchant_id,
    $2,
    i.key,
    i.fingerprint,
    $7,
    i.fingerprint_fields,
    'PROCESSING',
    1,
    $8,
    now() + $9::interval,
    i.payment_id,
    now(),
    now() + $10::interval
/* One row, the merchant: no operation's name is empty. Where the selection reads a distributed table, the whole statement is sent to
   that table's node; otherwise the rows go through the coordinator. */
from (
    select merchant_id
    from unsettled_keys
    where merchant_id = $1
        and operation = ''
    union all
    select $1::text
) as m (merchant_id)
cross join unnest($3::text[], $4::bytea[], $5::text[], $6::text[]) as i (key, fingerprint, fingerprint_fields, payment_id)
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
    key,
    created_at,
    expires_at
