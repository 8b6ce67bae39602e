//! The clean-up forgets keys past their time.
//!
//! It deletes in short transactions, oldest first, and skips rows that somebody holds. It needs no
//! right but to read what a key is and to delete it. It never deletes a key in `PROCESSING`:
//! unfinished work does not expire. A key past its time counts as
//! absent whether it was deleted or not, so nothing depends on when, or whether, this runs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tokio::time::{Instant, sleep};

use super::cleanup_pace::Pace;
use super::engine::{Engine, is_lock_timeout};
use super::error::IdempotencyError;
use super::store::{self, ExpiredKey};
use crate::database;

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
            // Reached on a quick disk, while nobody else writes.
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
        let mut connection = database::acquire(&self.pool).await?;
        connection.close_on_drop();
        store::set_cleanup_timeouts(&mut connection).await?;
        let mut report = CleanupReport::default();
        if store::try_cleanup_lock(&mut connection).await? {
            let oldest_left =
                delete_in_batches(&mut connection, limits, started, &mut report).await?;
            report.remaining = store::count_expired(&mut connection, oldest_left).await?;
            // Not left to the closing, of which the server learns some time later: the next run may
            // begin at once.
            store::release_cleanup_lock(&mut connection).await?;
        } else {
            report.another_at_work = true;
            report.remaining = store::count_expired(&mut connection, None).await?;
        }
        report.duration = started.elapsed();
        connection.close().await?;
        Ok(report)
    }

    /// How many keys a clean-up would delete now.
    pub async fn count_expired(&self) -> Result<u64, IdempotencyError> {
        let mut connection = database::acquire(&self.pool).await?;
        connection.close_on_drop();
        store::set_cleanup_timeouts(&mut connection).await?;
        Ok(store::count_expired(&mut connection, None).await?)
    }
}

/// Where the keys are that a clean-up has not been through, as times of expiry.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Everything older has been looked at.
    from: Option<DateTime<Utc>>,
    /// From here on somebody held keys, or too many expired at one moment for a batch to end between them.
    passed_over: Option<Oldest>,
}

/// `None`: from the oldest on.
type Oldest = Option<DateTime<Utc>>;

impl Progress {
    /// The oldest key past its time that may be left.
    fn oldest_left(&self) -> Oldest {
        self.passed_over.unwrap_or(self.from)
    }
}

/// Deletes what it can in whole stretches of time, and then looks key by key at what was in the way. The oldest key that may
/// be left is returned.
async fn delete_in_batches(
    connection: &mut PgConnection,
    limits: CleanupLimits,
    started: Instant,
    report: &mut CleanupReport,
) -> sqlx::Result<Oldest> {
    let progress = delete_by_time(connection, limits, started, report).await?;
    let Some(oldest) = progress.passed_over else {
        return Ok(progress.oldest_left());
    };
    let batch_size = limits.batch_size.max(1);
    let mut last = None;
    while started.elapsed() < limits.max_duration {
        let mut keys =
            store::list_expired(connection, oldest, last.as_ref(), batch_size.into()).await?;
        let is_full = keys.len() >= usize::try_from(batch_size).unwrap_or(usize::MAX);
        if !keys.is_empty() {
            delete_what_is_free(connection, &keys, limits, started, report).await?;
        }
        if !is_full {
            break;
        }
        last = keys.pop();
    }
    Ok(progress.oldest_left())
}

/// Deletes stretch by stretch, each in one statement that finds its keys by their time alone: that costs what a plain delete
/// does. It never goes back, so that it does not walk through the index entries of what it has deleted.
async fn delete_by_time(
    connection: &mut PgConnection,
    limits: CleanupLimits,
    started: Instant,
    report: &mut CleanupReport,
) -> sqlx::Result<Progress> {
    let mut pace = Pace::new(limits.batch_size.max(1), Instant::now());
    let mut progress = Progress::default();
    while started.elapsed() < limits.max_duration {
        let written = store::written(connection).await;
        let began = Instant::now();
        pace.look(began, written);
        let end = store::end_of_batch(connection, progress.from, pace.batch_size.into()).await?;
        match store::delete_expired_between(connection, progress.from, end).await {
            // More than a batch expired at this one moment.
            Ok(0) if end.is_some() => {
                progress.passed_over.get_or_insert(progress.from);
                break;
            }
            Ok(deleted) => {
                report.deleted += deleted;
                report.batches += u64::from(deleted > 0);
            }
            Err(error) if is_lock_timeout(&error) => {
                progress.passed_over.get_or_insert(progress.from);
            }
            Err(error) => return Err(error),
        }
        if end.is_none() {
            break;
        }
        progress.from = end;
        let written = store::written(connection).await;
        let ended = Instant::now();
        let pause = pace.after_batch(ended, ended.duration_since(began), written);
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
    Ok(progress)
}

/// Deletes keys in one transaction. Where somebody holds one of them, in halves, until only that is
/// left: it is about to be used again.
async fn delete_what_is_free(
    connection: &mut PgConnection,
    keys: &[ExpiredKey],
    limits: CleanupLimits,
    started: Instant,
    report: &mut CleanupReport,
) -> sqlx::Result<()> {
    let mut parts = vec![keys];
    while let Some(part) = parts.pop()
        && started.elapsed() < limits.max_duration
    {
        match store::delete_expired(connection, part).await {
            Ok(0) => {}
            Ok(deleted) => {
                report.deleted += deleted;
                report.batches += 1;
            }
            Err(error) if is_lock_timeout(&error) => {
                if part.len() > 1 {
                    let (older, newer) = part.split_at(part.len() / 2);
                    parts.extend([newer, older]);
                }
            }
            Err(error) => return Err(error),
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
