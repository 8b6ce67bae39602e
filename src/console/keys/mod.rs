//! Idempotency keys: lists, the page of one key, stuck keys, and *resolve now*.

mod key_page;
mod resolve;
mod search_page;
mod store;
mod stuck_page;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::PgPool;
use uuid::Uuid;

pub(super) use self::key_page::key_page;
pub(super) use self::resolve::{resolve_button, resolve_now};
pub(super) use self::search_page::search_page;
pub(super) use self::stuck_page::stuck_page;
use crate::idempotency::{IdempotencyKey, ScopedKey};

/// A key as the console shows it, without the headers and the body of the stored answer.
#[derive(Clone, Debug)]
struct KeyView {
    merchant_id: String,
    operation: String,
    key: String,
    state: String,
    /// The first 16 hexadecimal digits.
    fingerprint_prefix: String,
    attempt: i32,
    owner: Uuid,
    lease_expires_at: Option<DateTime<Utc>>,
    /// The lease has expired, by the database's clock, and any process may take the claim over.
    is_left_behind: bool,
    resource_id: Option<String>,
    response_status: Option<i16>,
    created_at: DateTime<Utc>,
    completed_at: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
}

/// The keys in `PROCESSING`.
pub(super) struct Unsettled {
    pub(super) processing: u64,
    /// Age of the oldest.
    pub(super) oldest: Duration,
    /// Number of keys whose lease has expired.
    pub(super) left_behind: u64,
}

/// Of all merchants.
pub(super) async fn count_unsettled(pool: &PgPool) -> sqlx::Result<Unsettled> {
    store::count_unsettled(pool, None).await
}

/// A key in the parameters of an address or a form.
#[derive(Deserialize)]
struct Named {
    merchant: String,
    operation: String,
    key: String,
}

impl Named {
    /// Returns `None` if there can be no such key.
    fn scope(&self) -> Option<ScopedKey> {
        let is_name = |text: &str| (1..=255).contains(&text.len()) && !text.contains('\0');
        let key = IdempotencyKey::new(&self.key).ok()?;
        (is_name(&self.merchant) && is_name(&self.operation))
            .then(|| ScopedKey::new(&self.merchant, &self.operation, key))
    }
}
