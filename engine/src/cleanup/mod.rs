//! The clean-up deletes expired keys.
//!
//! It deletes in short transactions, oldest first, and skips rows that another transaction holds. It needs only the rights to read a
//! key's name, state and expiry, and to delete it. It never deletes a key in `PROCESSING`: unfinished work does not expire. An expired
//! key counts as absent whether it was deleted or not, so nothing depends on when, or whether, the clean-up runs.

mod pace;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tokio::time::{Instant, sleep};

use self::pace::{Floor, Pace};
use crate::database::{self, Bounded, is_lock_timeout};
use crate::error::IdempotencyError;
use crate::store::{self, ExpiredKey};

/// The longest use of a connection: the clean-up's own `statement_timeout` of a minute, and 2 s for the answer to arrive.
const USE_LIMIT: Duration = Duration::from_secs(62);

/// How much a clean-up may do.
///
/// ```
/// use std::time::Duration;
///
/// use payonce_engine::CleanupLimits;
///
/// // For a run every minute.
/// let limits = CleanupLimits { max_duration: Duration::from_secs(50), ..CleanupLimits::default() };
/// assert_eq!(limits.batch_size, 5000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupLimits {
    /// Maximum number of keys that one transaction deletes, at least 1.
    pub batch_size: u32,
    /// After this time no further batch is begun.
    pub max_duration: Duration,
}

impl Default for CleanupLimits {
    fn default() -> Self {
        Self {
            // Only reached on a fast disk while nothing else writes.
            batch_size: 5000,
            // An hourly run ends long before the next.
            max_duration: Duration::from_secs(5 * 60),
        }
    }
}

/// What a clean-up did.
///
/// ```
/// use payonce_engine::CleanupReport;
///
/// /// Whether to run more often, or for longer.
/// fn falls_behind(report: &CleanupReport) -> bool {
///     !report.keeps_up && !report.another_is_running
/// }
/// let ran_out_of_time = CleanupReport { remaining: 70_000, ..CleanupReport::default() };
/// assert!(falls_behind(&ran_out_of_time));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanupReport {
    /// Keys deleted.
    pub deleted: u64,
    /// Transactions that deleted them.
    pub batches: u64,
    /// Number of expired keys that are left, because a transaction holds them or for the next run.
    pub remaining: u64,
    /// How long it took.
    pub duration: Duration,
    /// True if another clean-up was running, so that this one did nothing.
    pub another_is_running: bool,
    /// False if its time was over before all expired keys were deleted: keys expire faster than they are deleted. Also false after a dry
    /// run, and if another clean-up was running.
    pub keeps_up: bool,
}

/// Deletes expired keys. It signs nothing, so unlike the engine it needs no secret.
///
/// ```no_run
/// # async fn clean(pool: sqlx::PgPool) -> Result<(), payonce_engine::IdempotencyError> {
/// use payonce_engine::{Cleaner, CleanupLimits};
///
/// let report = Cleaner::new(pool).run(CleanupLimits::default()).await?;
/// println!("{} keys are deleted, {} are left", report.deleted, report.remaining);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Cleaner {
    pool: PgPool,
}

impl Cleaner {
    /// Creates a cleaner of a database that has this crate's migrations.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Deletes the expired keys, within limits. If another clean-up is running, this one does nothing.
    ///
    /// ```no_run
    /// # async fn clean(engine: payonce_engine::Engine) -> Result<(), payonce_engine::IdempotencyError> {
    /// use payonce_engine::{Cleaner, CleanupLimits};
    ///
    /// // In a task of the service, in place of a cron job.
    /// let cleaner = Cleaner::new(engine.pool().clone());
    /// let mut hourly = tokio::time::interval(std::time::Duration::from_secs(60 * 60));
    /// loop {
    ///     hourly.tick().await;
    ///     let report = cleaner.run(CleanupLimits::default()).await?;
    ///     tracing::info!(report.deleted, report.remaining, "expired keys");
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The database's. It ends the run between two batches or inside one. What was deleted before stays deleted.
    pub async fn run(&self, limits: CleanupLimits) -> Result<CleanupReport, IdempotencyError> {
        let started = Instant::now();
        // The lock lasts as long as its session. If this fails or is dropped, the connection is closed, which releases the lock.
        let mut connection = database::acquire(&self.pool).await?;
        connection.close_on_drop();
        store::set_up_cleanup(&mut connection).bounded().await?;
        let mut report = CleanupReport::default();
        let mut oldest_left = None;
        if store::try_cleanup_lock(&mut connection).bounded().await? {
            if let Some(oldest) = store::oldest_expired(&mut connection)
                .within(USE_LIMIT)
                .await?
            {
                let run = Run {
                    limits,
                    started,
                    oldest: oldest.expires_at,
                    floor: Floor::new(oldest.past_by(), limits.max_duration),
                };
                let left = run.delete_in_batches(&mut connection, &mut report).await?;
                oldest_left = Some(left);
            } else {
                report.keeps_up = true;
            }
            // The server notices a closed connection only some time later, and the next run may begin at once.
            store::release_cleanup_lock(&mut connection)
                .bounded()
                .await?;
        } else {
            report.another_is_running = true;
        }
        report.remaining = store::count_expired(&mut connection, oldest_left)
            .within(USE_LIMIT)
            .await?;
        report.duration = started.elapsed();
        connection.close().await;
        Ok(report)
    }

