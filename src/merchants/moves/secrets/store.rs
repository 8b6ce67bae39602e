//! The SQL of secrets and of what they signed.

use std::time::Duration;

use sqlx::PgConnection;

use crate::database::Bounded;

/// The IDs of the secrets that sign fingerprints now.
pub(super) async fn signing_secrets(connection: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"
        select secret_id
        from fingerprint_secrets
        where retired_at is null
        order by secret_id
        "#,
    )
    .fetch_all(connection)
    .bounded()
    .await
}

/// The IDs of all secrets that a node of this database has had.
pub(super) async fn known_secrets(connection: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"
        select secret_id
        from fingerprint_secrets
        "#,
    )
    .fetch_all(connection)
    .bounded()
    .await
}

/// The IDs of the secrets that signed the merchant's keys that have not expired. A key of the first version does not say who signed it:
/// each secret may have. It reads all of the merchant's keys.
pub(super) async fn secrets_in_use(
    connection: &mut PgConnection,
    merchant_id: &str,
    limit: Duration,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"
        with used as (
            select distinct substring(fingerprint_fields from '^[~#]([0-9a-f]{8})') as secret_id
            from idempotency_keys
            where merchant_id = $1
                and expires_at > now()
        )
        select s.secret_id
        from fingerprint_secrets s
        where exists (
            select
            from used u
            where u.secret_id is null
                or u.secret_id = s.secret_id
        )
        order by s.secret_id
        "#,
        merchant_id,
    )
    .fetch_all(connection)
    .within(limit)
    .await
}

#[cfg(test)]
mod tests {
    use sqlx::PgPool;

    use super::*;

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_secret_is_in_use_for_as_long_as_a_key_that_it_signed(pool: PgPool) {
        let mut connection = pool.acquire().await.expect("a connection");
        let made = sqlx::raw_sql(
            "insert into fingerprint_secrets (secret_id, retired_at)
             values ('0000000a', null), ('0000000b', now()), ('0000000c', now()), ('0000000d', now());
             insert into idempotency_keys (merchant_id, operation, key, fingerprint, fingerprint_version, fingerprint_fields, state,
                 attempt, owner, lease_expires_at, created_at, expires_at)
             select merchant, 'o', fields, sha256('r'), 2, fields, 'PROCESSING', 1, gen_random_uuid(), now(), now(), now() + ttl::interval
             from (values ('acme', E'~0000000a\\n0abcd', '1 h'), ('acme', E'#0000000b\\nabcdef path', '1 h'),
                 ('acme', E'~0000000c\\n', '-1 s'), ('beta', E'~0000000d\\n', '1 h')) as k (merchant, fields, ttl)",
        );
        made.execute(&mut *connection).await.expect("rows");
        let limit = Duration::from_secs(60);
        let used = secrets_in_use(&mut connection, "acme", limit).await;
        assert_eq!(used.expect("secrets"), ["0000000a", "0000000b"]);
        let unmarked = "update idempotency_keys set fingerprint_fields = 'abcdef amount' where fingerprint_fields ~ '000a'";
        let made = sqlx::raw_sql(unmarked).execute(&mut *connection).await;
        assert_eq!(made.expect("a row").rows_affected(), 1);
        let used = secrets_in_use(&mut connection, "acme", limit).await;
        assert_eq!(used.expect("secrets").len(), 4, "any of them may have");
    }
}
