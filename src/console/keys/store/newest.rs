//! The newest keys.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::super::KeyView;
use super::{LOOKED_AT, key_view};
use crate::database::{self, Bounded};

/// The key after which a list of the newest continues.
#[derive(Clone, Debug)]
pub(in super::super) struct Newest {
    pub(in super::super) expires_at: DateTime<Utc>,
    pub(in super::super) merchant_id: String,
    pub(in super::super) operation: String,
    pub(in super::super) key: String,
}

/// Some of the newest keys.
pub(in super::super) struct NewestKeys {
    /// Latest first.
    pub(in super::super) keys: Vec<KeyView>,
    /// The last key that was examined, if there may be more.
    pub(in super::super) edge: Option<Newest>,
}

/// The keys in a final state among the newest [`LOOKED_AT`] after `after`. They are found by the clean-up's index on the time of
/// expiry. All keys are kept for the same time, so this is the order of their creation.
#[expect(clippy::too_many_lines, reason = "one statement")]
pub(in super::super) async fn list_newest(
    pool: &PgPool,
    merchant_id: Option<&str>,
    state: Option<&str>,
    after: &Newest,
    limit: i64,
) -> sqlx::Result<NewestKeys> {
    let rows = sqlx::query!(
        r#"
        with looked_at as (
            select
                merchant_id,
                operation,
                key,
                state,
                fingerprint,
                attempt,
                owner,
                lease_expires_at,
                resource_id,
                response_status,
                created_at,
                completed_at,
                expires_at
            from idempotency_keys
            where expires_at <= $3
                and (expires_at, merchant_id, operation, key) < ($3, $4, $5, $6)
            order by
                expires_at desc,
                merchant_id desc,
                operation desc,
                key desc
            limit $7
        ),
        edge as (
            select
                expires_at,
                merchant_id,
                operation,
                key
            from looked_at
            where (select count(*) from looked_at) >= $7
            order by
                expires_at,
                merchant_id,
                operation,
                key
            limit 1
        )
        select
            k.merchant_id as "merchant_id?",
            k.operation as "operation?",
            k.key as "key?",
            k.state as "state?",
            left(encode(k.fingerprint, 'hex'), 16) as "fingerprint_prefix?",
            k.attempt as "attempt?",
            k.owner as "owner?",
            k.lease_expires_at,
            coalesce(k.state = 'PROCESSING' and k.lease_expires_at < now(), false) as "is_left_behind!",
            k.resource_id,
            k.response_status,
            k.created_at as "created_at?",
            k.completed_at,
            k.expires_at as "expires_at?",
            e.expires_at as "edge_expires_at?",
            e.merchant_id as "edge_merchant_id?",
            e.operation as "edge_operation?",
            e.key as "edge_key?"
        from (select 1) as one
        left join edge e
            on true
        left join looked_at k
            on ($1::text is null or k.merchant_id = $1)
            and ($2::text is null or k.state = $2)
        order by
            k.expires_at desc,
            k.merchant_id desc,
            k.operation desc,
            k.key desc
        limit $8
        "#,
        merchant_id,
        state,
        after.expires_at,
        after.merchant_id,
        after.operation,
        after.key,
        LOOKED_AT,
        limit,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await?;
    let edge = rows.first().and_then(|row| {
        Some(Newest {
            expires_at: row.edge_expires_at?,
            merchant_id: row.edge_merchant_id.clone()?,
            operation: row.edge_operation.clone()?,
            key: row.edge_key.clone()?,
        })
    });
    let keys = rows.into_iter().filter_map(|row| Some(key_view!(row)));
    Ok(NewestKeys {
        keys: keys.collect(),
        edge,
    })
}
