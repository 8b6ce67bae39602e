insert into unsettled_keys (
    merchant_id,
    operation,
    key,
    claimed_at
)
select
    m.merchant_id,
    $2,
    i.key,
    i.claimed_at
/* As for the keys. */
from (
    select merchant_id
    from unsettled_keys
    where merchant_id = $1
        and operation = ''
    union all
    select $1::text
) as m (merchant_id)
cross join unnest($3::text[], $4::timestamptz[]) as i (key, claimed_at)
