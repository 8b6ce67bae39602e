//! Recovery finishes what a dead process left behind: two-phase claims whose client never comes back.
//!
//! A pass reads abandoned claims without a lock and takes each over with a conditional write, so any number of processes can do it
//! at once. The caller's [`Resume`] then continues the claim as its first run would. A claim that still cannot be resolved is left
//! alone for a pause that grows with each try, and does not hold up the claims after it.

mod backoff;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::Instrument;

use self::backoff::Backoff;
pub use self::backoff::LONGEST_PAUSE as LONGEST_RECOVERY_PAUSE;
use crate::engine::Engine;
use crate::error::IdempotencyError;
use crate::gate::Permit;
use crate::key::ScopedKey;
use crate::store::Abandoned;

/// Number of claims in one read.
const PAGE: u32 = 200;

/// Maximum number of pages in one pass: a backlog of 20,000 keys a pass.
const MAX_PAGES: u32 = 100;

/// Maximum number of claims that are resolved at once. It is small because fresh requests come first.
const CONCURRENCY: usize = 8;

/// How one user of the two phases resumes unfinished work.
///
/// Each user names its own operations: a table may hold the keys of several, and each knows only its own.
///
/// ```
/// use payonce_engine::{Outcome, Permit, Recovered, Resume, Settled, StoredResponse, Engine, Transaction};
///
/// struct Parcels(Engine);
///
/// impl Resume for Parcels {
///     fn operations(&self) -> &[&'static str] {
///         &["send_parcel"]
///     }
///
///     async fn resume(&self, permit: Permit) -> Recovered {
///         // Ask the carrier for the parcel named `permit.resource_id()`, send it if there is none, and then settle:
///         let settled = self.0.settle(permit, |_: Transaction| async {
///             StoredResponse::json(200, &"sent").map(Outcome::Completed)
///         });
///         match settled.await {
///             Ok(Settled::Stored(_) | Settled::Lost(_)) => Recovered::Resolved,
///             Err(error) => {
///                 tracing::warn!(%error, "a parcel could not be settled");
///                 Recovered::Failed
///             }
///         }
///     }
/// }
/// ```
pub trait Resume: Send + Sync + 'static {
    /// The operations whose claims are this user's. No other claim is touched.
    fn operations(&self) -> &[&'static str];

    /// Called before a claim is taken over. `Err` leaves the claim alone, and the pass counts its value: return it if this process
    /// cannot continue the work on the resource.
    fn may_take_over(
        &self,
        scope: &ScopedKey,
        resource_id: &str,
    ) -> impl Future<Output = Result<(), Recovered>> + Send {
        let _ = (scope, resource_id);
        std::future::ready(Ok(()))
    }

    /// Continues a claim that was taken over: makes the call unless it was made, and settles or releases. It runs in a task that is
    /// never dropped.
    fn resume(&self, permit: Permit) -> impl Future<Output = Recovered> + Send;
}

/// The counts of a pass.
///
/// ```
/// use payonce_engine::RecoveryReport;
///
/// /// Whether a scheduled run should raise an alarm.
/// fn needs_an_operator(report: &RecoveryReport) -> bool {
///     report.misconfigured > 0 || report.failed > 0
/// }
/// assert!(!needs_an_operator(&RecoveryReport::default()));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Abandoned claims that it found.
    pub found: u64,
    /// Claims that it settled, with any outcome.
    pub resolved: u64,
    /// Claims whose outcome is still not known.
    pub unknown: u64,
    /// Claims that it left for a later pass, after an earlier one could not resolve them.
    pub waiting: u64,
    /// Claims that another process took first.
    pub taken_by_others: u64,
    /// Claims that it left alone because this process cannot continue them, or the other system refuses this process.
    pub misconfigured: u64,
    /// Claims that failed with an error, which is in the log.
    pub failed: u64,
}

/// The result for one claim.
///
/// ```
/// use payonce_engine::Recovered;
///
/// assert_eq!(Recovered::ALL.map(Recovered::label)[0], "resolved");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// It is settled, with any outcome, or released.
    Resolved,
    /// Its outcome is still not known.
    Unknown,
    /// Another process holds it, or it was settled before.
    TakenByOthers,
    /// This process cannot continue it, or the other system refuses this process. An operator must correct that.
    Misconfigured,
    /// It failed with an error, which is in the log.
    Failed,
}

impl Recovered {
    /// All results.
    pub const ALL: [Self; 5] = [
        Self::Resolved,
        Self::Unknown,
        Self::TakenByOthers,
        Self::Misconfigured,
        Self::Failed,
    ];

    /// The value of the label `outcome` of `payonce_recovered_total`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Unknown => "unknown",
            Self::TakenByOthers => "taken_by_others",
            Self::Misconfigured => "misconfigured",
            Self::Failed => "failed",
        }
    }
}

/// The recovery worker of one process, for one user of the two phases.
///
/// ```no_run
/// # fn start<R: payonce_engine::Resume>(engine: payonce_engine::Engine, parcels: R) {
/// use std::time::Duration;
///
/// use payonce_engine::Recovery;
///
/// // Each process has one; they do not get into each other's way.
/// tokio::spawn(Recovery::new(engine, parcels).run(Duration::from_secs(1)));
/// # }
/// ```
pub struct Recovery<R> {
    engine: Engine,
    resume: Arc<R>,
    backoff: Backoff,
}

