//! Keys past their time, for the clean-up to delete.

use sqlx::Connection;

use super::replays::fill_by_a_payment;
use crate::bench::{Bench, Site};
use crate::fill::{Fill, KEYS};
use crate::keys::KeyKind;
use crate::store;

/// The same rows each time, all of which expired within the last day.
pub(super) async fn fill_expired(bench: &Bench, site: &Site) -> anyhow::Result<()> {
    let mut connection = site.database.connect().await?;
    let truncate = "truncate idempotency_keys, payments cascade".to_owned();
    store::execute(&mut connection, truncate).await?;
    connection.close().await?;
    let fill = Fill {
        count: bench.plan.expired_keys,
        kind: KeyKind::Uuid { seed: 1 },
        payment_id: String::new(),
        merchants: 1000,
        customers: false,
        expires_in: -24 * 3600..-60,
        tables: KEYS,
    };
    fill_by_a_payment(bench, site, fill).await?;
    bench.server.settle_down().await
}
