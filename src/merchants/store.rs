//! The SQL of merchants and their API keys, one function per statement.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::Merchant;
use super::api_key::{ApiKeyHash, ApiKeyRecord};
use super::standing::{KnownMerchant, Move};
use crate::database::{self, Bounded};

/// Inserts a merchant together with its first API key. Returns false if the ID is taken.
pub(super) async fn insert_merchant(
    pool: &PgPool,
    id: &str,
    name: &str,
    api_key_id: &str,
    secret_hash: &ApiKeyHash,
) -> sqlx::Result<bool> {
    let mut connection = database::acquire(pool).await?;
    let inserted = sqlx::query!(
        r#"
        with merchant as (
            insert into merchants (merchant_id, name)
            values ($1, $2)
            on conflict (merchant_id) do nothing
            returning merchant_id
        )
        insert into api_keys (merchant_id, api_key_id, secret_hash)
        select
            merchant_id,
            $3,
            $4
        from merchant
        "#,
        id,
        name,
        api_key_id,
        secret_hash.as_bytes(),
    )
    .execute(&mut *connection)
    .bounded()
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// A merchant's columns.
struct MerchantRow {
    id: String,
    name: String,
    created_at: DateTime<Utc>,
    stripe_account: Option<String>,
    move_state: Option<String>,
    move_cell: Option<i16>,
    move_since: Option<DateTime<Utc>>,
}

impl TryFrom<MerchantRow> for Merchant {
    type Error = sqlx::Error;

    fn try_from(row: MerchantRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            name: row.name,
            created_at: row.created_at,
            stripe_account: row.stripe_account,
            moving: Move::from_columns(row.move_state, row.move_cell, row.move_since)?,
        })
    }
}

/// All merchants, by ID.
pub(super) async fn list_merchants(pool: &PgPool) -> sqlx::Result<Vec<Merchant>> {
    let mut connection = database::acquire(pool).await?;
    let rows = sqlx::query_as!(
        MerchantRow,
        r#"
        select
            merchant_id as id,
            name,
            created_at,
            stripe_account,
            move_state,
            move_cell,
            move_since
        from merchants
        order by merchant_id
        "#,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await?;
    rows.into_iter().map(Merchant::try_from).collect()
}

/// Sets a merchant's account at Stripe. Returns `None` if there is no such merchant.
pub(super) async fn set_stripe_account(
    pool: &PgPool,
    merchant_id: &str,
    account: Option<&str>,
) -> sqlx::Result<Option<Merchant>> {
    let row = sqlx::query_as!(
        MerchantRow,
        r#"
        update merchants
        set stripe_account = $2
        where merchant_id = $1
        returning
            merchant_id as id,
            name,
            created_at,
            stripe_account,
            move_state,
            move_cell,
            move_since
        "#,
        merchant_id,
        account,
    )
    .fetch_optional(&mut *database::acquire(pool).await?)
    .bounded()
    .await?;
    row.map(Merchant::try_from).transpose()
}

/// A merchant's account at Stripe.
pub(super) async fn find_stripe_account(
    pool: &PgPool,
    merchant_id: &str,
) -> sqlx::Result<Option<String>> {
    let account = sqlx::query_scalar!(
        r#"
        select stripe_account
        from merchants
        where merchant_id = $1
        "#,
        merchant_id,
    )
    .fetch_optional(&mut *database::acquire(pool).await?)
    .bounded()
    .await?;
    Ok(account.flatten())
}

pub(super) async fn merchant_exists(pool: &PgPool, merchant_id: &str) -> sqlx::Result<bool> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_scalar!(
        r#"
        select exists (
            select
            from merchants
            where merchant_id = $1
        ) as "exists!"
        "#,
        merchant_id,
    )
    .fetch_one(&mut *connection)
    .bounded()
    .await
}

