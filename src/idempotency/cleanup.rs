//! The clean-up forgets keys past their time.
//!
//! It deletes in short transactions, oldest first, and skips rows that somebody holds. It never
//! deletes a key in `PROCESSING`: unfinished work does not expire. A key past its time counts as
//! absent whether it was deleted or not, so nothing depends on when, or whether, this runs.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;

use super::engine::Engine;
use super::error::IdempotencyError;
use super::lending::lent;
use super::store;

/// How much a clean-up may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupLimits {
    /// The most keys one transaction deletes, at least 1.
    pub batch_size: u32,
    /// After this long no further batch is begun.
    pub max_duration: Duration,
}

impl Default for CleanupLimits {
    fn default() -> Self {
        Self {
            // A transaction of some 50 ms on a small machine: short enough for the traffic beside
            // it.
            batch_size: 5000,
            // An hourly run ends long before the next.
            max_duration: Duration::from_secs(5 * 60),
        }
    }
}

/// What a clean-up did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanupReport {
    /// Keys deleted.
    pub deleted: u64,
    /// Transactions that deleted them.
    pub batches: u64,
    /// Keys past their time that are left: held by somebody, or for the next run.
    pub remaining: u64,
    /// How long it took.
    pub duration: Duration,
    /// True when another clean-up was at work, and this one left it to that.
    pub another_at_work: bool,
}

/// What one batch found and did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) candidates: u64,
    pub(super) deleted: u64,
}

/// Deletes keys past their time. It signs nothing, so unlike the engine it needs no secret.
#[derive(Clone, Debug)]
pub struct Cleaner {
    pool: PgPool,
}

impl Cleaner {
    /// Cleans a database whose schema has this crate's migrations.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Deletes the keys past their time, within limits. Two at once do no harm: the second leaves
    /// it to the first.
    ///
    /// An error ends it between two batches or inside one; what was deleted before stays deleted.
    pub async fn run(&self, limits: CleanupLimits) -> Result<CleanupReport, IdempotencyError> {
        let started = Instant::now();
        // The lock lives as long as its session. Should this fail, or be dropped, the connection is
        // closed, and the lock goes with it.
        let mut connection = lent(self.pool.acquire()).await?;
        connection.close_on_drop();
        store::allow_long_statements(&mut connection).await?;
        let mut report = CleanupReport::default();
        if store::try_cleanup_lock(&mut connection).await? {
            delete_in_batches(&mut connection, limits, started, &mut report).await?;
            // Not left to the closing, of which the server learns some time later: the next run may
            // begin at once.
            store::release_cleanup_lock(&mut connection).await?;
        } else {
            report.another_at_work = true;
        }
        report.remaining = store::count_expired(&mut connection).await?;
        report.duration = started.elapsed();
        connection.close().await?;
        Ok(report)
    }

    /// How many keys a clean-up would delete now.
    pub async fn count_expired(&self) -> Result<u64, IdempotencyError> {
        let mut connection = lent(self.pool.acquire()).await?;
        connection.close_on_drop();
        store::allow_long_statements(&mut connection).await?;
        Ok(store::count_expired(&mut connection).await?)
    }
}

async fn delete_in_batches(
    connection: &mut PgConnection,
    limits: CleanupLimits,
    started: Instant,
    report: &mut CleanupReport,
) -> sqlx::Result<()> {
    let batch_size = limits.batch_size.max(1);
    while started.elapsed() < limits.max_duration {
        let batch = store::delete_expired(connection, batch_size.into()).await?;
        if batch.deleted > 0 {
            report.deleted += batch.deleted;
            report.batches += 1;
        }
        if batch.candidates < u64::from(batch_size) {
            break;
        }
    }
    Ok(())
}

impl Engine {
    /// Deletes the keys past their time, within the default limits, as the clean-up program does.
    pub async fn cleanup(&self) -> Result<CleanupReport, IdempotencyError> {
        self.cleanup_within(CleanupLimits::default()).await
    }

    /// Deletes the keys past their time, within limits; see [`Cleaner::run`].
    pub async fn cleanup_within(
        &self,
        limits: CleanupLimits,
    ) -> Result<CleanupReport, IdempotencyError> {
        Cleaner::new(self.pool().clone()).run(limits).await
    }

    /// How many keys a clean-up would delete now.
    pub async fn count_expired(&self) -> Result<u64, IdempotencyError> {
        Cleaner::new(self.pool().clone()).count_expired().await
    }
}
