//! Recovery goes on with what a dead process left behind: payments whose client never comes back.
//!
//! A pass reads abandoned claims without a lock and takes each by a conditional write, so that any number of nodes can do it
//! at once. What it takes goes the way of a first run, from what the claim stored. What still cannot be resolved is left
//! alone for a pause that grows with each try, and does not keep the pass from what comes after it.

mod backoff;
mod metrics;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::Instrument;

use self::backoff::Backoff;
pub use self::metrics::describe_metrics;
use crate::idempotency::{Abandoned, IdempotencyError, ScopedKey};
use crate::payments::{Operation, PaymentError, Payments};
use crate::telemetry;

/// So many claims are read at once.
const PAGE: u32 = 200;

/// So many pages at most in one pass: a backlog of 20,000 keys a pass.
const MAX_PAGES: u32 = 100;

/// So many are resolved at once. Few: fresh payments come first, and keep more than half of their rate beside a backlog of
/// 10,000 (tests/it/backlog.rs).
const CONCURRENCY: usize = 8;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Abandoned claims that it found.
    pub found: u64,
    /// Claims that it settled, whatever the outcome.
    pub resolved: u64,
    /// Claims whose outcome is still not known.
    pub unknown: u64,
    /// Claims that it left for a later pass, after an earlier one could not resolve them.
    pub waiting: u64,
    /// Claims that somebody else took first.
    pub taken_by_others: u64,
    /// Claims that it left alone: their gateway is not set up in this process, or refuses this service.
    pub misconfigured: u64,
    /// Claims that it could not work on, for an error that is in the log.
    pub failed: u64,
}

/// What became of one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// It is settled, whatever the outcome, or given back.
    Resolved,
    /// Its outcome is still not known.
    Unknown,
    /// Somebody else holds it, or it was settled before.
    TakenByOthers,
    /// Its gateway is not set up in this process, or refuses this service. An operator has to put that right.
    Misconfigured,
    /// It could not be worked on, for an error that is in the log.
    Failed,
}

/// What can come of a claim, in `payonce_recovered_total`.
pub const OUTCOMES: [&str; 5] = [
    "resolved",
    "unknown",
    "taken_by_others",
    "misconfigured",
    "failed",
];

impl Recovered {
    /// As the metric and the audit spell it.
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

/// The recovery worker of one node.
pub struct Recovery {
    payments: Payments,
    backoff: Backoff,
}

impl Recovery {
    /// A worker that has tried nothing yet.
    pub fn new(payments: Payments) -> Self {
        Self {
            payments,
            backoff: Backoff::default(),
        }
    }

    /// One pass over all that is abandoned.
    pub async fn run_once(&mut self) -> Result<Summary, IdempotencyError> {
        let mut summary = Summary::default();
        let mut last: Option<Abandoned> = None;
        // Another service's keys may be in the same table: its own recovery knows them.
        let operations: Vec<&str> = Operation::ALL.iter().map(|one| one.as_str()).collect();
        for _ in 0..MAX_PAGES {
            let page = self
                .payments
                .engine()
                .abandoned(&operations, last.as_ref(), PAGE)
                .await?;
            let Some(end) = page.last() else { break };
            last = Some(end.clone());
            let is_last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            self.work_off(page, &mut summary).await;
            if is_last {
                break;
            }
        }
        self.backoff.forget_old();
        Ok(summary)
    }

    async fn work_off(&mut self, page: Vec<Abandoned>, summary: &mut Summary) {
        let now = Instant::now();
        summary.found += count(page.len());
        let (due, waiting): (Vec<_>, Vec<_>) = page
            .into_iter()
            .partition(|abandoned| self.backoff.is_due(&abandoned.scope, now));
        summary.waiting += count(waiting.len());
        let payments = &self.payments;
        let outcomes: Vec<(ScopedKey, Recovered)> = stream::iter(due)
            .map(|abandoned| async move {
                let recovered = recover(payments, &abandoned.scope)
                    .instrument(tracing::error_span!(target: telemetry::REQUESTS, "recover"))
                    .await;
                (abandoned.scope, recovered)
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (scope, recovered) in outcomes {
            match recovered {
                Recovered::Resolved => summary.resolved += 1,
                Recovered::Unknown => summary.unknown += 1,
                Recovered::TakenByOthers => summary.taken_by_others += 1,
                Recovered::Misconfigured => summary.misconfigured += 1,
                Recovered::Failed => summary.failed += 1,
            }
            match recovered {
                Recovered::Resolved | Recovered::TakenByOthers => self.backoff.clear(&scope),
                Recovered::Unknown | Recovered::Misconfigured | Recovered::Failed => {
                    if self.backoff.failed(&scope, Instant::now()) {
                        tracing::warn!(key = %scope, outcome = recovered.label(),
                            "could not be resolved yet; it is tried again, with growing pauses \
                             (payonce idempotency-keys list --stuck)");
                    }
                }
            }
        }
    }

    /// A pass every `every`, until the task is dropped.
    pub async fn run(mut self, every: Duration) {
        // What is left behind at the start has a lease that is still to end.
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.payments.follow_refunds().await {
                tracing::warn!(%error, "pending refunds could not be looked for");
            }
            match self.run_once().await {
                Ok(summary) if summary.resolved > 0 => {
                    tracing::info!(
                        resolved = summary.resolved,
                        unknown = summary.unknown,
                        "recovered work left behind"
                    );
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "recovery could not look for work left behind")
                }
            }
        }
    }
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

/// Takes one claim over and goes on with it, in a task that nothing drops: what a pass does for each that it finds, and an
/// operator for one.
pub async fn recover(payments: &Payments, scope: &ScopedKey) -> Recovered {
    let recovered = take_over_and_resume(payments, scope).await;
    metrics::count(recovered);
    recovered
}

async fn take_over_and_resume(payments: &Payments, scope: &ScopedKey) -> Recovered {
    let guard = async |resource_id: String| {
        let allowed = payments.may_take_over(scope, &resource_id).await;
        allowed.map_err(PaymentError::into_engine)
    };
    let permit = match payments.engine().take_over_guarded(scope, guard).await {
        Ok(Some(permit)) => permit,
        Ok(None) => return Recovered::TakenByOthers,
        Err(error) => return left_alone(scope, &error.into()),
    };
    let worker = payments.clone();
    match payments
        .engine()
        .run(async move { worker.resume(permit).await })
        .await
    {
        Ok(Ok(reply)) if reply.response.status == 202 => Recovered::Unknown,
        // "Nothing happened" gives the key back: that resolves it too.
        Ok(
            Ok(_)
            | Err(PaymentError::GatewayUnavailable | PaymentError::GatewayRefused(_))
            | Err(PaymentError::GatewayMisconfigured {
                may_have_charged: false,
                ..
            }),
        ) => Recovered::Resolved,
        Ok(Err(error)) => left_alone(scope, &error),
        Err(error) => {
            tracing::error!(key = %scope, %error, "resolving a claim did not end in order");
            Recovered::Failed
        }
    }
}

fn left_alone(scope: &ScopedKey, error: &PaymentError) -> Recovered {
    match error {
        PaymentError::GatewayMisconfigured { reason, .. } => {
            tracing::error!(key = %scope, reason, "a claim is left alone");
            Recovered::Misconfigured
        }
        error => {
            tracing::warn!(key = %scope, %error, "a claim could not be resolved");
            Recovered::Failed
        }
    }
}