impl<R: Resume> Recovery<R> {
    /// Creates a worker that has tried nothing yet.
    pub fn new(engine: Engine, resume: R) -> Self {
        Self {
            engine,
            resume: Arc::new(resume),
            backoff: Backoff::default(),
        }
    }

    /// Makes one pass over all abandoned claims of the user's operations.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn recover<R: Resume>(engine: Engine, parcels: R) -> Result<(), IdempotencyError> {
    /// let mut recovery = Recovery::new(engine, parcels);
    /// let report = recovery.run_once().await?;
    /// println!("{} of {} claims are resolved", report.resolved, report.found);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The database's error if the claims cannot be read. Errors of single claims are counted and logged.
    pub async fn run_once(&mut self) -> Result<RecoveryReport, IdempotencyError> {
        let mut report = RecoveryReport::default();
        let mut last: Option<Abandoned> = None;
        for _ in 0..MAX_PAGES {
            let operations = self.resume.operations();
            let page = self
                .engine
                .list_abandoned(operations, last.as_ref(), PAGE)
                .await?;
            let Some(end) = page.last() else { break };
            last = Some(end.clone());
            let is_last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            self.work_off(page, &mut report).await;
            if is_last {
                break;
            }
        }
        self.backoff.forget_old();
        Ok(report)
    }

    async fn work_off(&mut self, page: Vec<Abandoned>, report: &mut RecoveryReport) {
        let now = Instant::now();
        report.found += count(page.len());
        let (due, waiting): (Vec<_>, Vec<_>) = page
            .into_iter()
            .partition(|abandoned| self.backoff.is_due(&abandoned.scope, now));
        report.waiting += count(waiting.len());
        let worker = &*self;
        let outcomes: Vec<(ScopedKey, Recovered)> = stream::iter(due)
            .map(|abandoned| async move {
                let recovered = worker.recover(&abandoned.scope).await;
                (abandoned.scope, recovered)
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (scope, recovered) in outcomes {
            self.note(&scope, recovered, report);
        }
    }

    fn note(&mut self, scope: &ScopedKey, recovered: Recovered, report: &mut RecoveryReport) {
        match recovered {
            Recovered::Resolved => report.resolved += 1,
            Recovered::Unknown => report.unknown += 1,
            Recovered::TakenByOthers => report.taken_by_others += 1,
            Recovered::Misconfigured => report.misconfigured += 1,
            Recovered::Failed => report.failed += 1,
        }
        match recovered {
            Recovered::Resolved | Recovered::TakenByOthers => self.backoff.clear(scope),
            Recovered::Unknown | Recovered::Misconfigured | Recovered::Failed => {
                if self.backoff.failed(scope, Instant::now()) {
                    tracing::warn!(key = %scope, outcome = recovered.label(),
                        "a claim could not be resolved yet; it is tried again, with growing pauses");
                }
            }
        }
    }

    /// Takes one claim over and resumes it, in a task that is never dropped. A pass does this for each claim that it finds.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn recover<R: Resume>(engine: Engine, parcels: R, key: ScopedKey) {
    /// // An operator's button: this claim now, without its pause.
    /// let recovered = Recovery::new(engine, parcels).recover(&key).await;
    /// println!("{}", recovered.label());
    /// # }
    /// ```
    pub async fn recover(&self, scope: &ScopedKey) -> Recovered {
        let span = tracing::error_span!(target: "payonce::requests", "recover");
        let recovered = self.take_over_and_resume(scope).instrument(span).await;
        metrics::counter!("payonce_recovered_total", "outcome" => recovered.label()).increment(1);
        recovered
    }

    async fn take_over_and_resume(&self, scope: &ScopedKey) -> Recovered {
        let mut refused = None;
        let guard = async |resource_id: String| match self
            .resume
            .may_take_over(scope, &resource_id)
            .await
        {
            Ok(()) => Ok(()),
            Err(recovered) => {
                refused = Some(recovered);
                Err(IdempotencyError::Aborted("its user leaves it alone"))
            }
        };
        let taken = self.engine.take_over_guarded(scope, guard).await;
        let permit = match (taken, refused) {
            (_, Some(recovered)) => return recovered,
            (Ok(Some(permit)), None) => permit,
            (Ok(None), None) => return Recovered::TakenByOthers,
            (Err(error), None) => {
                tracing::warn!(key = %scope, %error, "a claim could not be taken over");
                return Recovered::Failed;
            }
        };
        let resume = Arc::clone(&self.resume);
        let resumed = self.engine.run(async move { resume.resume(permit).await });
        resumed.await.unwrap_or_else(|error| {
            tracing::error!(key = %scope, %error, "resolving a claim did not end properly");
            Recovered::Failed
        })
    }

    /// Makes a pass every `every`, until the future is dropped.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # fn start<R: Resume>(engine: Engine, parcels: R) {
    /// let worker = tokio::spawn(Recovery::new(engine, parcels).run(std::time::Duration::from_secs(1)));
    /// // When the service stops. A claim that is being resumed runs in the engine's tasks: `Engine::finish` waits for it.
    /// worker.abort();
    /// # }
    /// ```
    pub async fn run(mut self, every: Duration) {
        // The lease of a claim that was left behind just before the start has not ended yet.
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.run_once().await {
                Ok(report) if report.resolved > 0 => {
                    tracing::info!(
                        resolved = report.resolved,
                        unknown = report.unknown,
                        "recovered abandoned work"
                    );
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "recovery could not list abandoned claims")
                }
            }
        }
    }
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}
