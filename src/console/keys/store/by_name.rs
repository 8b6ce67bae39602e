//! Keys by the beginning of their name.

use sqlx::{PgConnection, PgPool};

use super::super::super::store::{Merchants, merchants_asked};
use super::super::KeyView;
use super::{LOOKED_AT, key_view};
use crate::database::{self, Bounded};
use crate::payments::Operation;

/// Sorts after every key.
const END_OF_KEYS: char = '\u{7f}';

/// The keys to look for.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct KeysNamed<'a> {
    pub(in super::super) merchant_id: Option<&'a str>,
    /// The beginning of their name.
    pub(in super::super) beginning: &'a str,
    pub(in super::super) state: Option<&'a str>,
}

/// Some of the keys with a prefix.
#[derive(Debug, Default)]
pub(in super::super) struct NamedKeys {
    /// In the order of their names.
    pub(in super::super) keys: Vec<KeyView>,
    /// There are more with this prefix, which were not examined or have no place in the list.
    pub(in super::super) has_more: bool,
}

/// The keys with this prefix, of one merchant or of all, at most `rows`.
///
/// Each merchant and operation is one range of the primary key. A statement for each operation examines [`LOOKED_AT`] keys at most.
/// If a prefix is so short that there are more of all merchants, the keys are some of them, and not the first.
pub(in super::super) async fn find_keys(
    pool: &PgPool,
    named: KeysNamed<'_>,
    rows: usize,
) -> sqlx::Result<NamedKeys> {
    let merchants = merchants_asked(pool, named.merchant_id).await?;
    let limit = i64::try_from(rows).unwrap_or(i64::MAX).saturating_add(1);
    // One merchant's are examined in the order of their names.
    let to_examine = match (merchants.one(), named.state) {
        (Some(_), None) => limit,
        _ => LOOKED_AT + 1,
    };
    let mut connection = database::acquire(pool).await?;
    let mut found = NamedKeys::default();
    for operation in Operation::ALL {
        let bounds = (to_examine, limit);
        let (examined, keys) = look_at(
            &mut connection,
            &merchants,
            operation.as_str(),
            named,
            bounds,
        )
        .await?;
        found.has_more |= examined >= to_examine;
        found.keys.extend(keys);
    }
    found.has_more |= found.keys.len() > rows;
    found.keys.sort_by(|one, other| {
        let by_name = one.key.cmp(&other.key);
        by_name.then_with(|| other.created_at.cmp(&one.created_at))
    });
    found.keys.truncate(rows);
    Ok(found)
}

/// Returns the number of keys that were examined, at most the first of `bounds`, and those that match, at most the second.
async fn look_at(
    connection: &mut PgConnection,
    merchants: &Merchants,
    operation: &str,
    named: KeysNamed<'_>,
    bounds: (i64, i64),
) -> sqlx::Result<(i64, Vec<KeyView>)> {
    let (to_examine, limit) = bounds;
    let rows = sqlx::query!(
        r#"
        with named as (
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
            where ($1::text is null or merchant_id = $1)
                and ($2::text[] is null or merchant_id = any($2))
                and operation = $3
                and key >= $4
                and key < $5
            order by
                merchant_id,
                key
            limit $6
        ),
        examined as (
            select count(*) as keys
            from named
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
            e.keys as "examined!"
        from examined e
        left join named k
            on ($7::text is null or k.state = $7)
        order by
            k.key,
            k.created_at desc
        limit $8
        "#,
        merchants.one(),
        merchants.many(),
        operation,
        named.beginning,
        format!("{}{END_OF_KEYS}", named.beginning),
        to_examine,
        named.state,
        limit,
    )
    .fetch_all(connection)
    .bounded()
    .await?;
    let examined = rows.first().map_or(0, |row| row.examined);
    let keys = rows.into_iter().filter_map(|row| Some(key_view!(row)));
    Ok((examined, keys.collect()))
}