    /// Returns how many keys a clean-up would delete now.
    ///
    /// ```no_run
    /// # async fn dry_run(pool: sqlx::PgPool) -> Result<(), payonce_engine::IdempotencyError> {
    /// println!("{} keys would be deleted", payonce_engine::Cleaner::new(pool).count_expired().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn count_expired(&self) -> Result<u64, IdempotencyError> {
        let mut connection = database::acquire(&self.pool).await?;
        connection.close_on_drop();
        store::set_up_cleanup(&mut connection).bounded().await?;
        Ok(store::count_expired(&mut connection, None)
            .within(USE_LIMIT)
            .await?)
    }
}

/// One run.
struct Run {
    limits: CleanupLimits,
    started: Instant,
    /// The time of the oldest key.
    oldest: DateTime<Utc>,
    floor: Floor,
}

impl Run {
    /// Deletes stretch by stretch of time, each in one statement that finds its keys by their time alone: that costs what a
    /// plain delete does. It never goes back, so that it does not walk through the index entries of what it has deleted.
    /// Returns the time from which on a key may be left.
    async fn delete_in_batches(
        &self,
        connection: &mut PgConnection,
        report: &mut CleanupReport,
    ) -> sqlx::Result<DateTime<Utc>> {
        let mut pace = Pace::new(self.limits.batch_size.max(1), self.started);
        let mut from = self.oldest;
        let mut batches = report.batches;
        let mut first_passed_over = None;
        while self.started.elapsed() < self.limits.max_duration {
            let writers = store::see_writers(connection).bounded().await;
            let began = Instant::now();
            pace.look(began, writers, report.batches - batches);
            batches = report.batches;
            let next = match self
                .delete_batch(connection, from, pace.batch_size.into(), report)
                .await?
            {
                Batch::Deleted { next } => next,
                Batch::PassedOver { next } => {
                    first_passed_over.get_or_insert(from);
                    next
                }
            };
            let Some(next) = next else {
                report.keeps_up = true;
                break;
            };
            from = next;
            let ended = Instant::now();
            let spare = self.spare(ended, from);
            let pause = pace.after_batch(ended, ended.duration_since(began), spare);
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
        Ok(first_passed_over.unwrap_or(from))
    }

    /// How long it may wait now that it has reached that time.
    fn spare(&self, now: Instant, reached: DateTime<Utc>) -> Duration {
        let done = (reached - self.oldest).to_std().unwrap_or_default();
        self.floor.spare(now.duration_since(self.started), done)
    }

    async fn delete_batch(
        &self,
        connection: &mut PgConnection,
        from: DateTime<Utc>,
        size: i64,
        report: &mut CleanupReport,
    ) -> sqlx::Result<Batch> {
        let end = store::end_of_batch(connection, from, size)
            .within(USE_LIMIT)
            .await?;
        match store::delete_expired_between(connection, from, end)
            .within(USE_LIMIT)
            .await
        {
            Ok(deleted) if end != Some(from) => {
                report.deleted += deleted;
                report.batches += u64::from(deleted > 0);
                Ok(Batch::Deleted { next: end })
            }
            Err(error) if !is_lock_timeout(&error) => Err(error),
            // A transaction holds one of them, or more than a batch expired at one moment.
            Ok(_) | Err(_) => {
                let stretch = Stretch { from, end, size };
                let (limits, started) = (self.limits, self.started);
                let next = delete_key_by_key(connection, stretch, limits, started, report).await?;
                Ok(Batch::PassedOver { next })
            }
        }
    }
}

/// The result of a batch, and the time at which the next one begins: `None` if no key is left.
enum Batch {
    Deleted {
        next: Option<DateTime<Utc>>,
    },
    /// Keys that are held may be left.
    PassedOver {
        next: Option<DateTime<Utc>>,
    },
}

/// Keys past their time, by that time.
struct Stretch {
    from: DateTime<Utc>,
    /// `None` for the present.
    end: Option<DateTime<Utc>>,
    /// How many a transaction deletes at most.
    size: i64,
}

/// Deletes the rows of a stretch that no transaction holds, and of what follows it up to the end of a batch. Returns the time at
/// which to go on, or `None` if nothing follows.
async fn delete_key_by_key(
    connection: &mut PgConnection,
    stretch: Stretch,
    limits: CleanupLimits,
    started: Instant,
    report: &mut CleanupReport,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    let Stretch { from, end, size } = stretch;
    let mut last: Option<ExpiredKey> = None;
    while started.elapsed() < limits.max_duration {
        let mut keys = store::list_expired(connection, from, last.as_ref(), size)
            .within(USE_LIMIT)
            .await?;
        let is_full = i64::try_from(keys.len()).is_ok_and(|length| length >= size);
        if !keys.is_empty() {
            delete_what_is_free(connection, &keys, limits, started, report).await?;
        }
        last = keys.pop().filter(|_| is_full);
        match &last {
            None => return Ok(None),
            Some(key) if end.is_some_and(|end| key.expires_at > end) => {
                return Ok(Some(key.expires_at));
            }
            Some(_) => {}
        }
    }
    Ok(Some(from))
}

/// Deletes keys in one transaction. Where a transaction holds one of them, in halves, until only that is
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
        match store::delete_expired(connection, part)
            .within(USE_LIMIT)
            .await
        {
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
