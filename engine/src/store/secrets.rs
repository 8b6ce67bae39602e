//! The secrets that sign fingerprints.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A secret that signed fingerprints of the database and that this process does not have. [`UnknownSecret::is_needed`] has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSecret {
    /// Eight hexadecimal digits that identify the secret without revealing it.
    pub id: String,
    /// When another secret replaced it; `None` while it signs.
    pub retired_at: Option<DateTime<Utc>>,
}

impl UnknownSecret {
    /// Returns true if keys that it signed may still be remembered. `lifetime`: how long a key is remembered.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use chrono::{TimeDelta, Utc};
    /// use payonce_engine::records::UnknownSecret;
    ///
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// let retired_at = Some(Utc::now() - TimeDelta::hours(30));
    /// let old = UnknownSecret { id: "1f2e3d4c".to_owned(), retired_at };
    /// assert!(!old.is_needed(day));
    /// assert!(old.is_needed(2 * day));
    /// ```
    pub fn is_needed(&self, lifetime: Duration) -> bool {
        let since = self.retired_at.map(|at| Utc::now() - at);
        since.is_none_or(|since| since.to_std().is_ok_and(|since| since < lifetime))
    }
}

/// The secrets that signed fingerprints here, oldest first.
pub(crate) async fn list_secrets(
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<UnknownSecret>> {
    sqlx::query_as!(
        UnknownSecret,
        r#"
        select
            secret_id as id,
            retired_at
        from fingerprint_secrets
        order by added_at
        "#,
    )
    .fetch_all(connection)
    .await
}

/// Records that the first of these secrets signs, and that the others no longer do.
pub(crate) async fn note_secrets(
    connection: &mut PgConnection,
    secret_ids: &[String],
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into fingerprint_secrets as s (secret_id, retired_at)
        select
            secret_id,
            case when place > 1 then now() end
        from unnest($1::text[]) with ordinality as known (secret_id, place)
        on conflict (merchant_id, secret_id) do update set
            retired_at = case when excluded.retired_at is not null then coalesce(s.retired_at, excluded.retired_at) end
        where s.retired_at is distinct from excluded.retired_at
        "#,
        secret_ids,
    )
    .execute(connection)
    .await
    .map(drop)
}