/// Inserts a further API key. Returns false if there is no such merchant.
pub(super) async fn insert_api_key(
    pool: &PgPool,
    merchant_id: &str,
    api_key_id: &str,
    secret_hash: &ApiKeyHash,
) -> sqlx::Result<bool> {
    let mut connection = database::acquire(pool).await?;
    let inserted = sqlx::query!(
        r#"
        insert into api_keys (merchant_id, api_key_id, secret_hash)
        select
            merchant_id,
            $2,
            $3
        from merchants
        where merchant_id = $1
        "#,
        merchant_id,
        api_key_id,
        secret_hash.as_bytes(),
    )
    .execute(&mut *connection)
    .bounded()
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// A merchant's API keys, oldest first.
pub(super) async fn list_api_keys(
    pool: &PgPool,
    merchant_id: &str,
) -> sqlx::Result<Vec<ApiKeyRecord>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_as!(
        ApiKeyRecord,
        r#"
        select
            api_key_id as id,
            merchant_id,
            created_at,
            revoked_at
        from api_keys
        where merchant_id = $1
        order by api_key_id
        "#,
        merchant_id,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await
}

/// Returns the merchant of a key, unless the key has been revoked.
pub(super) async fn find_merchant_by_key(
    pool: &PgPool,
    secret_hash: &ApiKeyHash,
) -> sqlx::Result<Option<KnownMerchant>> {
    let mut connection = database::acquire(pool).await?;
    let row = sqlx::query!(
        r#"
        select
            m.merchant_id,
            m.move_state,
            m.move_cell,
            m.move_since
        from api_keys k
        join merchants m on m.merchant_id = k.merchant_id
        where k.secret_hash = $1
            and k.revoked_at is null
        "#,
        secret_hash.as_bytes(),
    )
    .fetch_optional(&mut *connection)
    .bounded()
    .await?;
    let known = row.map(|row| {
        Ok(KnownMerchant {
            id: Arc::from(row.merchant_id),
            moving: Move::from_columns(row.move_state, row.move_cell, row.move_since)?,
        })
    });
    known.transpose()
}

/// Revokes an API key. Returns false if there is no such key, or it was revoked before. It scans the table, which is fine for a
/// command that people use.
pub(super) async fn revoke_api_key(pool: &PgPool, api_key_id: &str) -> sqlx::Result<bool> {
    let mut connection = database::acquire(pool).await?;
    let revoked = sqlx::query!(
        r#"
        update api_keys
        set revoked_at = now()
        where api_key_id = $1
            and revoked_at is null
        "#,
        api_key_id,
    )
    .execute(&mut *connection)
    .bounded()
    .await?;
    Ok(revoked.rows_affected() == 1)
}

pub(super) async fn api_key_exists(pool: &PgPool, api_key_id: &str) -> sqlx::Result<bool> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_scalar!(
        r#"
        select exists (
            select
            from api_keys
            where api_key_id = $1
        ) as "exists!"
        "#,
        api_key_id,
    )
    .fetch_one(&mut *connection)
    .bounded()
    .await
}

#[cfg(test)]
mod tests {
    use sqlx::PgPool;

    use crate::merchants::{MerchantError, Merchants, Revocation};

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_merchant_is_created_once(pool: PgPool) {
        let merchants = Merchants::new(pool);
        merchants.create("acme", "Acme").await.expect("created");
        let again = merchants.create("acme", "Another").await;
        assert!(matches!(again, Err(MerchantError::AlreadyExists(id)) if id == "acme"));
        let listed = merchants.list().await.expect("listed");
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].name, "Acme");
        assert_eq!(
            merchants.list_api_keys("acme").await.expect("listed").len(),
            1
        );
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn ids_and_names_are_checked_on_both_sides_of_their_bounds(pool: PgPool) {
        let merchants = Merchants::new(pool);
        for id in ["a", "A-z_0.9", "...", ".a", &"x".repeat(64)] {
            merchants.create(id, "n").await.expect(id);
        }
        for id in [
            "",
            ".",
            "..",
            "a b",
            "a:b",
            "é",
            "a\n",
            "a\0",
            &"x".repeat(65),
        ] {
            let refused = merchants.create(id, "n").await;
            assert!(matches!(refused, Err(MerchantError::InvalidId)), "{id:?}");
        }
        merchants
            .create("longest", &"é".repeat(200))
            .await
            .expect("200 characters");
        for name in ["", "a\0b", "a\u{1b}[0m", &"é".repeat(201)] {
            let refused = merchants.create("name", name).await;
            assert!(
                matches!(refused, Err(MerchantError::InvalidName)),
                "{name:?}"
            );
        }
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn keys_belong_to_a_known_merchant_and_are_revoked_once(pool: PgPool) {
        let merchants = Merchants::new(pool);
        let nobody = merchants.create_api_key("nobody").await.map(drop);
        assert!(matches!(nobody, Err(MerchantError::UnknownMerchant(_))));
        let nobody = merchants.list_api_keys("nobody").await;
        assert!(matches!(nobody, Err(MerchantError::UnknownMerchant(_))));

        merchants.create("acme", "Acme").await.expect("created");
        let key = merchants
            .create_api_key("acme")
            .await
            .expect("created")
            .api_key_id;
        for expected in [Revocation::Revoked, Revocation::AlreadyRevoked] {
            assert_eq!(
                merchants.revoke_api_key(&key).await.expect("asked"),
                expected
            );
        }
        let unknown = merchants.revoke_api_key("key_0").await.expect("asked");
        assert_eq!(unknown, Revocation::NotFound);
        let keys = merchants.list_api_keys("acme").await.expect("listed");
        let revoked: Vec<bool> = keys.iter().map(|key| key.revoked_at.is_some()).collect();
        assert_eq!(revoked, [false, true]);
    }
}
